"""Sequence to sequence: the text that a source becomes; chrF and exact match of greedy decoding."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import Subset

from spectral_core.config import Length
from spectral_models.config import ModelConfig
from spectral_models.data import Tokenizer
from spectral_models.data.batches import Examples, FileExamples, TextExamples, token_rows
from spectral_models.data.config import AnyDataConfig
from spectral_models.data.pairs import PairsConfig
from spectral_models.data.readers import ImageReader
from spectral_models.data.source import Table, load
from spectral_models.data.tokenizer import require_vocabulary
from spectral_models.errors import needs_extra
from spectral_models.evaluation.loop import Arrays, Batch, OnBatch, over
from spectral_models.loss import IGNORE, StepLoss
from spectral_models.model import SpectralModel
from spectral_models.tasks.config import Kinds, TaskConfig
from spectral_models.tasks.task import Task
from spectral_models.tasks.texts import text_reasons, vocabulary_of


class Seq2SeqLM(Task):
    """Targets, each behind the whole of its source, with the token that ends it.

    The loss is per target token. Greedy decoding is measured on the first ``generated`` of the held-out pairs, against
    their whole targets: what ``max_target_length`` cuts off counts as not written.
    """

    headline: ClassVar[str] = "chrf"
    greater_is_better: ClassVar[bool] = True
    digits: ClassVar[int] = 3
    units: ClassVar[Mapping[str, str]] = {"loss": " nats per token"}
    held_out: Examples

    def __init__(
        self,
        config: Seq2SeqLMConfig,
        model: ModelConfig,
        data: PairsConfig,
        tokenizer: Tokenizer | None,
        split: str | None,
    ) -> None:
        self.config, self.model, self.data = config, model, data
        self._reader = model.reader()
        files = () if self._reader is None else ("source",)
        train, held_out = load(data, files) if split is None else (None, data.table(data.source, split))
        size = vocabulary_of(model)
        if tokenizer is None:
            texts = [] if train is None else [train.texts(role) for role in ("source", "target") if role not in files]
            tokenizer = data.tokenizer.build(chain(*texts), vocab_size=size)
        require_vocabulary(tokenizer, size, "the model's vocab_size")
        self.tokenizer: Tokenizer = tokenizer
        self.train = None if train is None else self._examples(train)
        self.held_out = self._examples(held_out)
        self.wanted = held_out.texts("target")
        self.model = model.with_data(
            eos_token_id=tokenizer.eos_token_id,
            max_length=data.max_length if self._reader is None else None,
            image_size=self._reader.size if isinstance(self._reader, ImageReader) else None,
        )

    def _examples(self, table: Table) -> Examples:
        """A target that is cut lacks its end."""
        end = self.tokenizer.eos_token_id
        targets = token_rows(table.texts("target"), self.tokenizer, self.data.max_target_length, end)
        if self._reader is None:
            return TextExamples(table.texts("source"), targets, self.tokenizer, self.data.max_length)
        made = FileExamples(table.files("source"), targets, self._reader)
        self._reader = made.reader
        return made

    def loss(self, model: Any, batch: Batch, step_count: Tensor | int | None = None, **options: Any) -> StepLoss:
        mask = batch.get("attention_mask")
        found: StepLoss = model.loss(batch["inputs"], batch["labels"], mask, step_count=step_count, **options)
        return found

    def read(self, model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
        """losses: summed nats of each target, for each the mean over the batch. count: of its tokens."""
        nats, rows = self.loss(model, batch).nats.double(), len(batch["labels"])
        return {"losses": (nats / rows).repeat(rows), "count": (batch["labels"] != IGNORE).sum(1)}

    def measures(self, arrays: Arrays) -> dict[str, float]:
        return {"loss": float(arrays["losses"].sum() / arrays["count"].sum())}

    def judge(self, model: SpectralModel, *, batch_size: int = 32, on_batch: OnBatch | None = None) -> dict[str, float]:
        with needs_extra("chrF needs", "train"):
            from sacrebleu import corpus_chrf

        some = Subset(self.held_out, range(min(self.config.generated, len(self.held_out))))
        tokens = over(model, some, self._decoded, collate=self.collate, batch_size=batch_size)["written"]
        written, wanted = self._texts(tokens), self.wanted[: len(some)]
        exact = sum(a == b for a, b in zip(written, wanted, strict=True)) / len(wanted)
        found = {"chrf": float(corpus_chrf(written, [wanted]).score), "exact_match": exact}
        return {**found, **super().judge(model, batch_size=batch_size, on_batch=on_batch)}

    def _decoded(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        """Greedy targets of at most ``max_target_length`` tokens, (B, max_target_length), padded by end tokens."""
        end, longest = self.tokenizer.eos_token_id, self.data.max_target_length
        options = {"max_new_tokens": longest, "stop_tokens": (end,), "pad_token_id": end}
        written = model.generate(batch["inputs"], batch.get("attention_mask"), **options)
        return {"written": torch.nn.functional.pad(written, (0, longest - written.shape[1]), value=end)}

    def _texts(self, tokens: Any) -> list[str]:
        end = self.tokenizer.eos_token_id
        rows = tokens.tolist()
        return [self.tokenizer.decode(row[: row.index(end)] if end in row else row) for row in rows]

    def measured_on(self) -> str:
        decoded = min(self.config.generated, len(self.held_out))
        return f"{len(self.held_out):,} pairs, of which {decoded:,} were decoded"


class Seq2SeqLMConfig(TaskConfig):
    """Targets from sources: translations, summaries, captions, transcripts."""

    reads: ClassVar[Kinds] = (PairsConfig,)

    type: Literal["seq2seq_lm"] = "seq2seq_lm"
    generated: Length = 100
    """Held-out pairs of which greedy decoding is compared with the target; decoding takes a step for each token."""

    def unsupported_reasons(self, model: ModelConfig, data: AnyDataConfig) -> list[str]:
        found = super().unsupported_reasons(model, data)
        if found or not isinstance(data, PairsConfig):
            return found
        return text_reasons(model, data.tokenizer, data.max_length)

    def architecture(self, model: ModelConfig) -> str | None:
        return "SpectralForSeq2SeqLM" if model.reader() is None else None

    def load(
        self, model: ModelConfig, data: PairsConfig, *, tokenizer: Tokenizer | None = None, split: str | None = None
    ) -> Seq2SeqLM:
        return Seq2SeqLM(self, model, data, tokenizer, split)
