"""The variant and its tasks, from a table to Hugging Face, by the framework's commands alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from spectral_core import ConfigError
from spectral_models import build_model, load_checkpoint
from spectral_models.cli.commands import app
from spectral_models.training import load_run

MODEL = {"type": "dna/strand", "hidden_dim": 32, "num_layers": 1, "motif": 7}
TRAINING = {"steps": 40, "batch_size": 16, "eval_every": 40, "save_every": 40, "learning_rate": 5e-3}
MOTIF = "GATTACA"


def complement(strand: str) -> str:
    return strand[::-1].translate(str.maketrans("ACGT", "TGCA"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random strands; a motif, on either strand, makes the class, and how often it occurs the count."""
    drawn, rows = random.Random(0), []  # noqa: S311
    for row in range(160):
        parts = ["".join(drawn.choices("ACGT", k=drawn.randint(4, 12))) for _ in range(4)]
        count = row % 4
        strand = "".join(part + (MOTIF if place < count else "") for place, part in enumerate(parts))
        name = "bound" if count else "free"
        rows.append({"text": strand if row % 2 else complement(strand), "label": name, "count": count})
    path = tmp_path_factory.mktemp("dna") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(*arguments: object) -> str:
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def config(folder: Path, **run: object) -> Path:
    (folder / "run.json").write_text(json.dumps({"model": MODEL, "training": TRAINING, **run}))
    return folder / "run.json"


def test_a_strand_and_its_reverse_complement_are_one() -> None:
    model = build_model(MODEL).double().eval()
    strand = "ACGGTNacgtta"
    both = [torch.tensor([list(text.encode())]) for text in (strand, complement(strand.upper()))]
    padded = torch.nn.functional.pad(both[0], (0, 5), value=65)
    mask = torch.tensor([[1] * 12 + [0] * 5])
    with torch.no_grad():
        expected = model(both[0]).logits
        torch.testing.assert_close(model(both[1]).logits, expected)
        torch.testing.assert_close(model(padded, mask).logits, expected)


def test_classes_from_a_table_to_hugging_face(table: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    import spectral_models.integrations.huggingface  # noqa: F401

    run = tmp_path / "run"
    command("train", config(tmp_path), "--data", table, "--out", run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["accuracy"] > metrics["majority"]
    assert f"accuracy     {metrics['accuracy']:.4f}" in command("evaluate", run)
    found = json.loads(command("classify", run, MOTIF + "AAA", "--json"))
    assert set(found["probabilities"]) == {"bound", "free"}
    command("export", run, tmp_path / "program.pt2", "--length", 12)
    theirs = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    ids = torch.tensor([list(b"GATTACAAAA")])
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, load_checkpoint(run)(ids).logits)
    assert theirs.config.id2label == {0: "bound", 1: "free"}


def test_counts_are_a_task_of_the_plugins_own(table: Path, tmp_path: Path) -> None:
    from spectral_models.integrations.huggingface import SpectralForSequenceClassification

    run = tmp_path / "run"
    given = {"model": {**MODEL, "num_labels": 1}, "task": "dna/counts", "data": {"label": "count", "source": "-"}}
    command("train", config(tmp_path, **given), "--data", table, "--out", run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["pearson"] > 0.2
    assert f"pearson      {metrics['pearson']:.4f}" in command("evaluate", run)
    model = load_checkpoint(run)
    assert model.config.objective == "counts"
    with pytest.raises(ConfigError, match=r"dna/strand"):
        SpectralForSequenceClassification.wrap(model)
    with pytest.raises(ConfigError, match=r"cannot be trained for regression, only for classification, dna/counts"):
        load_run({"model": MODEL, "task": "regression", "data": {"source": str(table)}})
