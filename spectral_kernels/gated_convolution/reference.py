"""The definition of the gated convolution: the direct sum, in the precision of the input."""

from __future__ import annotations

import torch
from torch import Tensor


def gated_convolution(
    u: Tensor,
    kernel: Tensor,
    skip: Tensor | None = None,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    *,
    first: int = 0,
) -> Tensor:
    """y[t] = post[t] (sum_j kernel[j] v[t - first - j] + skip v[t]), v = pre u, zero outside of [0, L). O(B D L K).

    u and gates (B, D, L), kernel (D, K) or (B, D, K), skip (D,). Differentiable.
    """
    v = u if pre_gate is None else u * pre_gate
    length, taps = u.shape[-1], kernel.shape[-1]
    source = torch.arange(length)[:, None] - first - torch.arange(taps)[None, :]
    inside = (source >= 0) & (source < length)
    read = torch.where(inside, v[..., source.clamp(0, length - 1)], 0.0)
    y = (kernel[..., None, :] * read).sum(-1)
    if skip is not None:
        y = y + skip[:, None] * v
    return y if post_gate is None else y * post_gate
