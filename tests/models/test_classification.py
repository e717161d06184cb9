"""A classifier trained from a table: what the run leaves, what it is honest about, what ``spectral evaluate`` says."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from copy import copy
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F
from transformers import set_seed
from typer.testing import CliRunner

from spectral_core import ConfigError
from spectral_models import build_model, load_checkpoint, load_tokenizer
from spectral_models.cli.commands import app
from spectral_models.data import DataError
from spectral_models.data.batches import ShuffledBatches, TextExamples, padded
from spectral_models.training import load_run
from spectral_models.training.directory import kept_tokenizer
from spectral_models.training.result import TrainingResult
from spectral_models.training.run import train

ENCODER = {
    "type": "encoder",
    "vocab_size": 300,
    "hidden_dim": 16,
    "num_layers": 1,
    "position": "none",
    "block": {
        "mixer": {"type": "gated_convolution", "filter": {"type": "multiresolution"}},
        "feedforward": "mlp",
        "dropout": 0.1,
    },
}
RUN = {
    "model": {"type": "classifier", "num_labels": 3, "encoder": ENCODER},
    "data": {"tokenizer": "bpe", "text": "words", "label": "kind", "max_length": 24},
    "training": {
        "steps": 40,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "eval_every": 20,
        "save_every": 10,
        "log_every": 5,
        "label_smoothing": 0.1,
    },
}
KINDS = {"fruit": ["apple", "pear", "plum"], "metal": ["iron", "zinc", "tin"], "tree": ["oak", "elm", "ash"]}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Sentences of which one word tells the kind; half of them are of one kind."""
    path = tmp_path_factory.mktemp("data") / "things.csv"
    lines = ["words,kind"]
    for i in range(400):
        kind = ("fruit", "metal", "fruit", "tree")[i % 4]
        lines.append(f"number {i} of {'many ' * (i % 5)}things is {KINDS[kind][i % 3]} and not {i * i % 89},{kind}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_run(table: Path, changes: dict[str, object] | None = None):
    return load_run({**RUN, "data": {**RUN["data"], "source": str(table)}}, changes)


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory) -> TrainingResult:
    return train(make_run(table), tmp_path_factory.mktemp("finished") / "run")


def numbers(result: TrainingResult) -> list[dict[str, float]]:
    return [row for row in result.history if "train_runtime" not in row]


def test_it_learns_what_one_word_tells(finished):
    assert finished.accuracy > 0.95 > finished.majority
    assert 0.4 < finished.majority < 0.6
    assert finished.loss < 0.6
    losses = [row["loss"] for row in finished.history if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]


