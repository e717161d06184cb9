"""The base of variants with a stack of blocks: a front end, positions, the blocks and a norm; and its config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spectral_core import FFT_BACKENDS, FFTBackendConfig
from spectral_core.config import Length, OneOf, Width, part, problem
from spectral_core.trees import tree
from spectral_layers import (
    MIXERS,
    POSITIONS,
    FrontEndConfig,
    LayerContext,
    Mixer,
    PositionConfig,
    Report,
    Rotation,
    Rows,
    State,
)
from spectral_layers.report import reported_layers
from spectral_models.block import NORMS, Block, BlockOutput, under
from spectral_models.config import BlockConfig, Blocks, ModelConfig, block_as_layers
from spectral_models.model import SpectralModel


@dataclass(frozen=True)
class Layout:
    """How (B, L, D) is reshaped into sequences for a block: here not at all; a subclass may split it into several.

    rows and rotation: of these sequences.
    """

    rows: Rows | None = None
    rotation: Rotation | None = None

    def split(self, x: Tensor) -> Tensor:
        """(B, L, D) -> the sequences, (N, M, D)."""
        return x

    def merge(self, y: Tensor) -> Tensor:
        """The sequences, (N, M, D) -> (B, L, D): inverse of :meth:`split`."""
        return y


@tree
@dataclass
class StackOutput(Report):
    """x: (B, L, D). states: of the blocks that returned one, by index. losses, metrics: named by layer."""

    x: Tensor
    states: dict[str, State] = field(default_factory=dict)


class StackedModel(SpectralModel):
    """Base of variants with a front end, a position, ``num_layers`` blocks and a norm. A variant defines ``forward``.

    The front end maps inputs to (B, L, D), D = ``hidden_dim``, and every block to the same shape again. ``forward``
    calls, in this order: the front end; ``position.check_limit`` and ``position.embed``; :meth:`through_blocks`; the
    norm. All of them need rows that begin at index 0: remove left padding first (:func:`spectral_layers.rows.aligned`)
    and scatter the outputs back. The output includes the losses and metrics of :class:`StackOutput`. Mixers, front end
    and position are causal or not as the config's ``direction`` says.
    """

    config: StackConfig

    def __init__(self, config: StackConfig, frontend: FrontEndConfig) -> None:
        super().__init__(config)
        context = LayerContext(
            hidden_dim=config.hidden_dim,
            causal=config.direction == "causal",
            fft=config.build_fft(),
            max_seq_len=config.max_seq_len,
        )
        with under("frontend"):
            self.frontend = frontend.build(context)
        with under("position"):
            self.position = config.position.build(replace(context, feature_size=self.frontend.feature_size))
        self.blocks = nn.ModuleList(self.make_block(block, context, path) for path, block in config.stack())
        self.norm = NORMS[config.blocks[-1].norm](config.hidden_dim)

    def make_block(self, config: BlockConfig, context: LayerContext, path: str) -> Block:
        """Build a block. path: of its config, for errors. A variant may override it to build another kind of block."""
        return Block(config, context, path=path)

    @property
    def length_limit(self) -> int | None:
        """The longest sequence all parts can take; None for no limit."""
        limits = [self.position.length_limit, *(mixer.length_limit for mixer in self.mixers())]
        return min(filter(None, limits), default=None)

    def mixers(self) -> Iterator[Mixer]:
        """The mixers of all blocks, in order."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block.mixer

    def through_blocks(
        self, x: Tensor, layouts: Sequence[Layout], state: State | None = None, return_state: bool = False
    ) -> StackOutput:
        """The features after the last block, before the norm: (B, L, D) -> (B, L, D).

        layouts: block i has layout i modulo their number. state: has a part for each block, by index, from ``states``
        of an earlier call. return_state: return ``states``. With ``gradient_checkpointing`` the backward pass
        recomputes each block.
        """
        passed = StackOutput(x)
        reported = reported_layers()
        for index, block in enumerate(self.blocks):
            if reported == "all":
                passed.hidden_states[str(index)] = passed.x
            layout = layouts[index % len(layouts)]
            past = None if state is None else state.part(str(index))
            inputs = layout.split(passed.x), layout.rows, past, return_state, layout.rotation
            if self.gradient_checkpointing and torch.is_grad_enabled():
                output = checkpoint(_recomputed, block, *inputs, use_reentrant=False)
            else:
                output = block(*inputs)
            passed.x = layout.merge(output.x)
            passed += output.under(f"layers.{index}")
            if output.state is not None:
                passed.states[str(index)] = output.state
        if reported != "none":
            passed.hidden_states[str(len(self.blocks))] = self.norm(passed.x)
        return passed


def _recomputed(block: Block, x: Tensor, rows: Rows | None, state: State | None, *others: Any) -> BlockOutput:
    """Runs a block with a copy of the state: a call consumes its state, and the backward pass calls again."""
    output: BlockOutput = block(x, rows, None if state is None else state.clone(), *others)
    return output


class StackConfig(ModelConfig):
    """Base of the configs of variants with a stack of blocks."""

    hidden_dim: Width = 256
    """Width of the residual stream."""
    num_layers: int = Field(default=4, gt=0, le=512)
    """Blocks in the stack."""
    fft: Annotated[FFTBackendConfig, OneOf(FFT_BACKENDS)] | None = part("auto")
    """FFT backend of every spectral operator. A named one never falls back to another."""
    position: Annotated[PositionConfig, OneOf(POSITIONS)] = part("none")
    """Encoding of token positions. Causal mixers know the order of tokens without it."""
    block: BlockConfig | None = None
    """The block, or its name, repeated num_layers times."""
    layers: Blocks | None = None
    """Instead of block: several blocks, or their names, repeated in turn up to num_layers. By default a decoder has the
    block ``hybrid`` and an encoder ``dense``, written out in the config."""
    max_seq_len: Length | None = None
    """Longest sequence for parts with one parameter per position; other parts have no limit."""

    @model_validator(mode="before")
    @classmethod
    def _write_out_blocks(cls, data: Any) -> Any:
        fields = ("block", "layers")
        if isinstance(data, Mapping) and all(
            data.get(name) is None and cls.model_fields[name].default is None for name in fields
        ):
            # Written out, so that a saved config keeps its blocks when the default changes.
            data = {**data, "block": "hybrid" if cls.decoder else "dense", "layers": None}
        return block_as_layers(data)

    @model_validator(mode="after")
    def _mixers_fit(self) -> StackConfig:
        if self.block is not None and self.layers:
            raise ValueError("give either block (one kind) or layers (several in turn), not both; set one to null")
        for index, block in enumerate(self.blocks):
            if self.direction not in block.mixer.directions:
                path = ("layers", index) if self.layers else ("block",)
                why = (
                    "sees the whole sequence, and a causal model may not see the future. Causal"
                    if self.direction == "causal"
                    else "sees the past only, and an encoder reads both ways. Bidirectional"
                )
                fitting = [name for name, config in MIXERS.configs().items() if self.direction in config.directions]
                raise problem((*path, "mixer"), f"{block.mixer.type!r} {why} mixers: {', '.join(fitting)}.")
        return self

    @property
    def blocks(self) -> tuple[BlockConfig, ...]:
        if self.layers:
            return self.layers
        assert self.block is not None
        return (self.block,)

    def stack(self) -> Iterator[tuple[str, BlockConfig]]:
        for index in range(self.num_layers):
            turn = index % len(self.blocks)
            yield "block" if self.block is not None else f"layers.{turn}", self.blocks[turn]
