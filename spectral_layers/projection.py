"""Linear layers that adapters and quantisation skip: a plain one, and one in float32 with a gain per output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Projection(nn.Module):
    """y = W x + b, for parts that use W outside of this forward pass or in another precision.

    Initialised as ``nn.Linear``. Not an ``nn.Linear``, so that LoRA and quantisation skip it: they replace the forward
    pass of linear layers, which these parts bypass.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        linear = nn.Linear(in_features, out_features, bias=bias)
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class PreciseProjection(Projection):
    """y = gain * (W x) + b in float32 at least, also under autocast: for large phase angles and for router scores."""

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        """x: (..., L, in). gain: (out,), multiplied into W, or for L = 1 into the outputs, which costs less."""
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
