"""Where ``fft: auto`` should switch backends: measures, and with --write stores, the thresholds.

direct_taps: the most taps for which the direct sum is not slower than both others at any measured size of at least
direct_points (channels x transform points); forward, and with gradients. hierarchical_points: from how many points on
blocks are not slower than the whole tensor at any measured size. Times are medians of interleaved rounds; slower means
by more than 10 %, what this measurement repeats to on a shared machine.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from spectral_core import convolve, fft_backend
from spectral_core.backends.base import Support

TARGET = Path(__file__).parents[1] / "spectral_core" / "backends" / "thresholds.json"
SLOWER = 1.10
DIRECT_POINTS = 32768
ROUNDS = 5
TAPS = (2, 4, 8, 16, 32, 64)
SIZES = tuple((channels, length) for channels in (64, 512) for length in (64, 256, 1024, 4096))


def forward(u: Tensor, kernel: Tensor, name: str) -> Callable[[], object]:
    def run() -> Tensor:
        with torch.no_grad():
            return convolve(u, kernel, backend=fft_backend(name))

    return run


def training(u: Tensor, kernel: Tensor, name: str) -> Callable[[], object]:
    u, kernel = u.clone().requires_grad_(), kernel.clone().requires_grad_()

    def run() -> None:
        convolve(u, kernel, backend=fft_backend(name)).sum().backward()

    return run


def medians(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Interleaved rounds; a round repeats a call until it takes a few milliseconds."""
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(4e-3 / max(1e-6, time.perf_counter() - start)))
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            rounds[name].append((time.perf_counter() - start) / repeats[name])
    return {name: statistics.median(times) for name, times in rounds.items()}


def main() -> None:
    torch.manual_seed(0)
    lost: dict[str, set[int]] = {"forward": set(), "training": set()}
    blocks_lost = [0]
    print(f"{'D':>5} {'L':>6} {'taps':>6} {'':9} direct/torch  hierarchical/torch")
    for channels, length in SIZES:
        u = torch.randn(1, channels, length)
        for taps in (*TAPS, length):
            kernel = torch.randn(channels, taps) / taps
            for kind, make in (("forward", forward), ("training", training)):
                names = ["torch", "hierarchical"] + (["direct"] if taps in TAPS else [])
                times = medians({name: make(u, kernel, name) for name in names})
                blocks = times["hierarchical"] / times["torch"]
                points = channels * Support.of(taps, length, "causal").points
                if blocks > SLOWER:
                    blocks_lost.append(points)
                direct = times.get("direct", float("inf")) / min(times["torch"], times["hierarchical"])
                if taps in TAPS and points >= DIRECT_POINTS and direct > SLOWER:
                    lost[kind].add(taps)
                print(f"{channels:5} {length:6} {taps:6} {kind:9} {direct:12.2f}  {blocks:12.2f}", flush=True)
    most = {kind: max([0, *(taps for taps in TAPS if taps < min(lost[kind], default=10**9))]) for kind in lost}
    found = {"direct_points": DIRECT_POINTS, "direct_taps": most, "hierarchical_points": max(blocks_lost) + 1}
    print(found)
    if "--write" in sys.argv:
        where = {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        }
        made = {"made_by": "python benchmarks/plan.py --write", "cpu": found, "measured_on": where}
        TARGET.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
