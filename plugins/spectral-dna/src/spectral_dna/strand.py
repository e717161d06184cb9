"""Reads a DNA sequence and its reverse complement, and gives both the same answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from spectral_core.config import Length, Width
from spectral_core.trees import tree
from spectral_layers import LayerContext, Report, Rows
from spectral_models import ModelConfig
from spectral_models.block import Block
from spectral_models.config import BlockConfig
from spectral_models.inputs import TokenInput
from spectral_models.labels import LabelSet
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel

_UNKNOWN = 4
_COMPLEMENT = (3, 2, 1, 0, _UNKNOWN)


@tree
@dataclass
class StrandOutput(Report):
    """logits: (B, num_labels), of classes, or logarithms of expected counts. pooled: (B, D)."""

    logits: Tensor
    pooled: Tensor


class Strand(SpectralModel):
    """logits = W (f(s) + f(rc(s))) / 2 + b, f: a convolution over bases, blocks, and the mean over the sequence.

    s: a sequence of A, C, G, T in either case; any other letter is an unknown base, a row of zeros. rc(s): its reverse
    complement. Two passes, each O(L log L).
    """

    def __init__(self, config: StrandConfig) -> None:
        super().__init__(config)
        self.config: StrandConfig
        base = torch.full((256,), _UNKNOWN)
        for index, letters in enumerate((b"Aa", b"Cc", b"Gg", b"Tt")):
            base[list(letters)] = index
        self.register_buffer("base", base, persistent=False)
        self.register_buffer("complement", torch.tensor(_COMPLEMENT), persistent=False)
        self.motifs = nn.Conv1d(4, config.hidden_dim, config.motif, padding="same")
        context = LayerContext(config.hidden_dim, causal=False, fft=config.build_fft())
        self.blocks = nn.ModuleList(Block(config.block, context, path="block") for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden_dim)
        self.head = nn.Linear(config.hidden_dim, config.num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> StrandOutput:
        """input_ids: (B, L) bytes. attention_mask: (B, L), nonzero at real bases, with padding on the right."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        lengths = mask.sum(1)
        strand = self.base[input_ids.long()].where(mask != 0, _UNKNOWN)
        places = (lengths[:, None] - 1 - torch.arange(strand.shape[1], device=strand.device)) % strand.shape[1]
        reverse = self.complement[strand.gather(1, places)]
        pooled = (self._pooled(strand, lengths) + self._pooled(reverse, lengths)) / 2
        return StrandOutput(self.head(pooled), pooled)

    def _pooled(self, bases: Tensor, lengths: Tensor) -> Tensor:
        """(B, L) bases -> (B, D)."""
        rows = Rows(lengths)
        real = rows.mask(bases.shape[1])[..., None]
        one_hot = nn.functional.one_hot(bases, 5)[..., :4].to(self.motifs.weight.dtype)
        x = self.motifs((one_hot * real).transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x, rows).x
        return (self.norm(x) * real).sum(1) / lengths[:, None]

    def loss(
        self,
        input_ids: Tensor,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        *,
        step_count: Tensor | int | None = None,
        label_smoothing: float = 0.0,
    ) -> StepLoss:
        """Cross-entropy of classes (B,), or the Poisson loss of counts (B, num_labels), without log(count!)."""
        logits = self(input_ids, attention_mask).logits
        if self.config.objective == "classes":
            return StepLoss.of_logits(logits, labels, {}, {}, step_count, label_smoothing)
        nats = nn.functional.poisson_nll_loss(logits.float(), labels.float(), reduction="sum")
        return StepLoss.of(nats, torch.tensor(labels.numel(), device=labels.device), {}, {}, step_count)

    def input_specs(self) -> tuple[TokenInput, ...]:
        return (TokenInput("input_ids", masked=True, vocab_size=256, max_length=self.config.max_length),)

    def outputs(self) -> tuple[str, ...]:
        return "logits", "pooled"


class StrandConfig(ModelConfig):
    """Classes or counts of DNA sequences, the same for a strand and its reverse complement."""

    pools: ClassVar[bool] = True

    type: Literal["dna/strand"] = "dna/strand"
    hidden_dim: Width = 64
    """Width of the blocks, and how many motifs the convolution has."""
    num_layers: int = Field(default=2, gt=0, le=64)
    """Blocks."""
    motif: Width = Field(default=11, le=255)
    """Bases that the convolution in front of the blocks sees."""
    block: BlockConfig = BlockConfig()
    """The block; its mixer must be bidirectional."""
    objective: Literal["classes", "counts"] = "classes"
    """What the logits are: of classes, or logarithms of expected counts."""
    num_labels: Width = 2
    """Classes, or counts for each sequence."""
    labels: tuple[str, ...] | None = None
    """Their names; training writes those of its data here."""
    max_length: Length | None = None
    """Bases of a sequence that commands read; training writes its data's here."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("classification", "dna/counts") if self.objective == "classes" else ("dna/counts",)

    def for_task(self, task: str) -> StrandConfig:
        return self if task == "classification" else self.model_copy(update={"objective": "counts"})

    def with_data(
        self, *, labels: tuple[str, ...] | None = None, max_length: int | None = None, **_: Any
    ) -> StrandConfig:
        return self.model_copy(update={"labels": labels, "max_length": max_length or self.max_length})

    @property
    def label_set(self) -> LabelSet:
        problem: Any = "single_label_classification" if self.objective == "classes" else "regression"
        return LabelSet(self.num_labels, self.labels, problem)

    def build(self) -> Strand:
        return Strand(self)
