"""What modulation means: the explicit sums over samples and bins, in whatever precision it is given."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def modulation(x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
    """y[t] = 1/n Re sum_f w[f] gain[f] e^(i phase[f]) X[f] e^(2 pi i f t / n), X[f] = sum_t x[t] e^(-2 pi i f t / n).

    f = 0 ... n // 2; w = 2, but 1 at DC and Nyquist, where an imaginary part does not contribute. x: (B, D, L),
    cropped or zero-padded to n. gain, phase broadcast to (B, D, n // 2 + 1). O(B D n^2). Differentiable.
    """
    bins = n // 2 + 1
    x = torch.nn.functional.pad(x, (0, n - x.shape[-1]))
    turns = torch.arange(n)[:, None] * torch.arange(bins) % n
    angle = turns.double() * (2 * math.pi / n)
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    real, imag = x @ cosine, -(x @ sine)
    if phase is not None:
        real, imag = real * phase.cos() - imag * phase.sin(), real * phase.sin() + imag * phase.cos()
    if gain is not None:
        real, imag = real * gain, imag * gain
    weight = torch.full((bins,), 2.0, dtype=x.dtype)
    weight[0] = 1.0
    if n % 2 == 0:
        weight[-1] = 1.0
    sine = torch.where(2 * turns == n, 0.0, sine)
    return ((real * weight) @ cosine.T - (imag * weight) @ sine.T) / n
