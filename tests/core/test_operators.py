"""The two operators as users call them: what they refuse, how a backend is chosen, and the algebra they obey."""

from __future__ import annotations

import json
import logging
import re
from importlib.resources import files

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spectral_core import (
    FFTBackend,
    PreparedKernel,
    Request,
    UnknownComponentError,
    UnsupportedInputError,
    convolve,
    fft_backend,
    list_fft_backends,
    modulate,
    prepare_kernel,
)
from spectral_core.backends.auto import CANDIDATES, AutoFFT
from spectral_core.backends.base import MODES, Support, fast_length
from spectral_core.backends.torch_fft import TorchFFT
from spectral_core.testing import assert_close, oracle_convolve, oracle_modulate, relative_error
from spectral_core.testing.oracle import plain_convolve

U = torch.linspace(-1, 1, 48).reshape(2, 3, 8)
K = torch.linspace(1, 2, 12).reshape(3, 4)


class Refusing(TorchFFT):
    """Serves nothing, and would give wrong numbers if it were asked to."""

    name = "refusing"

    def unsupported_reasons(self, request):
        return ["no CUDA device", f"dtype {request.dtype} unsupported"]

    def prepare_kernel(self, kernel, length, mode):
        raise AssertionError("a backend that refused was used")

    modulation = convolution = rfft = irfft = prepare_kernel


class ForwardOnly(TorchFFT):
    """Serves what needs no gradient."""

    name = "forward_only"

    def unsupported_reasons(self, request):
        return ["no backward"] if request.grad else []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"u": U.int()}, r"u must be \(B, D, L\), real floating point; got \(2, 3, 8\) int32 on cpu"),
        ({"u": U.to(torch.complex64)}, "u must be.*complex64"),
        ({"u": U[0]}, r"u must be \(B, D, L\)"),
        ({"u": U[..., :0]}, "no tokens or no channels"),
        ({"u": U[:, :0], "kernel": K[:0]}, "no tokens or no channels"),
        ({"kernel": K.int()}, r"a kernel is \(D, K\) or \(B, D, K\), real floating point"),
        ({"kernel": K.to(torch.complex64)}, "a kernel is.*complex64"),
        ({"u": U.double(), "kernel": K.int()}, "a kernel is.*int32"),
        ({"u": U.double(), "kernel": K.to(torch.complex64)}, "a kernel is.*complex64"),
        ({"kernel": K[0]}, "a kernel is"),
        ({"kernel": K[:, :0]}, "at least one tap"),
        ({"kernel": K[:2]}, r"the kernel has 2 channels and batch none; u is \(2, 3, 8\)"),
        ({"kernel": K.expand(5, 3, 4)}, "the kernel has 3 channels and batch 5"),
        ({"kernel": K.expand(0, 3, 4)}, "batch 0"),
        ({"skip": torch.ones(2)}, r"skip \(2,\) float32 on cpu must be \(D,\) = \(3,\)"),
        ({"skip": torch.ones(3, 1)}, "skip"),
        ({"skip": torch.ones(3).to(torch.complex64)}, "skip.*real floating point"),
        ({"skip": torch.ones(3).int()}, "skip.*real floating point"),
        ({"pre_gate": U[..., :1]}, r"pre_gate \(2, 3, 1\) float32 on cpu must have u's shape \(2, 3, 8\)"),
        ({"post_gate": U[:1]}, "post_gate.*must have u's shape"),
        ({"pre_gate": U.bool()}, "pre_gate must be.*bool"),
        ({"post_gate": U.to(torch.complex64)}, "post_gate must be.*complex64"),
        ({"mode": "Causal"}, "mode 'Causal' is not one of causal, circular, centered"),
        ({"mode": "Causal", "u": U[:0]}, "mode 'Causal' is not one of"),
    ],
)
def test_convolve_refuses_and_teaches(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UnsupportedInputError, match=message):
        convolve(**{"u": U, "kernel": K, **arguments})


