"""Checks of sparsities: each bin passes or not, some bin passes, and metrics describe the gain."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from spectral_core.testing import assert_close
from spectral_layers.gates.base import Modulation
from spectral_layers.testing.cases import SparsityCase
from spectral_layers.testing.check import for_all, normal
from spectral_layers.testing.gates import SPANS, signals, spectral_view
from spectral_layers.testing.gradients import require_gradients
from spectral_layers.testing.operators import Operators

_SCALES = (0.0, 1e-30, 1e-10, 1.0, 1e3)


@for_all
def check_each_bin_passes_or_does_not(case: SparsityCase) -> None:
    """The gain is exactly 0 or 1, in training too, and no phase turns: softness belongs in the gradient."""
    for what, gain in _gains(case):
        if not ((gain == 0) | (gain == 1)).all():
            other = gain[(gain != 0) & (gain != 1)][0].item()
            raise AssertionError(f"{case}: a gain is 0 or 1; got {other:.3g} for {what}.")


@for_all
def check_something_passes(case: SparsityCase) -> None:
    """Each sample and head keeps a bin, also of a silent input: a mixer without any bin cannot learn."""
    for what, gain in _gains(case):
        if gain.sum(-1).min() < 1:
            raise AssertionError(f"{case}: some head keeps no bin of {what}.")


@for_all
def check_training_reaches_the_scores(case: SparsityCase) -> None:
    """In training every parameter gets a gradient, finite at any scale, although the gain is a step function."""
    sparsity = case.build(torch.float32).train()

    def loss(x: Tensor) -> Tensor:
        gain = _gain(case, sparsity(spectral_view(x)))
        # A sparsity without parameters still has the input in its graph.
        return (gain * normal(*gain.shape, seed=1).to(gain)).sum() + 0.0 * x.sum()

    for n in (1, 16, 31):
        require_gradients(f"{case}, {n} tokens", sparsity, loss, signals(case, n, torch.float32), dead=n == 1)


@for_all
def check_evaluation_draws_nothing(case: SparsityCase) -> None:
    """In eval mode the same view gives the same gain, and no random number is drawn."""
    sparsity = case.build()
    view = spectral_view(signals(case, 64))
    before = torch.random.get_rng_state()
    first, second = (_gain(case, sparsity(view)) for _ in range(2))
    if not torch.equal(first, second):
        raise AssertionError(f"{case}: in eval mode the same view is answered in two ways. Noise is for training.")
    if not torch.equal(torch.random.get_rng_state(), before):
        raise AssertionError(f"{case}: random numbers are drawn in eval mode. Noise is for training.")


@for_all
def check_metrics_are_those_of_the_gain(case: SparsityCase) -> None:
    """``kept_share`` and ``kept_energy`` are the shares of bins and of the span's energy that the gain keeps."""
    for training in (True, False):
        sparsity = case.build().train(training)
        for n in (15, 16, 64):
            x = signals(case, n)
            modulation = sparsity(spectral_view(x))
            kept = _gain(case, modulation).expand(*x.shape[:3], n // 2 + 1)
            passed = torch.fft.irfft(torch.fft.rfft(x) * kept, n)  # Parseval, in time
            energy = passed.square().sum((2, 3)) / x.square().sum((2, 3))
            # Smoothed magnitudes are off by (1e-3)^2 beside signals of size 1.
            for name, expected in (("kept_share", kept.mean()), ("kept_energy", energy.mean())):
                if name not in modulation.metrics:
                    raise AssertionError(f"{case}: no metric {name!r}; selection() gives it.")
                assert_close(f"{case}: {name} of {n} tokens", modulation.metrics[name], expected, 1e-4)


@for_all
def check_memory_is_linear_in_bins(case: SparsityCase) -> None:
    """Four times the bins need at most four times the memory: no table of bins by bins is computed."""
    sizes = []
    for n in (512, 2048):
        sparsity, view = case.build().train(), spectral_view(signals(case, n))
        with Operators() as seen:
            sparsity(view)
        sizes.append(seen.largest)
    if sizes[1] > 4.5 * sizes[0]:
        raise AssertionError(
            f"{case}: the largest tensor has {sizes[0]:,} elements for 257 bins and {sizes[1]:,} for 1025: more than "
            "in proportion. Compare bins by sorting, not in pairs."
        )


def _gains(case: SparsityCase) -> Iterator[tuple[str, Tensor]]:
    """Gains in training and evaluation, for spans and inputs of many sizes, each with its description."""
    for training, n, scale in itertools.product((True, False), SPANS, _SCALES):
        sparsity = case.build().train(training)
        what = f"{n} tokens of size {scale:g} ({'training' if training else 'evaluation'} mode)"
        yield what, _gain(case, sparsity(spectral_view(scale * signals(case, n))))


def _gain(case: SparsityCase, modulation: Modulation) -> Tensor:
    if modulation.gain is None or modulation.phase is not None:
        raise AssertionError(f"{case} must answer with a gain and without a phase; see selection().")
    return modulation.gain
