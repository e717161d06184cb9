"""Does a decoder without attention read its source? Sequences of 4 to 32 symbols, reversed and sorted.

Share of unseen sequences that are right from the first symbol to the end token, generated greedily. ``source_product``:
the model's own fusion. ``mean``: the same model, told the mean of what its encoder says of the source. A row ends when
all of 256 watched sequences are right, or has taken all its steps; its share is then measured on 1024 others.
Finished rows are appended to ``sequences.json``; a run that was killed goes on with those missing.

    OMP_NUM_THREADS=1 python benchmarks/sequences.py                  # a few minutes a row
    python benchmarks/sequences.py --table                            # the table of what is there
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import baselines
import torch
from records import Records, Row
from torch import nn

from spectral_models import build_model
from spectral_models.data import SequenceTask, sequences_batch
from spectral_models.variants.seq2seq import Seq2Seq

SYMBOLS = 32
STEPS: dict[SequenceTask, int] = {"reverse": 1000, "sort": 2000}
BATCH, WARMUP = 32, 50
WATCHED, HELD_OUT = 256, 1024
FUSIONS: dict[str, Any] = {
    "source_product": {"type": "source_product", "head_dim": 16, "phases": 32},
    "mean": "baselines/source_mean",
}
KEYS = ("task", "fusion", "seed", "rate", "steps")


def block(mixer: Any) -> dict[str, Any]:
    return {"mixer": mixer, "feedforward": {"type": "mlp", "expansion": 3}}


SHORT = {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 8, "timescales": [2, 64]}}
MODEL: dict[str, Any] = {
    "type": "seq2seq",
    "vocab_size": SYMBOLS + 1,
    "hidden_dim": 64,
    "num_layers": 2,
    "block": block(SHORT),
    "encoder": {
        "type": "encoder",
        "vocab_size": SYMBOLS + 1,
        "hidden_dim": 64,
        "num_layers": 1,
        "block": block(SHORT),
    },
}


@torch.no_grad()
def exact(model: Seq2Seq, task: SequenceTask, *, seed: int, count: int) -> float:
    """Share of ``count`` sequences that come out whole, with their end."""
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    right = 0
    for size in [128] * (count // 128) + [count % 128] * (count % 128 > 0):
        input_ids, mask, labels = sequences_batch(size, task=task, symbols=SYMBOLS, generator=generator)
        found = model.generate(input_ids, mask, max_new_tokens=labels.shape[1])
        found = nn.functional.pad(found, (0, labels.shape[1] - found.shape[1]))
        right += int(((found == labels) | (labels == -100)).all(1).sum())
    model.train()
    return right / count


def run(task: SequenceTask, fusion: str, seed: int, rate: float, steps: int) -> Row:
    """Train one row."""
    torch.manual_seed(seed)
    model = build_model(MODEL, fusion=FUSIONS[fusion])
    assert isinstance(model, Seq2Seq)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    generator = torch.Generator().manual_seed(1_000 + seed)
    curve: list[tuple[int, float]] = []
    start = time.process_time()
    for step in range(1, steps + 1):
        input_ids, mask, labels = sequences_batch(BATCH, task=task, symbols=SYMBOLS, generator=generator)
        loss = model.loss(input_ids, labels, mask).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps:
            curve.append((step, exact(model, task, seed=1, count=WATCHED)))
            print(f"  step {step}/{steps}  loss {loss.item():.4f}  exact {curve[-1][1]:.4f}", flush=True)
            if curve[-1][1] == 1.0:
                break
    return {
        "task": task,
        "fusion": fusion,
        "seed": seed,
        "rate": rate,
        "steps": steps,
        "exact": exact(model, task, seed=2, count=HELD_OUT),
        "sequences": HELD_OUT,
        "steps_taken": curve[-1][0],
        "processor_seconds": round(time.process_time() - start),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "curve": curve,
        "model": {**MODEL, "fusion": FUSIONS[fusion]},
    }


def table(rows: Sequence[Row]) -> str:
    """Markdown: exact matches, the mean over seeds and the worst."""
    lines = [
        "| task | fusion | exact | worst seed | steps, at most | processor seconds | parameters | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str, float, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["fusion"], row["rate"], row["steps"]), []).append(row)
    for (task, fusion, _, _), members in groups.items():
        found = [row["exact"] for row in members]
        steps, seconds = (max(row[key] for row in members) for key in ("steps_taken", "processor_seconds"))
        lines.append(
            f"| {task} | {fusion} | {statistics.fmean(found):.4f} | {min(found):.4f} | {steps} | {seconds} | "
            f"{members[0]['parameters']:,} | {len(found)} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=get_args(SequenceTask), default=list(get_args(SequenceTask)))
    parser.add_argument("--fusions", nargs="+", choices=list(FUSIONS), default=list(FUSIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--steps", type=int, help=f"optimiser steps, instead of {STEPS}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    options = parser.parse_args(arguments)
    baselines.register()
    records = Records(options.out / "sequences.json", KEYS)
    wanted = [
        {"task": task, "fusion": fusion, "seed": seed, "rate": options.rate, "steps": options.steps or STEPS[task]}
        for seed in options.seeds
        for task in options.tasks
        for fusion in options.fusions
    ]
    for row in [] if options.table else wanted:
        if not records.has(**row):
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            records.add(run(**row))
    print(table(records.rows()))


if __name__ == "__main__":
    main()
