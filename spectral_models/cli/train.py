"""``spectral train``: from a config to a trained model in a directory."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import typer

from spectral_models.cli.console import errors, out
from spectral_models.cli.outputs import check_output
from spectral_models.errors import needs_extra
from spectral_models.overrides import parse_assignment


def train(
    config: str = typer.Argument(help="A run config (YAML with model, data, training) or a preset's name."),
    data: str = typer.Option(
        None,
        help="Text: a file or directory (.txt, .jsonl, ...), 'stdlib' (this Python's sources), or datasets:NAME. "
        "For a classifier a table (.csv, .tsv, .jsonl, .parquet), or a folder with a folder of images or WAV files "
        "for each label.",
    ),
    changes: list[str] = typer.Option(
        [], "--set", metavar="PATH=VALUE", help="Replace a value, as in training.steps=1000. Repeatable."
    ),
    out_dir: str = typer.Option(None, "--out", help="The run's directory. By default runs/<name of the config>."),
    init_from: str = typer.Option(
        None,
        "--from",
        metavar="CHECKPOINT",
        help="Begin with the weights of a checkpoint or a finished run. What the config does not say of the model is "
        "the checkpoint's.",
    ),
    resume: bool = typer.Option(
        False,
        "--resume",
        help="Continue the run in --out from its newest complete checkpoint. training.steps may be larger than before "
        "with the schedules constant and warmup_stable_decay.",
    ),
) -> None:
    """Train a model for a task, from random weights or a checkpoint: docs/training.md.

    Without options a preset trains on 'stdlib' for 500 steps of 16 windows
    of 256 tokens. The most important settings are data.context,
    training.steps, training.batch_size and training.learning_rate. All
    settings with their defaults: spectral config schema, or run.yaml of a run.

      spectral train tiny --data my_texts/ --out runs/mine

      spectral train tiny --data book.txt --set data.context=4096

      spectral train examples/classifier.yaml --data reviews.csv --set data.text=review

      spectral train labels.yaml --from runs/mine   # labels.yaml: task and data

    --out gets model/, which every other command reads, run.yaml, metrics.json,
    curve.png, logs/ and checkpoints/. The same command with --resume continues
    an interrupted run.

    Several processes: torchrun --nproc-per-node 2 -m spectral_models.cli.app train CONFIG
    """
    with needs_extra("training needs", "train"):
        from spectral_models.training import load_run
        from spectral_models.training.checkpoints import newest_complete
        from spectral_models.training.run import train as run_training
    assignments = dict(map(parse_assignment, changes))
    if data is not None:
        assignments["data.source"] = data
    if init_from is not None:
        assignments["init_from"] = init_from
    run = load_run(config, assignments)
    directory = Path("runs") / Path(config).stem if out_dir is None else Path(out_dir)
    check_output(directory, [run.data.source])
    try:
        result = run_training(run, directory if out_dir is None else out_dir, resume=resume)
    except KeyboardInterrupt:
        newest = newest_complete(directory / "checkpoints")
        kept = f"{newest} is complete" if newest else "no checkpoint was saved yet"
        again = ["spectral", "train", config, *(["--data", data] if data else [])]
        again += ["--from", init_from] if init_from else []
        again += [part for change in changes for part in ("--set", change)]
        again += ["--out", str(directory), "--resume"]
        errors.print(f"interrupted; {kept}. Continue with:\n  {shlex.join(again)}")
        raise typer.Exit(130) from None
    if int(os.environ.get("RANK", "0")) == 0:
        out.print(
            f"{result.report()}\nmodel                   {directory}/model\n"
            f"learning curve          {directory}/curve.png",
            soft_wrap=True,
        )
