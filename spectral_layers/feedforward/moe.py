"""Mixture of experts: a router selects a few feed-forwards for each token."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from spectral_core.config import Weight, Width
from spectral_kernels.tracing import transformed
from spectral_layers.context import LayerContext
from spectral_layers.feedforward.base import FeedForward, FeedForwardConfig, FeedForwardOutput
from spectral_layers.feedforward.swiglu import SwiGLU
from spectral_layers.projection import PreciseProjection
from spectral_layers.report import Report
from spectral_layers.rows import Rows


class MoEConfig(FeedForwardConfig):
    """Experts chosen per token, with load-balancing and router-z losses."""

    type: Literal["moe"] = "moe"
    experts: int = Field(default=16, gt=0, le=512)
    """Number of experts."""
    active: Width = 2
    """Experts selected per token."""
    expansion: float = Field(default=8 / 3, gt=0, le=1024)
    """Inner width of an expert over hidden_dim."""
    balance_weight: Weight = 0.01
    """Weight of the load-balancing loss."""
    z_weight: Weight = 0.001
    """Weight of the router-z loss."""

    @model_validator(mode="after")
    def _active_within_experts(self) -> MoEConfig:
        if self.active > self.experts:
            raise ValueError(f"active = {self.active} exceeds experts = {self.experts}")
        return self


class MoE(FeedForward[MoEConfig]):
    """y = sum over the k most probable experts e of g_e expert_e(x), with p = softmax(W x).

    g is p normalised over the k selected experts; for k = 1, where that would be 1 and give the router no gradient,
    g = p. Scores are in float32 also under autocast, since rounding could change the selection. Experts have no
    capacity limit, so no token is dropped. Padding is not routed; its y is 0. Tokens are sorted by expert, and each
    expert runs once: O(k) experts a token, plus O(E D) for the router.

    Exported programs (torch.export, ONNX) and transforms of torch.func cannot have shapes that depend on values. There
    every expert processes every token, with weight 0 if it is not selected: the same y at O(E) experts a token, without
    losses and metrics. torch.compile breaks its graph around the experts, so ``fullgraph=True`` fails.

    Losses, over real tokens:

    ``load_balancing`` = balance_weight E sum_e f_e P_e, with f_e the share of selections of e and P_e its mean
    probability: balance_weight when balanced, up to E / k times that when not.
    ``router_z`` = z_weight mean (log sum_e exp(W x)_e)^2, which keeps scores small and so exact in low precision.

    Metrics: ``busiest_expert`` and ``idlest_expert``, the largest and smallest f_e times E, 1 when balanced;
    ``experts_in_use``, exp of the entropy of f: E when balanced, 1 if a single expert is used.

    Shazeer et al., "Outrageously large neural networks", 2017 (top-k); Fedus et al., "Switch transformers", 2021
    (balancing, k = 1); Zoph et al., "ST-MoE", 2022 (router z-loss); Gale et al., "MegaBlocks", 2022 (no capacity).
    """

    def setup(self, config: MoEConfig, context: LayerContext) -> None:
        self.router = PreciseProjection(context.hidden_dim, config.experts, bias=False)
        nn.init.normal_(self.router.weight, std=0.02)
        self.experts = nn.ModuleList(SwiGLU(context, expansion=config.expansion) for _ in range(config.experts))

    def forward(self, x: Tensor, *, rows: Rows | None = None) -> FeedForwardOutput:
        real = None if rows is None else rows.mask(x.shape[1])
        if torch.compiler.is_exporting() or transformed():
            return FeedForwardOutput(self._through_all_experts(x, real))
        tokens = x.flatten(0, 1) if real is None else x[real]
        scores = self.router(tokens)
        probability = scores.softmax(-1)
        weight, choice = self._chosen(probability)
        counts = choice.flatten().bincount(minlength=len(self.experts))
        through = self._through_experts
        if torch.compiler.is_compiling():
            # The numbers of tokens per expert vary, so compiled experts would be recompiled at every call.
            through = torch.compiler.disable(through)
        y = through(tokens, weight, choice, counts)
        y = y.view_as(x) if real is None else torch.zeros_like(x).index_put((real,), y)
        return FeedForwardOutput(y) + self._report(scores, probability, counts)

    def _chosen(self, probability: Tensor) -> tuple[Tensor, Tensor]:
        """Weights g and indices of the k most probable experts: (..., k) each."""
        weight, choice = probability.topk(self.config.active, -1)
        return (weight / weight.sum(-1, keepdim=True) if self.config.active > 1 else weight), choice

    def _through_all_experts(self, x: Tensor, real: Tensor | None) -> Tensor:
        probability = self.router(x).softmax(-1)
        weight, choice = self._chosen(probability)
        if real is not None:
            weight = weight.masked_fill(~real[..., None], 0.0)
        each = torch.zeros_like(probability).scatter(-1, choice, weight).unsqueeze(-1).unbind(-2)
        y = torch.zeros_like(x, dtype=probability.dtype)
        for expert, share in zip(self.experts, each, strict=True):
            y = y + share * expert(x).y
        return y.to(x.dtype)

    def _through_experts(self, tokens: Tensor, weight: Tensor, choice: Tensor, counts: Tensor) -> Tensor:
        order = choice.flatten().argsort(stable=True)
        token = order // self.config.active
        parts = tokens.index_select(0, token).split(counts.tolist())
        # With gradients, experts without tokens run too, since DDP waits for the gradient of every parameter.
        run_all = torch.is_grad_enabled() or not len(tokens)
        outputs = [expert(part).y for expert, part in zip(self.experts, parts, strict=True) if run_all or len(part)]
        weighted = torch.cat(outputs) * weight.flatten().index_select(0, order)[:, None]
        y = weighted.new_zeros(tokens.shape).index_add(0, token, weighted)
        return y.to(tokens.dtype)

    def _report(self, scores: Tensor, probability: Tensor, counts: Tensor) -> Report:
        tokens, experts = scores.shape
        share = counts.to(scores.dtype) / counts.sum().clamp(min=1)
        mean = probability.sum(0) / max(1, tokens)
        losses = {
            "load_balancing": self.config.balance_weight * experts * (share * mean).sum(),
            "router_z": self.config.z_weight * scores.logsumexp(-1).square().sum() / max(1, tokens),
        }
        metrics = {
            "busiest_expert": share.max() * experts,
            "idlest_expert": share.min() * experts,
            "experts_in_use": torch.special.entr(share).sum().exp(),
        }
        return Report(losses=losses, metrics=metrics)
