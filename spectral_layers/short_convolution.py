"""The short convolution in front of long mixers: each channel sees its last few tokens, or those around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_layers.rows import Rows, span


class ShortConvolution(nn.Module):
    """y[d, c, t] = bias + sum_s weight[d, c, s] x[d, t + ahead - s], c over ``copies`` outputs per channel.

    ahead: tokens a causal one sees of what is to come, 0; a centered one sees (taps - 1) // 2, the others behind it.
    x: (B, D, L). Returns (B, D * copies, L), a channel's copies next to each other. O(L) per channel.
    """

    def __init__(self, channels: int, *, taps: int = 4, copies: int = 1, centered: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.taps = taps
        self.ahead = (taps - 1) // 2 if centered else 0
        bound = 1 / math.sqrt(taps)
        self.weight = nn.Parameter(torch.empty(channels * copies, 1, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels * copies))

    def forward(self, x: Tensor, past: Tensor | None = None) -> Tensor:
        """past: (B, D, taps - 1), the inputs before x; None at the start of a sequence."""
        before = self.taps - 1 - self.ahead
        x = F.pad(x, (before, self.ahead)) if past is None else torch.cat([past.to(x.dtype), x], -1)
        # conv1d correlates: its last weight meets the newest token.
        return F.conv1d(x, self.weight, self.bias, groups=self.channels)

    def remember(self, x: Tensor, rows: Rows | None, past: Tensor | None) -> Tensor:
        """The ``past`` of the next call."""
        width = self.taps - 1
        if past is None:
            past = x.new_zeros(*x.shape[:2], width)
        ends: Tensor | int = x.shape[-1] if rows is None else rows.lengths
        return span(torch.cat([past.to(x.dtype), x], -1), ends, width)
