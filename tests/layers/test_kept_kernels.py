"""What changes parameters without a new version of them: a kept kernel must not survive it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from spectral_core import convolve, fft_backend
from spectral_layers import FILTERS, Filter, FilterContext


def built(name: str) -> Filter:
    return FILTERS.get(name).load()(type=name).build(FilterContext(4, 32)).eval()


def keep(part: Filter) -> None:
    with torch.no_grad():
        part.prepared(16, fft_backend("torch")), part.taps(16), part.tile(32, fft_backend("torch"))


def require_current(part: Filter) -> None:
    fft = fft_backend("torch")
    with torch.no_grad():
        fresh = part.kernel(16)
        torch.testing.assert_close(part.taps(16), fresh)
        torch.testing.assert_close(part.prepared(16, fft).data, torch.fft.rfft(fresh, n=32))
        torch.testing.assert_close(part.tile(32, fft).data, torch.fft.rfft(part.kernel(32), n=32))


@pytest.mark.parametrize("name", FILTERS.names())
@pytest.mark.parametrize("mode_switch", [True, False])
def test_no_kept_kernel_survives_a_fused_step(name: str, mode_switch: bool) -> None:
    part = built(name)
    optimizer = torch.optim.AdamW(part.parameters(), lr=0.1, fused=True)
    keep(part)
    part.train(mode_switch)
    part.prepared(16, fft_backend("torch")).square().sum().backward()
    optimizer.step()
    part.eval()
    require_current(part)


@pytest.mark.parametrize("name", FILTERS.names())
def test_nor_does_one_that_was_made_between_gradients_and_step(name: str) -> None:
    # As when a training loop logs what the model gives just before the step.
    part = built(name)
    optimizer = torch.optim.AdamW(part.parameters(), lr=0.1, fused=True)
    part.prepared(16, fft_backend("torch")).square().sum().backward()
    keep(part)
    optimizer.step()
    require_current(part)


class Convolved(nn.Module):
    """A filter as a module that functional_call can call."""

    def __init__(self, long_filter: Filter) -> None:
        super().__init__()
        self.filter = long_filter

    def forward(self, u: Tensor) -> Tensor:
        return convolve(u, self.filter.prepared(u.shape[-1], fft_backend("torch")), backend="torch")


@pytest.mark.parametrize("name", FILTERS.names())
def test_memory_that_a_kept_kernel_was_made_of_is_given_to_no_other_tensor(name: str) -> None:
    # Else new parameters at the old ones' address, as functional_call brings them, would pass for these.
    part = built(name)
    keep(part)
    parameter = next(part.parameters())
    address = parameter.data_ptr()
    parameter.data = 2 * parameter.data
    others = [torch.empty_like(parameter) for _ in range(100)]
    assert address not in {other.data_ptr() for other in others}


@pytest.mark.parametrize("name", FILTERS.names())
def test_an_ensemble_under_vmap_is_each_of_its_members(name: str) -> None:
    models = [Convolved(built(name)) for _ in range(3)]
    u = torch.randn(2, 4, 16)
    with torch.no_grad():
        expected = torch.stack([model(u) for model in models])
        shared = copy.deepcopy(models[0])
        found = vmap(lambda *state: functional_call(shared, state, (u,)))(*stack_module_state(models))
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()
    torch.testing.assert_close(found, expected)
