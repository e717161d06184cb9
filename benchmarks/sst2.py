"""Is a film review kind? SST-2 from scratch, by ``spectral train``'s own way, with and without the mixers.

    OMP_NUM_THREADS=2 python benchmarks/sst2.py --data PATH        # PATH holds train.tsv and dev.tsv
    python benchmarks/sst2.py --table                              # the table of what is there

Accuracy on the 872 sentences of dev.tsv after the last step. Neither the byte-pair encoding nor a choice of checkpoint
has seen them; the settings of this file have, for a few were tried on them. One standard error is 1.3 points. A row's
time is that of the whole command: reading, learning the encoding, training, evaluations. ``no mixers``: the same model,
its blocks left with their feed-forwards; ``wider``: these twice as wide. Rows are kept as they come; a run that was
killed goes on.

Socher et al., "Recursive deep models for semantic compositionality over a sentiment treebank", 2013.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import baselines
import torch
from records import Records, Row, parameters

from spectral_models.training import RunConfig, load_run
from spectral_models.training.run import train

KEYS = ("name", "seed", "steps")
WIDTH, VOCABULARY = 192, 16_000
MIXED = {"type": "gated_convolution", "filter": {"type": "multiresolution"}}
ROWS: dict[str, tuple[Any, float]] = {
    "gated_convolution": (MIXED, 2.0),
    "no mixers": ("baselines/nothing", 2.0),
    "no mixers, wider": ("baselines/nothing", 4.0),
}


def described(name: str, seed: int, steps: int, tables: Path) -> RunConfig:
    mixer, expansion = ROWS[name]
    block = {"mixer": mixer, "feedforward": {"type": "mlp", "expansion": expansion}, "dropout": 0.2}
    encoder = {
        "type": "encoder",
        "vocab_size": VOCABULARY,
        "hidden_dim": WIDTH,
        "num_layers": 2,
        "position": "none",
        "pooling": "max",
        "block": block,
    }
    return load_run(
        {
            "model": {
                "type": "classifier",
                "num_labels": 2,
                "labels": ["negative", "positive"],
                "dropout": 0.5,
                "encoder": encoder,
            },
            "data": {
                "source": str(tables / "train.jsonl"),
                "validation": str(tables / "dev.jsonl"),
                "tokenizer": "bpe",
                "max_length": 64,
            },
            "training": {
                "steps": steps, "batch_size": 128, "learning_rate": 2e-3, "weight_decay": 0.1, "label_smoothing": 0.1,
                "betas": [0.9, 0.99], "final_rate": 0.02, "eval_every": 500, "save_every": 250, "log_every": 100,
                "seed": seed,
            },
        }
    )  # fmt: skip


def converted(source: Path, tables: Path) -> None:
    """The two files under the same column names: the original's differ."""
    tables.mkdir(parents=True, exist_ok=True)
    for part in ("train", "dev"):
        with (source / f"{part}.tsv").open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        text, label = (1, 0) if header[0] == "label" else (0, 1)
        lines = (json.dumps({"text": row[text], "label": int(row[label])}) for row in rows)
        (tables / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(name: str, seed: int, steps: int, source: Path, work: Path) -> Row:
    """Train one row, or the rest of it; its times are those of this process."""
    wall, processor = time.perf_counter(), time.process_time()
    converted(source, work)
    config = described(name, seed, steps, work)
    directory = work / f"{''.join(c if c.isalnum() else '-' for c in name)}-{seed}-{steps}"
    resumed = directory.exists()
    result = train(config, directory, resume=resumed)
    return {
        "name": name,
        "seed": seed,
        "steps": steps,
        "accuracy": result.accuracy,
        "loss": result.loss,
        "majority": result.majority,
        "parameters": parameters(config.model),
        "wall_seconds": round(time.perf_counter() - wall),
        "processor_seconds": round(time.process_time() - processor),
        "threads": torch.get_num_threads(),
        "resumed": resumed,
        "curve": [[row["step"], row["eval_accuracy"]] for row in result.history if "eval_accuracy" in row],
        "config": config.model_dump(mode="json"),
    }


def table(rows: Sequence[Row]) -> str:
    lines = ["| | accuracy | seeds | lowest | parameters | processor time | wall |", "|---|---|---|---|---|---|---|"]
    for name in ROWS:
        found = [row for row in rows if row["name"] == name]
        if found:
            accuracies = [row["accuracy"] for row in found]
            processor, wall = (
                f"{statistics.fmean(row[key] for row in found if not row['resumed']) / 60:.1f} min"
                if any(not row["resumed"] for row in found)
                else "–"
                for key in ("processor_seconds", "wall_seconds")
            )
            lines.append(
                f"| {name} | {statistics.fmean(accuracies):.4f} | {len(found)} | {min(accuracies):.4f} "
                f"| {found[0]['parameters']:,} | {processor} | {wall} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="the directory with train.tsv and dev.tsv")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), metavar="NAME", default=list(ROWS)[:2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=1580)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--work", type=Path, default=Path("runs/sst2"), help="where unfinished rows are kept")
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    options = parser.parse_args(arguments)
    baselines.register()
    records = Records(options.out / "sst2.json", KEYS)
    if not options.table and options.data is None:
        parser.error("--data: the directory with SST-2's train.tsv and dev.tsv")
    for seed in [] if options.table else options.seeds:
        for name in options.rows:
            if not records.has(name=name, seed=seed, steps=options.steps):
                print(f"{name}, seed {seed}", flush=True)
                records.add(run(name, seed, options.steps, options.data, options.work))
    print(table(records.rows()))


if __name__ == "__main__":
    main()
