"""The language model: strictly causal logits of next tokens."""

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
from spectral_models.config import ModelConfig
from spectral_models.generation import generate
from spectral_models.inputs import TokenInput
from spectral_models.loss import IGNORE, StepLoss, check_labels, token_nats
from spectral_models.variants.encoder import TextEncoderConfig
from spectral_models.variants.stack import Layout, StackConfig, StackedModel
from spectral_models.variants.vocabulary import VocabularyConfig


@tree
@dataclass
class LanguageModelOutput(Report):
    """logits: (B, L, V). state: continues the rows, with ``return_state``. losses, metrics: named by layer."""

    logits: Tensor
    state: State | None


@tree
@dataclass
class Features(Report):
    """x: (B, N, D), each row from index 0. alignment: back to the positions of the tokens, if there is a mask."""

    x: Tensor
    rows: Rows | None
    alignment: Alignment | None
    state: State | None


class LanguageModel(StackedModel):
    """Embedding and position, blocks, norm, head (the embedding's transpose if tied)."""

    config: DecoderConfig
    frontend: Tokens
    streams: ClassVar[bool] = True
    earlier_names: ClassVar[Mapping[str, str]] = {"embedding": "frontend.embedding"}

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config, config.tokens())
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
        (B, L), nonzero at real tokens, with padding on either side; logits at padding are arbitrary. state: the tokens
        continue its rows, by L >= 1 each. A full pass, any chunks and single tokens give the same logits.
        logits_to_keep: return logits of the last real tokens only, (B, logits_to_keep, V), arbitrary before a row's
        first token; 0 keeps all. Raises UnsupportedInputError for ids out of range and sequences over a declared limit,
        StateError for a state that does not fit.
        """
        if logits_to_keep < 0:
            raise UnsupportedInputError(f"logits_to_keep is a number of tokens, 0 for all; got {logits_to_keep}.")
        found = self.features(input_ids, attention_mask, state, return_state)
        kept = last(found.x, found.rows, logits_to_keep) if logits_to_keep else None
        logits = self._all_logits(found) if kept is None else self.logits(kept)
        return LanguageModelOutput(logits, found.state) + found

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
        """Cross-entropy of next tokens, in chunks: the logits of all tokens are never in memory at once.

        labels: (B, L), already shifted: ``labels[:, t]`` is the token after ``input_ids[:, t]``; IGNORE (-100) and
        labels at padding are left out. state: the tokens continue it, and it is consumed. step_count: see
        :meth:`StepLoss.of`. Raises UnsupportedInputError for labels that do not fit, and as :meth:`forward` does.
        """
        check_labels(labels, input_ids.shape[:2], self.config.vocab_size)
        found = self.features(input_ids, attention_mask, state, False)
        if found.alignment is not None:
            real = found.alignment.rows.mask(found.x.shape[1])
            labels = found.alignment.gather(labels).where(real, IGNORE)
        nats = token_nats(found.x, labels, self.logits, vocab_size=self.config.vocab_size)
        logits = partial(self._all_logits, found)
        return StepLoss.of(nats, (labels != IGNORE).sum(), found.losses, found.metrics, step_count, logits) + found

    @entry
    def logits(self, x: Tensor) -> Tensor:
        """The head, or the transpose of the embedding, on normalised features: (..., D) -> (..., V)."""
        return self.frontend.logits(x) if self.head is None else self.head(x)

    def _all_logits(self, features: Features) -> Tensor:
        """Logits of all tokens, at the positions of the tokens."""
        logits = self.logits(features.x)
        return logits if features.alignment is None else features.alignment.scatter(logits)

    @entry
    def features(
        self, input_ids: Tensor, attention_mask: Tensor | None, state: State | None, return_state: bool
    ) -> Features:
        """The tokens' features after the norm, each row from index 0."""
        rows, alignment = None, None
        if attention_mask is not None:
            input_ids, alignment = aligned(input_ids, attention_mask, name="input_ids")
            rows = alignment.rows.if_ragged(input_ids.shape[1])
        x = self.frontend(input_ids).x
        positions = positions_of(input_ids, rows, state)
        # Errors come before the state is consumed.
        self.position.check_limit(positions)
        for mixer in self.mixers():
            mixer.check_limit(input_ids.shape[1], state)
        if state is not None:
            state.consume(self._state_owner, input_ids.shape[0])
        x = self.position.embed(x, positions)
        layout = Layout(rows, self.position.rotation(positions, x.dtype))
        passed = self.through_blocks(x, [layout], state, return_state)
        following = None
        if return_state:
            before = positions.new_zeros(x.shape[0]) if state is None else state.position
            advance = x.shape[1] if rows is None else rows.lengths
            following = State(self._state_owner, before + advance, parts=passed.states)
            # A journal repeats ids: embeddings begin a new one, as ragged rows do.
            following.record(state, input_ids, ragged=rows is not None or input_ids.is_floating_point())
        if alignment is not None:
            passed.hidden_states = {name: alignment.scatter(x) for name, x in passed.hidden_states.items()}
        return Features(self.norm(passed.x), rows, alignment, following) + passed

    def input_specs(self) -> tuple[TokenInput, ...]:
        return (TokenInput("input_ids", vocab_size=self.config.vocab_size, length_limit=self.length_limit),)

    @property
    def output_embedding(self) -> nn.Module:
        return self.frontend if self.head is None else self.head

    def outputs(self) -> tuple[str, ...]:
        return ("logits",)

    def rewind(self, state: State, tokens: int) -> State:
        """The state without its last ``tokens`` tokens. Call ``state.reserve(rewind=...)`` before reading them."""
        return state.rewind(tokens, lambda ids, earlier: self(ids, state=earlier, return_state=True))

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        """Continue prompts: (B, L) → (B, L + new). See :func:`spectral_models.generation.generate` for the options."""
        return generate(self, input_ids, attention_mask, **options)


