"""Which mixers recall? Multi-query associative recall at equal parameters and equal data.

Two layers of width 128, vocabulary 512, feed-forwards widened until all rows have as many parameters; batches of eight
sequences, AdamW with warm-up and cosine decay, every batch with all the pairs. A row ends when it has answered 99.5 %
of 2048 held-out queries or has taken all its steps, whichever is first; its accuracy is then measured on 8192 others.
With ``--first LENGTH PAIRS`` it learns those until they end in the same way, and then the longer ones. Finished rows
are appended to ``recall.json``; a run that was killed goes on with those missing.

    OMP_NUM_THREADS=1 python benchmarks/recall.py                             # 256 tokens, 32 pairs, all rows, one seed
    OMP_NUM_THREADS=1 python benchmarks/recall.py --seeds 0 1 2
    OMP_NUM_THREADS=1 python benchmarks/recall.py --options                   # what the holographic memory's options do
    OMP_NUM_THREADS=1 python benchmarks/recall.py --length 1024 --pairs 64 --first 256 32    # the leading rows
    python benchmarks/recall.py --table                                       # the tables of what is there
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import baselines
import torch
from records import Records, Row, parameters, sized
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_models import build_model
from spectral_models.data import mqar_batch

MODEL = {"vocab_size": 512, "hidden_dim": 128, "num_layers": 2}
PARAMETERS = 500_000
BATCH = 8
WARMUP = 50
SOLVED = 0.995
WATCHED, ASKED = 2048, 8192
KEYS = ("name", "length", "pairs", "first", "seed", "rate", "steps")

GATED = {"type": "gated_convolution", "filter": "implicit"}
DECAYING = {"type": "holographic", "decay": "per_token"}
DELTA = {**DECAYING, "update": "delta"}
ROWS: dict[str, list[Any]] = {
    "holographic / gated_convolution": ["holographic", GATED],
    "gated_convolution / holographic": [GATED, "holographic"],
    "gated_convolution / holographic, decay per token": [GATED, DECAYING],
    "gated_convolution / holographic, delta rule": [GATED, DELTA],
    "holographic, delta rule / gated_convolution": [DELTA, GATED],
    "holographic": ["holographic"],
    "holographic, delta rule": [DELTA],
    "attention, short convolution": [{"type": "baselines/attention", "short": True}],
    "attention": ["baselines/attention"],
    "gated_convolution": [GATED],
    "spectral_product": ["spectral_product"],
    "spectral_gating": ["spectral_gating"],
    "multiscale": ["multiscale"],
    "long convolution": ["baselines/long_convolution"],
}
LEADING = (
    "holographic / gated_convolution",
    "gated_convolution / holographic, delta rule",
    "holographic, delta rule / gated_convolution",
    "attention, short convolution",
)


UNSCALED = {"attention", "attention, short convolution"}
"""Rows that read embeddings as they are: sqrt(width) times them, as ours do, they had not begun after 500 steps."""


def varied(**options: Any) -> list[Any]:
    return [{"type": "holographic", **options}, GATED]


OPTIONS: dict[str, list[Any]] = {
    "decay per token": varied(decay="per_token"),
    "delta rule": varied(update="delta"),
    "timescales 4096 to 4096": varied(timescales=(4096.0, 4096.0)),
    "timescales 64 to 4096": varied(timescales=(64.0, 4096.0)),
    "phases 16": varied(phases=16),
    "phases 32": varied(phases=32),
    "phases 128": varied(phases=128),
    "head_dim 16": varied(head_dim=16),
    "head_dim 64": varied(head_dim=64),
}


@torch.no_grad()
def accuracy(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Share of the queries answered with the right value."""
    model.eval()
    right = asked = 0
    for inputs, labels in batches:
        here = labels != -100
        right += int((model(inputs).logits.argmax(-1)[here] == labels[here]).sum())
        asked += int(here.sum())
    model.train()
    return right / asked