@pytest.mark.parametrize(
    ("prepared", "arguments", "message"),
    [
        ({"length": 9}, {}, "prepared for signals of length 9"),
        ({"mode": "circular"}, {}, "prepared for mode 'circular', not 'causal'. Pass mode='circular'"),
        ({}, {"mode": "centered"}, "prepared for mode 'causal', not 'centered'"),
        ({"backend": "torch"}, {"backend": "hierarchical"}, "prepared by backend 'torch', not 'hierarchical'"),
        ({}, {"u": U.double()}, "u is float64 and the kernel was prepared in torch.float32"),
        ({"kernel": K[:2]}, {}, "the kernel has 2 channels"),
        ({"kernel": K.expand(3, 3, 4)}, {}, "the kernel has 3 channels and batch 3"),
    ],
)
def test_a_prepared_kernel_that_does_not_fit_is_refused(
    prepared: dict[str, object], arguments: dict[str, object], message: str
) -> None:
    kernel = prepare_kernel(**{"kernel": K, "length": 8, **prepared})
    with pytest.raises(UnsupportedInputError, match=message):
        convolve(**{"u": U, "kernel": kernel, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "at least 1; got 0"),
        ({"length": -3}, "at least 1; got -3"),
        ({"mode": "none"}, "mode 'none' is not one of"),
        ({"kernel": K.long()}, "a kernel is.*int64"),
        ({"kernel": K[:, :0]}, "at least one tap"),
        ({"backend": "fftw"}, "no backend .fft. is called 'fftw'"),
    ],
)
def test_prepare_kernel_refuses_and_teaches(arguments: dict[str, object], message: str) -> None:
    with pytest.raises((UnsupportedInputError, UnknownComponentError), match=message):
        prepare_kernel(**{"kernel": K, "length": 8, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": U.int()}, r"x must be \(B, D, L\), real floating point.*got \(2, 3, 8\) int32"),
        ({"x": U.to(torch.complex64)}, "x must be.*complex64"),
        ({"x": U[0]}, "x must be"),
        ({"x": U[..., :0]}, "at least one channel and token"),
        ({"x": U[:, :0]}, "at least one channel and token"),
        ({"n": 0}, "at least one point; got n = 0"),
        ({"gain": torch.ones(8)}, r"gain \(8,\) float32 on cpu does not broadcast to \(B, D, F\) = \(2, 3, 5\)"),
        ({"gain": torch.ones(4, 2, 3, 5)}, "gain.*does not broadcast"),
        ({"gain": torch.ones(5), "n": 9, "phase": torch.ones(6)}, "phase.*does not broadcast"),
        ({"gain": torch.ones(5).int()}, "gain must be real floating point"),
        ({"phase": torch.ones(5).to(torch.complex64)}, "phase must be real floating point"),
    ],
)
def test_modulate_refuses_and_teaches(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UnsupportedInputError, match=message):
        modulate(**{"x": U, **arguments})


def test_a_named_backend_never_falls_back() -> None:
    message = "refusing cannot run this {}: no CUDA device; dtype torch.float32 unsupported. Choose another backend"
    backend = Refusing()
    with pytest.raises(UnsupportedInputError, match=message.format("convolution")):
        convolve(U, K, backend=backend)
    with pytest.raises(UnsupportedInputError, match=message.format("convolution")):
        prepare_kernel(K, 8, backend=backend)
    with pytest.raises(UnsupportedInputError, match=message.format("modulation")):
        modulate(U, backend=backend)


def test_auto_chooses_reports_and_plans_once(caplog: pytest.LogCaptureFixture) -> None:
    auto = AutoFFT((Refusing(), TorchFFT()))
    with caplog.at_level(logging.INFO, "spectral_core"):
        for _ in range(3):
            y = convolve(U, K, backend=auto)
    assert relative_error(y, oracle_convolve(U, K)) < 1e-6
    assert [str(plan) for plan in auto._plans.values()] == [
        "auto → torch; refusing: no CUDA device, dtype torch.float32 unsupported"
    ]
    assert len(caplog.records) == 1
    assert "auto → torch; refusing: no CUDA device" in caplog.text
    modulate(U, backend=auto)
    assert len(auto._plans) == 2, "another operator is another class of request"


