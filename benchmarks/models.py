"""How long does a whole model read a text, beside a transformer? Forward passes, from token ids to logits.

All have the same width, depth and number of parameters, and all but the mixer in common: embedding, norms, residual
stream, feed-forwards (whose width makes the parameters equal), head. The transformer's mixer is causal
``scaled_dot_product_attention`` on one fused projection, with rotary positions and heads of 64 channels.

Models take turns, so that a slow spell of the machine meets all of them; a ratio is formed round by round. Before any
time is taken, each model's logits at 2,048 tokens are held against the same model in float64. A finished length is
kept in ``models.json``; what was stopped goes on with the lengths that are missing. 65,536 tokens are read once,
without a warm-up: the transformer takes minutes, and ours make their kernels in that time.

    python benchmarks/models.py                        # what is missing of 2,048, 8,192 and 16,384 tokens; two minutes
    python benchmarks/models.py --lengths 65536        # two minutes more
    python benchmarks/models.py --table
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import baselines
import torch
from records import Records, parameters, sized
from torch import Tensor, nn

from spectral_layers import fixed_weights
from spectral_models.benchmarks.measure import Stopwatch, paired_ratio, spread

MODEL = {"vocab_size": 256, "hidden_dim": 256, "num_layers": 6}
PARAMETERS = 5_000_000
TRANSFORMER = "transformer"
ROWS: dict[str, list[Any]] = {
    TRANSFORMER: [{"type": "baselines/attention", "head_dim": 64}],
    "gated_convolution": ["gated_convolution"],
    "hybrid": ["gated_convolution", {"type": "holographic", "decay": "per_token", "update": "delta"}],
}
LENGTHS = (2048, 8192, 16384)
ONCE = 65536
"""From this length on a model is timed once."""
CHECKED = 2048
TOLERANCE = 1e-2
"""Of float32 in six layers, where phases turn many times."""
THREADS = 2


def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {name: sized(MODEL, mixers, PARAMETERS, "swiglu").build().eval() for name, mixers in ROWS.items()}


def error(model: nn.Module, ids: Tensor) -> float:
    """Largest difference of the logits from float64 over the largest logit."""
    exact = copy.deepcopy(model).double()(ids).logits
    return float((model(ids).logits - exact).abs().max() / exact.abs().max())


def seconds(tasks: dict[str, Callable[[], object]], length: int, rounds: int) -> dict[str, list[float]]:
    if length < ONCE:
        return Stopwatch(tasks).rounds(rounds)
    taken: dict[str, list[float]] = {}
    for name, task in tasks.items():
        start = time.perf_counter()
        task()
        taken[name] = [time.perf_counter() - start]
    return taken


def measure(contestants: dict[str, nn.Module], length: int, rounds: int, records: Records) -> None:
    ids = torch.randint(0, MODEL["vocab_size"], (1, length))
    with ExitStack() as scopes:  # kernels are ready, as in any pass of an evaluation but the first
        for model in contestants.values():
            scopes.enter_context(fixed_weights(model))
        taken = seconds({name: partial(model, ids) for name, model in contestants.items()}, length, rounds)
    for name, times in taken.items():
        time_taken, ratio = spread(times), paired_ratio(taken[TRANSFORMER], times)
        records.add(
            {
                "name": name,
                "length": length,
                "parameters": parameters(contestants[name].config),
                "rounds": len(times),
                "milliseconds": time_taken.median * 1e3,
                "milliseconds_low": time_taken.low * 1e3,
                "milliseconds_high": time_taken.high * 1e3,
                "transformer_takes": ratio.median,
                "transformer_takes_low": ratio.low,
                "transformer_takes_high": ratio.high,
            }
        )


def table(records: Records) -> None:
    print("| tokens | model | parameters | ms | transformer takes |")
    print("|---|---|---|---|---|")
    for row in sorted(records.rows(), key=lambda row: row["length"]):
        times, ratio = f"{row['milliseconds']:,.0f}", f"{row['transformer_takes']:.2f} ×"
        if row["rounds"] > 1:
            times += f" ({row['milliseconds_low']:,.0f} to {row['milliseconds_high']:,.0f})"
            ratio += f" ({row['transformer_takes_low']:.2f} to {row['transformer_takes_high']:.2f})"
        shown = "" if row["name"] == TRANSFORMER else ratio
        print(f"| {row['length']:,} | {row['name']} | {row['parameters']:,} | {times} | {shown} |")


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--table", action="store_true", help="print what is there, and measure nothing")
    args = parser.parse_args(arguments)
    records = Records(args.out / "models.json", ("length",))
    missing = [] if args.table else [length for length in args.lengths if not records.has(length=length)]
    if missing:
        torch.set_num_threads(THREADS)
        baselines.register()
        contestants = models()
        ids = torch.randint(0, MODEL["vocab_size"], (1, min(CHECKED, *missing)))
        for name, model in contestants.items():
            off = error(model, ids)
            if not off < TOLERANCE:
                sys.exit(f"{name}: off by {off:.1e} of float64; no time is taken of a wrong result")
        for length in missing:
            measure(contestants, length, args.rounds, records)
    table(records)


if __name__ == "__main__":
    main()