def test_a_run_leaves_a_model_that_knows_its_labels_and_its_tokenizer(finished, table):
    directory = finished.directory
    assert load_run(directory / "run.yaml") == make_run(table)
    assert sorted(path.name for path in (directory / "checkpoints").iterdir()) == ["checkpoint-30", "checkpoint-40"]
    for place in (directory, directory / "model", directory / "checkpoints" / "checkpoint-40"):
        model, tokenizer = load_checkpoint(place), load_tokenizer(place)
        assert model.config.labels == ("fruit", "metal", "tree")
        assert model.config.encoder.max_length == 24, "what texts were cut at"
        ids = tokenizer.encode("number 7 of things is zinc and not 3")
        assert model.config.labels[int(model(torch.tensor([ids])).logits.argmax())] == "metal"
        for name, value in finished.model.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), (place, name)
    metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["accuracy"], metrics["loss"], metrics["majority"]) == (
        finished.accuracy,
        finished.loss,
        finished.majority,
    )
    assert metrics["texts"] + metrics["held_out_texts"] == 400
    assert (directory / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_held_out_numbers_are_counted_over_every_text_by_itself(finished):
    """One text at a time, without padding: no batch size and no smoothing is in them."""
    data, tokenizer = finished.task.held_out, load_tokenizer(finished.directory)
    right, nats = 0, []
    with torch.no_grad():
        for text, label in zip(data.items, data.labels.tolist(), strict=True):
            logits = finished.model(torch.tensor([tokenizer.encode(text)[:24]])).logits[0].double()
            right += int(logits.argmax()) == label
            nats.append(-float(logits.log_softmax(-1)[label]))
    assert finished.accuracy == right / len(data.items)
    assert finished.loss == pytest.approx(math.fsum(nats) / len(nats), rel=1e-5)
    wrong = copy(finished.task)
    wrong.held_out = TextExamples(data.items, (data.labels + 1) % 3, tokenizer, 24)
    judged = wrong.judge(finished.model, batch_size=7)
    assert judged["accuracy"] <= 1 - finished.accuracy
    assert judged["loss"] > 1


def test_the_loss_of_a_step_is_smoothed_cross_entropy_however_it_is_divided(table, tmp_path):
    run = make_run(table, {"model.encoder.block.dropout": 0.0})
    task = run.task.load(run.model, run.data)
    set_seed(0)
    model = build_model(task.model).train()
    examples = task.examples(run.training.batch_size, run.training.steps, 0)
    assert isinstance(examples, ShuffledBatches)
    batch = [examples[i] for i in range(16)]
    whole = padded(batch)
    log_probability = model(whole["inputs"], whole["attention_mask"]).logits.log_softmax(-1)
    target = 0.9 * F.one_hot(whole["labels"], 3) + 0.1 / 3
    wanted = -(target * log_probability).sum(-1).mean()
    torch.testing.assert_close(task.loss(model, whole, label_smoothing=0.1).loss, wanted)
    parts = [task.loss(model, padded(rows), 16, label_smoothing=0.1).loss for rows in (batch[:3], batch[3:])]
    torch.testing.assert_close(sum(parts), wanted)


def test_a_resumed_run_gives_the_numbers_of_one_that_never_stopped(finished, table, tmp_path):
    directory = Path(shutil.copytree(finished.directory, tmp_path / "run"))
    shutil.rmtree(directory / "model")
    shutil.rmtree(directory / "checkpoints" / "checkpoint-40")
    resumed = train(make_run(table), directory, resume=True)
    assert numbers(resumed) == numbers(finished)
    for name, value in finished.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("is oak and not 69,tree", "is oak and not 69,metal", r"training: \d+ texts"),  # a label
        ("is elm", "is yew", r"training: \d+ texts"),  # a text
        ("things", "strings", r"held out: \d+ texts"),
    ],
)
def test_a_run_is_not_resumed_on_other_data(finished, table, old, new, part):
    before = table.read_text(encoding="utf-8")
    assert old in before
    try:
        table.write_text(before.replace(old, new), encoding="utf-8")
        with pytest.raises(ConfigError, match=rf"was begun with other data \(.*{part}"):
            train(make_run(table), finished.directory, resume=True)
    finally:
        table.write_text(before, encoding="utf-8")


def test_a_resumed_run_keeps_the_tokenizer_it_began_with(finished, table, tmp_path):
    directory = Path(shutil.copytree(finished.directory, tmp_path / "run"))
    shutil.rmtree(directory / "model")
    other = tmp_path / "things.csv"
    other.write_text(table.read_text().replace("things", "strings"), encoding="utf-8")
    run = make_run(other)
    task = run.task.load(run.model, run.data, tokenizer=kept_tokenizer(directory))
    assert task.tokenizer.files() == load_tokenizer(finished.directory / "checkpoints" / "checkpoint-40").files()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo")
