"""The contract of a fusion: it brings streams of different lengths and kinds together on one target.

A fusion owns its norms and its residual: the fused stream takes the target's place, and no block adds the target again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from spectral_core.axes import describe
from spectral_core.config import PartConfig
from spectral_core.errors import StateError, UnsupportedInputError, suggestion
from spectral_core.trees import tree
from spectral_layers.context import LayerContext
from spectral_layers.entry import Entered, entry
from spectral_layers.mixers.base import Direction
from spectral_layers.part import C, TimePart
from spectral_layers.report import Report
from spectral_layers.rows import Alignment, Rows
from spectral_layers.state import State


@dataclass(frozen=True)
class Stream:
    """One input of a fusion. x: (B, L, D). kind: whether its tokens already know their future.

    A row of length 0 is a stream that this row does not have.
    """

    x: Tensor
    rows: Rows | None = None
    kind: Direction = "bidirectional"

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None) -> Stream:
        """Of tokens x (B, L, D), real where the mask (B, L) is nonzero, with padding on either side; None: all are."""
        if mask is None:
            return cls(x)
        alignment = Alignment.of(mask)
        x = alignment.gather(x)
        return cls(x, alignment.rows.if_ragged(x.shape[1]))


@tree
@dataclass
class FusionOutput(Report):
    """y: (B, L of the target, D), the target with what the others add. state: what continues it, if asked for."""

    y: Tensor
    state: State | None = None


class Fusion(TimePart[C], Entered):
    """Base of fusions. A subclass writes :meth:`fuse`, and :meth:`absorb` if it streams.

    A causal target stays causal: y[t] sees the target up to t, and all of the other streams.

    streams: whether a causal target can be continued. names: the streams it has parameters for; None: any.
    """

    must_return = (("fuse", FusionOutput), ("absorb", State))
    streams: ClassVar[bool] = False
    names: tuple[str, ...] | None = None

    def forward(
        self,
        streams: Mapping[str, Stream],
        target: str,
        *,
        state: State | None = None,
        return_state: bool = False,
    ) -> FusionOutput:
        """Fuse streams, by name, on the one called ``target``, whose length and rows y has.

        With a state, streams holds the target alone, L >= 1 tokens further on: the state knows the others. A full pass,
        any chunks and one token at a time give the same outputs. A state of no tokens yet comes from :meth:`prepare`.
        Raises UnsupportedInputError for streams that do not fit and StateError where a state does not.
        """
        name = type(self).__name__
        if target not in streams:
            raise UnsupportedInputError(
                f"{name} was to fuse on {target!r}, which is not among the streams given: "
                f"{', '.join(streams) or 'none'}."
            )
        self._check(streams)
        given = streams[target]
        if given.kind == "causal" and not self.causal:
            raise UnsupportedInputError(
                f"{name} was built for bidirectional targets: its outputs see the whole of every stream, and "
                f"{target!r} is causal. Use a fusion that keeps targets causal, such as source_product."
            )
        if state is not None or return_state:
            self._require_streaming()
        if state is not None:
            if len(streams) > 1:
                others = ", ".join(repr(other) for other in streams if other != target)
                raise StateError(f"{name} was given {others} and a state that knows them; pass {target!r} alone.")
            state.consume(name, given.x.shape[0])
        output = self.fuse(streams, target, state, return_state)
        if output.state is not None:
            output.state.record(state, given.x, ragged=given.rows is not None)
        return output

    @entry
    def prepare(self, sources: Mapping[str, Stream]) -> State:
        """The state of a target of no tokens yet: all that is ever read of the other streams, computed once."""
        self._require_streaming()
        self._check(sources)
        return self.absorb(sources)

    def rewind(self, state: State, tokens: int, target: str) -> State:
        """The state as it was that many tokens ago, if ``state.reserve(rewind=...)`` was called early enough."""
        return state.rewind(
            tokens, lambda x, earlier: self({target: Stream(x)}, target, state=earlier, return_state=True)
        )

    @abstractmethod
    def fuse(self, streams: Mapping[str, Stream], target: str, state: State | None, return_state: bool) -> FusionOutput:
        """:meth:`forward` after its checks."""

    def absorb(self, sources: Mapping[str, Stream]) -> State:
        """:meth:`prepare` after its checks."""
        raise NotImplementedError(f"{type(self).__name__} streams and must define absorb(sources)")

    def new_state(self, position: Tensor, tensors: dict[str, Tensor]) -> State:
        """The state of a target of ``position`` (B,) tokens."""
        return State(type(self).__name__, position, tensors)

    def _require_streaming(self) -> None:
        if not (self.streams and self.causal):
            reason = "cannot stream" if self.causal else "was built for bidirectional targets"
            raise StateError(f"{type(self).__name__} {reason}: it has no state.")

    def _check(self, streams: Mapping[str, Stream]) -> None:
        name = type(self).__name__
        batch = None
        for key, stream in streams.items():
            x, rows = stream.x, stream.rows
            if self.names is not None and key not in self.names:
                raise UnsupportedInputError(
                    f"{name} knows no stream {key!r}.{suggestion(key, self.names)} It was configured with "
                    f"{', '.join(self.names)}; any of them may be left out."
                )
            if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != self.hidden_dim:
                raise UnsupportedInputError(
                    f"{name} fuses streams (B, L, D) with L >= 1 and D = {self.hidden_dim}; "
                    f"{key!r} is {describe(x)}. Project it to that width first."
                )
            if x.shape[0] != (batch := x.shape[0] if batch is None else batch):
                raise UnsupportedInputError(
                    f"{name} fuses streams row by row; {key!r} has {x.shape[0]} rows, another stream {batch}."
                )
            if rows is not None and rows.lengths.shape != x.shape[:1]:
                raise UnsupportedInputError(
                    f"{name} was given {x.shape[0]} rows of {key!r} and lengths {describe(rows.lengths)}; "
                    "rows have one length each."
                )
            if rows is not None and rows.segments is not None:
                raise UnsupportedInputError(
                    f"{name} cannot keep packed documents of {key!r} apart; give each its own row."
                )


class FusionConfig(PartConfig):
    """Names a fusion and its options."""

    must_return = (("build", Fusion),)

    directions: ClassVar[frozenset[Direction]] = frozenset({"bidirectional"})
    """What the target can be: a decoder takes only causal fusions."""

    part_class: ClassVar[Any] = Fusion

    def build(self, context: LayerContext) -> Fusion:
        return self.part_class(context, self)


def lengths_of(stream: Stream) -> Tensor:
    """(B,) real tokens of each row."""
    if stream.rows is not None:
        return stream.rows.lengths
    return torch.full(stream.x.shape[:1], stream.x.shape[1], device=stream.x.device)
