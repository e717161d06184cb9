"""A decoder that reads a source: a language model with a fusion in front of each of its blocks."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spectral_core import ConfigError, StateError
from spectral_core.config import OneOf, part
from spectral_layers import FUSIONS, FusionConfig, LayerContext, Rotation, Rows, State, Stream
from spectral_layers.entry import Entered, entry
from spectral_models.block import Block, BlockOutput, under
from spectral_models.config import BlockConfig
from spectral_models.variants.language_model import DecoderConfig, LanguageModel, fingerprint

SOURCE, TARGET = "source", "target"
"""What the streams of a fusion are called here."""
_FRESH = "prepared"
"""Where a block's state holds its fusion's while the mixer has seen nothing."""


class SourceBlock(Block, Entered):
    """x <- fusion(x, source), then the block. Its state holds what the fusion reads of the source, and the mixer's."""

    def __init__(self, config: BlockConfig, context: LayerContext, *, path: str, fusion: FusionConfig) -> None:
        super().__init__(config, context, path=path)
        with under("fusion"):
            self.fusion = fusion.build(context)
            if not self.fusion.streams:
                raise ConfigError(f"{fusion.type!r} cannot stream: it has no state from which a decoder could go on.")

    @entry
    def prepare(self, source: Stream) -> State:
        """The state of a target of no tokens yet."""
        read = self.fusion.prepare({SOURCE: source})
        return State(type(self).__name__, read.position, parts={_FRESH: read})

    def forward(
        self,
        x: Tensor,
        rows: Rows | None = None,
        state: State | None = None,
        return_state: bool = False,
        rotation: Rotation | None = None,
    ) -> BlockOutput:
        if state is None:
            raise StateError("a decoder that reads a source begins with its state: make one with prepare(source).")
        fresh = _FRESH in state.parts
        read, past = (state.part(_FRESH), None) if fresh else (state.part("fusion"), state.part("mixer"))
        target = {TARGET: Stream(x, rows, "causal")}
        fused = self.fusion(target, TARGET, state=read, return_state=return_state)
        output = super().forward(fused.y, rows, past, return_state, rotation)
        if fused.state is not None and output.state is not None:
            parts = {"fusion": fused.state, "mixer": output.state}
            output.state = State(type(self).__name__, fused.state.position, parts=parts)
        return output + fused.under("fusion")


class SourceDecoderConfig(DecoderConfig):
    """What the configs of models whose decoder reads a source share."""

    fusion: Annotated[FusionConfig, OneOf(FUSIONS)] = part("source_product")
    """What brings the source, whole, to each block of the decoder and keeps that causal."""


class SourceDecoder(LanguageModel):
    """A language model that always continues a state, the first of which :meth:`prepare` makes of a source."""

    def __init__(self, config: SourceDecoderConfig) -> None:
        super().__init__(config)
        self.config: SourceDecoderConfig
        known = fingerprint(config, config.fusion)
        self._state_owner = f"{type(self).__name__} ({config.hidden_dim} wide, mixers and fusion {known})"

    def make_block(self, config: BlockConfig, context: LayerContext, path: str) -> SourceBlock:
        return SourceBlock(config, context, path=path, fusion=self.config.fusion)

    def prepare(self, source: Stream) -> State:
        """The state of targets of no tokens yet: all that the blocks ever read of the source, computed once."""
        parts: dict[str, State] = {}
        for index, block in enumerate(self.blocks):
            assert isinstance(block, SourceBlock)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                parts[str(index)] = checkpoint(block.prepare, source, use_reentrant=False)
            else:
                parts[str(index)] = block.prepare(source)
        return State(self._state_owner, parts["0"].position, parts=parts)