def test_the_plans_of_auto_do_not_grow_with_every_length_it_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectral_core.backends.auto._KEPT", 8)
    auto = AutoFFT((TorchFFT(),))
    for length in range(1, 30):
        assert modulate(torch.ones(1, 1, length), backend=auto).shape[-1] == length
        assert 1 <= len(auto._plans) <= 8


@pytest.mark.parametrize(
    ("device", "channels", "taps", "report"),
    [
        ("cpu", 10**7, 0, "auto → direct; triton: "),
        ("cpu", 3, 200, r"auto → torch; .*direct: .* taps, faster up to .*; hierarchical: .* points, faster from"),
        ("cpu", 10**7, 200, r"auto → hierarchical; .*direct: .* taps"),
        ("cuda", 10**7, 1000, r"auto → torch; triton: .*; direct: .*; hierarchical: not measured on cuda"),
    ],
)
def test_auto_follows_what_was_measured(device: str, channels: int, taps: int, report: str) -> None:
    limit = json.loads(files("spectral_core.backends").joinpath("thresholds.json").read_text())["cpu"]["direct_taps"][
        "forward"
    ]
    auto = AutoFFT(tuple(fft_backend(name) for name in CANDIDATES))
    request = Request("convolution", device, torch.float32, 1, channels, 1000, limit + taps, "causal", grad=False)
    assert re.match(report, str(auto.plan(request)))


def test_auto_names_every_candidates_reasons_when_none_can() -> None:
    auto = AutoFFT((Refusing(), ForwardOnly()))
    u = U.clone().requires_grad_()
    with pytest.raises(UnsupportedInputError, match=r"refusing: no CUDA device.*; forward_only: no backward"):
        convolve(u, K, backend=auto)


@pytest.mark.parametrize("needs_it", ["u", "kernel", "skip", "post_gate"])
def test_auto_plans_for_gradients_of_any_input(needs_it: str) -> None:
    # The plan that was checked must be the plan that is used.
    auto = AutoFFT((ForwardOnly(), TorchFFT()))
    given = {"u": U.clone(), "kernel": K.clone(), "skip": torch.ones(3), "post_gate": U.clone()}
    convolve(**given, backend=auto)
    assert [plan.backend.name for plan in auto._plans.values()] == ["forward_only"]
    given[needs_it].requires_grad_()
    convolve(**given, backend=auto)
    assert [plan.backend.name for plan in auto._plans.values()] == ["forward_only", "torch"]
    with torch.no_grad():
        convolve(**given, backend=auto)
    assert len(auto._plans) == 2, "without autograd, no gradient is needed"


def test_auto_plans_modulation_for_gradients_of_its_fields() -> None:
    auto = AutoFFT((ForwardOnly(), TorchFFT()))
    modulate(U, torch.ones(5), backend=auto)
    modulate(U, torch.ones(5, requires_grad=True), backend=auto)
    assert [plan.backend.name for plan in auto._plans.values()] == ["forward_only", "torch"]


def test_a_named_backend_refuses_gradients_it_cannot_give() -> None:
    with pytest.raises(UnsupportedInputError, match="forward_only cannot run this convolution: no backward"):
        convolve(U, K.clone().requires_grad_(), backend=ForwardOnly())


def test_dtypes_mix_without_loss() -> None:
    # A float64 signal lifts its kernel; a float64 kernel serves a float32 signal, whose dtype the output keeps.
    exact = oracle_convolve(U, K)
    y = convolve(U.double(), K)
    assert y.dtype == torch.float64
    assert relative_error(y, exact) < 1e-14
    y = convolve(U, K.double(), skip=torch.ones(3).double(), pre_gate=U.double())
    assert y.dtype == torch.float32


