"""The contract of a sparsity: it reads a spectrum, as a gate does, and answers which bins pass.

The mixer hands it the spectrum that its gates have already scaled, realises the answer, and reports what it realised.

Dropping bins saves no time worth having, so nothing computes only the kept ones. Gates, scores and straight-through
gradients need all bins, and a causal kernel has all frequencies; only an encoder's inverse transform could leave bins
out. For the lowest eighth of them in every head, the best case, a matrix product takes 0.8 times as long as torch.fft's
whole inverse at 256 tokens, and 2, 9 and 37 times as long at 1024, 4096 and 16384; four transforms of a quarter of the
length take over twice as long at each (``python benchmarks/sparsity.py``, two cores).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from spectral_core.config import PartConfig
from spectral_layers.context import GateContext
from spectral_layers.gates.base import Modulation, SpectralView
from spectral_layers.part import C, Part


class Sparsity(Part[GateContext, C]):
    """Base of sparsities. Rows of the view are independent samples and must stay so.

    Views are in float32 at least, whatever the dtype of parameters: a choice made of rounded numbers is another one.

    The gain is 1 or 0 in every bin, in training too; where a choice is learned, its gradient is that of a smooth
    stand-in (straight-through). At least one bin of each head is kept. Linear in the bins, up to sorting.
    """

    context_class = GateContext
    must_return = (("forward", Modulation),)

    @abstractmethod
    def forward(self, view: SpectralView) -> Modulation:
        """Which of a view's bins pass: :func:`selection`. F follows the span: parameters live on frequencies."""


class SparsityConfig(PartConfig):
    """Names a sparsity and its options."""

    must_return = (("build", Sparsity),)

    part_class: ClassVar[Any] = Sparsity

    def build(self, context: GateContext) -> Sparsity:
        return self.part_class(context, self)


def selection(kept: Tensor, view: SpectralView) -> Modulation:
    """The modulation of a choice (B, H, F) of 0 and 1, with the share of bins and of energy kept as metrics."""
    gain = kept[:, :, None]
    metrics = {"kept_share": batch_mean(kept.detach()), "kept_energy": kept_energy(gain.detach(), view)}
    return Modulation(gain=gain, metrics=metrics)


def kept_energy(gain: Tensor, view: SpectralView) -> Tensor:
    """Of a view's energy, the share that passes a gain, broadcastable to (B, H, C, F): the mean over the heads."""
    return batch_mean(bin_energy(view, gain).sum(-1) / bin_energy(view).sum(-1))


def bin_energy(view: SpectralView, gain: Tensor | float = 1.0) -> Tensor:
    """Energy of each bin over the head's channels, (B, H, F), smoothed as magnitudes are, behind a gain; no gradient.

    Sums over bins to the energy of the span (Parseval): a bin between 0 and 0.5 stands for a negative frequency too.
    """
    inner = (view.frequency > 0) & (view.frequency < 0.5)
    energy: Tensor = (view.magnitude.detach() * gain).square().sum(2) * (1 + inner.to(view.frequency.dtype))
    return energy


def batch_mean(values: Tensor) -> Tensor:
    """The mean of all values; 0 for an empty batch."""
    return values.sum() / max(1, values.numel())
