"""Times this backend beside plain torch.fft and the hierarchical backend; checks each against float64 first.

python plugins/spectral-ducc/benchmarks/compare.py 2048 8192 --backward

Causal, float32, one row. The kernel's spectrum is ready for the forward pass, and the kernel is trained with
``--backward``. The candidates take turns, so that another process slows all of them; read the ratios of medians.
"""
# ruff: noqa: T201

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from spectral_ducc.backend import DuccFFT
from torch import Tensor
from torch.nn import functional as F

from spectral_core import FFTBackend, convolve, fft_backend, prepare_kernel

Run = Callable[[], Tensor]


def plain(u: Tensor, kernel: Tensor, spectrum: Tensor | None = None) -> Tensor:
    """The convolution as it is written in most papers' code."""
    length = u.shape[-1]
    n = 2 * length
    spectrum = torch.fft.rfft(kernel, n=n) if spectrum is None else spectrum
    return torch.fft.irfft(torch.fft.rfft(F.pad(u, (0, length))) * spectrum, n=n)[..., :length]


def check(name: str, found: Tensor, exact: Tensor) -> None:
    error = ((found.double() - exact).norm() / exact.norm()).item()
    if not error < 1e-6:
        raise SystemExit(f"{name} is off by {error:.2g} relative to float64: its time would mean nothing.")


def trained(run: Callable[[Tensor, Tensor], Tensor], u: Tensor, kernel: Tensor, grad: Tensor) -> Run:
    """The gradients of signal and kernel, as one tensor; the forward pass included."""
    u, kernel = u.clone().requires_grad_(), kernel.clone().requires_grad_()
    return lambda: torch.cat([g.flatten() for g in torch.autograd.grad(run(u, kernel), (u, kernel), grad)])


def timed(runs: dict[str, Run], seconds: float) -> dict[str, tuple[float, int]]:
    """Median milliseconds and repetitions of each, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(taken["plain"]) < 3:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: (statistics.median(times), len(times)) for name, times in taken.items()}


def compare(length: int, channels: int, backends: dict[str, FFTBackend], backward: bool, seconds: float) -> None:
    draw = torch.Generator().manual_seed(length)
    u, kernel, grad = (torch.randn(1, channels, length, generator=draw) for _ in range(3))
    kernel = kernel[0] / length**0.5
    runs: dict[str, Run] = {}
    if backward:
        runs["plain"] = trained(plain, u, kernel, grad)
        for name, backend in backends.items():
            runs[name] = trained(lambda u, k, fft=backend: convolve(u, k, backend=fft), u, kernel, grad)
        exact = trained(plain, u[:, :8].double(), kernel[:8].double(), grad[:, :8].double())()
    else:
        spectrum = torch.fft.rfft(kernel, n=2 * length)
        runs["plain"] = lambda: plain(u, kernel, spectrum)
        for name, backend in backends.items():
            ready = prepare_kernel(kernel, length, backend=backend)
            runs[name] = lambda ready=ready, fft=backend: convolve(u, ready, backend=fft)
        exact = plain(u[:, :8].double(), kernel[:8].double())
    for name, run in runs.items():
        found = run()
        if backward:
            found = torch.cat([part.view(channels, length)[:8].flatten() for part in found.chunk(2)])
        check(f"{name} at {length} tokens", found if backward else found[:, :8], exact)
        del found
    with torch.set_grad_enabled(backward):
        medians = timed(runs, seconds)
    for name, (median, count) in medians.items():
        against = "".join(f"   {medians[other][0] / median:5.2f}x {other}" for other in ("plain", "hierarchical"))
        what = "forward + backward" if backward else "forward"
        print(f"{length:7} {what:18} {name:22} {median:9.2f} ms ({count:3}){against}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lengths", type=int, nargs="+")
    parser.add_argument("--channels", type=int, default=768)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=5.0, help="for each length, all candidates together")
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--block-bytes", type=int, nargs="*", default=[], help="further sizes to try of ducc's blocks")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    backends: dict[str, FFTBackend] = {"hierarchical": fft_backend("hierarchical"), "ducc": DuccFFT()}
    backends |= {f"ducc, {size >> 10} KiB blocks": DuccFFT(block_bytes=size) for size in given.block_bytes}
    print(f"torch {torch.__version__}, {platform.machine()}, threads: {given.threads}, channels: {given.channels}")
    for length in given.lengths:
        compare(length, given.channels, backends, given.backward, given.seconds)


if __name__ == "__main__":
    main()