@pytest.mark.parametrize("name", ["auto", "torch", "hierarchical"])
def test_backends_by_name_give_the_same_numbers(name: str) -> None:
    assert relative_error(convolve(U, K, backend=name), oracle_convolve(U, K)) < 1e-6
    assert relative_error(modulate(U, backend=name), U) < 1e-6


def test_the_oracle_is_the_definition() -> None:
    """By hand: taps 1, 10, 100 on the signal 1, 2, 3, and on a signal shorter than the kernel."""
    u, k = torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[1.0, 10.0, 100.0]])
    assert oracle_convolve(u, k).tolist() == [[[1, 12, 123]]]
    assert oracle_convolve(u, k, mode="circular").tolist() == [[[231, 312, 123]]]
    assert oracle_convolve(u, k, mode="centered").tolist() == [[[12, 123, 230]]]
    short = u[..., :2]
    assert oracle_convolve(short, k).tolist() == [[[1, 12]]]
    assert oracle_convolve(short, k, mode="circular").tolist() == [[[121, 212]]]
    # y = 2 (k * v + 5 v) with v = u at the second token only.
    pre, post = torch.tensor([[[0.0, 1.0, 0.0]]]), torch.full((1, 1, 3), 2.0)
    y = oracle_convolve(u, k, skip=torch.tensor([5.0]), pre_gate=pre, post_gate=post)
    assert y.tolist() == [[[0, 24, 40]]]


def test_the_modulation_oracle_is_the_definition() -> None:
    x = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    assert torch.allclose(oracle_modulate(x).float(), x)
    # The mean alone; then a quarter turn, which empties DC and Nyquist and leaves -sin.
    assert torch.allclose(oracle_modulate(x, torch.tensor([1.0, 0.0, 0.0])).float(), torch.full((1, 1, 4), 0.25))
    turned = oracle_modulate(x, phase=torch.full((3,), torch.pi / 2, dtype=torch.float64))
    assert torch.allclose(turned, torch.tensor([[[0.0, -0.5, 0.0, 0.5]]], dtype=torch.float64))


def test_plain_convolution_agrees_with_the_oracle() -> None:
    for mode in MODES:
        assert relative_error(plain_convolve(U.double(), K.double(), mode), oracle_convolve(U, K, mode=mode)) < 1e-14


sizes = st.integers(1, 40)
algebra = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@algebra
@given(length=sizes, taps=st.integers(1, 100), mode=st.sampled_from(MODES), block=st.sampled_from((1, 2000, 8000)))
def test_any_sizes_match_the_direct_sum(length: int, taps: int, mode: str, block: int) -> None:
    u, kernel = noise(2, 3, length, seed=length), noise(3, taps, seed=taps)
    y = convolve(u, kernel, mode=mode, backend=fft_backend("hierarchical", block_bytes=block))
    assert relative_error(y, oracle_convolve(u, kernel, mode=mode)) < 1e-12


@algebra
@given(length=sizes, first=sizes, second=sizes)
def test_convolutions_compose_into_the_convolution_of_kernels(length: int, first: int, second: int) -> None:
    u, k, h = noise(1, 2, length, seed=1), noise(2, first, seed=2), noise(2, second, seed=3)
    composed = oracle_convolve(torch.nn.functional.pad(k[None], (0, second - 1)), h)[0]
    twice = convolve(convolve(u, k), h)
    assert (twice - convolve(u, composed)).norm() <= 1e-12 * (1 + u.norm() * k.norm() * h.norm())


@algebra
@given(length=sizes, taps=sizes, split=st.integers(0, 40))
def test_a_causal_prefix_needs_only_the_prefix(length: int, taps: int, split: int) -> None:
    u, kernel = noise(1, 2, length, seed=4), noise(2, taps, seed=5)
    split = min(max(split, 1), length)
    whole = convolve(u, kernel)
    assert (convolve(u[..., :split], kernel) - whole[..., :split]).norm() <= 1e-12 * (1 + whole.norm())


