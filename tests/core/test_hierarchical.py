"""The hierarchical backend's inside: its layouts, its threads, its operators, and what a compiler makes of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spectral_core import convolve, fft_backend, list_fft_backends, modulate
from spectral_core.backends import blocks, threads
from spectral_core.backends.base import MODES, Mode, Support
from spectral_core.backends.layouts import Chunked, Layout, Segmented, Whole, layout_of
from spectral_core.testing import oracle_convolve, relative_error

NAMES = ("u", "kernel", "skip", "pre_gate", "post_gate")


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def layout(length: int, taps: int, chunk_size: int, mode: Mode = "causal") -> Layout:
    support = Support.of(taps, length, mode)
    return layout_of(support, length, circular=mode == "circular", chunk_size=chunk_size)


def test_the_layout_follows_the_lengths() -> None:
    assert type(layout(65536, 65536, 8192)) is Whole  # 16 chunks
    assert type(layout(65537, 65537, 8192)) is Chunked
    assert type(layout(200_000, 200_000, 8192)) is Chunked
    assert type(layout(200_000, 300, 8192)) is Segmented
    assert type(layout(200_000, 300, 8192, "centered")) is Segmented
    assert type(layout(200_000, 300, 8192, "circular")) is Whole  # the circle may not be padded
    assert type(layout(4096, 4096, 64)) is Chunked


def test_chunks_and_segments_cost_no_more_points_than_needed() -> None:
    for length in (70_000, 200_000, 1 << 20):
        whole = Support.of(length, length, "causal").points
        assert layout(length, length, 8192).points <= 1.1 * whole
        assert layout(length, 1000, 8192).points <= 1.4 * length < whole


layouts = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@layouts
@given(
    length=st.integers(1, 90),
    taps=st.integers(1, 200),
    mode=st.sampled_from(MODES),
    chunk_size=st.sampled_from((1, 2, 5, 64)),
    per_row=st.booleans(),
)
def test_every_layout_gives_the_direct_sum_and_its_gradients(
    length: int, taps: int, mode: Mode, chunk_size: int, per_row: bool
) -> None:
    kernel = noise(2, 3, taps, seed=1) if per_row else noise(3, taps, seed=1)
    given = dict(
        zip(
            NAMES,
            (noise(2, 3, length), kernel, noise(3, seed=2), noise(2, 3, length, seed=3), noise(2, 3, length, seed=4)),
            strict=True,
        )
    )
    cotangent = noise(2, 3, length, seed=5)
    found = []
    for backend in (fft_backend("hierarchical", chunk_size=chunk_size, block_bytes=4000), fft_backend("direct")):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in given.items()}
        y = convolve(leaves["u"], leaves["kernel"], mode=mode, **{n: leaves[n] for n in NAMES[2:]}, backend=backend)
        gradients = torch.autograd.grad(y, list(leaves.values()), cotangent)
        with torch.no_grad():
            prepared = convolve(given["u"], kernel, mode=mode, **{n: given[n] for n in NAMES[2:]}, backend=backend)
        found.append((y, prepared, *gradients))
    assert relative_error(found[1][0], oracle_convolve(given["u"], kernel, mode=mode, **_rest(given))) < 1e-12
    for name, ours, theirs in zip(("output", "prepared", *NAMES), *found, strict=True):
        # A gradient may be exactly zero: of taps that meet nothing.
        assert (ours - theirs).norm() <= 1e-11 * (1 + theirs.norm()), name


def _rest(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: given[name] for name in NAMES[2:]}


@pytest.mark.parametrize(("taps", "kind"), [(4000, Chunked), (100, Segmented)])
def test_chunks_are_as_accurate_as_one_transform(taps: int, kind: type[Layout]) -> None:
    assert type(layout(4000, taps, 128)) is kind
    u, kernel = noise(2, 4, 4000, seed=1), noise(4, taps, seed=2)
    exact = oracle_convolve(u, kernel)
    ours, theirs = (
        relative_error(convolve(u.float(), kernel.float(), backend=backend), exact)
        for backend in (fft_backend("hierarchical", chunk_size=128), fft_backend("torch"))
    )
    assert ours <= 1.5 * theirs


def test_a_spoilt_row_spoils_itself_alone() -> None:
    for taps in (900, 20):
        for bad in (float("nan"), float("inf")):
            u = noise(2, 3, 900)
            u[1, 2, 400] = bad
            y = convolve(u, noise(3, taps, seed=1), backend=fft_backend("hierarchical", chunk_size=16))
            assert not y[1, 2, 400 : 400 + taps].isfinite().any()
            y[1, 2] = 0
            assert y.isfinite().all()


def test_threads_share_the_work_and_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    u, kernel, skip = (noise(2, 7, 300), noise(7, 300, seed=1), noise(7, seed=2))
    results = []
    try:
        torch.set_num_threads(3)
        for points in (1 << 60, 0):
            monkeypatch.setattr(blocks, "_SHARED_POINTS", points)
            leaves = [x.clone().requires_grad_() for x in (u, kernel, skip)]
            backend = fft_backend("hierarchical", block_bytes=1)
            y = convolve(leaves[0], leaves[1], skip=leaves[2], backend=backend)
            results.append((y, *torch.autograd.grad(y.square().sum(), leaves)))
            with torch.no_grad():
                results[-1] += (convolve(u, kernel, backend=backend),)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    for alone, shared in zip(*results, strict=True):
        assert torch.equal(alone, shared)


def test_a_thread_that_raises_is_heard_and_the_threads_stay_as_they_were() -> None:
    before, done = torch.get_num_threads(), []

    def prepare() -> object:
        def work(unit: int) -> None:
            assert torch.get_num_threads() == 1
            done.append(unit)
            if unit == 5:
                raise ArithmeticError("unit 5")

        return work

    with pytest.raises(ArithmeticError, match="unit 5"):
        threads.share(range(40), prepare, 2)  # type: ignore[arg-type]
    assert torch.get_num_threads() == before
    assert sorted(done) == sorted(set(done)), "a unit was done twice"


@pytest.mark.parametrize("taps", [40, 6], ids=["chunked", "segmented"])
@pytest.mark.parametrize("prepared", [False, True])
def test_the_operators_are_sound(taps: int, prepared: bool) -> None:
    u, pre, post = (noise(2, 3, 40, seed=seed).requires_grad_() for seed in range(3))
    support = Support.of(taps, 40, "causal")
    plan = blocks.Plan(list(support), False, prepared, 2, 1)
    kernel = noise(3, taps, seed=4)
    torch.library.opcheck(blocks.respond_blocks, (kernel, 40, *plan))
    kernel = blocks.respond_blocks(kernel, 40, *plan) if prepared else kernel.requires_grad_()
    given = (u, kernel, noise(3, seed=5).requires_grad_(), pre, post, *plan)
    torch.library.opcheck(blocks.convolve_blocks, given)
    grad = noise(2, 3, 40, seed=6)
    detached = tuple(x.detach() if isinstance(x, Tensor) else x for x in given)
    torch.library.opcheck(
        torch.ops.spectral.convolve_blocks_backward, (grad, *detached, [True, not prepared, True, True, True])
    )


@pytest.mark.parametrize("name", [name for name in list_fft_backends() if "/" not in name])
def test_operators_compile_without_a_graph_break_by_name(name: str) -> None:
    u, kernel = noise(2, 3, 50, dtype=torch.float32).requires_grad_(), noise(3, 20, dtype=torch.float32)
    reasons = fft_backend(name).unsupported_reasons(_request(u))
    if reasons:
        pytest.skip("; ".join(reasons))

    def both(u: Tensor, kernel: Tensor) -> Tensor:
        return modulate(convolve(u, kernel, backend=name), torch.ones(26), backend=name)

    expected = both(u, kernel)
    torch._dynamo.reset()
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")(u, kernel)
    assert relative_error(compiled, expected.double()) < 1e-6
    for result in (compiled, expected):
        (gradient,) = torch.autograd.grad(result.sum(), u)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def _request(u: Tensor) -> object:
    from spectral_core import Request

    return Request("convolution", "cpu", u.dtype, u.shape[0], u.shape[1], u.shape[2], 20, "causal", True)


def test_a_name_is_found_while_the_first_model_of_a_process_compiles() -> None:
    program = (
        "import torch; from spectral_core import convolve\n"
        "f = torch.compile(lambda u, k: convolve(u, k), fullgraph=True, backend='eager')\n"
        "print([round(x, 4) for x in f(torch.ones(1, 1, 4), torch.ones(1, 2))[0, 0].tolist()])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[1.0, 2.0, 2.0, 2.0]"
