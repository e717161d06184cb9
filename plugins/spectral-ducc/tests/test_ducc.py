from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from spectral_core import (
    ConfigError,
    FFTBackend,
    Spectrum,
    UnsupportedInputError,
    convolve,
    fft_backend,
    modulate,
    prepare_kernel,
)
from spectral_core.testing import assert_close, oracle_convolve
from spectral_models import build_model

pytest.importorskip("ducc0", reason="ducc0 is not installed: pip install ducc0")


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def ducc(**options: int) -> FFTBackend:
    return fft_backend("ducc/ducc0", **options)


# Rows of 2 * 40 points take 1280 bytes: blocks of one row, of some rows of some channels with a rest, and of all.
@pytest.mark.parametrize("block_bytes", [1, 1300, 6 * 1300, 1 << 20])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("kernel_rows", [(), (5,)], ids=["shared kernel", "kernel per row"])
def test_every_division_into_blocks_gives_the_sum_and_its_gradients(
    block_bytes: int, threads: int, kernel_rows: tuple[int, ...]
) -> None:
    backend = ducc(block_bytes=block_bytes, threads=threads)
    shapes = {"u": (5, 7, 40), "kernel": (*kernel_rows, 7, 31), "skip": (7,), "pre_gate": (5, 7, 40)}
    tensors = {name: draw(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}
    tensors["post_gate"] = draw(5, 7, 40, seed=9)
    weights = draw(5, 7, 40, seed=10)

    def answer(function: object, **options: object) -> list[Tensor]:
        given = {name: x.clone().requires_grad_() for name, x in tensors.items()}
        y = function(**given, **options)
        return [y.detach(), *torch.autograd.grad((y * weights).sum(), list(given.values()))]

    found, wanted = answer(convolve, backend=backend), answer(oracle_convolve)
    for name, ours, exact in zip(["output", *tensors], found, wanted, strict=True):
        assert_close(name, ours, exact, 1e-12)


def test_threads_inside_of_a_transform_when_there_are_fewer_channels_than_threads() -> None:
    u, kernel = draw(9, 1, 50), draw(1, 50)
    assert_close("output", convolve(u, kernel, backend=ducc(threads=4)), oracle_convolve(u, kernel), 1e-12)


@pytest.mark.parametrize("n", [1, 6, 7, 12])
def test_transforms_have_gradients_and_gradients_of_gradients(n: int) -> None:
    """DC and Nyquist count once and the bins between twice, forward and back; the signal cropped, whole and padded."""
    backend = ducc()
    x = draw(2, 3, 7).requires_grad_()
    parts = tuple(draw(2, 3, n // 2 + 1, seed=seed).requires_grad_() for seed in (1, 2))

    def forward(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(backend.rfft(x, n))

    def inverse(real: Tensor, imag: Tensor) -> Tensor:
        return backend.irfft(Spectrum(real, imag), n)

    assert torch.autograd.gradcheck(forward, x)
    assert torch.autograd.gradcheck(inverse, parts)
    assert torch.autograd.gradgradcheck(forward, x)
    assert torch.autograd.gradgradcheck(inverse, parts)


def test_long_float32_rows_stay_close_to_float64() -> None:
    u, kernel = draw(1, 5, 20000, dtype=torch.float32), draw(5, 20000, dtype=torch.float32, seed=1)
    exact = convolve(u.double(), kernel.double(), backend="torch")
    assert_close("output", convolve(u, kernel, backend=ducc(threads=2)), exact, 5e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gates_of_another_dtype_than_the_signal(dtype: torch.dtype) -> None:
    u, kernel = draw(2, 3, 30, dtype=dtype), draw(3, 30, dtype=torch.float32)
    gate = draw(2, 3, 30, dtype=torch.float32, seed=1).requires_grad_()
    y = convolve(u, kernel, pre_gate=gate, post_gate=gate, backend=ducc())
    assert y.dtype == dtype
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    assert_close("output", y, oracle_convolve(u, kernel, pre_gate=gate, post_gate=gate), bound)
    (grad,) = torch.autograd.grad(y.float().sum(), gate)
    assert grad.dtype == torch.float32


def test_a_prepared_kernel_can_be_copied_with_its_model() -> None:
    u, kernel = draw(2, 3, 30), draw(3, 30)
    ready = copy.deepcopy(prepare_kernel(kernel, 30, backend=ducc()))
    assert_close("output", convolve(u, ready, backend=ducc()), oracle_convolve(u, kernel), 1e-12)


def test_infinities_raise_no_warning_and_are_not_hidden() -> None:
    u = draw(1, 2, 30)
    u[0, 0, 3] = torch.inf
    y = convolve(u, draw(2, 30), backend=ducc())
    assert not y[0, 0].isfinite().any()
    assert y[0, 1].isfinite().all()


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ArithmeticError("no transform today")

    monkeypatch.setattr("spectral_ducc.convolution.c2r", broken)
    with pytest.raises(ArithmeticError, match="no transform today"):
        convolve(draw(2, 3, 30), draw(3, 30), backend=ducc(block_bytes=1, threads=2))


def test_a_contiguous_signal_is_read_where_it_lies() -> None:
    from spectral_ducc.blocks import view

    u = draw(2, 3, 8)
    assert np.shares_memory(view(u), u.numpy())
    assert view(u.requires_grad_()).__array_interface__["data"][0] == u.data_ptr()


def test_what_it_cannot_do_is_refused_by_name_and_with_the_reason() -> None:
    elsewhere = draw(1, 2, 8).to("meta")
    for operator, call in {
        "convolution": lambda: convolve(elsewhere, elsewhere[0], backend="ducc/ducc0"),
        "modulation": lambda: modulate(elsewhere, backend="ducc/ducc0"),
    }.items():
        said = f"ducc/ducc0 cannot run this {operator}: ducc0 works in the memory of the CPU, .* on device 'meta'"
        with pytest.raises(UnsupportedInputError, match=said):
            call()
    small = draw(2, 8).to(torch.float8_e4m3fn)
    with pytest.raises(UnsupportedInputError, match=r"ducc/ducc0 cannot .* dtype torch.float8_e4m3fn is neither"):
        convolve(draw(1, 2, 8, dtype=torch.float32), small, backend="ducc/ducc0")


@pytest.mark.parametrize("option", ["block_bytes", "threads"])
def test_options_below_one_are_refused(option: str) -> None:
    from spectral_ducc.backend import DuccFFT

    with pytest.raises(ValueError, match=f"{option} must be at least 1, or None; got 0"):
        DuccFFT(**{option: 0})
    with pytest.raises(ConfigError, match=option):
        ducc(**{option: 0})


def test_the_config_of_the_readme_builds() -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL).group(1))
    model = build_model(config, hidden_dim=32, num_layers=1)
    assert model.config.fft.type == "ducc/ducc0"
    assert model(torch.zeros(1, 40, dtype=torch.long)).logits.shape == (1, 40, 256)


def test_the_operators_are_well_formed_and_compile_whole() -> None:
    from spectral_ducc import convolution, transforms

    u, kernel, gate = (draw(2, 3, 20, seed=seed).requires_grad_() for seed in range(3))
    taps = draw(3, 20).requires_grad_()
    skip, options = draw(3).requires_grad_(), (None, 1)
    torch.library.opcheck(convolution.convolve, (u, taps, skip, gate, None, 40, 0, False, *options))
    torch.library.opcheck(transforms.rfft, (u, 25, *options))
    torch.library.opcheck(transforms.irfft, (u, kernel, 39, *options))

    def both(u: Tensor, kernel: Tensor) -> Tensor:
        return modulate(convolve(u, kernel, skip=skip, backend=backend), n=25, backend=backend)

    backend = ducc()
    expected = both(u, taps)
    torch.testing.assert_close(torch.compile(both, backend="aot_eager", fullgraph=True)(u, taps), expected)
