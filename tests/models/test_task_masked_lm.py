"""Masked language models: what is hidden, what is measured, and what a run leaves."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from spectral_core import ConfigError
from spectral_models import build_model, load_checkpoint, load_config
from spectral_models.data import ByteTokenizer, ContiguousWindows, DataError, RandomWindows
from spectral_models.data.subwords import learn_bpe, read_tokenizer
from spectral_models.loss import IGNORE
from spectral_models.tasks.masked_lm import MaskedLM, MaskedWindows
from spectral_models.training import load_run
from spectral_models.training.run import train

ENCODER = {"type": "encoder", "vocab_size": 256, "hidden_dim": 32, "num_layers": 1}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawn = random.Random(0)  # noqa: S311
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(drawn.choice(["the cat sat. ", "a dog ran off. "]) for _ in range(600)))
    return path


def run_of(text: Path, **changes: object):
    base = {"model": ENCODER, "task": "masked_lm", "data": {"source": str(text), "context": 32}}
    small = {"training.steps": 4, "training.batch_size": 4, "training.eval_every": 4, "training.save_every": 4}
    return load_run(base, {**small, **changes})


def test_masks_are_those_of_bert_and_functions_of_their_index() -> None:
    tokens = torch.randint(97, 123, (20_001,), generator=torch.Generator().manual_seed(0))
    windows = MaskedWindows(RandomWindows(tokens, 50, 400, 3), 0.15, 255, 256, seed=3)
    kinds: Counter[str] = Counter()
    for index in range(400):
        item, true = windows[index], windows.windows[index]["input_ids"]
        chosen = item["labels"] != IGNORE
        assert chosen.any()
        assert torch.equal(item["labels"][chosen], true[chosen])
        assert torch.equal(item["inputs"][~chosen], true[~chosen])
        hidden, was = item["inputs"][chosen], true[chosen]
        kinds["mask"] += int((hidden == 255).sum())
        kinds["same"] += int((hidden == was).sum())
        kinds["all"] += int(chosen.sum())
    assert kinds["all"] / 20_000 == pytest.approx(0.15, abs=0.01)
    assert kinds["mask"] / kinds["all"] == pytest.approx(0.8, abs=0.02)
    assert kinds["same"] / kinds["all"] == pytest.approx(0.1, abs=0.02)
    assert all(torch.equal(a, b) for a, b in zip(windows[7].values(), windows[7].values(), strict=True))


def test_padding_of_the_last_window_is_never_hidden() -> None:
    windows = MaskedWindows(ContiguousWindows(torch.arange(1, 12), 8), 0.9, 255, 256, seed=0)
    last = windows[len(windows) - 1]
    assert last["attention_mask"].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert (last["labels"][2:] == IGNORE).all()


def test_the_numbers_are_those_of_each_masked_token_by_itself(text: Path) -> None:
    run = run_of(text)
    task = run.task.load(run.model, run.data)
    assert isinstance(task, MaskedLM)
    torch.manual_seed(0)
    model = build_model(task.model).eval()
    nats, right, count = 0.0, 0, 0
    with torch.no_grad():
        for index in range(len(task.held_out)):
            item = task.held_out[index]
            logits = model(item["inputs"][None], item["attention_mask"][None]).logits[0].double()
            for place in (item["labels"] != IGNORE).nonzero().flatten().tolist():
                label = int(item["labels"][place])
                nats -= float(logits[place].log_softmax(-1)[label])
                right += int(logits[place].argmax()) == label
                count += 1
    for batch_size in (3, 32):
        judged = task.judge(model, batch_size=batch_size)
        assert judged["loss"] == pytest.approx(nats / count, rel=1e-5)
        assert judged["accuracy"] == pytest.approx(right / count)


def test_a_run_leaves_an_encoder_that_every_command_reads(text: Path, spectral, tmp_path: Path) -> None:
    result = train(run_of(text), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").config.masked_lm
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["accuracy"] == result.accuracy
    assert f"accuracy     {metrics['accuracy']:.4f}" in spectral("evaluate", tmp_path / "run").out
    assert len(json.loads(spectral("embed", tmp_path / "run", "the cat").out)["embedding"]) == 32


def test_the_mask_is_a_token_that_no_text_has(tmp_path: Path) -> None:
    assert ByteTokenizer().mask_token_id == 255
    learned = learn_bpe(["the cat sat on the mat", "ÿ þ"] * 20, 300)
    assert learned.mask_token_id is not None
    assert learned.mask_token_id not in learned.encode("the cat ÿ þ \U0010ffff \x7f")
    for name, content in learned.files().items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_tokenizer(tmp_path).mask_token_id == learned.mask_token_id


def test_labels_train_no_head_over_the_vocabulary() -> None:
    """It would get no gradient, which several processes refuse."""
    config = load_config(ENCODER, masked_lm=True)
    assert not config.for_task("classification").encoder.masked_lm
    assert not config.for_task("token_classification").encoder.masked_lm
    assert config.for_task("masked_lm").masked_lm


def test_a_vocabulary_without_room_for_a_mask_is_refused(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(text)
    monkeypatch.setattr(ByteTokenizer, "mask_token_id", None)
    with pytest.raises(DataError, match=r"no id is free for one.*at least 257"):
        run.task.load(run.model, run.data)
    with pytest.raises(ConfigError, match="needs a vocab_size of at least 256; the model's is 100"):
        run_of(text, **{"model.vocab_size": 100})