def fingerprint(config: StackConfig, *others: PartConfig) -> str:
    """Checksum of a stack's mixers, position and other parts: a state continues only the stack it came from."""
    parts = [config.position, *(block.mixer for _, block in config.stack()), *others]
    dumped = json.dumps([part.model_dump(mode="json") for part in parts], sort_keys=True)
    return f"{zlib.crc32(dumped.encode()):08x}"


class DecoderConfig(VocabularyConfig, StackConfig):
    """Base of the configs of strictly causal models over a vocabulary of V = ``vocab_size`` token ids.

    A subclass sets its ``type`` and builds a :class:`LanguageModel`, or a subclass of it, that maps ids (B, L) to
    logits (B, L, V): those at t predict token t + 1 and depend on tokens up to t only. Validation refuses blocks with
    mixers that are not causal; without ``block`` and ``layers`` the block is ``hybrid``. The model continues a state by
    any number of tokens. ``build_model`` checks its causality if it has third-party parts.
    """

    decoder: ClassVar[bool] = True

    tie_embeddings: bool = True
    """Use the weights of the embedding, and of its projection, for the head."""


class LanguageModelConfig(DecoderConfig):
    """Strictly causal language model: next-token logits, streaming state, generation."""

    tasks: ClassVar[tuple[str, ...]] = ("causal_lm", "classification", "regression", "token_classification")

    type: Literal["language_model"] = "language_model"

    def for_task(self, task: str) -> ModelConfig:
        """For labels, a model over a causal encoder of the same blocks, which takes this model's weights."""
        if task == "causal_lm":
            return self
        shared = TextEncoderConfig.model_fields.keys() - {"type"}
        data = {name: value for name, value in self.model_dump().items() if name in shared}
        return TextEncoderConfig.parse({**data, "causal": True}).for_task(task)

    def build(self) -> LanguageModel:
        return LanguageModel(self)
