"""The contract of a mixer: the part that moves information along time.

The mixer ensures causality, streaming and length limits; the filters and gates inside it cannot break them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from spectral_core.config import PartConfig
from spectral_core.errors import UnsupportedInputError
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
    """y: (B, L, D). state: continues the sequence; None without ``return_state``."""

    y: Tensor
    state: State | None = None


class Mixer(TimePart[C]):
    """Base of mixers. A subclass sets the attributes below and defines :meth:`mix`.

    streams: whether it can continue a state. keeps_segments: whether packed documents stay apart.
    length_limit: the longest sequence it can mix; None for no limit.
    """

    must_return = (("mix", MixerOutput),)
    streams: ClassVar[bool] = True
    length_limit: int | None = None

    def forward(
        self, x: Tensor, *, rows: Rows | None = None, state: State | None = None, return_state: bool = False
    ) -> MixerOutput:
        """Mix x (B, L, D). With a state, x continues the sequence by L >= 1 tokens; the state is consumed.

        A full pass, any chunks and one token at a time give the same outputs. Without ``rows``, no row has padding.
        Raises UnsupportedInputError for other shapes and StateError for a state of another mixer or batch size.
        """
        self._check_stream(x, rows, "x")
        if state is not None or return_state:
            self._check_streaming()
        self.check_limit(x.shape[1], state)
        if state is not None:
            state.consume(self.owner, x.shape[0])
        output = self.mix(x, rows, state, return_state)
        if output.state is not None:
            output.state.record(state, x, ragged=rows is not None)
        return output

    @property
    def owner(self) -> str:
        """Name in the mixer's states: the class, and sizes that must agree. Other owners cannot continue a state."""
        return type(self).__name__

    @abstractmethod
    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        """The mixing itself, defined by a subclass; :meth:`forward` calls it after its checks.

        x: (B, L, D), L >= 1. y: of the same shape and dtype. In a causal mixer y[:, t] depends on x[:, : t + 1] and the
        state, in a bidirectional one on the whole row; never on other rows of the batch.

        rows: the first ``rows.lengths[b]`` tokens of row b are real, possibly none; None if all are. Padding in x is
        arbitrary and must not affect outputs of real tokens; outputs at padding are ignored.

        state: the state after the tokens before x, or None at the start of the rows. ``state[name]`` is one of its
        tensors; this call may overwrite it, since a call consumes its state. return_state: whether to return the state
        after the real tokens of x, built by :meth:`new_state` from tensors with the batch first. Chunks of any lengths
        must give the y of one pass. Without ``streams``, and if bidirectional, these are None and False.

        Return losses and metrics in the output; never store them on the module: checkpointing runs this method twice.
        """

    def rewind(self, state: State, tokens: int) -> State:
        """The state as it was ``tokens`` tokens ago; requires ``state.reserve(rewind=...)`` before these tokens."""
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
        parts: dict[str, State] | None = None,
    ) -> State:
        """The state of the stream after x (B, L, D), which is L tokens, or ``rows.lengths``, after ``state``."""
        advance = x.shape[1] if rows is None else rows.lengths
        kernels = None if state is None else state.kernels
        return State(self.owner, self.position(x, state) + advance, tensors, parts or {}, kernels)

    def check_limit(self, length: int, state: State | None) -> None:
        """Raise UnsupportedInputError if ``length`` more tokens exceed the length limit. Does not consume the state."""
        if self.length_limit is None:
            return
        # While exporting, positions have no values, so only the call's own length is checked.
        read = None if state is None or torch.compiler.is_exporting() else state.position
        past = 0 if read is None else max(read.tolist(), default=0)
        if past + length > self.length_limit:
            raise UnsupportedInputError(
                f"{type(self).__name__} is limited to {self.length_limit} tokens by its filter; got {past + length}. "
                "Raise max_seq_len, or use a filter without a limit."
            )


class MixerConfig(PartConfig):
    """Base of the configs of mixers."""

    must_return = (("build", Mixer),)

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal"})
    """Directions the mixer supports: decoders need a causal mixer, encoders a bidirectional one."""

    part_class: ClassVar[Any] = Mixer

    def build(self, context: LayerContext) -> Mixer:
        return self.part_class(context, self)
