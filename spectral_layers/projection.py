"""A linear layer whose matrix a part reads, and does not call, or of which it keeps what it gave."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Projection(nn.Module):
    """y = W x + b, for parts that take W into another product or precision, or keep y while W rests.

    Begins as ``nn.Linear`` does, and is none: what takes the place of such a layer's forward pass, an adapter or
    quantisation, would be passed by in silence here. They leave this one alone, or say that they cannot take it.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        begun = nn.Linear(in_features, out_features, bias=bias)
        self.weight, self.bias = begun.weight, begun.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)
