"""Is a film review kind? SST-2 from scratch and from a pretrained encoder, by ``spectral train``'s own way.

    OMP_NUM_THREADS=2 python benchmarks/sst2.py --data PATH        # PATH holds train.tsv and dev.tsv
    python benchmarks/sst2.py --data PATH --rows pretrained "1,000 sentences" "1,000 sentences, pretrained"
    python benchmarks/sst2.py --table                              # the table of what is there

Accuracy on the 872 sentences of dev.tsv after the last step. Neither the byte-pair encoding nor a choice of checkpoint
has seen them; the settings of this file have, for a few were tried on them. One standard error is 1.3 points. A row's
time is that of the whole command: reading, learning the encoding, training, evaluations. ``no mixers``: the same model,
its blocks left with their feed-forwards; ``wider``: these twice as wide. ``pretrained``: the same model begins from an
encoder that predicted masked tokens of the training sentences, without their labels, and learned its encoding there;
that is done once for all rows, and not in their times. ``1,000 sentences``: trained on as many, drawn by the seed. Rows
are kept as they come; a run that was killed goes on.

Socher et al., "Recursive deep models for semantic compositionality over a sentiment treebank", 2013.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import baselines
import torch
from records import Records, Row, parameters

from spectral_models.training import RunConfig, load_run
from spectral_models.training.run import train

KEYS = ("name", "seed", "steps")
STEPS, PRETRAINING = 1580, 1800
RATES = {False: 2e-3, True: 1e-3}
"""Learning rates from scratch and from a pretrained encoder."""
WIDTH, VOCABULARY = 192, 16_000
MIXED = {"type": "gated_convolution", "filter": {"type": "multiresolution"}}


class Kind(NamedTuple):
    """What a row trains. sentences: how many; None for all. steps: by default."""

    mixer: Any = MIXED
    expansion: float = 2.0
    pretrained: bool = False
    sentences: int | None = None
    steps: int = STEPS


ROWS = {
    "gated_convolution": Kind(),
    "no mixers": Kind("baselines/nothing"),
    "no mixers, wider": Kind("baselines/nothing", 4.0),
    "pretrained": Kind(pretrained=True),
    "1,000 sentences": Kind(sentences=1000, steps=1000),
    "1,000 sentences, pretrained": Kind(sentences=1000, steps=100, pretrained=True),
}


def encoder_of(kind: Kind, dropout: float) -> dict[str, Any]:
    return {
        "type": "encoder",
        "vocab_size": VOCABULARY,
        "hidden_dim": WIDTH,
        "num_layers": 2,
        "position": "none",
        "pooling": "max",
        "block": {
            "mixer": kind.mixer,
            "feedforward": {"type": "mlp", "expansion": kind.expansion},
            "dropout": dropout,
        },
    }


def pretraining(tables: Path) -> RunConfig:
    """Masked tokens of the training sentences, in windows of 64."""
    return load_run(
        {
            "model": {**encoder_of(Kind(), 0.1), "masked_lm": True},
            "task": {"type": "masked_lm", "share": 0.2},
            "data": {
                "source": str(tables / "train.jsonl"), "tokenizer": "bpe", "context": 64, "validation_fraction": 0.02,
            },
            "training": {
                "steps": PRETRAINING, "batch_size": 128, "learning_rate": 2e-3, "weight_decay": 0.1,
                "betas": [0.9, 0.98],
                "eval_every": 300, "save_every": 300, "log_every": 20,
            },
        }
    )  # fmt: skip


def described(name: str, seed: int, steps: int, tables: Path, begin: Path | None = None) -> RunConfig:
    kind = ROWS[name]
    encoder = encoder_of(kind, 0.2)
    train = "train.jsonl" if kind.sentences is None else f"train-{kind.sentences}-{seed}.jsonl"
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
                "source": str(tables / train),
                "validation": str(tables / "dev.jsonl"),
                "tokenizer": "bpe",
                "max_length": 64,
            },
            "init_from": None if begin is None else str(begin),
            "training": {
                "steps": steps, "batch_size": 128, "learning_rate": RATES[kind.pretrained], "weight_decay": 0.1,
                "label_smoothing": 0.1,
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


def drawn(tables: Path, sentences: int, seed: int) -> None:
    """A table of as many training sentences, drawn by the seed."""
    lines = (tables / "train.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = random.Random(seed).sample(lines, sentences)  # noqa: S311
    (tables / f"train-{sentences}-{seed}.jsonl").write_text("\n".join(chosen) + "\n", encoding="utf-8")


def pretrained(tables: Path) -> Path:
    """The run of the encoder that all rows begin from; trained, or the rest of it, if it is not there."""
    directory = tables / "pretraining"
    if not (directory / "metrics.json").exists():
        train(pretraining(tables), directory, resume=directory.exists())
    return directory


def run(name: str, seed: int, steps: int, source: Path, work: Path) -> Row:
    """Train one row, or the rest of it; its times are those of this process."""
    converted(source, work)
    kind = ROWS[name]
    if kind.sentences is not None:
        drawn(work, kind.sentences, seed)
    begin = pretrained(work) if kind.pretrained else None
    wall, processor = time.perf_counter(), time.process_time()
    config = described(name, seed, steps, work, begin)
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
    parser.add_argument("--steps", type=int, help=f"by default {STEPS}, and the fewer that rows of 1,000 name")
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
            steps = options.steps or ROWS[name].steps
            if not records.has(name=name, seed=seed, steps=steps):
                print(f"{name}, seed {seed}", flush=True)
                records.add(run(name, seed, steps, options.data, options.work))
    print(table(records.rows()))


if __name__ == "__main__":
    main()
