"""What the gated delta rule means: one token after the other, in whatever precision it is given."""

from __future__ import annotations

import torch
from torch import Tensor


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor | None = None,
    *,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = e^(g_t) S_{t-1} + k_t u_t^T and o_t = scale S_t^T q_t.

    u_t = v_t where beta is None; else, by the delta rule, u_t = beta_t (v_t - scale (e^(g_t) S_{t-1})^T k_t).

    q, k: (B, H, L, F). v: (B, H, L, C). g: (B, H, L), at most 0, or (B, H, 1), (1, H, L) or (1, H, 1) for all. beta:
    (B, H, L), from 0 to 1. initial_state: S_0, (B, H, F, C), zero if None. Returns o, (B, H, L, C), and the final
    state. Strictly causal. O(L F C). Differentiable.

    Widrow & Hoff, "Adaptive switching circuits", 1960; Yang, Kautz & Hatamizadeh, "Gated delta networks", 2025.
    """
    length = k.shape[2]
    state = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1]) if initial_state is None else initial_state
    g = g.expand(-1, -1, length)
    outputs = []
    for t in range(length):
        state = g[:, :, t, None, None].exp() * state
        u = v[:, :, t]
        if beta is not None:
            said = scale * (state.transpose(-1, -2) @ k[:, :, t, :, None])[..., 0]
            u = beta[:, :, t, None] * (u - said)
        state = state + k[:, :, t, :, None] * u[..., None, :]
        outputs.append(scale * (state.transpose(-1, -2) @ q[:, :, t, :, None])[..., 0])
    return torch.stack(outputs, 2), state
