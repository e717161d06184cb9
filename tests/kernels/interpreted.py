"""What the kernels compute, in Triton's interpreter: run by test_kernels.py in a process of its own, and by

``python -m pytest tests/kernels/interpreted.py``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location("interpreter", Path(__file__).with_name("interpreter.py"))
assert _spec is not None
assert _spec.loader is not None
interpreter = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(interpreter)  # sets TRITON_INTERPRET, which Triton reads when kernels are defined

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from spectral_core import convolve, fft_backend, modulate  # noqa: E402
from spectral_core.testing import BACKEND_CHECKS, Check, relative_error  # noqa: E402
from spectral_kernels.factors import ON_CHIP, Digits  # noqa: E402
from spectral_kernels.gated_convolution import op, passes, reference  # noqa: E402
from spectral_kernels.launch import columns, run, split  # noqa: E402
from spectral_kernels.modulation import op as modulation_op  # noqa: E402
from spectral_kernels.modulation import reference as modulation_reference  # noqa: E402

interpreter.prepare()
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN: what a kernel forgets to write is seen."""
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, _poison(getattr(torch, name)))
    assert torch.empty(2).isnan().all()


def _poison(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *given, **named: make(*given, **named).fill_(torch.nan)


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(dtype)


def compare(
    run: Callable[..., Tensor], exact: Callable[..., Tensor], given: dict[str, Tensor | None], bound: float
) -> None:
    """Output and every gradient against the definition in float64."""
    live = {name: tensor for name, tensor in given.items() if tensor is not None}
    ours = {name: tensor.clone().requires_grad_() for name, tensor in live.items()}
    theirs = {name: tensor.double().requires_grad_() for name, tensor in live.items()}
    y, z = run(**{**given, **ours}), exact(**{**given, **theirs})
    assert y.is_contiguous()
    assert relative_error(y, z) <= bound
    cotangent = noise(*y.shape, dtype=y.dtype, seed=9)
    grads = torch.autograd.grad(y, list(ours.values()), cotangent)
    exact_grads = torch.autograd.grad(z, list(theirs.values()), cotangent.double())
    for name, grad, wanted in zip(live, grads, exact_grads, strict=True):
        assert relative_error(grad, wanted) <= bound, name


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("rows", "length", "taps", "first", "per_row", "gates"),
    [
        ((3, 2), 37, 37, 0, False, True),  # causal
        ((2, 2), 300, 5, -2, False, True),  # centred, longer than half of the circle
        ((2, 2), 131, 261, -130, True, True),  # the circle of a circular one, a kernel per row
        ((1, 2), 1, 1, 0, False, False),
        ((2, 1), 700, 311, 0, False, False),  # 32 x 16 points
    ],
)
def test_a_convolution_on_chip_and_its_gradients(
    rows: tuple[int, int], length: int, taps: int, first: int, per_row: bool, gates: bool
) -> None:
    batch, dim = rows
    given: dict[str, Tensor | None] = {
        "u": noise(batch, length, dim, seed=1).transpose(1, 2),
        "kernel": noise(*((batch, dim) if per_row else (dim,)), taps, seed=2),
        "skip": noise(dim, seed=3) if gates else None,
        "pre_gate": noise(batch, dim, length, seed=4) if gates else None,
        "post_gate": noise(batch, dim, length, seed=5) if gates else None,
    }
    options = {"first": first}
    compare(
        lambda **named: op.gated_convolution(**named, **options),
        lambda **named: reference.gated_convolution(**named, **options),
        given,
        1e-6,
    )


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("wanted", ["u", "kernel", "skip", "pre_gate", "post_gate"])
def test_each_gradient_alone(wanted: str) -> None:
    given = {"u": noise(2, 1, 9, seed=1), "kernel": noise(1, 9, seed=2), "skip": noise(1, seed=3)}
    given |= {"pre_gate": noise(2, 1, 9, seed=4), "post_gate": noise(2, 1, 9, seed=5)}
    results = []
    for convolution, dtype in ((op.gated_convolution, torch.float32), (reference.gated_convolution, torch.float64)):
        tensors = {name: tensor.clone().to(dtype).requires_grad_(name == wanted) for name, tensor in given.items()}
        convolution(**tensors).square().sum().backward()
        results.append(tensors[wanted].grad)
        assert all(tensor.grad is None for name, tensor in tensors.items() if name != wanted)
    assert relative_error(*results) < 1e-6