def held_out(length: int, pairs: int, seed: int, queries: int) -> list[tuple[Tensor, Tensor]]:
    """Batches that ask so many queries at least."""
    generator = torch.Generator().manual_seed(seed)
    return [drawn(length, pairs, generator) for _ in range(-(-queries // (BATCH * pairs)))]


def drawn(length: int, pairs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return mqar_batch(BATCH, length=length, pairs=pairs, vocab_size=MODEL["vocab_size"], generator=generator)


def learn(
    model: nn.Module, length: int, pairs: int, rate: float, steps: int, generator: torch.Generator
) -> list[tuple[int, float]]:
    """Train until the queries are answered or the steps are taken; the accuracy on the way, by step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    watched = held_out(length, pairs, 1, WATCHED)
    curve: list[tuple[int, float]] = []
    for step in range(1, steps + 1):
        inputs, labels = drawn(length, pairs, generator)
        output = model(inputs)
        loss = F.cross_entropy(output.logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        loss = sum(output.losses.values(), start=loss)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0 or step == steps:
            curve.append((step, accuracy(model, watched)))
            print(f"  step {step}/{steps}  loss {loss.item():.3f}  accuracy {curve[-1][1]:.4f}", flush=True)
            if curve[-1][1] >= SOLVED:
                break
    return curve


def run(name: str, length: int, pairs: int, seed: int, rate: float, steps: int, first: str | None = None) -> Row:
    """Train one row. first: the tokens and pairs of a task that it learns before, as in ``"256 / 32"``."""
    mixers = {**ROWS, **OPTIONS}[name]
    torch.manual_seed(seed)
    config = sized({**MODEL, "embed_scale": 1.0 if name in UNSCALED else None}, mixers, PARAMETERS)
    model = build_model(config)
    generator = torch.Generator().manual_seed(1_000 + seed)
    before = learn(model, *map(int, first.split("/")), rate, steps, generator) if first else []
    told = accuracy(model, held_out(length, pairs, 2, ASKED)) if first else None
    curve = learn(model, length, pairs, rate, steps, generator)
    return {
        "name": name,
        "length": length,
        "pairs": pairs,
        "first": first,
        "seed": seed,
        "rate": rate,
        "steps": steps,
        "accuracy": accuracy(model, held_out(length, pairs, 2, ASKED)),
        "steps_taken": curve[-1][0],
        "accuracy_after_first": told,
        "steps_taken_first": before[-1][0] if before else None,
        "parameters": parameters(config),
        "batch": BATCH,
        "curve": curve,
        "mixers": mixers,
    }


def table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Markdown: accuracy and steps by task, the mean over seeds and the worst. Rows that were not run are missing."""
    lines = [
        "| mixers | tokens / pairs | accuracy | worst seed | steps, at most | rate | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        task = (row["length"], row["pairs"], row["first"] or "", row["rate"], row["steps"])
        groups.setdefault((row["name"], *task), []).append(row)
    for name in names:
        for (known, length, pairs, first, rate, _), members in sorted(groups.items()):
            if known == name:
                found = [row["accuracy"] for row in members]
                most = f"{max(row['steps_taken'] for row in members)}"
                if first:
                    most = f"{max(row['steps_taken_first'] for row in members)} of {first}, then {most}"
                lines.append(
                    f"| {name} | {length:,} / {pairs} | {statistics.fmean(found):.3f} | {min(found):.3f} | {most} | "
                    f"{rate:g} | {len(found)} |"
                )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rows", nargs="+", choices=[*ROWS, *OPTIONS], metavar="NAME", help="only these, in this order"
    )
    parser.add_argument("--options", action="store_true", help="the holographic memory's options instead")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument(
        "--first", nargs=2, type=int, metavar=("LENGTH", "PAIRS"), help="an easier task that each row learns before"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rates", nargs="+", type=float, default=[3e-3])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    options = parser.parse_args(arguments)
    baselines.register()
    records = Records(options.out / "recall.json", KEYS)
    names = options.rows or (OPTIONS if options.options else ROWS if options.length <= 256 else LEADING)
    first = " / ".join(map(str, options.first)) if options.first else None
    task = {"length": options.length, "pairs": options.pairs, "first": first, "steps": options.steps}
    wanted = [
        {"name": name, "seed": seed, "rate": rate, **task}
        for seed in options.seeds
        for rate in options.rates
        for name in names
    ]
    for row in [] if options.table else wanted:
        if not records.has(**row):
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            records.add(run(**row))
    for group in (ROWS, OPTIONS):
        print(table(records.rows(), list(group)), end="\n\n")


if __name__ == "__main__":
    main()
