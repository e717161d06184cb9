"""The contract of a fusion: it adds information from other streams, of any lengths, to a target stream.

A fusion contains its norms and its residual connection: its output replaces the target stream.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

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
    """One input of a fusion. x: (B, L, D). kind: "causal" if no feature depends on later tokens of the stream.

    A stream that is absent from a row has length 0 there.
    """

    x: Tensor
    rows: Rows | None = None
    kind: Direction = "bidirectional"

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None) -> Stream:
        """From features x (B, L, D) and a mask (B, L), nonzero at real tokens, with padding on either side, or None."""
        if mask is None:
            return cls(x)
        alignment = Alignment.of(mask)
        x = alignment.gather(x)
        return cls(x, alignment.rows.if_ragged(x.shape[1]))


@tree
@dataclass
class FusionOutput(Report):
    """y: (B, L of the target, D), the fused target. state: continues the target; None without ``return_state``."""

    y: Tensor
    state: State | None = None


class Fusion(TimePart[C], Entered):
    """Base of fusions. A subclass defines :meth:`fuse`, and :meth:`absorb` if it streams.

    A causal target stays causal: y[t] depends on the target up to t, and on all of the other streams.

    streams: whether a causal target can be continued. names: the streams it has parameters for; None for any.
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
        """Fuse streams, by name, on the stream ``target``; y has its length and rows.

        With a state, ``streams`` holds only the next L >= 1 tokens of the target; the state holds the other streams.
        A full pass, any chunks and one token at a time give the same outputs. The state before the first target token
        comes from :meth:`prepare`. Raises UnsupportedInputError for streams of other shapes or names, and StateError
        for a state of another fusion or batch size.
        """
        name = type(self).__name__
        if target not in streams:
            raise UnsupportedInputError(
                f"{name}: the target {target!r} is not among the streams: {', '.join(streams) or 'none'}. Pass it too."
            )
        self._check(streams)
        stream = streams[target]
        if stream.kind == "causal" and not self.causal:
            raise UnsupportedInputError(
                f"{name} was built for bidirectional targets: its outputs depend on all tokens of every stream, and "
                f"{target!r} is causal. Use a fusion that keeps targets causal, such as source_product."
            )
        if state is not None or return_state:
            self._check_streaming()
        if state is not None:
            if len(streams) > 1:
                others = ", ".join(repr(other) for other in streams if other != target)
                raise StateError(f"{name} got {others} and a state that holds them already; pass {target!r} alone.")
            state.consume(name, stream.x.shape[0])
        output = self.fuse(streams, target, state, return_state)
        if output.state is not None:
            output.state.record(state, stream.x, ragged=stream.rows is not None)
        return output

    @entry
    def prepare(self, sources: Mapping[str, Stream]) -> State:
        """The state before the first target token: everything that decoding reads of the sources, computed once."""
        self._check_streaming()
        self._check(sources)
        return self.absorb(sources)

    def rewind(self, state: State, tokens: int, target: str) -> State:
        """The state as it was ``tokens`` tokens ago; requires ``state.reserve(rewind=...)`` before these tokens."""
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
        """The state of a target after ``position`` (B,) tokens."""
        return State(type(self).__name__, position, tensors)

    def _check(self, streams: Mapping[str, Stream]) -> None:
        name = type(self).__name__
        first = next(iter(streams.values()), None)
        for key, stream in streams.items():
            if self.names is not None and key not in self.names:
                raise UnsupportedInputError(
                    f"{name} has no stream {key!r}.{suggestion(key, self.names)} It was configured with "
                    f"{', '.join(self.names)}; any of them may be left out."
                )
            self._check_stream(stream.x, stream.rows, repr(key))
            if first is not None and stream.x.shape[0] != first.x.shape[0]:  # len() would fix the batch of an export
                raise UnsupportedInputError(
                    f"{name} fuses streams row by row; {key!r} has {stream.x.shape[0]} rows, another stream "
                    f"{first.x.shape[0]}. Give all streams the same rows, with length 0 where one is absent."
                )


class FusionConfig(PartConfig):
    """Base of the configs of fusions."""

    must_return = (("build", Fusion),)

    directions: ClassVar[frozenset[Direction]] = frozenset({"bidirectional"})
    """Directions of targets the fusion supports: decoders need a causal fusion."""

    part_class: ClassVar[Any] = Fusion

    def build(self, context: LayerContext) -> Fusion:
        return self.part_class(context, self)


def lengths_of(stream: Stream) -> Tensor:
    """(B,) real tokens of each row."""
    if stream.rows is not None:
        return stream.rows.lengths
    return torch.full(stream.x.shape[:1], stream.x.shape[1], device=stream.x.device)