def test_two_processes_give_the_numbers_of_one(table, tmp_path):
    changes = {
        "training.steps": 4,
        "training.eval_every": 4,
        "training.log_every": 1,
        "model.encoder.block.dropout": 0.0,
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(make_run(table, changes).model_dump(mode="json")), encoding="utf-8")
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "spectral_models.cli.app", "train", str(file), "--out", str(tmp_path / "two")),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count("held-out accuracy") == 1, "one process reports"
    one = train(load_run(file), tmp_path / "one")
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text(encoding="utf-8"))
    losses = [[row["loss"] for row in history if "loss" in row] for history in (one.history, metrics["history"])]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert metrics["accuracy"] == pytest.approx(one.accuracy)
    assert metrics["loss"] == pytest.approx(one.loss, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model.num_labels": 2}, DataError, r"3 different labels \(fruit, metal, tree\).*model.num_labels: 3"),
        (
            {"model.labels": ["fruit", "metal", "wood"]},
            DataError,
            r"label 'tree' is none of the model's: fruit, metal, wood",
        ),
        ({"model.labels": ["a", "a", "b"]}, ConfigError, r"labels must be num_labels = 3 different names"),
        (
            {"data.tokenizer": {"type": "bpe", "vocab_size": 400}},
            ConfigError,
            r"at least 400; the model's is 300",
        ),
        ({"model.encoder.vocab_size": 200}, ConfigError, r"at least 257; the model's is 200"),
        ({"model.encoder": "vision_encoder"}, ConfigError, r"data.tokenizer: unknown key"),
        (
            {"model.encoder.max_length": 20},
            ConfigError,
            r"data.max_length is 24, and the model's max_length 20; leave the model's out",
        ),
        ({"data.type": "text"}, ConfigError, r"classifier over 'encoder' reads data of type 'labelled'; got 'text'"),
        ({"data.type": "table"}, ConfigError, r"reads data of type 'labelled'; got 'table'"),
        ({"data.txt": "x"}, ConfigError, r"data.txt: unknown key. Did you mean 'text'"),
    ],
)
def test_what_does_not_fit_is_refused(table, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train(make_run(table, changes), tmp_path / "run")


def test_each_task_has_its_models_and_data():
    run = load_run({"model": {"type": "encoder"}, "task": "classification", "data": {"source": "x.csv"}})
    assert (run.task.type, run.model.type, run.model.encoder.type) == ("classification", "classifier", "encoder")
    run = load_run({"model": "tiny", "task": "regression", "data": {"source": "x.csv"}})
    assert (run.model.type, run.model.num_labels, run.model.encoder.causal) == ("classifier", 1, True)
    with pytest.raises(
        ConfigError, match=r"'language_model' cannot be trained for masked_lm, only for causal_lm, class"
    ):
        load_run({"model": "tiny", "task": "masked_lm"})
    picture = {"model": {"type": "classifier", "encoder": "vision_encoder"}}
    with pytest.raises(ConfigError, match=r"over 'vision_encoder' reads data of type 'labelled_files'; got 'labelled'"):
        load_run({**picture, "data": {"type": "labelled", "source": "x.csv"}})
    with pytest.raises(ConfigError, match=r"label_smoothing is for classification, not causal_lm"):
        load_run("tiny", {"training.label_smoothing": 0.1})
    with pytest.raises(ConfigError, match=r"causal_lm of a language_model reads data of type 'text'; got 'labelled'"):
        load_run({"model": "tiny", "data": {"type": "labelled", "source": "x.csv"}})


# spectral evaluate


def evaluated(*arguments: object):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_evaluate_measures_what_the_run_held_out_and_gives_its_numbers(finished):
    for place in (finished.directory, finished.directory / "model"):
        ended = evaluated(place, "--batch-size", 5)
        assert ended.exit_code == 0, ended.output
        assert (
            f"accuracy     {finished.accuracy:.4f}  (always the most frequent label: {finished.majority:.4f}; "
            f"TF-IDF: {finished.tf_idf:.4f})" in ended.stdout
        )
        assert f"loss         {finished.loss:.4f} nats" in ended.stdout
        assert f"measured on  {len(finished.task.held_out)} texts" in ended.stdout


def test_evaluate_reads_a_given_table_and_says_when_it_was_trained_on(finished, table, tmp_path):
    lines = table.read_text(encoding="utf-8").splitlines()
    few = tmp_path / "few.csv"
    few.write_text("\n".join([lines[0].replace("words", "sentence"), *lines[1:8]]) + "\n", encoding="utf-8")
    ended = evaluated(finished.directory, "--data", few, "--text", "sentence")
    assert ended.exit_code == 0, ended.output
    assert "measured on  7 texts" in ended.stdout
    assert "most frequent label: 0.5714" in ended.stdout
    assert "trained" not in ended.stderr
    assert "the model was trained on part of" in evaluated(finished.directory, "--data", table).stderr


def test_evaluate_needs_something_to_measure_on(finished, tmp_path):
    bare = Path(shutil.copytree(finished.directory / "model", tmp_path / "bare"))
    ended = evaluated(bare)
    assert isinstance(ended.exception, ConfigError)
    assert "belongs to no run" in str(ended.exception)


def test_the_example_trains_as_it_is_written(table, tmp_path):
    example = Path(__file__).parents[2] / "examples" / "classifier.yaml"
    assert load_run(example).data.source == "reviews.csv"
    changes = {"training.steps": 1, "model.encoder.hidden_dim": 8, "model.num_labels": 3}
    data = {"data.source": str(table), "data.text": "words", "data.label": "kind"}
    assert train(load_run(example, changes | data), tmp_path / "run").model.config.labels == ("fruit", "metal", "tree")
