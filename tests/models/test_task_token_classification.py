"""Token classification: the model, its task's numbers by hand, and the tags that commands print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch.nn import functional as F

from spectral_core import ConfigError, UnsupportedInputError
from spectral_models import build_model, load_checkpoint, load_config, load_tokenizer
from spectral_models.data.batches import padded
from spectral_models.loss import IGNORE
from spectral_models.training import load_run
from spectral_models.training.result import TrainingResult
from spectral_models.training.run import train

BLOCK = {"mixer": {"type": "gated_convolution", "filter": "multiresolution"}, "feedforward": "mlp"}
ENCODER = {"type": "encoder", "vocab_size": 300, "hidden_dim": 16, "num_layers": 1, "block": BLOCK}
MODEL = {"type": "token_classifier", "num_labels": 3, "encoder": ENCODER}
TAGS = {"Anna": "PER", "Bodo": "PER", "Oslo": "LOC", "Rome": "LOC", "saw": "O", "left": "O", "and": "O", "for": "O"}
TRAINING = {
    "steps": 40,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "eval_every": 40,
    "save_every": 40,
    "label_smoothing": 0.05,
}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = list(TAGS)
    path = tmp_path_factory.mktemp("data") / "names.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in range(60):
            tokens = [words[(row * 7 + 3 * i * (row % 5 + 1)) % 8] for i in range(2 + row % 6)]
            tokens.append(f"{row}.")
            print(json.dumps({"words": tokens, "ner": [TAGS.get(word, "O") for word in tokens]}), file=file)
    return path


def make_run(sentences: Path, **changes: object):
    data = {"source": str(sentences), "tokens": "words", "tags": "ner", "max_length": 24, "validation_fraction": 0.3}
    return load_run({"model": MODEL, "data": data, "training": TRAINING}, changes)


@pytest.fixture(scope="module")
def finished(sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(make_run(sentences), tmp_path_factory.mktemp("run") / "run")


def by_hand(run: Path, words: list[str]) -> tuple[list[str], torch.Tensor]:
    """The words within the model's reach, and the log-probabilities of their tags, a sentence by itself."""
    model, tokenizer = load_checkpoint(run), load_tokenizer(run)
    ids, starts = [], []
    for place, word in enumerate(words):
        starts.append(len(ids))
        ids += tokenizer.encode(" " * (place > 0) + word)
    ids = ids[: model.config.encoder.max_length]
    kept = [start for start in starts if start < len(ids)]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, kept].double()
    return words[: len(kept)], logits.log_softmax(-1)


def test_the_numbers_are_those_of_each_word_of_each_sentence(finished: TrainingResult) -> None:
    assert finished.accuracy > 0.9 > 0.8 > finished.majority
    labels, chosen, nats = [], [], []
    for words in finished.task.held_out.items:
        kept, log_p = by_hand(finished.directory, words)
        tags = [finished.task.model.labels.index(TAGS.get(word, "O")) for word in kept]
        labels += tags
        chosen += log_p.argmax(-1).tolist()
        nats += (-log_p[range(len(tags)), tags]).tolist()
    assert finished.accuracy == pytest.approx(accuracy_score(labels, chosen), abs=1e-12)
    assert finished.f1_macro == pytest.approx(f1_score(labels, chosen, average="macro"), abs=1e-12)
    assert finished.loss == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    assert finished.majority == max(map(labels.count, labels)) / len(labels)


def test_evaluate_says_what_the_run_wrote(finished: TrainingResult, sentences: Path, spectral) -> None:
    metrics = json.loads((finished.directory / "metrics.json").read_text(encoding="utf-8"))
    for batch_size in (3, 32):
        told = spectral("evaluate", finished.directory, "--batch-size", batch_size).out
        assert f"accuracy     {metrics['accuracy']:.4f}" in told
        assert f"f1 macro     {metrics['f1_macro']:.4f}" in told
        assert f"measured on  {metrics['held_out_sentences']} sentences" in told
    alone = spectral(
        "evaluate", finished.directory, "--data", sentences, "--set", "tags=ner", "--set", "tokens=words"
    ).out
    assert "measured on  60 sentences" in alone


def test_classify_tags_words_as_the_model_does(finished: TrainingResult, spectral) -> None:
    texts = ["Bodo left  Oslo for Rome", "saw", "Anna and Bodo and Anna saw Rome and Oslo"]
    ended = spectral("classify", finished.directory, *texts, "--json")
    plain = spectral("classify", finished.directory, *texts).out
    names, shown = finished.task.model.labels, ""
    for text, line in zip(texts, map(json.loads, ended.out.splitlines()), strict=True):
        words, log_p = by_hand(finished.directory, text.split())
        tags = [names[tag] for tag in log_p.argmax(-1).tolist()]
        assert line == {"input": text, "words": words, "tags": tags}
        shown += "".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)) + "\n"
    assert plain == shown
    assert "1 of 3 texts were cut after 24 tokens: the model was trained on no more" in ended.err
    assert len(line["words"]) < len(texts[-1].split())


def test_a_step_s_loss_is_the_same_however_it_is_divided_and_padded(sentences: Path) -> None:
    run = make_run(sentences)
    task = run.task.load(run.model, run.data)
    torch.manual_seed(0)
    model = build_model(task.model).double()
    rows = [task.train[index] for index in range(12)]
    batch = padded(rows)
    count = int((batch["labels"] != IGNORE).sum())
    logits = model(batch["inputs"], batch["attention_mask"]).logits
    wanted = F.cross_entropy(logits.mT, batch["labels"], label_smoothing=0.1)
    found = task.loss(model, batch, label_smoothing=0.1)
    torch.testing.assert_close(found.loss, wanted)
    assert int(found.count) == count
    parts = [task.loss(model, padded(part), count, label_smoothing=0.1).loss for part in (rows[:5], rows[5:])]
    torch.testing.assert_close(sum(parts), wanted)


def test_padding_changes_no_token(sentences: Path) -> None:
    torch.manual_seed(0)
    model = build_model(MODEL).double().eval()
    ids = torch.randint(256, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    both = model(ids, mask).logits
    torch.testing.assert_close(both[1, :6], model(ids[1:, :6]).logits[0])
    assert both.shape == (2, 9, 3)
    labels = torch.full((2, 9), 5)
    with pytest.raises(UnsupportedInputError, match="labels run from 0 to 2"):
        model.loss(ids, labels, mask)


def test_an_encoder_becomes_a_token_classifier_for_the_task() -> None:
    config = load_config(ENCODER).for_task("token_classification")
    assert (config.type, config.tasks, config.encoder.type) == (
        "token_classifier",
        ("token_classification",),
        "encoder",
    )
    assert config.label_set == (2, None, "single_label_classification", "token")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "vision_encoder"}, "'vision_encoder' reads image, and tokens of text are labelled"),
        ({"num_labels": 1}, "num_labels: classification needs 2 labels"),
        ({"labels": ["a", "b"]}, "labels must be num_labels = 3 different names"),
    ],
)
def test_what_a_token_classifier_refuses(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config({**MODEL, **changes})
