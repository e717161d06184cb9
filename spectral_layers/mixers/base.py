"""The contract of a mixer: the part that moves information along time.

The mixer ensures causality, streaming and length limits; the filters and gates inside it cannot break them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from spectral_core.axes import describe
from spectral_core.config import PartConfig
from spectral_core.errors import StateError, UnsupportedInputError
from spectral_core.trees import tree
from spectral_layers.context import LayerContext
from spectral_layers.part import C, TimePart
from spectral_layers.report import Report
from spectral_layers.rows import Rows
from spectral_layers.state import State

Direction = Literal["causal", "bidirectional"]


@tree
@dataclass
class MixerOutput(Report):
    """y: (B, L, D). state: continues the sequence; None unless it was asked for."""

    y: Tensor
    state: State | None = None


class Mixer(TimePart[C]):
    """Base of mixers. A subclass sets the attributes below and writes :meth:`mix`.

    streams: whether it can continue a state. keeps_segments: whether packed documents stay apart.
    length_limit: the longest sequence it can mix; None for no limit.
    """

    must_return = (("mix", MixerOutput),)
    streams: ClassVar[bool] = True
    keeps_segments: ClassVar[bool] = False
    length_limit: int | None = None

    def forward(
        self, x: Tensor, *, rows: Rows | None = None, state: State | None = None, return_state: bool = False
    ) -> MixerOutput:
        """Mix x (B, L, D). With a state, x continues the sequence by L >= 1 tokens; the state is consumed.

        A full pass, any chunks and one token at a time give the same outputs. Without ``rows``, no row has padding.
        Raises UnsupportedInputError for shapes that do not fit and StateError where a state does not.
        """
        name = type(self).__name__
        if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != self.hidden_dim:
            raise UnsupportedInputError(
                f"{name} mixes (B, L, D) with L >= 1 and D = {self.hidden_dim}; got {describe(x)}."
            )
        if rows is not None and rows.lengths.shape != x.shape[:1]:
            raise UnsupportedInputError(
                f"{name} was given {x.shape[0]} rows and lengths {describe(rows.lengths)}; rows have one length each."
            )
        if rows is not None and rows.segments is not None and not self.keeps_segments:
            raise UnsupportedInputError(f"{name} cannot keep packed documents apart; give each its own row.")
        if (state is not None or return_state) and not (self.streams and self.causal):
            raise StateError(f"{name} {'cannot stream' if self.causal else 'is bidirectional'}: it has no state.")
        self.check_limit(x.shape[1], state)
        if state is not None:
            state.consume(self.owner, x.shape[0])
        output = self.mix(x, rows, state, return_state)
        if output.state is not None:
            output.state.record(state, x, ragged=rows is not None)
        return output

    @property
    def owner(self) -> str:
        """Who continues a state: only a mixer with an equal owner. The class, and the sizes that must agree."""
        return type(self).__name__

    @abstractmethod
    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        """The mixing itself, which a subclass writes; :meth:`forward` calls it after its checks.

        x: (B, L, D), L >= 1. y: of the same shape and dtype. In a causal mixer y[:, t] depends on x[:, : t + 1] and on
        the state, else on the whole row. It never depends on other rows of the batch.

        rows: the first ``rows.lengths[b]`` tokens of row b are real, possibly none; None if all are. Padding is
        arbitrary in x, must change no y of a real token, and may have any y.

        state: what this mixer returned for the tokens before x, or None at the beginning of the rows; ``state[name]``
        is a tensor of it, which this call may overwrite, since a call consumes its state. return_state: whether to
        return the state after the real tokens of x, made by :meth:`new_state` of tensors with the batch first. Chunks
        of any lengths must give the y of one pass.
        A mixer with ``streams = False``, or a bidirectional one, gets None and False.

        Losses and metrics belong into the output, never onto the module: checkpointing runs this method twice.
        """

    def rewind(self, state: State, tokens: int) -> State:
        """The state as it was that many tokens ago; ``state.reserve(rewind=...)`` must have been called before them."""
        return state.rewind(tokens, lambda x, earlier: self(x, state=earlier, return_state=True))

    def position(self, x: Tensor, state: State | None) -> Tensor:
        """(B,) tokens of each row before x."""
        return x.new_zeros(x.shape[0], dtype=torch.long) if state is None else state.position

    def new_state(
        self,
        x: Tensor,
        rows: Rows | None,
        state: State | None,
        tensors: dict[str, Tensor],
    ) -> State:
        """The state after x (B, L, D): L tokens, or ``rows.lengths``, after ``state``, in the same stream."""
        advance = x.shape[1] if rows is None else rows.lengths
        kernels = None if state is None else state.kernels
        return State(self.owner, self.position(x, state) + advance, tensors, kernels=kernels)

    def check_limit(self, length: int, state: State | None) -> None:
        """Raise UnsupportedInputError if ``length`` more tokens exceed the length limit. Consumes nothing."""
        if self.length_limit is None:
            return
        # Exporting has no values to read: there only the call's own length is checked.
        read = None if state is None or torch.compiler.is_exporting() else state.position
        past = 0 if read is None else max(read.tolist(), default=0)
        if past + length > self.length_limit:
            raise UnsupportedInputError(
                f"{type(self).__name__} is limited to {self.length_limit} tokens by a part with one parameter per "
                f"position; got {past + length}. Raise max_seq_len, or use a part without a limit."
            )


class MixerConfig(PartConfig):
    """Names a mixer and its options."""

    must_return = (("build", Mixer),)

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal"})
    """What the mixer can be: a decoder takes only causal ones, an encoder only bidirectional ones."""

    part_class: ClassVar[Any] = Mixer

    def build(self, context: LayerContext) -> Mixer:
        return self.part_class(context, self)
