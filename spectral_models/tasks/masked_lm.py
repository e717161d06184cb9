"""Masked language modelling: hidden tokens of a text, predicted from both sides."""

from __future__ import annotations

import hashlib
import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from spectral_models.config import ModelConfig
from spectral_models.data import ContiguousWindows, DataConfig, RandomWindows, Tokenizer
from spectral_models.errors import DataError
from spectral_models.evaluation.loop import Arrays, Batch
from spectral_models.inputs import TokenInput
from spectral_models.loss import IGNORE
from spectral_models.model import SpectralModel
from spectral_models.tasks.config import Kinds, TaskConfig
from spectral_models.tasks.corpus import CorpusTask
from spectral_models.tasks.vocabulary import vocabulary_of

_MOST_LOGITS = 1 << 26
"""Computed at a time: 256 MiB in float32."""


class MaskedWindows(Dataset[Batch]):
    """Windows of tokens, some of them hidden; item i is a function of (seed, i) alone.

    Each token is chosen with probability ``share``, at least one in a window. Of the chosen, 80 % become ``mask``, 10 %
    a random token below ``vocab_size``, and 10 % stay. Labels are the original tokens where one was chosen, and IGNORE
    elsewhere (Devlin et al., "BERT: pre-training of deep bidirectional transformers", 2019).
    """

    what = "windows"

    def __init__(
        self, windows: RandomWindows | ContiguousWindows, share: float, mask: int, vocab_size: int, seed: int
    ) -> None:
        self.windows, self.share, self.mask, self.vocab_size, self.seed = windows, share, mask, vocab_size, seed

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Batch:
        window = self.windows[index]
        tokens, real = window["input_ids"], window["labels"] != IGNORE
        digest = hashlib.sha256(f"{self.seed}\0masks\0{index % len(self)}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        draw = torch.rand(len(tokens), generator=generator).where(real, 1.0)
        chosen = (draw < self.share) | (draw == draw.min())
        kind = torch.rand(len(tokens), generator=generator)
        noise = torch.randint(self.vocab_size, (len(tokens),), generator=generator)
        hidden = torch.where(kind < 0.8, self.mask, torch.where(kind < 0.9, noise, tokens))
        return {
            "inputs": tokens.where(~chosen, hidden),
            "labels": tokens.where(chosen, IGNORE),
            "attention_mask": real.long(),
        }

    def lengths(self) -> Tensor:
        """(N,): all the same."""
        return torch.full((len(self),), self.windows.context)


class MaskedLM(CorpusTask):
    """Prediction of masked tokens. The masks of held-out windows are the same at every evaluation."""

    headline: ClassVar[str] = "accuracy"
    greater_is_better: ClassVar[bool] = True

    def __init__(
        self, share: float, model: ModelConfig, data: DataConfig, tokenizer: Tokenizer | None, split: str | None
    ) -> None:
        super().__init__(model, data, tokenizer, split)
        self.share = share
        mask, size = self.tokenizer.mask_token_id, self.tokenizer.vocab_size
        if mask is None and vocabulary_of(model) <= size:
            raise DataError(
                f"the tokenizer has no mask token, and no id is free for one: its {size} tokens fill the model's "
                f"vocabulary. Set the model's vocab_size to at least {size + 1}."
            )
        self._mask = size if mask is None else mask
        self.held_out: MaskedWindows = self._masked(self.windows, seed=0)

    def _masked(self, windows: RandomWindows | ContiguousWindows, seed: int) -> MaskedWindows:
        return MaskedWindows(windows, self.share, self._mask, self.tokenizer.vocab_size, seed)

    def examples(self, batch_size: int, steps: int, seed: int) -> MaskedWindows:
        return self._masked(self.random_windows(batch_size, steps, seed), seed)

    def read(self, model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
        """For each window: the summed cross-entropy of its chosen tokens (losses), their number, the number right."""
        spec = model.only_input
        assert isinstance(spec, TokenInput)
        tokens, labels, mask = batch["inputs"], batch["labels"], batch["attention_mask"]
        rows = max(1, _MOST_LOGITS // (spec.vocab_size * tokens.shape[1]))
        chosen = labels != IGNORE
        losses, right = torch.zeros_like(labels, dtype=torch.double), torch.zeros_like(chosen)
        for start in range(0, len(tokens), rows):
            part = slice(start, start + rows)
            here = chosen[part]
            true = labels[part][here]
            logits = model.run({spec.name: tokens[part]}, mask[part]).logits[here].double()
            losses[part][here] = F.cross_entropy(logits, true, reduction="none")
            right[part][here] = logits.argmax(-1) == true
        return {"losses": losses.sum(1), "right": right.sum(1), "count": chosen.sum(1)}

    def measures(self, arrays: Arrays) -> dict[str, float]:
        count = arrays["count"].sum()
        loss = float(arrays["losses"].sum() / count)
        return {"accuracy": float(arrays["right"].sum() / count), "loss": loss, "perplexity": math.exp(min(loss, 700))}


class MaskedLMConfig(TaskConfig):
    """Prediction of hidden tokens from both sides.

    The mask token is the tokenizer's own if it has one; for bytes and byte-level encodings it is the byte 255, which
    UTF-8 text never contains; otherwise it is the first id after the tokenizer's vocabulary.
    """

    reads: ClassVar[Kinds] = (DataConfig,)

    type: Literal["masked_lm"] = "masked_lm"
    share: float = Field(default=0.15, gt=0, le=1)
    """Share of the tokens to predict. Of these 80 % are masked, 10 % replaced at random and 10 % left as they are."""

    def architecture(self, model: ModelConfig) -> str:
        return "SpectralForMaskedLM"

    def load(
        self, model: ModelConfig, data: DataConfig, *, tokenizer: Tokenizer | None = None, split: str | None = None
    ) -> MaskedLM:
        return MaskedLM(self.share, model, data, tokenizer, split)
