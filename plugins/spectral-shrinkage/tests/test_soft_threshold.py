from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from spectral_shrinkage.gates import SoftThreshold
from torch import Tensor
from torch.nn import functional as F

from spectral_layers.testing import spectral_view
from spectral_models import build_model

TOKENS = 64


def noise(dtype: torch.dtype = torch.float64, heads: int = 2) -> Tensor:
    return torch.randn(3, heads, 4, TOKENS, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def gate_with(*thresholds: float) -> SoftThreshold:
    gate = SoftThreshold(heads=len(thresholds), head_dim=4).double()
    for head, threshold in enumerate(thresholds):
        gate.threshold.data[head] = SoftThreshold(heads=1, head_dim=4, initial=threshold).threshold.data[0]
    return gate


def test_the_gain_is_the_formula_but_for_the_smoothing() -> None:
    thresholds = torch.tensor([0.3, 1.2]).view(2, 1, 1)
    view = spectral_view(noise())
    gain = gate_with(0.3, 1.2)(view).gain
    hard = F.relu(1 - thresholds / view.relative_magnitude)
    assert gain.dtype == torch.float64
    assert (gain >= hard).all()
    assert (gain - hard).max() <= math.log(2) / 10 + 1e-6
    strong = 1 - thresholds / view.relative_magnitude > 0.3
    assert strong.any()
    torch.testing.assert_close(gain[strong], hard[strong], rtol=0, atol=0.006)
    # A gate that did nothing would be further off than the smoothing allows.
    assert (1 - hard).abs().max() > 0.5


def test_a_higher_threshold_lets_less_pass_and_phases_are_left_alone() -> None:
    answer = gate_with(0.01, 5.0)(spectral_view(noise()))
    assert answer.gain[:, 0].mean() > 0.9
    assert answer.gain[:, 1].max() < 0.05
    assert answer.phase is None
    assert answer.losses == {}


def test_only_the_shape_of_a_spectrum_counts_not_its_level() -> None:
    gate = gate_with(0.5, 0.8)
    x = noise()
    torch.testing.assert_close(gate(spectral_view(1e4 * x)).gain, gate(spectral_view(x)).gain, rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-25, 1e-10, 1.0, 1e10])
@pytest.mark.parametrize("pattern", ["noise", "one channel silent", "a pure tone"])
def test_float32_gradients_are_finite_at_any_level(scale: float, pattern: str) -> None:
    x = noise(torch.float32)
    if pattern == "one channel silent":
        x[:, :, 0] = 0
    elif pattern == "a pure tone":  # every other bin is as good as empty beside it
        x[:] = torch.cos(2 * torch.pi * 8 / TOKENS * torch.arange(TOKENS))
    x = (scale * x).requires_grad_()
    gate = SoftThreshold(heads=2, head_dim=4)
    gain = gate(spectral_view(x)).gain
    gain.square().sum().backward()
    assert torch.isfinite(gain).all()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(gate.threshold.grad).all()
    assert (gate.threshold.grad < 0).all(), "raising a threshold never lets more pass, and an empty view still teaches"


def test_gradients_are_those_of_the_formula() -> None:
    gate = gate_with(0.5, 1.5)
    x = noise()[:1, :, :2, :16].clone().requires_grad_()

    def gain(x: Tensor, threshold: Tensor) -> Tensor:
        return torch.func.functional_call(gate, {"threshold": threshold}, (spectral_view(x),)).gain

    assert torch.autograd.gradcheck(gain, (x, gate.threshold.detach().clone().requires_grad_()))


@pytest.mark.parametrize("initial", [1e-6, 0.5, 3.0, 200.0])
def test_the_threshold_starts_where_the_config_says(initial: float) -> None:
    gate = SoftThreshold(heads=3, head_dim=4, initial=initial)
    assert gate.threshold.shape == (3, 1, 1)
    torch.testing.assert_close(F.softplus(gate.threshold), torch.full((3, 1, 1), initial), rtol=1e-4, atol=0)


def test_the_config_of_the_readme_builds() -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL).group(1))
    model = build_model(config, hidden_dim=32, num_layers=1)
    assert isinstance(model.blocks[0].mixer.gates[0], SoftThreshold)
    assert model(torch.zeros(1, 40, dtype=torch.long)).logits.shape == (1, 40, 256)
