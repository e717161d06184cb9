"""What ``spectral evaluate`` measures is what was asked for: no trained rows, no option ignored, no label renamed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spectral_models.data.labels import class_numbers, real_values
from spectral_models.data.source import Table
from spectral_models.errors import DataError
from spectral_models.training import load_run
from spectral_models.training.run import train

ENCODER = {"type": "encoder", "vocab_size": 256, "hidden_dim": 16, "num_layers": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of stars, 1 or 2."""
    folder = tmp_path_factory.mktemp("stars")
    (folder / "stars.csv").write_text("text,label\n" + "\n".join(f"text {row},{row % 2 + 1}" for row in range(30)))
    (folder / "zero.csv").write_text("text,label\nnone,0\n")
    few = {"steps": 2, "batch_size": 4, "eval_every": 2, "save_every": 2}
    data = {"source": str(folder / "stars.csv"), "validation_fraction": 0.3}
    model = {"type": "classifier", "encoder": ENCODER}
    train(load_run({"model": model, "data": data, "training": few}), folder / "run")
    return folder / "run"


def test_a_label_that_is_none_of_the_models_is_refused(run: Path, spectral) -> None:
    spectral("evaluate", run, "--data", run.parent / "zero.csv").refused(r"the label '0' is none of the model's: 1, 2")
    numbered = Table("t", {"label": [1, 0]}, ["row 1", "row 2"])
    assert class_numbers(numbered, 2, ("bad", "good"))[0] == [1, 0], "names that are no numbers may be numbered"


@pytest.mark.parametrize(
    "option", ["validation_fraction=0.9", "seed=1", "source=other.csv", "validation=other.csv", "text=label"]
)
def test_nothing_that_was_trained_on_is_measured_as_held_out(run: Path, spectral, option: str) -> None:
    name, _, value = option.partition("=")
    spectral("evaluate", run, "--set", option).refused(rf"another {name} would measure other rows")
    if name == "text":
        spectral("evaluate", run, "--text", value).refused(r"another text would measure other rows")


def test_no_option_is_ignored(run: Path, spectral) -> None:
    spectral("evaluate", run, "--context", 8).refused(r"--context: data for classification have no such option")


def test_the_same_file_by_another_path_is_said_to_be_trained_on(run: Path, spectral, monkeypatch) -> None:
    monkeypatch.chdir(run.parent)
    assert "trained on part of stars.csv" in spectral("evaluate", run, "--data", "stars.csv").err
    assert json.loads((run / "metrics.json").read_text())["held_out_texts"] < 30


def test_a_literal_of_python_is_no_number() -> None:
    with pytest.raises(DataError, match="1_000"):
        real_values(Table("t", {"label": ["1_000"]}, ["row 1"]))
