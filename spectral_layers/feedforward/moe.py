"""A mixture of experts: each token goes through the few feed-forwards its router chooses."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from spectral_layers.context import LayerContext
from spectral_layers.feedforward.base import FeedForward, FeedForwardConfig, FeedForwardOutput
from spectral_layers.feedforward.swiglu import SwiGLU
from spectral_layers.rows import Rows


class MoE(FeedForward):
    """y = sum over the top experts e of p_e expert_e(x), p renormalised over those chosen.

    No token is ever dropped. Loss ``load_balancing`` = weight * E sum_e f_e P_e, with f_e the share of choices that
    fell on expert e and P_e its mean probability, over real tokens only; 1 * weight when balanced. Metric
    ``busiest_expert``: the largest f_e times E. Fedus et al., "Switch transformers", 2021.
    """

    def __init__(self, hidden_dim: int, inner_dim: int, *, experts: int, active: int, balance_weight: float) -> None:
        super().__init__()
        self.active = active
        self.balance_weight = balance_weight
        self.router = nn.Linear(hidden_dim, experts, bias=False)
        nn.init.normal_(self.router.weight, std=0.02)
        self.experts = nn.ModuleList(SwiGLU(hidden_dim, inner_dim) for _ in range(experts))

    def forward(self, x: Tensor, *, rows: Rows | None = None) -> FeedForwardOutput:
        tokens = x.flatten(0, 1)
        scores = self.router(tokens)
        probability = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1)
        weight, choice = probability.topk(self.active, -1)
        weight = weight / weight.sum(-1, keepdim=True)
        y = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            token, slot = (choice == index).nonzero(as_tuple=True)
            part = expert(tokens[token]).y * weight[token, slot, None].to(x.dtype)
            y = y.index_add(0, token, part.to(y.dtype))
        losses, metrics = self._balance(probability, choice, rows, x.shape[1])
        return FeedForwardOutput(y.view_as(x), losses, metrics)

    def _balance(
        self, probability: Tensor, choice: Tensor, rows: Rows | None, length: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if rows is not None:
            real = rows.mask(length).flatten()
            probability, choice = probability[real], choice[real]
        experts = len(self.experts)
        share = torch.bincount(choice.flatten(), minlength=experts).to(probability.dtype)
        share = share / share.sum().clamp(min=1)
        mean = probability.sum(0) / max(1, probability.shape[0])
        loss = self.balance_weight * experts * (share * mean).sum()
        return {"load_balancing": loss}, {"busiest_expert": share.max() * experts}


class MoEConfig(FeedForwardConfig):
    """Experts chosen per token, with a load-balancing loss."""

    type: Literal["moe"] = "moe"
    experts: PositiveInt = 16
    """Feed-forwards to choose from."""
    active: PositiveInt = 2
    """Experts each token goes through."""
    expansion: PositiveFloat = 8 / 3
    """Inner width of an expert over hidden_dim."""
    balance_weight: NonNegativeFloat = 0.01
    """Weight of the load-balancing loss."""

    @model_validator(mode="after")
    def _enough(self) -> MoEConfig:
        if self.active > self.experts:
            raise ValueError(f"active = {self.active} exceeds experts = {self.experts}")
        return self

    def build(self, context: LayerContext) -> MoE:
        return MoE(
            context.hidden_dim,
            max(1, round(self.expansion * context.hidden_dim)),
            experts=self.experts,
            active=self.active,
            balance_weight=self.balance_weight,
        )
