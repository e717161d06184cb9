"""Regression and sets of labels: the numbers of runs by hand, and what evaluate and classify print of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score

from spectral_core import ConfigError
from spectral_models import load_checkpoint, load_tokenizer
from spectral_models.training import load_run
from spectral_models.training.result import TrainingResult
from spectral_models.training.run import train

ENCODER = {
    "type": "encoder",
    "vocab_size": 256,
    "hidden_dim": 16,
    "num_layers": 1,
    "block": {"mixer": {"type": "gated_convolution", "filter": "multiresolution"}, "feedforward": "mlp"},
}
TRAINING = {"steps": 40, "batch_size": 16, "learning_rate": 1e-2, "eval_every": 40, "save_every": 40}
WORDS = ("fine", "slow", "warm")
MULTI = {"type": "classifier", "problem_type": "multi_label_classification", "num_labels": 3, "encoder": ENCODER}
KINDS: dict[str, dict[str, object]] = {
    "one": {"model": ENCODER, "task": "regression", "label": "one"},
    "two": {"model": {"type": "classifier", "num_labels": 2, "encoder": ENCODER}, "task": "regression", "label": "two"},
    "list": {"model": MULTI, "label": "list"},
    "joined": {"model": MULTI, "label": "joined", "separator": "|"},
}
TEXTS = ["a fine and slow film", "7 warm things", "nothing"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in range(90):
            has = [word for place, word in enumerate(WORDS) if row >> place & 1]
            one = 2.0 * len(has) - 1
            labels = {"one": one, "two": [one, float("slow" in has)], "list": has, "joined": "|".join(has)}
            print(json.dumps({"text": f"{row} {' '.join(has)}", **labels}), file=file)
    return path


@pytest.fixture(scope="module", params=KINDS)
def finished(request, table: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    kind = dict(KINDS[request.param])
    run = {name: kind.pop(name) for name in ("model", "task") if name in kind}
    data = {"source": str(table), "max_length": 24, "validation_fraction": 0.3, **kind}
    return train(load_run({**run, "data": data, "training": TRAINING}), tmp_path_factory.mktemp(request.param) / "run")


def logits_of(run: Path, texts: list[str]) -> np.ndarray:
    """Each text by itself."""
    model, tokenizer = load_checkpoint(run), load_tokenizer(run)
    with torch.no_grad():
        rows = [model(torch.tensor([tokenizer.encode(text)[:24]])).logits[0] for text in texts]
    return torch.stack(rows).double().numpy()


def test_the_numbers_are_those_of_each_text_by_itself(finished: TrainingResult) -> None:
    logits = logits_of(finished.directory, finished.task.held_out.items)
    labels = torch.as_tensor(finished.task.held_out.labels).double().numpy()
    if finished.task.headline == "mse":
        errors = (logits - labels) ** 2
        assert finished.mse == pytest.approx(errors.mean(), rel=1e-4)
        assert finished.mse < finished.variance == pytest.approx(((labels - labels.mean(0)) ** 2).mean())
        for name, measure in (("pearson", pearsonr), ("spearman", spearmanr)):
            each = [measure(*pair).statistic for pair in zip(labels.T, logits.T, strict=True)]
            assert getattr(finished, name) == pytest.approx(np.mean(each), rel=1e-4)
        return
    chosen, wanted = logits >= 0, labels > 0.5
    assert finished.task.model.labels == WORDS
    assert finished.exact_match == (chosen == wanted).all(-1).mean()
    for average in ("macro", "micro"):
        assert getattr(finished, f"f1_{average}") == pytest.approx(f1_score(wanted, chosen, average=average))
    nats = np.logaddexp(0, logits) - labels * logits
    assert finished.loss == pytest.approx(nats.mean(), rel=1e-4)


def test_evaluate_says_what_the_run_wrote(finished: TrainingResult, table: Path, spectral) -> None:
    metrics = json.loads((finished.directory / "metrics.json").read_text(encoding="utf-8"))
    told = dict(
        line.split("  ", 1) for line in spectral("evaluate", finished.directory, "--batch-size", 7).out.splitlines()
    )
    assert told.pop("measured on").strip() == f"{metrics['held_out_texts']} texts"
    for name, value in told.items():
        assert f"{metrics[name.strip().replace(' ', '_')]:.4f}" == value.split()[0], name
    assert "measured on  90 texts" in spectral("evaluate", finished.directory, "--data", table).out


@pytest.mark.parametrize("finished", ["joined"], indirect=True)
def test_a_checkpoint_of_sets_of_labels_is_told_what_divides_them(finished, table, spectral, tmp_path) -> None:
    alone = finished.directory / "model"
    away = tmp_path / "model"
    away.mkdir()
    for file in alone.iterdir():
        (away / file.name).write_bytes(file.read_bytes())
    given = ("evaluate", away, "--data", table, "--set", "label=joined")
    assert spectral(*given, "--set", "separator=|").out == spectral("evaluate", finished.directory, "--data", table).out
    spectral(*given).refused("several labels are a list, or a text that data.separator divides")


def test_classify_prints_what_the_model_says(finished: TrainingResult, spectral) -> None:
    logits = logits_of(finished.directory, TEXTS)
    lines = [json.loads(line) for line in spectral("classify", finished.directory, *TEXTS, "--json").out.splitlines()]
    plain = spectral("classify", finished.directory, *TEXTS).out.splitlines()
    for text, row, line, shown in zip(TEXTS, logits, lines, plain, strict=True):
        told, _, item = shown.rpartition("\t")
        assert line["input"] == item == text
        if finished.task.headline == "mse":
            assert list(line["numbers"].values()) == pytest.approx(row.tolist(), rel=1e-5)
            assert [float(part.split()[-1]) for part in told.split(", ")] == pytest.approx(row.tolist(), rel=1e-3)
            continue
        shares = dict(zip(WORDS, (1 / (1 + np.exp(-row))).tolist(), strict=True))
        assert line["probabilities"] == pytest.approx(shares, rel=1e-4)
        likely = sorted((name for name in WORDS if shares[name] >= 0.5), key=lambda name: -shares[name])
        assert line["labels"] == likely
        assert told == (", ".join(f"{name} {shares[name]:.3f}" for name in likely) or "none")


def test_sets_of_labels_are_not_smoothed(tmp_path: Path) -> None:
    model = {"type": "classifier", "problem_type": "multi_label_classification", "encoder": {"type": "encoder"}}
    with pytest.raises(ConfigError, match=r"label_smoothing is for classification, not sets of labels"):
        load_run({"model": model, "data": {"source": "x.csv"}, "training": {"label_smoothing": 0.1}})
