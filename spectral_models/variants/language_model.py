"""The language model: tokens in, next-token logits out, strictly causal."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from spectral_core import FFT_BACKENDS, FFTBackendConfig, UnsupportedInputError
from spectral_core.axes import describe
from spectral_core.config import OneOf, part, problem
from spectral_layers import MIXERS, POSITIONS, LayerContext, Mixer, PositionConfig, Rotation, Rows, State
from spectral_layers.frontends.tokens import Tokens
from spectral_layers.positions.base import positions_of
from spectral_layers.rows import Alignment
from spectral_models.block import NORMS, Block, BlockOutput, under
from spectral_models.config import BlockConfig, Blocks, ModelConfig, block_as_layers
from spectral_models.generation import generate
from spectral_models.model import SpectralModel


@dataclass
class LanguageModelOutput:
    """logits: (B, L, V). state: what continues the rows, if asked for.

    losses: scalars to add to the training loss, already weighted, named by layer. metrics: scalars to log.
    """

    logits: Tensor
    state: State | None
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class LanguageModel(SpectralModel):
    """Embedding and position, blocks, norm, head (the embedding's transpose when tied).

    config: what it was built from, written into its checkpoints.
    gradient_checkpointing: recompute blocks in the backward pass instead of storing what is inside them.
    """

    earlier_names: ClassVar[Mapping[str, str]] = {"embedding.weight": "frontend.embedding.weight"}

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__(config)
        self.config: LanguageModelConfig
        self.gradient_checkpointing = False
        self._state_owner = f"{type(self).__name__} ({config.hidden_dim} wide, mixers {_fingerprint(config)})"
        context = LayerContext(
            hidden_dim=config.hidden_dim, causal=True, fft=config.fft.build(), max_seq_len=config.max_seq_len
        )
        self.frontend = Tokens(
            config.hidden_dim, vocab_size=config.vocab_size, embed_dim=config.embed_dim or config.hidden_dim
        )
        with under("position"):
            self.position = config.position.build(context)
        self.blocks = nn.ModuleList(Block(block, context, path=path) for path, block in config.stack())
        self.norm = NORMS[config.blocks[-1].norm](config.hidden_dim)
        self.head: nn.Linear | None = None
        if not config.tie_embeddings:
            self.head = nn.Linear(config.hidden_dim, config.vocab_size, bias=False)
            nn.init.normal_(self.head.weight, std=0.02)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        state: State | None = None,
        return_state: bool = False,
    ) -> LanguageModelOutput:
        """Logits at every position, each from its own and earlier tokens only.

        input_ids: (B, L) integers below vocab_size. attention_mask: (B, L), nonzero at real tokens; padding on either
        side. With a state, the tokens continue its rows, by L >= 1 each; logits at padding are arbitrary. A full
        pass, any chunks and single tokens give the same logits.
        Raises UnsupportedInputError for ids out of range and sequences over a declared limit, StateError for a state
        that does not fit.
        """
        rows, alignment = None, None
        if attention_mask is not None:
            if attention_mask.shape != input_ids.shape:
                raise UnsupportedInputError(
                    f"the attention mask {describe(attention_mask)} must have input_ids' shape {describe(input_ids)}."
                )
            alignment = Alignment.of(attention_mask)
            lengths = alignment.rows.lengths
            longest = max([1, *lengths.tolist()])
            # Columns that are padding in every row are not worth computing.
            input_ids = alignment.gather(input_ids)[:, :longest]
            rows = None if bool((lengths == longest).all()) else alignment.rows
        x = self.frontend(input_ids).x
        positions = positions_of(input_ids, rows, state)
        # What may refuse the tokens does so before the state is consumed.
        self.position.check_limit(positions)
        for mixer in self._mixers():
            mixer.check_limit(input_ids.shape[1], state)
        if state is not None:
            state.consume(self._state_owner, input_ids.shape[0])
        x = self.position.embed(x, positions)
        rotation = self.position.rotation(positions, x.dtype)
        x, parts, losses, metrics = self._run(x, rows, state, return_state, rotation)
        made = None
        if return_state:
            before = positions.new_zeros(x.shape[0]) if state is None else state.position
            advance = x.shape[1] if rows is None else rows.lengths
            made = State(self._state_owner, before + advance, parts=parts)
            made.record(state, input_ids, ragged=rows is not None)
        x = self.norm(x)
        logits = self.frontend.logits(x) if self.head is None else self.head(x)
        if alignment is not None and attention_mask is not None:
            logits = alignment.scatter(F.pad(logits, (0, 0, 0, attention_mask.shape[1] - logits.shape[1])))
        return LanguageModelOutput(logits, made, losses, metrics)

    def _run(
        self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool, rotation: Rotation | None
    ) -> tuple[Tensor, dict[str, State], dict[str, Tensor], dict[str, Tensor]]:
        """The blocks: x, and their states, losses and metrics."""
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        parts: dict[str, State] = {}
        for index, block in enumerate(self.blocks):
            past = None if state is None else state.parts[str(index)]
            if self.gradient_checkpointing and torch.is_grad_enabled():
                output = checkpoint(_run_again, block, x, rows, past, return_state, rotation, use_reentrant=False)
            else:
                output = block(x, rows, past, return_state, rotation)
            x = output.x
            losses.update({f"layers.{index}.{name}": loss for name, loss in output.losses.items()})
            metrics.update({f"layers.{index}.{name}": value for name, value in output.metrics.items()})
            if output.state is not None:
                parts[str(index)] = output.state
        return x, parts, losses, metrics

    @property
    def length_limit(self) -> int | None:
        """The longest sequence all parts can take; None for no limit."""
        limits = [self.position.length_limit, *(mixer.length_limit for mixer in self._mixers())]
        return min((limit for limit in limits if limit is not None), default=None)

    def _mixers(self) -> Iterator[Mixer]:
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block.mixer

    def rewind(self, state: State, tokens: int) -> State:
        """The state as it was that many tokens ago, if ``state.reserve(rewind=...)`` was called early enough."""
        return state.rewind(tokens, lambda ids, earlier: self(ids, state=earlier, return_state=True))

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        """Continue prompts: (B, L) → (B, L + new). See :func:`spectral_models.generation.generate` for the options."""
        return generate(self, input_ids, attention_mask, **options)


def _run_again(
    block: Block, x: Tensor, rows: Rows | None, state: State | None, return_state: bool, rotation: Rotation | None
) -> BlockOutput:
    """A block that the backward pass recomputes: each run consumes a state of its own."""
    output: BlockOutput = block(x, rows, None if state is None else state.clone(), return_state, rotation)
    return output


def _fingerprint(config: LanguageModelConfig) -> str:
    """Tells stacks of mixers and their positions apart: a state continues only the stack that made it."""
    parts = [config.position, *(block.mixer for _, block in config.stack())]
    dumped = json.dumps([part.model_dump(mode="json") for part in parts], sort_keys=True)
    return f"{zlib.crc32(dumped.encode()):08x}"


class LanguageModelConfig(ModelConfig):
    """Strictly causal language model: next-token logits, streaming state, generation."""

    decoder: ClassVar[bool] = True

    type: Literal["language_model"] = "language_model"
    vocab_size: PositiveInt = 256
    """Token ids run from 0 to vocab_size - 1."""
    hidden_dim: PositiveInt = 256
    """Width of the residual stream."""
    embed_dim: PositiveInt | None = None
    """Width of the embedding, narrower to save parameters; a projection follows. Null takes hidden_dim."""
    num_layers: PositiveInt = 4
    """Blocks in the stack."""
    fft: Annotated[FFTBackendConfig, OneOf(FFT_BACKENDS)] = part("auto")
    """FFT backend of every spectral operator. A named one never falls back to another."""
    position: Annotated[PositionConfig, OneOf(POSITIONS)] = part("none")
    """How tokens are told where they stand. Causal mixers know their order without it."""
    block: BlockConfig | None = None
    """The block, or its name, repeated num_layers times; null takes the default block."""
    layers: Blocks | None = None
    """Instead of block: several blocks, or their names, taken in turn up to num_layers."""
    tie_embeddings: bool = True
    """Use the embedding's weights for the head, its projection's included."""
    max_seq_len: PositiveInt | None = None
    """Limits the parts with one parameter per position, and nothing else."""

    @model_validator(mode="before")
    @classmethod
    def _take_turns(cls, data: Any) -> Any:
        return block_as_layers(data)

    @model_validator(mode="after")
    def _is_a_decoder(self) -> LanguageModelConfig:
        if self.block is not None and self.layers:
            raise ValueError("give either block (one kind) or layers (several in turn), not both")
        paths = [f"layers.{index}" for index in range(len(self.layers))] if self.layers else ["block"]
        for path, block in zip(paths, self.blocks, strict=False):
            if "causal" not in block.mixer.directions:
                causal = [name for name, config in MIXERS.configs().items() if "causal" in config.directions]
                raise problem(
                    (*path.split("."), "mixer"),
                    f"{block.mixer.type!r} sees the whole sequence, and a language model may not see the future. "
                    f"Causal mixers: {', '.join(causal)}.",
                )
        return self

    @property
    def blocks(self) -> tuple[BlockConfig, ...]:
        """The distinct blocks, in the order they take turns."""
        return self.layers or (self.block or BlockConfig(),)

    def stack(self) -> Iterator[tuple[str, BlockConfig]]:
        """All num_layers blocks, each with the config path it comes from."""
        for index in range(self.num_layers):
            turn = index % len(self.blocks)
            yield f"layers.{turn}" if self.layers else "block", self.blocks[turn]

    def build(self) -> LanguageModel:
        return LanguageModel(self)
