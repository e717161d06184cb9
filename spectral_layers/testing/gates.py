"""Checks of gates: fields of the right shape for any span, from each sample alone, with finite gradients.

Most apply to sparsities too, which also return a modulation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core.testing import assert_close
from spectral_layers.gates.base import Modulation, SpectralView
from spectral_layers.testing.cases import GateCase, SparsityCase
from spectral_layers.testing.check import for_all, normal, require_scalars
from spectral_layers.testing.gradients import require_gradients

SPANS = (1, 2, 3, 4, 16, 31, 64)


def spectral_view(x: Tensor) -> SpectralView:
    """The view of signals (B, H, C, n) that a mixer passes to its gates."""
    n = x.shape[-1]
    spectrum = torch.fft.rfft(x, norm="ortho")
    return SpectralView(spectrum.real, spectrum.imag, torch.arange(n // 2 + 1, dtype=x.dtype) / n)


@for_all
def check_fields_fit_any_span(case: GateCase | SparsityCase) -> None:
    """Gain and phase are real, finite, in the view's dtype and broadcastable to (B, H, C, F), for F = 1 upward."""
    for dtype in (torch.float64, torch.float32):
        gate = case.build(dtype)
        for n in SPANS:
            view = spectral_view(signals(case, n, dtype))
            for name, field in _fields(gate(view)).items():
                what = f"{case}: {name} for {n} tokens, F = {n // 2 + 1}, in {dtype}"
                try:
                    fits = torch.broadcast_shapes(field.shape, view.real.shape) == view.real.shape
                except RuntimeError:
                    fits = False
                if not fits:
                    shapes = f"got {tuple(field.shape)} for (B, H, C, F) = {tuple(view.real.shape)}"
                    raise AssertionError(f"{what} must broadcast to the view; {shapes}.")
                if field.dtype != dtype:
                    raise AssertionError(f"{what} must be in the view's dtype; got {field.dtype}.")
                if not field.isfinite().all():
                    raise AssertionError(f"{what} is not finite.")


@for_all
def check_gain_is_not_negative(case: GateCase) -> None:
    """A gain is a magnitude: a change of sign is a phase, and a causal mixer takes the logarithm of the gain."""
    gate = case.build()
    for n in SPANS:
        for scale in (0.0, 1e-10, 1.0, 1e3):
            gain = gate(spectral_view(scale * signals(case, n))).gain
            if gain is not None and gain.min() < 0:
                lowest = gain.min().item()
                raise AssertionError(
                    f"{case}: a gain must not be negative; got {lowest:.3g} at inputs of size {scale:g}."
                )


@for_all
def check_samples_do_not_mix(case: GateCase | SparsityCase) -> None:
    """Each sample has the fields it has alone: causal mixers fold blocks of time into the batch."""
    gate = case.build()
    for n in (2, 16, 31):
        x = signals(case, n)
        loud = x.clone()
        loud[1] *= 100
        with torch.no_grad():
            fields, others, alone = (_fields(gate(spectral_view(given))) for given in (x, loud, x[:1]))
        for name, field in fields.items():
            whole = _of_sample(case, field, n, 3)
            what = f"{case}: {name} of sample 0"
            assert_close(f"{what} when sample 1 is louder", _of_sample(case, others[name], n, 3)[0], whole[0], 1e-9)
            assert_close(f"{what} without the others", _of_sample(case, alone[name], n, 1)[0], whole[0], 1e-9)


@for_all
def check_gradients_of_a_gate_at_any_scale(case: GateCase | SparsityCase) -> None:
    """Inputs and parameters get finite gradients for inputs of size 0, 1e-30, 1e-25, 1e-10 and 1, in float32."""
    gate = case.build(torch.float32)

    def loss(x: Tensor) -> Tensor:
        modulation = gate(spectral_view(x))
        parts = [(field * normal(*field.shape, seed=1).to(field)).sum() for field in _fields(modulation).values()]
        # A gate that is constant at this scale still has the input in its graph.
        return torch.stack([*parts, *modulation.losses.values(), 0.0 * x.sum()]).sum()

    for n in (1, 16, 31):
        require_gradients(f"{case}, {n} tokens", gate, loss, signals(case, n, torch.float32), dead=n == 1)


@for_all
def check_losses_of_a_gate_are_scalars(case: GateCase | SparsityCase) -> None:
    """Losses and metrics are finite scalars."""
    modulation = case.build()(spectral_view(signals(case, 16)))
    require_scalars(str(case), modulation.losses, modulation.metrics)


def signals(case: GateCase | SparsityCase, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return normal(3, case.heads, case.head_dim, n, dtype=dtype)


def _fields(modulation: Modulation) -> dict[str, Tensor]:
    fields = {"gain": modulation.gain, "phase": modulation.phase}
    return {name: field for name, field in fields.items() if field is not None}


def _of_sample(case: GateCase | SparsityCase, field: Tensor, n: int, batch: int) -> Tensor:
    return field.expand(batch, case.heads, case.head_dim, n // 2 + 1)
