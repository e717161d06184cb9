"""What all variants share: a front end, positions, a stack of blocks and a norm; and the config of it."""

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
class Way:
    """How a block goes through the features: here as one sequence; a subclass may take them apart into several.

    rows and rotation: of the sequences that :meth:`enter` makes.
    """

    rows: Rows | None = None
    rotation: Rotation | None = None

    def enter(self, x: Tensor) -> Tensor:
        """The features (B, L, D) as the block is to see them."""
        return x

    def leave(self, y: Tensor) -> Tensor:
        """What the block made of them, as features (B, L, D) again."""
        return y


@tree
@dataclass
class StackOutput(Report):
    """x: (B, L, D). states: of the blocks that gave one, by index. losses and metrics: named by layer."""

    x: Tensor
    states: dict[str, State] = field(default_factory=dict)


class StackedModel(SpectralModel):
    """Front end and position, ``num_layers`` blocks, norm. A variant adds what goes in and what comes out.

    The front end makes features (B, L, D) of the inputs, with D = ``hidden_dim``; every block maps (B, L, D) to the
    same shape. A variant's ``forward`` calls, in this order: the front end; ``position.check_limit`` and
    ``position.embed``; :meth:`through_blocks`; the norm. Rows begin at index 0 there: left padding is gathered away
    before (:func:`spectral_layers.rows.aligned`), and outputs are scattered back. It passes on the report of
    :class:`StackOutput`. Mixers, front end and position are causal or not as the config's ``decoder`` says.
    """

    def __init__(self, config: StackConfig, frontend: FrontEndConfig) -> None:
        super().__init__(config)
        self.config: StackConfig
        context = LayerContext(
            hidden_dim=config.hidden_dim, causal=config.decoder, fft=config.build_fft(), max_seq_len=config.max_seq_len
        )
        with under("frontend"):
            self.frontend = frontend.build(context)
        with under("position"):
            self.position = config.position.build(replace(context, feature_size=self.frontend.feature_size))
        self.blocks = nn.ModuleList(self.make_block(block, context, path) for path, block in config.stack())
        self.norm = NORMS[config.blocks[-1].norm](config.hidden_dim)

    def make_block(self, config: BlockConfig, context: LayerContext, path: str) -> Block:
        """A block from its config, which stands at that path. A variant may add to it."""
        return Block(config, context, path=path)

    @property
    def length_limit(self) -> int | None:
        """The longest sequence all parts can take; None for no limit."""
        limits = [self.position.length_limit, *(mixer.length_limit for mixer in self.mixers())]
        return min((limit for limit in limits if limit is not None), default=None)

    def mixers(self) -> Iterator[Mixer]:
        """The mixers of all blocks, in order."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block.mixer

    def through_blocks(
        self, x: Tensor, ways: Sequence[Way], state: State | None = None, return_state: bool = False
    ) -> StackOutput:
        """The features behind the last block, before the norm: (B, L, D) -> (B, L, D).

        ways: how blocks go through them, taken in turn, a block each. state: one with a part for each block, by index,
        from ``states`` of an earlier call; return_state: whether to give the next. With ``gradient_checkpointing`` the
        backward pass runs each block again.
        """
        passed = StackOutput(x)
        reported = reported_layers()
        for index, block in enumerate(self.blocks):
            if reported == "all":
                passed.hidden_states[str(index)] = passed.x
            way = ways[index % len(ways)]
            past = None if state is None else state.part(str(index))
            given = way.enter(passed.x), way.rows, past, return_state, way.rotation
            if self.gradient_checkpointing and torch.is_grad_enabled():
                output = checkpoint(_run_again, block, *given, use_reentrant=False)
            else:
                output = block(*given)
            passed.x = way.leave(output.x)
            passed += output.under(f"layers.{index}")
            if output.state is not None:
                passed.states[str(index)] = output.state
        if reported != "none":
            passed.hidden_states[str(len(self.blocks))] = self.norm(passed.x)
        return passed


def _run_again(
    block: Block, x: Tensor, rows: Rows | None, state: State | None, return_state: bool, rotation: Rotation | None
) -> BlockOutput:
    """A block that the backward pass recomputes: each run consumes a state of its own."""
    output: BlockOutput = block(x, rows, None if state is None else state.clone(), return_state, rotation)
    return output


class StackConfig(ModelConfig):
    """What the configs of all variants share."""

    hidden_dim: Width = 256
    """Width of the residual stream."""
    num_layers: int = Field(default=4, gt=0, le=512)
    """Blocks in the stack."""
    fft: Annotated[FFTBackendConfig, OneOf(FFT_BACKENDS)] | None = part("auto")
    """FFT backend of every spectral operator. A named one never falls back to another."""
    position: Annotated[PositionConfig, OneOf(POSITIONS)] = part("none")
    """How tokens are told where they stand. Causal mixers know their order without it."""
    block: BlockConfig | None = None
    """The block, or its name, repeated num_layers times."""
    layers: Blocks | None = None
    """Instead of block: several blocks, or their names, taken in turn up to num_layers. Without either, a decoder takes
    the block ``hybrid``, an encoder ``dense``, and the config has it written out."""
    max_seq_len: Length | None = None
    """The context a model is meant for. It limits the parts with one parameter per position, and nothing else."""

    @model_validator(mode="before")
    @classmethod
    def _take_turns(cls, data: Any) -> Any:
        fields = ("block", "layers")
        if isinstance(data, Mapping) and all(
            data.get(name) is None and cls.model_fields[name].default is None for name in fields
        ):
            # Whoever keeps this config keeps the blocks of today, whatever the default becomes.
            data = {**data, "block": "hybrid" if cls.decoder else "dense", "layers": None}
        return block_as_layers(data)

    @model_validator(mode="after")
    def _mixers_fit(self) -> StackConfig:
        if self.block is not None and self.layers:
            raise ValueError("give either block (one kind) or layers (several in turn), not both; set one to null")
        direction = "causal" if self.decoder else "bidirectional"
        paths = [f"layers.{index}" for index in range(len(self.layers))] if self.layers else ["block"]
        for path, block in zip(paths, self.blocks, strict=False):
            if direction not in block.mixer.directions:
                why = (
                    "sees the whole sequence, and a language model may not see the future. Causal"
                    if self.decoder
                    else "sees the past only, and an encoder reads both ways. Bidirectional"
                )
                fitting = [name for name, config in MIXERS.configs().items() if direction in config.directions]
                raise problem((*path.split("."), "mixer"), f"{block.mixer.type!r} {why} mixers: {', '.join(fitting)}.")
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
