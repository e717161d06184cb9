"""Every registered part on a real XLA device: what of it torch_xla cannot lower and runs on the host.

The steps are recorded and not run, as a fallback is counted when an operator is called; ``test_device.py`` runs some.
"""

from __future__ import annotations

import pytest
import torch

from spectral_layers.mixers.holographic import HolographicConfig
from spectral_layers.testing import (
    FeedForwardCase,
    FilterCase,
    FrontEndCase,
    FusionCase,
    MixerCase,
    PositionCase,
    feedforward_cases,
    filter_cases,
    frontend_cases,
    fusion_cases,
    mixer_cases,
    position_cases,
)
from spectral_layers.testing.operators import train as train_with_states

pytestmark = pytest.mark.xla

Case = MixerCase | FilterCase | FusionCase | FeedForwardCase | PositionCase | FrontEndCase

FALLS_BACK = {
    # Overlapping frames of samples, on the way in and once a step.
    "mel": {"aten::unfold_copy"},
    # The largest index is read, to refuse what lies behind the table.
    "learned": {"aten::_local_scalar_dense"},
}
"""What still runs on the host, and why. An entry goes when its part no longer does."""
NOT_THERE = {"moe"}
"""Experts get as many rows as the router counts, and such shapes end the process in torch_xla 2.9."""


def train(case: Case, device: torch.device) -> None:
    if isinstance(case, MixerCase | FilterCase | FusionCase):
        train_with_states(case, device)
    elif isinstance(case, FrontEndCase):
        part = case.build(torch.float32)
        inputs = case.inputs(part, 2, torch.float32).to(device)
        part.to(device).train()(inputs).x.square().sum().backward()
    elif isinstance(case, PositionCase):
        placed = case.build(torch.float32).to(device).train()
        x, indices = torch.ones(2, 12, case.hidden_dim, device=device), torch.arange(12, device=device).expand(2, 12)
        placed.embed(x.requires_grad_(), indices).square().sum().backward()
        placed.rotation(indices, torch.float32)
    else:
        x = torch.ones(2, 12, case.hidden_dim, device=device, requires_grad=True)
        case.build(torch.float32).to(device).train()(x).y.square().sum().backward()


CASES: list[Case] = [
    *mixer_cases(),
    MixerCase(HolographicConfig(decay="per_token", update="delta")),
    *filter_cases(),
    *fusion_cases(),
    *feedforward_cases(),
    *position_cases(),
    *frontend_cases(),
]


@pytest.mark.parametrize("case", [case for case in CASES if str(case) not in NOT_THERE], ids=str)
def test_nothing_falls_back_but_what_is_known_to(device: torch.device, case: Case) -> None:
    from torch_xla.debug import metrics

    metrics.clear_all()
    train(case, device)
    counted = metrics.counter_names()
    assert any(name.startswith("xla::") for name in counted), "nothing was recorded on the device"
    assert {name for name in counted if name.startswith("aten::")} == FALLS_BACK.get(str(case), set())


def test_the_lists_name_parts_that_are_there() -> None:
    assert {*FALLS_BACK, *NOT_THERE} <= {str(case) for case in CASES}