def _by_fft(u: Tensor, kernel: Tensor, skip: Tensor, pre_gate: Tensor, post_gate: Tensor) -> Tensor:
    """The definition, where sums in order would take too long."""
    v, length = u * pre_gate, u.shape[-1]
    y = torch.fft.irfft(torch.fft.rfft(v, n=4 * length) * torch.fft.rfft(kernel, n=4 * length), n=4 * length)
    return post_gate * (y[..., :length] + skip[:, None] * v)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("taps", "per_row"), [(4500, False), (3, True)])
def test_a_convolution_in_passes_and_its_gradients(taps: int, per_row: bool) -> None:
    length = 4500 if taps == 4500 else 9001  # the second is longer than half of its circle
    points = op.points_for(op.circle(length, taps, 0))
    assert split(points) is not None
    assert (length > points) == (taps == 3)
    given: dict[str, Tensor | None] = {
        "u": noise(1, 1, length, seed=1),
        "kernel": noise(*((1, 1) if per_row else (1,)), taps, seed=2),
        "skip": noise(1, seed=3),
        "pre_gate": noise(1, 1, length, seed=4),
        "post_gate": noise(1, 1, length, seed=5),
    }
    compare(op.gated_convolution, _by_fft, given, 1e-6)


@pytest.mark.usefixtures("poisoned")
def test_a_convolution_across_chunks_of_two_digits_and_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    # The classes that use them, 262144 points and up, would take minutes. No device multiplies matrices as small.
    across, within = Digits(8, 4, 1), ON_CHIP[256]
    monkeypatch.setattr(op, "split", lambda points: (across, within))
    length, taps = 8300, 40
    assert op.points_for(op.circle(length, taps, 0)) == across.points * within.points
    given: dict[str, Tensor | None] = {
        "u": noise(1, 1, length, seed=1),
        "kernel": noise(1, taps, seed=2),
        "skip": noise(1, seed=3),
        "pre_gate": noise(1, 1, length, seed=4),
        "post_gate": noise(1, 1, length, seed=5),
    }
    compare(op.gated_convolution, _by_fft, given, 1e-6)


