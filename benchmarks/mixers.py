"""What does every registered mixer cost, and does its cost grow as n log n?

Forward passes of mixers alone with their defaults: batch 1, width 128, float32, kernels ready. Both lengths take turns.
``growth`` is time / (n log2 n) at the longer over that at the shorter, formed round by round: 1 is n log n, and what
lies above it is memory, as 4,096 tokens stay in the cache and 65,536 do not. Before any time is taken, the outputs at
the shorter length are held against the same mixer in float64.

    python benchmarks/mixers.py                                  # all mixers, a minute
    python benchmarks/mixers.py --mixers holographic fourier
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from models import THREADS
from records import Records
from torch import Tensor

from spectral_core import fft_backend
from spectral_layers import MIXERS, LayerContext, Mixer, fixed_weights
from spectral_models.benchmarks.measure import Stopwatch, paired_ratio, spread

DIM = 128


def contestants(names: Sequence[str], longest: int) -> dict[str, Mixer]:
    """Every mixer in every direction it has."""
    made = {}
    for name, config in sorted(MIXERS.configs().items()):
        if names and name not in names:
            continue
        for direction in sorted(config.directions, reverse=True):
            torch.manual_seed(0)
            context = LayerContext(DIM, direction == "causal", fft_backend("auto"), max_seq_len=longest)
            made[f"{name}, {direction}"] = config().build(context).eval()
    return made


def error(mixer: Mixer, x: Tensor) -> float:
    """Largest difference from float64 over the largest output."""
    exact = copy.deepcopy(mixer).double()(x.double()).y
    return float((mixer(x).y - exact).abs().max() / exact.abs().max())


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", nargs="+", default=[], help="all, unless some are named")
    parser.add_argument("--lengths", type=int, nargs=2, default=(4096, 65536))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    short, long = args.lengths
    records = Records(args.out / "mixers.json", ("name", "short", "long"))
    print(f"| mixer | {short:,} tokens, ms | {long:,} tokens, ms | growth |\n|---|---|---|---|")
    for name, mixer in contestants(args.mixers, long).items():
        inputs = {length: torch.randn(1, length, DIM) for length in (short, long)}
        off = error(mixer, inputs[short])
        if not off < 1e-3:
            sys.exit(f"{name}: off by {off:.1e} of float64; no time is taken of a wrong result")
        with fixed_weights(mixer):  # kernels are ready, as in any pass of an evaluation but the first
            taken = Stopwatch({str(length): partial(mixer, x) for length, x in inputs.items()}).rounds(args.rounds)
        per_step = {length: [t / (length * math.log2(length)) for t in taken[str(length)]] for length in inputs}
        growth = paired_ratio(per_step[long], per_step[short])
        fast, slow = spread(taken[str(short)]), spread(taken[str(long)])
        row = {
            "name": name,
            "short": short,
            "long": long,
            "milliseconds_short": fast.median * 1e3,
            "milliseconds_long": slow.median * 1e3,
            "growth": growth.median,
            "growth_low": growth.low,
            "growth_high": growth.high,
        }
        if not records.has(name=name, short=short, long=long):
            records.add(row)
        print(
            f"| {name} | {fast.median * 1e3:.1f} | {slow.median * 1e3:.0f} "
            f"| {growth.median:.2f} ({growth.low:.2f} to {growth.high:.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
