"""Fused optimisers change parameters without a new version; a kept kernel must not survive them."""

from __future__ import annotations

import pytest
import torch

from spectral_core import fft_backend
from spectral_layers import FILTERS, FilterContext


@pytest.mark.parametrize("name", FILTERS.names())
@pytest.mark.parametrize("mode_switch", [True, False])
def test_no_kept_kernel_survives_a_fused_step(name: str, mode_switch: bool) -> None:
    torch.manual_seed(0)
    part = FILTERS.get(name).load()(type=name).build(FilterContext(4, 32)).eval()
    fft = fft_backend("torch")
    optimizer = torch.optim.AdamW(part.parameters(), lr=0.1, fused=True)
    with torch.no_grad():
        part.prepared(16, fft), part.taps(16), part.tile(32, fft)
    part.train(mode_switch)
    part.prepared(16, fft).square().sum().backward()
    optimizer.step()
    part.eval()
    with torch.no_grad():
        fresh = part.kernel(16)
        torch.testing.assert_close(part.taps(16), fresh)
        torch.testing.assert_close(part.prepared(16, fft).data, torch.fft.rfft(fresh, n=32))
        torch.testing.assert_close(part.tile(32, fft).data, torch.fft.rfft(part.kernel(32), n=32))