def test_passes_across_chunks_of_two_digits() -> None:
    # By themselves: the classes that use them, 262144 points and up, would take the interpreter minutes.
    across, chunk = Digits(16, 16, 1), 32
    wide = min(chunk, columns(across, 4096))
    points = across.points * chunk
    plan = op._Passes.of(across, Digits(16, 16, 1), torch.device("cpu"))
    turns = op.across_twiddles(across, chunk, 0.25, torch.device("cpu"))
    leaving = (turns, *plan.leaving[1:])
    x = noise(1, 1, 2 * points - 5)
    work = torch.full((1, 2, points), torch.nan)
    sizes = {"A": 16, "B": 16, "R": wide, "PRECISION": "ieee"}
    place = (1, 1, 0, x.shape[-1], chunk, chunk // wide)
    run(passes.spread, chunk // wide, x, x, x, work, *leaving, *place, HAS_GATE=False, WIDE=True, **sizes)
    z = torch.nn.functional.pad(x.double(), (0, 5)).view(2, across.points, chunk)
    frequency = torch.arange(across.points).double() - 0.25
    turn = torch.exp(-2j * torch.pi * frequency[:, None] * torch.arange(across.points) / across.points)
    within = torch.exp(-2j * torch.pi * frequency[:, None] * torch.arange(chunk) / points)
    exact = ((turn @ torch.complex(z[0], z[1])) * within).view(16, 16, chunk).transpose(0, 1).reshape(1, -1)
    assert relative_error(work[0], torch.view_as_real(exact)[0].T) < 1e-6
    back = torch.full_like(x, torch.nan)
    flags = {"HAS_PRE": False, "HAS_SKIP": False, "HAS_FACTOR": False, "WIDE": True}
    run(passes.gather_output, chunk // wide, x, work, x, x, x, x, back, *leaving, *place, **flags, **sizes)
    assert relative_error(back / across.points, x) < 1e-6


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
def test_a_convolution_is_about_as_accurate_as_torch_in_float32_cast(dtype: torch.dtype) -> None:
    # Products are cut to what tensor cores read (interpreter.py). Gates and skip are left out: they hide errors.
    u, kernel = noise(1, 2, 701, dtype=dtype, seed=1), noise(2, 701, dtype=torch.float32, seed=2)
    cotangent = noise(1, 2, 701, dtype=dtype, seed=3)

    def plain(u: Tensor, kernel: Tensor) -> Tensor:
        wide = torch.promote_types(u.dtype, torch.float32)
        product = torch.fft.rfft(u.to(wide), n=1402) * torch.fft.rfft(kernel, n=1402)
        return torch.fft.irfft(product, n=1402)[..., :701].to(u.dtype)

    def run(convolution: Callable[..., Tensor], *given: Tensor) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        y = convolution(*leaves)
        return [y, *torch.autograd.grad(y, leaves, cotangent.to(y.dtype))]

    ours, theirs = run(op.gated_convolution, u, kernel), run(plain, u, kernel)
    exact = run(plain, u.double(), kernel.double())
    for name, mine, other, right in zip(("y", "u", "kernel"), ours, theirs, exact, strict=True):
        if name == "kernel" and dtype != torch.float32:
            # A float32 sum of products of half precision signals: TF32 for bfloat16, float32's own for float16.
            assert relative_error(mine, right) < (1e-3 if dtype == torch.bfloat16 else 2e-6)
            continue
        error, bound = relative_error(mine, right), relative_error(other, right)
        assert bound / 4 < error <= 2 * bound, f"{name}: {error:.3g}, torch.fft {bound:.3g}"


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("length", "n", "fields"),
    [
        (13, 13, "gp"),
        (16, 9, "g"),
        (150, 200, "p"),
        (31, 31, ""),
        (1331, 1331, "gp"),  # 11 x 11 x 11
    ],
)
def test_modulation_and_its_gradients(length: int, n: int, fields: str) -> None:
    dim = 1 if n > 1000 else 2
    given: dict[str, Tensor | None] = {
        "x": noise(2, length, dim, seed=1).transpose(1, 2),
        "gain": noise(dim, n // 2 + 1, seed=2) if "g" in fields else None,
        "phase": noise(2, 1, n // 2 + 1, seed=3) if "p" in fields else None,
    }

    def exact(x: Tensor, gain: Tensor | None, phase: Tensor | None) -> Tensor:
        return modulation_reference.modulation(x[..., :n], gain, phase, n)

    compare(lambda **named: modulation_op.modulation(**named, n=n), exact, given, 1e-6)


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
def test_modulation_is_about_as_accurate_as_torch_in_float32_cast(dtype: torch.dtype) -> None:
    x, gain, phase = noise(1, 2, 200, dtype=dtype, seed=1), noise(101, seed=2), noise(101, seed=3)
    exact = modulation_reference.modulation(x.double(), gain.double(), phase.double(), 200)
    plain = torch.fft.irfft(torch.fft.rfft(x.float()) * gain * torch.exp(1j * phase), n=200).to(dtype)
    error, bound = relative_error(modulate(x, gain, phase, backend="triton"), exact), relative_error(plain, exact)
    assert bound / 4 < error <= 2 * bound


_CONFORMANCE = {
    "check_modulation_of_strided_and_empty_inputs",
    "check_nan_comes_through_modulation",
    "check_convolution_of_strided_inputs",
    "check_convolution_of_an_empty_batch",
    "check_convolution_leaves_its_inputs_alone",
    "check_gates_keep_their_precision",
    "check_nan_comes_through_convolution",
}
"""Promises the tests above do not cover; the whole kit runs where there is a GPU."""


@pytest.mark.parametrize(
    "check", [check for check in BACKEND_CHECKS if check.__name__ in _CONFORMANCE], ids=lambda check: check.__name__
)
def test_conformance(check: Check) -> None:
    check(fft_backend("triton"))


def test_operators_are_registered_as_torch_expects() -> None:
    u, kernel, skip = noise(2, 1, 5).requires_grad_(), noise(1, 5).requires_grad_(), noise(1).requires_grad_()
    operators = torch.ops.spectral_kernels
    torch.library.opcheck(operators.respond.default, (noise(1, 5), 5, 0))
    torch.library.opcheck(operators.gated_convolution.default, (u, kernel, skip, u, None, 0, False))
    torch.library.opcheck(operators.modulation.default, (u, noise(2, 1, 3).requires_grad_(), None, 5))


def test_the_backend_compiles_whole() -> None:
    u, kernel = noise(2, 1, 5, seed=1), noise(1, 5, seed=2)

    def both(u: Tensor, kernel: Tensor) -> Tensor:
        y = convolve(u, kernel, pre_gate=u, backend="triton")
        y = convolve(y, kernel.detach(), backend="triton")  # its response is prepared
        return modulate(y, kernel[:, :3], backend="triton")

    def run(function: Callable[..., Any]) -> list[Tensor]:
        leaves = [u.clone().requires_grad_(), kernel.clone().requires_grad_()]
        y = function(*leaves)
        return [y, *torch.autograd.grad(y.square().sum(), leaves)]

    for ours, eager in zip(run(torch.compile(both, fullgraph=True, backend="aot_eager")), run(both), strict=True):
        assert torch.equal(ours, eager)
        assert ours.abs().max() > 0
