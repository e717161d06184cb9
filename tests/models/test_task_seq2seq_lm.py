"""Sequence to sequence from a table of pairs: the loss, greedy decoding, and what the commands make of it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from sacrebleu import corpus_chrf

from spectral_core import ConfigError
from spectral_models import build_model, load_checkpoint, load_tokenizer
from spectral_models.data import DataError
from spectral_models.loss import IGNORE
from spectral_models.training import load_run
from spectral_models.training.run import train

SMALL = {"hidden_dim": 32, "num_layers": 1, "vocab_size": 256}
MODEL = {"type": "seq2seq", **SMALL, "encoder": {"type": "encoder", **SMALL}}
TRAINING = {"steps": 30, "batch_size": 16, "eval_every": 30, "save_every": 30, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Letters, and the same as capitals."""
    drawn = random.Random(0)  # noqa: S311
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    words = ["".join(drawn.choice("abc") for _ in range(drawn.randint(1, 4))) + str(row) for row in range(120)]
    rows = [{"source": word, "target": word.rstrip("0123456789").upper()} for word in words]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_of(pairs: Path, changes: dict[str, object] | None = None):
    data = {"type": "pairs", "source": str(pairs), "max_target_length": 8}
    return load_run({"model": MODEL, "data": data, "training": TRAINING}, changes)


@pytest.fixture(scope="module")
def finished(pairs: Path, tmp_path_factory: pytest.TempPathFactory):
    return train(run_of(pairs), tmp_path_factory.mktemp("finished") / "run")


def test_it_learns_and_the_numbers_are_those_of_each_pair_by_itself(finished) -> None:
    task, model = finished.task, finished.model
    tokenizer = load_tokenizer(finished.directory)
    nats, count, written, wanted = 0.0, 0, [], []
    with torch.no_grad():
        for index in range(len(task.held_out)):
            item = task.held_out[index]
            assert item["labels"][-1] == 0, "a target ends with its end token"
            found = model.loss(item["inputs"][None], item["labels"][None])
            nats, count = nats + float(found.nats), count + len(item["labels"])
            tokens = model.generate(item["inputs"][None], max_new_tokens=8)[0].tolist()
            written.append(tokenizer.decode(tokens[: tokens.index(0)] if 0 in tokens else tokens))
            wanted.append(tokenizer.decode(item["labels"][:-1].tolist()))
    assert finished.loss == pytest.approx(nats / count, rel=1e-5)
    assert finished.chrf == pytest.approx(corpus_chrf(written, [wanted]).score)
    assert finished.exact_match == pytest.approx(sum(map(str.__eq__, written, wanted)) / len(wanted))
    assert finished.loss < 1.5
    for batch_size in (1, 5):
        assert task.judge(model, batch_size=batch_size) == pytest.approx(finished.judged, rel=1e-5)


def test_a_step_divides_into_batches(pairs: Path) -> None:
    run = run_of(pairs)
    task = run.task.load(run.model, run.data)
    model = build_model(task.model)
    examples = [task.examples(8, 1, 0)[index] for index in range(8)]
    whole = task.collate(examples)
    count = (whole["labels"] != IGNORE).sum()
    parts = [task.loss(model, task.collate(part), count).loss for part in (examples[:3], examples[3:])]
    torch.testing.assert_close(sum(parts), task.loss(model, whole).loss, rtol=1e-4, atol=1e-6)


def test_commands_serve_it(finished, pairs: Path, spectral, tmp_path: Path) -> None:
    run = finished.directory
    judged = spectral("evaluate", run)
    assert f"chrf         {finished.chrf:.3f}" in judged.out
    other = tmp_path / "other.csv"
    other.write_text("german,english\nab1,AB\nc2,C\n")
    assert "measured on  2 pairs" in spectral("evaluate", run, "--data", other, "--set", "input=german", "--set",
                                              "target=english").out  # fmt: skip
    model = load_checkpoint(run)
    drawn = model.generate(torch.tensor([list(b"abc7")]), max_new_tokens=6)[0].tolist()
    expected = bytes(drawn[: drawn.index(0)] if 0 in drawn else drawn).decode(errors="replace")
    options = ("--temperature", 0, "--max-new-tokens", 6)
    assert spectral("generate", run, "--prompt", "abc7", *options).out == expected + "\n"
    (tmp_path / "sources.txt").write_text("abc7\nabc7\n")
    assert spectral("generate", run, "--file", tmp_path / "sources.txt", *options).out == 2 * (expected + "\n")
    spectral("generate", run, "--interactive").refused("reads sources, one by itself")


def test_the_end_token_is_the_tokenizers(pairs: Path) -> None:
    run = run_of(pairs, {"data.tokenizer": {"type": "bpe", "vocab_size": 260}, "model.vocab_size": 300,
                         "model.encoder.vocab_size": 280})  # fmt: skip
    task = run.task.load(run.model, run.data)
    assert task.model.eos_token_id == task.tokenizer.eos_token_id
    changed = task.model.with_data(eos_token_id=7)
    assert (changed.eos_token_id, changed.decoder_start_token_id, changed.pad_token_id) == (7, 7, 7)
    assert task.model.encoder.max_length == 512
    with pytest.raises(ConfigError, match="needs a vocab_size of at least 260; the model's is 256"):
        run_of(pairs, {"data.tokenizer": {"type": "bpe", "vocab_size": 260}})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data.target": "english"}, DataError, r"english.*source, target"),
        ({"data.type": "text"}, ConfigError, r"reads data of type 'pairs'; got 'text'"),
        ({"task": "causal_lm"}, ConfigError, r"'seq2seq' cannot be trained for causal_lm, only for seq2seq_lm"),
    ],
)
def test_what_does_not_fit_is_one_error_and_nothing_is_written(pairs, tmp_path, changes, error, message) -> None:
    with pytest.raises(error, match=message):
        train(run_of(pairs, changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_cut_off_a_target_counts_as_not_written(finished, pairs: Path) -> None:
    run = run_of(pairs, {"data.max_target_length": 2})
    task = run.task.load(run.model, run.data, tokenizer=load_tokenizer(finished.directory))
    judged, targets = task.judge(finished.model), task.table.columns["target"]
    assert judged["exact_match"] <= sum(len(text) <= 2 for text in targets) / len(targets) < 1
