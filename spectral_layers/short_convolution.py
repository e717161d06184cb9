"""The short depthwise convolution in front of a mixer's long operator: causal in decoders, centered in encoders."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_layers.entry import Entered, entry
from spectral_layers.rows import Rows, span


class ShortConvolution(Entered):
    """y[d, c, t] = bias + sum_s weight[d, c, s] x[d, t + ahead - s], c over ``copies`` outputs per channel.

    ahead: later tokens that an output depends on: 0 if causal, (taps - 1) // 2 if centered. x: (B, D, L). Returns
    (B, D * copies, L), the copies of a channel next to each other. O(L) per channel.
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
        (y,) = self.each(x, past)
        return y

    @entry
    def each(self, x: Tensor, past: Tensor | None = None) -> list[Tensor]:
        """The outputs of :meth:`forward`, (B, D, L) for each of the copies."""
        kernels = self.weight.view(self.channels, -1, 1, self.taps).unbind(1)
        biases = self.bias.view(self.channels, -1).unbind(1)
        if past is not None and x.shape[-1] == 1:
            # For one token a sum costs less than a call of conv2d.
            window = torch.cat([past.to(x.dtype), x], -1)
            pairs = zip(kernels, biases, strict=True)
            return [((window * kernel[:, 0]).sum(-1) + bias)[..., None].to(x.dtype) for kernel, bias in pairs]
        before = self.taps - 1 - self.ahead
        # conv2d on an image of one row accepts both memory layouts, channels or time contiguous, without a copy.
        image = F.pad(x[:, :, None], (before, self.ahead))
        if past is not None:
            image[..., :before] = past[:, :, None]
        # conv2d computes a correlation: its last weight multiplies the newest token.
        return [
            F.conv2d(image, kernel[:, None], bias, groups=self.channels)[:, :, 0]
            for kernel, bias in zip(kernels, biases, strict=True)
        ]

    def next_past(self, x: Tensor, rows: Rows | None, past: Tensor | None) -> Tensor:
        """The ``past`` of the next call: the last taps - 1 real inputs of each row, copied."""
        width = self.taps - 1
        if rows is None:
            recent = x[..., max(0, x.shape[-1] - width) :]
            if past is None:
                return F.pad(recent, (width - recent.shape[-1], 0)).contiguous()
            return torch.cat([past[..., recent.shape[-1] :].to(x.dtype), recent], -1)
        if past is None:
            past = x.new_zeros(*x.shape[:2], width)
        return span(torch.cat([past.to(x.dtype), x], -1), rows.lengths, width)
