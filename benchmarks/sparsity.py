"""What sparsity costs, saves and leaves over: kernels from stepped gains, inverse transforms of the kept bins, mixers.

First the energy a causal kernel leaves outside the kept bins, by how it was made. Then the inverse transform of the
lowest eighth of the bins in three ways, each held against the whole one before its time is printed. Then a mixer
with each sparsity against the same without.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from spectral_core import fft_backend
from spectral_layers import LayerContext
from spectral_layers.minimum_phase import attainable, minimum_phase
from spectral_layers.mixers.spectral_gating import SpectralGatingConfig

WINDOW, BINS, KEPT, ROUNDS, REPEATS = 64, 33, 4, 15, 5
FFT = fft_backend("torch")


def kept_sets() -> dict[str, Tensor]:
    """0/1 gains (sets, bins), by name: 4 bins of 33."""
    random = torch.Generator().manual_seed(0)
    starts = range(1, BINS - KEPT)
    anywhere = [torch.randperm(BINS, generator=random)[:KEPT] for _ in range(50)]
    places = {
        "lowest four": [torch.arange(KEPT)],
        "a band of four": [torch.arange(start, start + KEPT) for start in starts],
        "four anywhere": anywhere,
    }
    return {
        name: torch.stack([torch.zeros(BINS, dtype=torch.float64).index_fill(0, i, 1.0) for i in found])
        for name, found in places.items()
    }


def zero_phase_cut(gain: Tensor) -> Tensor:
    kernel = torch.fft.irfft(gain.to(torch.complex128), WINDOW)
    return kernel * (torch.arange(WINDOW) <= WINDOW // 2)


def left_over(kernel: Tensor, gain: Tensor) -> tuple[float, float]:
    """Mean energy nearer to dropped bins than to kept, and gain in the worst kept bin, over the sets."""
    finer = 64
    response = torch.fft.rfft(kernel, finer * WINDOW).abs()
    nearest = torch.round(torch.arange(response.shape[-1]) / finer).long()
    power = response.square()
    outside = (power * (1 - gain[:, nearest])).sum(-1) / power.sum(-1)
    worst = torch.where(gain > 0, response[:, ::finer], math.inf).min(-1).values
    return float(outside.mean()), float(worst.mean())


def kernels() -> None:
    print("energy outside the kept bins, gain in the worst kept bin; 4 bins of 33 kept")
    sets = kept_sets()
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "zero phase cut at t >= 0": zero_phase_cut,
        "minimum phase of the steps, 64 taps": lambda gain: minimum_phase(gain, WINDOW, FFT),
        "minimum phase of the steps, 128 taps": lambda gain: minimum_phase(gain, 2 * WINDOW, FFT),
    }
    for taps in (WINDOW, 2 * WINDOW, 4 * WINDOW):
        ways[f"attainable, {taps} taps"] = lambda gain, taps=taps: minimum_phase(attainable(gain, taps, FFT), taps, FFT)
    print(f"{'':38}", "".join(f"{name:18}" for name in sets))
    for name, way in ways.items():
        found = [left_over(way(gain), gain) for gain in sets.values()]
        print(f"{name:38}", "".join(f"{outside:.3f}, {worst:.2f}       " for outside, worst in found))


def partial(length: int, count: int) -> Tensor:
    """(2 * count, length): from real and imaginary parts of the lowest bins to the signal."""
    turns = torch.arange(count)[:, None] * torch.arange(length) % length
    angle = turns * (2 * math.pi / length)
    weight = torch.full((count, 1), 2.0 / length).index_fill(0, torch.tensor([0]), 1.0 / length)
    return torch.cat([weight * angle.cos(), -weight * angle.sin()])


def decimated(length: int, count: int) -> Callable[[Tensor], Tensor]:
    """Four transforms of a quarter of the length, for every fourth output each, of the turned kept bins."""
    step = torch.arange(4)[:, None] * torch.arange(count) / length
    turn = torch.exp(2j * math.pi * step).to(torch.complex64)
    return lambda kept: torch.fft.irfft(kept[..., None, :] * turn, length // 4).mT.flatten(-2) / 4


def transforms() -> None:
    print("\ninverse of the lowest eighth of the bins: time over that of the whole inverse (quartiles)")
    for batch, length in ((16, 256), (4, 1024), (1, 4096), (1, 16384)):
        count = length // 16
        kept = torch.randn(batch, 256, count, dtype=torch.complex64)
        kept[..., 0] = kept[..., 0].real  # no imaginary part at DC
        whole = torch.nn.functional.pad(torch.view_as_real(kept), (0, 0, 0, length // 2 + 1 - count))
        whole = torch.view_as_complex(whole.contiguous())
        matrix, pairs, quarter = partial(length, count), torch.cat([kept.real, kept.imag], -1), decimated(length, count)
        ways: dict[str, Callable[[], Tensor]] = {
            "matrix product": lambda pairs=pairs, matrix=matrix: pairs @ matrix,
            "quarter transforms": lambda kept=kept, quarter=quarter: quarter(kept),
        }
        reference = torch.fft.irfft(whole, length)
        shown = []
        for name, way in ways.items():
            error = float((way() - reference).norm() / reference.norm())
            if error > 1e-5:
                sys.exit(f"{name} at {length} tokens is off by {error:.1e}; no time is printed for a wrong result")
            shown.append(f"{name} {ratio(way, lambda whole=whole, length=length: torch.fft.irfft(whole, length))}")
        print(f"{length:6} tokens, {batch} x 256 channels: {'; '.join(shown)}")


@torch.no_grad()
def mixers() -> None:
    print("\nspectral_gating of width 256, gate band, 4 x 1024 tokens: time over that without a sparsity (quartiles)")
    x = torch.randn(4, 1024, 256)
    for causal in (True, False):
        context = LayerContext(256, causal, fft_backend("auto"))
        plain = SpectralGatingConfig.parse({"gates": ["band"]}).build(context).eval()
        for name in ("fixed", "adaptive", "energy"):
            sparse = SpectralGatingConfig.parse({"gates": ["band"], "sparsity": name}).build(context).eval()
            found = ratio(lambda sparse=sparse: sparse(x).y, lambda plain=plain: plain(x).y)
            print(f"{'causal' if causal else 'bidirectional':14} {name:9} {found}")


def ratio(ours: Callable[[], Tensor], theirs: Callable[[], Tensor]) -> str:
    """Ours over theirs, turn by turn."""
    ours(), theirs()
    found = sorted(seconds(ours) / seconds(theirs) for _ in range(ROUNDS))
    return f"{statistics.median(found):.2f} ({found[ROUNDS // 4]:.2f} to {found[-1 - ROUNDS // 4]:.2f})"


def seconds(call: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    for _ in range(REPEATS):
        call()
    return time.perf_counter() - start


def main() -> None:
    torch.manual_seed(0)
    kernels()
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads, float32")
    transforms()
    mixers()


if __name__ == "__main__":
    main()
