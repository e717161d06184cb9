"""The contract of a sparsity: it selects bins of the spectrum after the gates.

The mixer realises the selection, in a decoder approximately, and reports metrics of the realised response.

Computing only the kept bins would save no time. Gates, scores and straight-through gradients need all bins, and a
causal kernel has all frequencies; only an encoder's inverse transform could leave bins out. In the best case, the
lowest eighth of the bins in every head, a matrix product takes 0.8 times as long as torch.fft's full inverse at 256
tokens, and 2, 9 and 37 times as long at 1024, 4096 and 16384; four transforms of a quarter of the length take over
twice as long at each (``python benchmarks/sparsity.py``, two cores).
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
    """Base of sparsities. The output for a row of the view must not depend on other rows.

    Views are in float32 at least, whatever the dtype of parameters, since rounding could change the selection.

    The gain is 1 or 0 in every bin, in training too; a learned selection has the gradient of a smooth surrogate
    (straight-through). At least one bin of each head is kept. O(F log F).
    """

    context_class = GateContext
    must_return = (("forward", Modulation),)

    @abstractmethod
    def forward(self, view: SpectralView) -> Modulation:
        """The :func:`selection` of a view's bins. F depends on the span: define parameters over frequency."""


class SparsityConfig(PartConfig):
    """Base of the configs of sparsities."""

    must_return = (("build", Sparsity),)

    part_class: ClassVar[Any] = Sparsity

    def build(self, context: GateContext) -> Sparsity:
        return self.part_class(context, self)


def selection(kept: Tensor, view: SpectralView) -> Modulation:
    """The modulation that keeps the bins where ``kept`` (B, H, F) is 1, not 0; metrics: shares of bins and energy."""
    gain = kept[:, :, None]
    metrics = {"kept_share": batch_mean(kept.detach()), "kept_energy": kept_energy(gain.detach(), view)}
    return Modulation(gain=gain, metrics=metrics)


def kept_energy(gain: Tensor, view: SpectralView) -> Tensor:
    """The share of a view's energy that passes a gain, broadcastable to (B, H, C, F): mean over samples and heads."""
    return batch_mean(bin_energy(view, gain).sum(-1) / bin_energy(view).sum(-1))


def bin_energy(view: SpectralView, gain: Tensor | float = 1.0) -> Tensor:
    """Energy of each bin over the head's channels, (B, H, F), after a gain, from smoothed magnitudes; no gradient.

    The sum over bins is the energy of the span (Parseval): bins between 0 and 0.5 include their negative frequency.
    """
    inner = (view.frequency > 0) & (view.frequency < 0.5)
    energy: Tensor = (view.magnitude.detach() * gain).square().sum(2) * (1 + inner.to(view.frequency.dtype))
    return energy


def batch_mean(values: Tensor) -> Tensor:
    """The mean of all values; 0 for an empty batch."""
    return values.sum() / max(1, values.numel())