@algebra
@given(length=sizes, seed=st.integers(0, 5))
def test_modulations_compose_where_there_is_a_phase_to_turn(length: int, seed: int) -> None:
    bins = length // 2 + 1
    x, g, h = noise(1, 2, length, seed=seed), noise(bins, seed=seed + 10), noise(bins, seed=seed + 20)
    assert (modulate(modulate(x, g), h) - modulate(x, g * h)).norm() <= 1e-12 * (1 + x.norm() * g.norm() * h.norm())


@algebra
@given(minimum=st.integers(1, 5000))
def test_fast_length_is_the_next_5_smooth_number(minimum: int) -> None:
    def smooth(n: int) -> bool:
        for prime in (2, 3, 5):
            while n % prime == 0:
                n //= prime
        return n == 1

    assert fast_length(minimum) == next(n for n in range(minimum, 2 * minimum + 1) if smooth(n))


@algebra
@given(length=sizes, taps=st.integers(1, 100), mode=st.sampled_from(("causal", "centered")))
def test_linear_modes_are_padded_enough(length: int, taps: int, mode: str) -> None:
    support = Support.of(taps, length, mode)
    behind, ahead = support.offset, support.last - support.first - 1 - support.offset
    assert support.points >= length + max(behind, ahead), "what wraps misses the outputs"
    assert 0 <= support.offset <= support.points - length


@pytest.mark.parametrize("name", ["kernel", "skip", "pre_gate", "post_gate"])
def test_tensors_on_two_devices_are_named(name: str) -> None:
    given = {"kernel": K, "skip": torch.ones(3), "pre_gate": U, "post_gate": U}
    given[name] = given[name].to("meta")
    with pytest.raises(UnsupportedInputError, match=f"{name} is on meta and u on cpu"):
        convolve(U, **given)


class Recording(TorchFFT):
    """Notes what the base class hands to the middle of a convolution."""

    def plain_convolution(self, x: Tensor, kernel: PreparedKernel) -> Tensor:
        self.seen = x
        return super().plain_convolution(x, kernel)


def test_the_base_class_gates_casts_and_skips_around_a_backends_plain_convolution() -> None:
    backend = Recording()
    u, gate = (noise(2, 3, 20, seed=seed).bfloat16() for seed in (1, 2))
    kernel, skip = noise(3, 7, seed=3).float(), noise(3, seed=4).float()
    y = convolve(u, kernel, skip=skip, pre_gate=gate, post_gate=gate, backend=backend)
    assert backend.seen.dtype == torch.float32
    assert torch.equal(backend.seen, u.float() * gate)
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous()
    assert_close("output", y, oracle_convolve(u, kernel, skip=skip, pre_gate=gate, post_gate=gate), 1e-2)


def test_only_backends_that_fuse_gates_or_delegate_override_the_whole_convolution() -> None:
    backends = [fft_backend(name) for name in list_fft_backends() if "/" not in name]
    whole = {backend.name for backend in backends if type(backend).convolution is not FFTBackend.convolution}
    assert whole == {"auto", "hierarchical", "triton"}


@pytest.mark.parametrize("name", ["torch", "direct", "hierarchical", "xla"])
def test_gates_and_skip_of_a_wider_dtype_than_the_signal(name: str) -> None:
    u, kernel = noise(2, 3, 20, seed=1).float(), noise(3, 7, seed=2).float()
    gate, skip = noise(2, 3, 20, seed=3), noise(3, seed=4)
    y = convolve(u, kernel, skip=skip, pre_gate=gate, post_gate=gate, backend=name)
    assert y.dtype == torch.float32
    assert_close("output", y, oracle_convolve(u, kernel, skip=skip, pre_gate=gate, post_gate=gate), 1e-6)
