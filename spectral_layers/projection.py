"""Linear layers that adapters and quantisation leave alone; one of them in float32 at least, with a gain."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Projection(nn.Module):
    """y = W x + b, for parts that take W into another product or precision.

    Begins as ``nn.Linear`` does, and is none: what takes the place of such a layer's forward pass, an adapter or
    quantisation, would be passed by in silence here. They leave this one alone, or say that they cannot take it.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        begun = nn.Linear(in_features, out_features, bias=bias)
        self.weight, self.bias = begun.weight, begun.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class PreciseProjection(Projection):
    """y = gain * (W x) + b in float32 at least, autocast or not: for angles that turn many times, and for choices."""

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        """x: (..., L, in). gain: (out,), of each output; multiplied into W, or for L = 1 into the fewer outputs."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        weight, bias = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            if gain is None:
                return F.linear(x.to(dtype), weight, bias)
            gain = gain.to(dtype)
            if x.shape[-2] > 1:
                return F.linear(x.to(dtype), weight * gain[:, None], bias)
            y = F.linear(x.to(dtype), weight) * gain
            return y if bias is None else y + bias
