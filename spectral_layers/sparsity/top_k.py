"""Selection of the bins of highest score, with a straight-through gradient for the scores."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k(scores: Tensor, share: float, *, temperature: float, draw: bool) -> Tensor:
    """1 at the k highest of (..., F) scores and 0 elsewhere, k = share * F rounded, at least 1. O(F log F).

    draw: add standard Gumbel noise first, which samples bins without replacement in proportion to e^score, so that bins
    outside of the top k are tried too. Kool et al., "Stochastic beams and where to find them: the Gumbel-top-k trick",
    2019.

    Straight-through: the gradient is that of sigmoid((score - edge) / temperature), with the edge half-way between the
    lowest kept and the highest dropped score. Adding a constant to all scores changes neither value nor gradient.
    Bengio et al., "Estimating or propagating gradients through stochastic neurons", 2013.
    """
    if draw:
        scores = scores - torch.empty_like(scores).exponential_().log()
    rank = torch.arange(scores.shape[-1], device=scores.device)
    # A tensor, since a slice by a Python number would specialise a graph for varying lengths to one length.
    count = (share * (rank[-1:] + 1).double() + 0.5).long().clamp(min=1)
    order = scores.argsort(dim=-1, descending=True, stable=True)
    hard = torch.zeros_like(scores).scatter(-1, order, (rank < count).to(scores.dtype).expand_as(scores))
    border = scores.gather(-1, order.index_select(-1, torch.cat([count - 1, torch.minimum(count, rank[-1:])])))
    soft = torch.sigmoid((scores - border.mean(-1, keepdim=True)) / temperature)
    return hard + (soft - soft.detach())
