"""What parts are made of with ``fft: xla``: nothing that torch_xla is known to send to the host.

``make test-xla`` asks torch_xla itself. This keeps what it once found from coming back, where there is no torch_xla.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from spectral_kernels.delta_rule.op import _gradients, _loop
from spectral_layers.mixers.holographic import HolographicConfig
from spectral_layers.testing import FilterCase, FusionCase, MixerCase, filter_cases, fusion_cases, mixer_cases
from spectral_layers.testing.operators import Operators, train

# As counted by torch_xla 2.9, or refused by it.
HOST = {
    "unfold", "unfold_copy", "unfold_backward", "upsample_linear1d", "upsample_linear1d_backward", "sinc",
    "kaiser_window", "i0", "special_i0",
}  # fmt: skip


DELTA_RULE = MixerCase(HolographicConfig(decay="per_token", update="delta"))


@pytest.mark.parametrize("case", [*mixer_cases(), DELTA_RULE, *filter_cases(), *fusion_cases()], ids=str)
def test_no_operator_is_one_for_the_host(case: MixerCase | FilterCase | FusionCase) -> None:
    with Operators() as seen:
        train(case)
    assert "mul" in seen.names
    assert not seen.names & HOST


def test_inside_of_the_delta_rule_is_no_operator_for_the_host() -> None:
    """A dispatcher sees one operator; here is what it is made of."""
    many, feature = (1, 2, 2), (4, 6)
    shapes = [(*many, *feature), (*many, *feature), (*many, 4, 4), (*many, 4, 1), (*many, 4, 1), (*many, 1, 1)]
    inputs = [torch.ones(shape) for shape in (*shapes, (1, 2, 6, 6))]
    with Operators() as seen:
        stored, before, after = _loop(*inputs)
        _gradients(*inputs, stored, before, stored, before, after)
    assert "baddbmm" in seen.names
    assert not seen.names & HOST


def test_that_proof_can_fail() -> None:
    x = torch.ones(1, 2, 8, requires_grad=True)
    with Operators() as seen:
        windows = x.unfold(-1, 4, 2).sum() + F.interpolate(x, size=15, mode="linear", align_corners=True).sum()
        (windows + torch.sinc(x).sum()).backward()
        torch.kaiser_window(8)
    assert {"unfold", "unfold_backward", "upsample_linear1d_backward", "sinc", "kaiser_window"} <= seen.names
