"""A decoder conditioned on a source: a language model with a fusion in front of each block."""

from __future__ import annotations

from functools import partial
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
"""Names of the fusion's streams."""
_PREPARED = "prepared"
"""Key of the fusion's state before the first target token."""


class SourceBlock(Block, Entered):
    """x <- fusion(x, source), then the block. Its state holds the states of the fusion and the mixer."""

    def __init__(self, config: BlockConfig, context: LayerContext, *, path: str, fusion: FusionConfig) -> None:
        super().__init__(config, context, path=path)
        with under("fusion"):
            self.fusion = fusion.build(context)
            if not self.fusion.streams:
                raise ConfigError(f"{fusion.type!r} cannot stream: it has no state for a decoder to continue.")

    @entry
    def prepare(self, source: Stream) -> State:
        """The state before the first target token."""
        prepared = self.fusion.prepare({SOURCE: source})
        return State(type(self).__name__, prepared.position, parts={_PREPARED: prepared})

    def forward(
        self,
        x: Tensor,
        rows: Rows | None = None,
        state: State | None = None,
        return_state: bool = False,
        rotation: Rotation | None = None,
    ) -> BlockOutput:
        if state is None:
            raise StateError("a decoder that reads a source begins with its state: call prepare(source).")
        first = _PREPARED in state.parts
        read, past = (state.part(_PREPARED), None) if first else (state.part("fusion"), state.part("mixer"))
        target = {TARGET: Stream(x, rows, "causal")}
        fused = self.fusion(target, TARGET, state=read, return_state=return_state)
        output = super().forward(fused.y, rows, past, return_state, rotation)
        if fused.state is not None and output.state is not None:
            parts = {"fusion": fused.state, "mixer": output.state}
            output.state = State(type(self).__name__, fused.state.position, parts=parts)
        return output + fused.under("fusion")


class SourceDecoderConfig(DecoderConfig):
    """Base of the configs of models with a decoder that reads a source."""

    fusion: Annotated[FusionConfig, OneOf(FUSIONS)] = part("source_product")
    """Conditions each decoder block on the whole source; causal in the target."""


class SourceDecoder(LanguageModel):
    """A language model that always continues a state; :meth:`prepare` makes the first one from a source."""

    config: SourceDecoderConfig

    def __init__(self, config: SourceDecoderConfig) -> None:
        super().__init__(config)
        known = fingerprint(config, config.fusion)
        self._state_owner = f"{type(self).__name__} ({config.hidden_dim} wide, mixers and fusion {known})"

    def make_block(self, config: BlockConfig, context: LayerContext, path: str) -> SourceBlock:
        return SourceBlock(config, context, path=path, fusion=self.config.fusion)

    def prepare(self, source: Stream) -> State:
        """The state before the first target token: everything that the blocks read of the source, computed once."""
        parts: dict[str, State] = {}
        again = self.gradient_checkpointing and torch.is_grad_enabled()
        for index, block in enumerate(self.blocks):
            assert isinstance(block, SourceBlock)
            run = partial(checkpoint, block.prepare, use_reentrant=False) if again else block.prepare
            parts[str(index)] = run(source)
        return State(self._state_owner, parts["0"].position, parts=parts)
