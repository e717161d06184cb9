"""The language model: tokens in, next-token logits out, strictly causal."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from spectral_core import UnsupportedInputError
from spectral_core.config import PartConfig
from spectral_core.trees import tree
from spectral_layers import Report, Rows, State
from spectral_layers.entry import entry
from spectral_layers.frontends.tokens import Tokens
from spectral_layers.positions.base import positions_of
from spectral_layers.rows import Alignment, aligned, last
from spectral_models.generation import generate
from spectral_models.inputs import TokenInput
from spectral_models.loss import IGNORE, StepLoss, check_labels, token_nats
from spectral_models.variants.stack import StackConfig, StackedModel, Way
from spectral_models.variants.vocabulary import VocabularyConfig


@tree
@dataclass
class LanguageModelOutput(Report):
    """logits: (B, L, V). state: what continues the rows, if asked for. losses, metrics: named by layer."""

    logits: Tensor
    state: State | None


@tree
@dataclass
class Features(Report):
    """x: (B, N, D), each row from index 0 on. alignment: back to where the tokens stood, if a mask was given."""

    x: Tensor
    rows: Rows | None
    alignment: Alignment | None
    state: State | None


class LanguageModel(StackedModel):
    """Embedding and position, blocks, norm, head (the embedding's transpose when tied).

    config: what it was built from, written into its checkpoints.
    """

    streams: ClassVar[bool] = True
    earlier_names: ClassVar[Mapping[str, str]] = {"embedding": "frontend.embedding"}

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config, config.tokens())
        self.config: DecoderConfig
        self.frontend: Tokens
        self._state_owner = f"{type(self).__name__} ({config.hidden_dim} wide, mixers {fingerprint(config)})"
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
        logits_to_keep: int = 0,
    ) -> LanguageModelOutput:
        """Logits at every position, each from its own and earlier tokens only.

        input_ids: (B, L) integers below vocab_size, or (B, L, embed_dim) embeddings in their place. attention_mask:
        (B, L), nonzero at real tokens; padding on either side. With a state, the tokens continue its rows, by L >= 1
        each; logits at padding are arbitrary. A full pass, any chunks and single tokens give the same logits.
        logits_to_keep: logits at each row's so many last real tokens only, (B, logits_to_keep, V), arbitrary in front
        of a row's first; 0 keeps all.
        Raises UnsupportedInputError for ids out of range and sequences over a declared limit, StateError for a state
        that does not fit.
        """
        if logits_to_keep < 0:
            raise UnsupportedInputError(f"logits_to_keep is a number of tokens, 0 for all; got {logits_to_keep}.")
        made = self.features(input_ids, attention_mask, state, return_state)
        logits = self.logits(last(made.x, made.rows, logits_to_keep)) if logits_to_keep else self._placed_logits(made)
        return LanguageModelOutput(logits, made.state) + made

    @entry
    def loss(
        self,
        input_ids: Tensor,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        *,
        state: State | None = None,
        step_count: Tensor | int | None = None,
    ) -> StepLoss:
        """How badly the labels were predicted, in chunks: the logits of all tokens never exist at once.

        labels: (B, L), what follows each token, already shifted: ``labels[:, t]`` is the token after
        ``input_ids[:, t]``; IGNORE (-100) counts for nothing, nor does what stands at padding.
        state: what the tokens continue, if anything; it is consumed. step_count: see :meth:`StepLoss.of`. Raises
        UnsupportedInputError for labels that do not fit, and as :meth:`forward`.
        """
        check_labels(labels, input_ids.shape[:2], self.config.vocab_size)
        made = self.features(input_ids, attention_mask, state, False)
        if made.alignment is not None:
            real = made.alignment.rows.mask(made.x.shape[1])
            labels = made.alignment.gather(labels).where(real, IGNORE)
        nats = token_nats(made.x, labels, self.logits, vocab_size=self.config.vocab_size)
        logits = partial(self._placed_logits, made)
        return StepLoss.of(nats, (labels != IGNORE).sum(), made.losses, made.metrics, step_count, logits) + made

    @entry
    def logits(self, x: Tensor) -> Tensor:
        """Features behind the norm, (..., D) -> (..., V), by the head or the transpose of the embedding."""
        return self.frontend.logits(x) if self.head is None else self.head(x)

    def _placed_logits(self, made: Features) -> Tensor:
        """Of all tokens, where these stood."""
        logits = self.logits(made.x)
        return logits if made.alignment is None else made.alignment.scatter(logits)

    @entry
    def features(
        self, input_ids: Tensor, attention_mask: Tensor | None, state: State | None, return_state: bool
    ) -> Features:
        """Features of the tokens behind the norm, each row from index 0 on."""
        rows, alignment = None, None
        if attention_mask is not None:
            input_ids, alignment = aligned(input_ids, attention_mask, name="input_ids")
            rows = alignment.rows.if_ragged(input_ids.shape[1])
        x = self.frontend(input_ids).x
        positions = positions_of(input_ids, rows, state)
        # What may refuse the tokens does so before the state is consumed.
        self.position.check_limit(positions)
        for mixer in self.mixers():
            mixer.check_limit(input_ids.shape[1], state)
        if state is not None:
            state.consume(self._state_owner, input_ids.shape[0])
        x = self.position.embed(x, positions)
        way = Way(rows, self.position.rotation(positions, x.dtype))
        passed = self.through_blocks(x, [way], state, return_state)
        made = None
        if return_state:
            before = positions.new_zeros(x.shape[0]) if state is None else state.position
            advance = x.shape[1] if rows is None else rows.lengths
            made = State(self._state_owner, before + advance, parts=passed.states)
            # A journal repeats ids: embeddings begin a new one, as ragged rows do.
            made.record(state, input_ids, ragged=rows is not None or input_ids.is_floating_point())
        if alignment is not None:
            passed.hidden_states = {name: alignment.scatter(x) for name, x in passed.hidden_states.items()}
        return Features(self.norm(passed.x), rows, alignment, made) + passed

    def input_specs(self) -> tuple[TokenInput, ...]:
        return (TokenInput("input_ids", vocab_size=self.config.vocab_size, length_limit=self.length_limit),)

    def outputs(self) -> tuple[str, ...]:
        return ("logits",)

    def rewind(self, state: State, tokens: int) -> State:
        """The state as it was that many tokens ago, if ``state.reserve(rewind=...)`` was called early enough."""
        return state.rewind(tokens, lambda ids, earlier: self(ids, state=earlier, return_state=True))

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        """Continue prompts: (B, L) → (B, L + new). See :func:`spectral_models.generation.generate` for the options."""
        return generate(self, input_ids, attention_mask, **options)


def fingerprint(config: StackConfig, *others: PartConfig) -> str:
    """Tells stacks of mixers, their positions and other parts apart: a state continues only the stack that made it."""
    parts = [config.position, *(block.mixer for _, block in config.stack()), *others]
    dumped = json.dumps([part.model_dump(mode="json") for part in parts], sort_keys=True)
    return f"{zlib.crc32(dumped.encode()):08x}"


class DecoderConfig(VocabularyConfig, StackConfig):
    """Base of the configs of strictly causal models over a vocabulary of V = ``vocab_size`` token ids.

    A subclass names its ``type`` and builds a :class:`LanguageModel`, or a class derived from it, which maps ids (B, L)
    to logits (B, L, V): those at t are of token t + 1, and depend on tokens up to t only. All blocks must have causal
    mixers, else validation refuses the config; without ``block`` and ``layers`` it takes the block ``hybrid``. The
    model continues a state by any number of tokens, and is held to its causality by ``build_model`` where parts come
    from third parties.
    """

    decoder: ClassVar[bool] = True

    tie_embeddings: bool = True
    """Use the embedding's weights for the head, its projection's included."""


class LanguageModelConfig(DecoderConfig):
    """Strictly causal language model: next-token logits, streaming state, generation."""

    type: Literal["language_model"] = "language_model"

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("causal_lm",)

    def build(self) -> LanguageModel:
        return LanguageModel(self)
