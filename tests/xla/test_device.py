"""The xla backend and a model on a real XLA device: ``make test-xla`` runs these, in an environment of their own.

Each test asserts that nothing fell back to the host: torch_xla counts every operator it cannot lower as ``aten::NAME``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core import UnsupportedInputError, convolve, fft_backend, modulate
from spectral_core.backends.auto import AutoFFT
from spectral_core.backends.base import MODES
from spectral_core.testing import BACKEND_CHECKS, oracle_convolve, oracle_modulate, relative_error
from spectral_layers import FILTERS, MIXERS
from spectral_models import build_model

pytestmark = pytest.mark.xla


def fallbacks() -> list[str]:
    from torch_xla.debug import metrics

    return [name for name in metrics.counter_names() if name.startswith("aten::")]


@pytest.fixture
def on_device(device: torch.device) -> Iterator[torch.device]:
    from torch_xla.debug import metrics

    metrics.clear_all()
    yield device
    assert any(name.startswith("xla::") for name in metrics.counter_names()), "nothing ran on the device"
    assert fallbacks() == []


def noise(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(dtype)


def gradients(y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape).to(y.device)
    return list(torch.autograd.grad((y * weights).sum(), leaves))


def compare(found: list[Tensor], wanted: list[Tensor], bound: float) -> None:
    import torch_xla

    torch_xla.sync()  # one graph for all of them
    for ours, exact in zip(found, wanted, strict=True):
        assert ours.device.type == "xla"
        assert relative_error(ours.cpu(), exact) < bound


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("length", "taps", "dtype", "bound"),
    [(128, 128, torch.float32, 2e-6), (97, 300, torch.float32, 2e-6), (2000, 64, torch.float64, 1e-13)],
)
def test_convolution_forward_and_backward(
    on_device: torch.device, mode: str, length: int, taps: int, dtype: torch.dtype, bound: float
) -> None:
    shapes = {"u": (2, 3, length), "kernel": (3, taps), "skip": (3,), "pre_gate": (2, 3, length)}
    shapes["post_gate"] = shapes["u"]
    here = {name: noise(*shape, seed=seed, dtype=dtype) for seed, (name, shape) in enumerate(shapes.items())}
    there = {name: tensor.to(on_device).requires_grad_() for name, tensor in here.items()}
    here = {name: tensor.double().requires_grad_() for name, tensor in here.items()}
    y, exact = convolve(**there, mode=mode, backend="xla"), oracle_convolve(**here, mode=mode)
    compare([y, *gradients(y, list(there.values()))], [exact, *gradients(exact, list(here.values()))], bound)


# Two products in a row, a prime of one product, a prime of none.
@pytest.mark.parametrize("n", [128, 97, 521])
def test_modulation_forward_and_backward(on_device: torch.device, n: int) -> None:
    here = [noise(2, 3, 100, seed=0), noise(3, n // 2 + 1, seed=1), noise(2, 3, n // 2 + 1, seed=2)]
    there = [tensor.to(on_device).requires_grad_() for tensor in here]
    here = [tensor.double().requires_grad_() for tensor in here]
    y, exact = modulate(*there, n=n, backend="xla"), oracle_modulate(*here, n)
    compare([y, *gradients(y, there)], [exact, *gradients(exact, here)], 2e-6)


def test_half_precision(on_device: torch.device) -> None:
    u, kernel = noise(2, 3, 200, seed=0).bfloat16(), noise(3, 200, seed=1).bfloat16()
    y = convolve(u.to(on_device), kernel.to(on_device), backend="xla")
    assert relative_error(y.cpu(), oracle_convolve(u, kernel)) < 3e-3


def test_the_conformance_kit_here_as_everywhere() -> None:
    backend = fft_backend("xla")
    for check in BACKEND_CHECKS:
        check(backend)


def train(model: torch.nn.Module, tokens: Tensor, device: torch.device) -> list[Tensor]:
    """The losses of three steps, and the parameters after them, on the CPU."""
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for batch in tokens:
        here = batch.to(device)
        logits = model(here[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), here[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type == "xla":
            import torch_xla

            torch_xla.sync()
        losses.append(loss.detach().cpu())
    assert losses[-1] < losses[0]
    return [torch.stack(losses), *(parameter.detach().cpu() for parameter in model.parameters())]


WITH_FILTERS = "gated_convolution"
TRAINED: list[dict[str, str]] = [
    *({"type": WITH_FILTERS, "filter": name} for name in FILTERS.names()),
    *({"type": entry.name} for entry in MIXERS if "causal" in entry.load().directions and entry.name != WITH_FILTERS),
]
"""Each filter, and each other causal mixer."""


@pytest.mark.parametrize("mixer", TRAINED, ids=lambda mixer: "-".join(mixer.values()))
def test_training_a_language_model(on_device: torch.device, mixer: dict[str, str]) -> None:
    torch.manual_seed(0)
    block = {"mixer": mixer, "feedforward": "mlp"}
    config = {"vocab_size": 64, "hidden_dim": 32, "num_layers": 1, "max_seq_len": 64, "block": block, "fft": "xla"}
    model = build_model(config)
    tokens = torch.randint(0, 64, (1, 4, 50)).expand(3, -1, -1)
    there = train(copy.deepcopy(model), tokens, on_device)
    here = train(model, tokens, torch.device("cpu"))
    for ours, eager in zip(there, here, strict=True):
        # AdamW divides gradients by their size: where they vanish, rounding decides the sign of a step.
        assert relative_error(ours, eager) < 1e-3
    assert relative_error(there[0], here[0]) < 1e-5


def test_every_product_has_the_highest_precision(on_device: torch.device) -> None:
    import torch_xla

    x = noise(2, 3, 4096, seed=0).to(on_device)
    hlo = torch_xla._XLAC._get_xla_tensors_hlo([modulate(x, backend="xla")])
    products = [line for line in hlo.splitlines() if " dot(" in line]
    assert len(products) == 4  # two there, two back
    assert all("operand_precision={highest,highest}" in line for line in products)
    assert " fft(" not in hlo
    assert "c64" not in hlo


def test_lower_precision_is_refused(device: torch.device) -> None:
    from torch_xla import backends

    backends.set_mat_mul_precision("default")
    try:
        with pytest.raises(UnsupportedInputError, match=r"torch_xla.backends.set_mat_mul_precision\(\"highest\"\)"):
            modulate(torch.ones(1, 1, 8, device=device), backend="xla")
    finally:
        backends.set_mat_mul_precision("highest")


def test_auto_chooses_it(on_device: torch.device) -> None:
    auto = fft_backend("auto")
    assert isinstance(auto, AutoFFT)
    u, kernel = noise(1, 3, 50, seed=0), noise(3, 50, seed=1)
    y = convolve(u.to(on_device), kernel.to(on_device), backend=auto)
    assert relative_error(y.cpu(), oracle_convolve(u, kernel)) < 2e-6
    assert {plan.backend.name for request, plan in auto._plans.items() if request.device == "xla"} == {"xla"}


def test_doctor_tells_of_the_device() -> None:
    from typer.testing import CliRunner

    from spectral_models.cli.commands import app

    told = CliRunner().invoke(app, ["doctor"]).output
    assert re.search(r"^device +xla, 1 CPU$", told, re.MULTILINE)
    reasons = r"^fft: auto +on xla: auto → xla; .*direct: not measured on xla; .*to the host$"
    assert re.search(reasons, told, re.MULTILINE)


def test_that_the_fallback_counters_can_fail(device: torch.device) -> None:
    from torch_xla.debug import metrics

    metrics.clear_all()
    convolve(noise(1, 3, 50, seed=0).to(device), noise(3, 50, seed=1).to(device), backend="torch").cpu()
    assert "aten::_fft_r2c" in fallbacks()
    metrics.clear_all()
