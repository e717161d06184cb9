"""Sequence-to-sequence modelling: a text from a source; chrF and exact match of greedy decoding."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Subset

from spectral_core.config import Length
from spectral_models.config import ModelConfig
from spectral_models.data import Tokenizer
from spectral_models.data.batches import Examples, token_rows
from spectral_models.data.pairs import PairsConfig
from spectral_models.data.source import Table
from spectral_models.errors import needs_extra
from spectral_models.evaluation.loop import Arrays, Batch, OnBatch, map_examples
from spectral_models.loss import IGNORE
from spectral_models.model import SpectralModel
from spectral_models.tasks.config import Kinds, TaskConfig
from spectral_models.tasks.labelled import LabelledTask


class Seq2SeqLM(LabelledTask):
    """Tokens of targets, from the whole source and the target's earlier tokens; an end token follows each target.

    The loss is per target token. Greedy decoding is measured on the first ``generated`` of the held-out pairs, against
    their whole targets, also where ``max_target_length`` cuts those off.
    """

    headline: ClassVar[str] = "chrf"
    greater_is_better: ClassVar[bool] = True
    digits: ClassVar[int] = 3
    units: ClassVar[Mapping[str, str]] = {"loss": " nats per token"}
    role: ClassVar[str] = "source"

    tokenizer: Tokenizer

    def __init__(
        self, generated: int, model: ModelConfig, data: PairsConfig, tokenizer: Tokenizer | None, split: str | None
    ) -> None:
        super().__init__(model, data, tokenizer, split)
        self.model = self.model.with_data(eos_token_id=self.tokenizer.eos_token_id)
        self._decoded_pairs = min(generated, len(self.held_out))

    def examples_of(self, table: Table, train: Table | None) -> Examples:
        """A tokenizer is learned from targets, and from sources if they are texts."""
        texts = (
            [] if train is None else [train.texts(role) for role in ("source", "target") if role not in self.readers]
        )
        self.tokenizer_for(chain(*texts))
        return super().examples_of(table, train)

    def labels(self, table: Table) -> list[Tensor]:
        """The tokens of targets; one that is cut off lacks its end token."""
        end = self.tokenizer.eos_token_id
        return token_rows(table.texts("target"), self.tokenizer, self.data.max_target_length, end)

    def read(self, model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
        """losses: (B,), the summed cross-entropy of the batch over B. count: (B,), tokens of each target."""
        nats, rows = self.loss(model, batch).nats.double(), len(batch["labels"])
        return {"losses": (nats / rows).repeat(rows), "count": (batch["labels"] != IGNORE).sum(1)}

    def measures(self, arrays: Arrays) -> dict[str, float]:
        return {"loss": float(arrays["losses"].sum() / arrays["count"].sum())}

    def judge(self, model: SpectralModel, *, batch_size: int = 32, on_batch: OnBatch | None = None) -> dict[str, float]:
        with needs_extra("chrF needs", "train"):
            from sacrebleu import corpus_chrf

        some = Subset(self.held_out, range(self._decoded_pairs))
        tokens = map_examples(model, some, self._decoded, collate=self.collate, batch_size=batch_size)["tokens"]
        end = self.tokenizer.eos_token_id
        rows = [row[: row.index(end)] if end in row else row for row in tokens.tolist()]
        written, wanted = [self.tokenizer.decode(row) for row in rows], self.table.columns["target"][: len(some)]
        exact = sum(a == b for a, b in zip(written, wanted, strict=True)) / len(wanted)
        decoding = {"chrf": float(corpus_chrf(written, [wanted]).score), "exact_match": exact}
        return {**decoding, **super().judge(model, batch_size=batch_size, on_batch=on_batch)}

    def _decoded(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        """Greedily decoded tokens (B, max_target_length), padded with end tokens."""
        end, longest = self.tokenizer.eos_token_id, self.data.max_target_length
        options = {"max_new_tokens": longest, "stop_tokens": (end,), "pad_token_id": end}
        tokens = model.generate(batch["inputs"], batch.get("attention_mask"), **options)
        return {"tokens": F.pad(tokens, (0, longest - tokens.shape[1]), value=end)}

    def measured_on(self) -> str:
        return f"{len(self.held_out):,} pairs, of which {self._decoded_pairs:,} were decoded"


class Seq2SeqLMConfig(TaskConfig):
    """A target text from a source: translations, summaries, captions, transcripts."""

    reads: ClassVar[Kinds] = (PairsConfig,)

    type: Literal["seq2seq_lm"] = "seq2seq_lm"
    generated: Length = 100
    """Held-out pairs to decode greedily and compare with their targets, one step of the decoder for each token."""

    def architecture(self, model: ModelConfig) -> str | None:
        return "SpectralForSeq2SeqLM" if model.reader() is None else None

    def load(
        self, model: ModelConfig, data: PairsConfig, *, tokenizer: Tokenizer | None = None, split: str | None = None
    ) -> Seq2SeqLM:
        return Seq2SeqLM(self.generated, model, data, tokenizer, split)
