"""The xla backend where there is no TPU: how exact it is, what it is made of, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spectral_core import Request, UnsupportedInputError, convolve, fft_backend, modulate
from spectral_core.backends import matrix_dft
from spectral_core.backends.auto import AutoFFT
from spectral_core.backends.base import MODES
from spectral_core.testing import assert_as_accurate, relative_error

# One product; two and three in a row; a prime of one product, one of none, and each with another factor.
LENGTHS = (1, 2, 64, 97, 360, 4096, 30000, 262144, 509, 1018, 521, 1042, 4099)


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("n", LENGTHS)
def test_every_kind_of_length_is_exact_in_float64(n: int) -> None:
    x = noise(2, n)
    found, exact = torch.stack(matrix_dft.rfft(x, n)), torch.fft.rfft(x)
    assert relative_error(found, torch.stack([exact.real, exact.imag])) < 3e-15
    assert relative_error(matrix_dft.irfft(*found, n), x) < 3e-15


@pytest.mark.parametrize("n", LENGTHS)
def test_float32_loses_at_most_twice_what_torch_loses(n: int) -> None:
    x = noise(2, n, dtype=torch.float32)
    plain, exact = torch.fft.rfft(x), torch.fft.rfft(x.double())
    pairs = [torch.stack([spectrum.real, spectrum.imag]) for spectrum in (plain, exact)]
    assert_as_accurate(f"rfft at n = {n}", torch.stack(matrix_dft.rfft(x, n)), *pairs, 5e-8)
    back = matrix_dft.irfft(*matrix_dft.rfft(x, n), n)
    assert_as_accurate(f"there and back at n = {n}", back, torch.fft.irfft(plain, n=n), x.double(), 5e-8)


@pytest.mark.parametrize(("length", "n"), [(1, 4096), (1000, 4096), (4095, 4096), (5000, 4096), (700, 1042), (3, 97)])
def test_a_signal_is_cropped_or_padded(length: int, n: int) -> None:
    x = noise(2, length)
    exact = torch.fft.rfft(x, n=n)
    assert relative_error(torch.stack(matrix_dft.rfft(x, n)), torch.stack([exact.real, exact.imag])) < 3e-15


def test_a_million_points_need_small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_dft, "_TABLES", matrix_dft._Tables())
    length = 1 << 19
    u, kernel = noise(1, 1, length, dtype=torch.float32), torch.zeros(1, length)
    kernel[0, 12345] = 1.0
    y = convolve(u, kernel, backend="xla")
    assert relative_error(y[..., 12345:], u[..., : length - 12345]) < 1e-6
    matrices = [table for name, table in vars(matrix_dft._TABLES).items() if not name.startswith("_twiddles")]
    assert max(table.numel() for table in matrices) <= 128**2


def test_products_are_few_and_small() -> None:
    def products(n: int) -> list[int]:
        a = matrix_dft.factor(n)
        return [a] if a == n else [a, *products(n // a)]

    assert products(64) == [64]
    assert products(4096) == [64, 64]
    assert products(1 << 18) == [64, 64, 64]
    assert len(products(1 << 21)) == 4
    assert products(509) == [509]
    assert matrix_dft.factor(521) == 1
    assert all(max(products(n)) <= 64 for n in (65, 1000, 3600, 46656, 2**13 * 3**3 * 5))


class Operators(TorchDispatchMode):
    """Notes every aten operator that runs, and whether a complex tensor came out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.complex = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.names.add(func._schema.name)
        self.complex |= any(isinstance(x, Tensor) and x.is_complex() for x in torch.utils._pytree.tree_leaves(made))
        return made


def use(backend: str, n: int = 1042) -> Operators:
    """What forward and backward of all operators, at a length that needs every kind of transform, are made of."""
    signal, kernel, gate, field, skip = noise(1, 2, n), noise(2, 700), noise(1, 2, n), noise(n // 2 + 1), noise(2)
    leaves = [tensor.requires_grad_() for tensor in (signal, kernel, gate, field)]
    with Operators() as seen:
        for mode in MODES:
            y = convolve(signal, kernel, mode=mode, pre_gate=gate, skip=skip, backend=backend)
            torch.autograd.grad(y.sum(), leaves[:3])
        torch.autograd.grad(modulate(signal, field, field, backend=backend).sum(), (signal, field))
    return seen


# What exporters and torch_xla have: products, sums, and moves of elements to places that the shapes decide.
PLAIN = {
    "abs", "add", "addcmul", "alias", "arange", "as_strided", "cat", "clone", "constant_pad_nd", "copy_", "cos",
    "detach", "div", "empty", "empty_like", "expand", "fill_", "flip", "lift_fresh", "mm", "mul", "neg",
    "new_zeros", "ones_like", "permute", "select", "select_backward", "sin", "slice", "slice_backward", "split",
    "sub", "sum", "t", "transpose", "unsqueeze", "view", "zeros", "_to_copy", "_unsafe_view", "_reshape_alias",
}  # fmt: skip


def test_forward_and_backward_are_plain_real_operators() -> None:
    seen = use("xla")
    assert not seen.complex
    assert "aten::mm" in seen.names
    assert {name.removeprefix("aten::") for name in seen.names} <= PLAIN


def test_that_proof_can_fail() -> None:
    seen = use("torch")
    assert seen.complex
    assert {"aten::_fft_r2c", "aten::_fft_c2r"} <= seen.names


def test_a_trace_of_the_compiler_is_whole_and_holds_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_dft, "_TABLES", matrix_dft._Tables())

    def both(u: Tensor, kernel: Tensor) -> Tensor:
        return convolve(u, kernel, backend="xla") + modulate(u, backend="xla")

    u, kernel = noise(2, 3, 100), noise(3, 90)
    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)(u, kernel)
    assert relative_error(compiled, both(u, kernel)) < 1e-14


def test_a_table_made_in_inference_serves_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_dft, "_TABLES", matrix_dft._Tables())
    with torch.inference_mode():
        modulate(noise(1, 1, 100), backend="xla")
    x = noise(1, 1, 100).requires_grad_()
    modulate(x, backend="xla").sum().backward()
    assert x.grad is not None


def test_tables_are_made_once_and_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_dft, "_TABLES", matrix_dft._Tables())
    monkeypatch.setattr(matrix_dft, "_KEPT", 20)
    modulate(noise(1, 1, 100), backend="xla")
    made = {name: id(table) for name, table in vars(matrix_dft._TABLES).items()}
    modulate(noise(1, 1, 100), backend="xla")
    assert made == {name: id(table) for name, table in vars(matrix_dft._TABLES).items()}
    for n in range(1, 60):
        modulate(noise(1, 1, n), backend="xla")
    assert len(vars(matrix_dft._TABLES)) <= 20


def test_autocast_rounds_no_product() -> None:
    u, kernel = noise(2, 3, 500, dtype=torch.float32), noise(3, 500, dtype=torch.float32)
    expected = convolve(u, kernel, backend="xla")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(convolve(u, kernel, backend="xla"), expected)


@pytest.fixture
def rounded_products() -> Iterator[None]:
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "tf32"
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before


@pytest.mark.usefixtures("rounded_products")
@pytest.mark.parametrize("call", [lambda u: convolve(u, u[0], backend="xla"), lambda u: modulate(u, backend="xla")])
def test_rounded_products_are_refused_with_the_setting_to_change(call: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(
        UnsupportedInputError, match=r"xla cannot run this .*rounded \(tf32\).*set_float32_matmul_precision"
    ):
        call(noise(1, 3, 8, dtype=torch.bfloat16))
    call(noise(1, 3, 8))  # float64 has no such setting


def test_auto_chooses_it_on_xla_devices_and_nowhere_else() -> None:
    auto = fft_backend("auto")
    assert isinstance(auto, AutoFFT)
    for operator in ("convolution", "modulation"):
        for length in (16, 1 << 20):
            chosen = {
                device: auto.plan(Request(operator, device, torch.float32, 1, 64, length, length, "causal", True))
                for device in ("cpu", "cuda", "xla")
            }
            assert chosen["xla"].backend.name == "xla"
            assert dict(chosen["xla"].rejected)["torch"] == "torch_xla sends complex transforms to the host"
            assert "xla" not in {chosen[device].backend.name for device in ("cpu", "cuda")}
