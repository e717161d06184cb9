"""Classification of rows of several modalities, some missing: the numbers by hand, and what commands say."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, matthews_corrcoef
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from spectral_models import build_model, load_checkpoint, load_tokenizer
from spectral_models.data.batches import padded
from spectral_models.data.readers import File
from spectral_models.training import load_run
from spectral_models.training.arguments import training_arguments
from spectral_models.training.result import TrainingResult
from spectral_models.training.run import train
from spectral_models.training.trainer import InTraining

BLOCK = {"hidden_dim": 16, "num_layers": 1, "layers": [{"mixer": "fourier", "feedforward": "mlp"}]}
EXPERTS = {"mixer": "fourier", "feedforward": {"type": "moe", "experts": 2, "active": 1, "balance_weight": 0.1}}
PATCHES = {"type": "patches", "size": 4, "channels": 1}
MEL = {"type": "mel", "sample_rate": 4000, "n_fft": 64, "hop_length": 32, "n_mels": 8}
MODEL: dict[str, Any] = {
    "type": "multimodal",
    "num_labels": 2,
    "hidden_dim": 16,
    "fusion": {"type": "cross_modal", "head_dim": 8},
    "encoders": {
        "words": {"type": "encoder", "vocab_size": 256, **BLOCK},
        "front": {"type": "vision_encoder", "frontend": PATCHES, **BLOCK},
        "back": {"type": "vision_encoder", "frontend": PATCHES, **BLOCK, "hidden_dim": 8},
        "noise": {"type": "audio_encoder", "mixing": "sequence", "frontend": MEL, **BLOCK},
    },
}
COLUMNS = {"words": "text", "noise": "sound"}  # front and back are columns of their own names
TRAINING = {"steps": 8, "batch_size": 8, "learning_rate": 5e-3, "eval_every": 8, "save_every": 8}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that lack some modalities; front images are 8 x 12 pixels, back images 4 x 8."""
    folder, random = tmp_path_factory.mktemp("rows"), np.random.default_rng(0)
    lines = ["text,front,back,sound,kind,kinds"]
    for row in range(48):
        bright = row % 2
        cells = {"text": f"{('a dark', 'a bright')[bright]} day {row}"}
        for name, shape in (("front", (8, 12)), ("back", (4, 8))):
            cells[name] = f"{name}{row}.png"
            Image.fromarray((random.integers(0, 90, shape) + 150 * bright).astype(np.uint8)).save(folder / cells[name])
        cells["sound"] = f"{row}.wav"
        with wave.open(str(folder / cells["sound"]), "wb") as file:
            file.setparams((1, 2, 4000, 0, "NONE", ""))
            file.writeframes((random.normal(size=300 + 10 * row) * 3000).astype("<i2").tobytes())
        kept = {place for place in range(4) if (row * 5 + 7) >> place & 1} or {row % 4}
        given = [cell if place in kept else "" for place, cell in enumerate(cells.values())]
        lines.append(",".join([*given, ("dark", "bright")[bright], ("a", "a|b", "b", "")[row % 4]]))
    path = folder / "rows.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def make_run(table: Path, **changes: object):
    data = {"source": str(table), "columns": COLUMNS, "label": "kind", "max_length": 16, "validation_fraction": 0.3}
    return load_run({"model": MODEL, "data": data, "training": TRAINING}, changes)


MULTI = {"model.problem_type": "multi_label_classification", "data.label": "kinds", "data.separator": "|"}


@pytest.fixture(scope="module", params=["single", "multi"])
def finished(table: Path, tmp_path_factory: pytest.TempPathFactory, request) -> TrainingResult:
    run = make_run(table, **(MULTI if request.param == "multi" else {}))
    return train(run, tmp_path_factory.mktemp(request.param) / "run")


def inputs_of(run: Path, item: dict[str, Any]) -> dict[str, Tensor]:
    model, tokenizer = load_checkpoint(run), load_tokenizer(run)
    readers = model.config.readers()
    assert list(readers) == ["front", "back", "noise"]
    found = {}
    for name, cell in item.items():
        if cell is not None and name == "words":
            found[name] = torch.tensor([tokenizer.encode(cell)[:16]])
        elif cell is not None:
            found[name] = readers[name](cell if isinstance(cell, File) else File.at(cell))[None]
    return found


def logits_of(run: Path, items: list[dict[str, Any]]) -> Tensor:
    """Each row by itself, with what it has."""
    model = load_checkpoint(run)
    with torch.no_grad():
        return torch.cat([model(inputs_of(run, item)).logits for item in items]).double()


def test_the_numbers_are_those_of_each_row_by_itself(finished: TrainingResult) -> None:
    held_out = finished.task.held_out
    logits, labels = logits_of(finished.directory, held_out.items), torch.as_tensor(held_out.labels)
    if labels.dim() == 1:
        chosen = logits.argmax(-1)
        assert finished.accuracy == float((chosen == labels).double().mean())
        assert finished.matthews == pytest.approx(matthews_corrcoef(labels, chosen))
        loss = F.cross_entropy(logits, labels)
    else:
        chosen, labels = (logits.sigmoid() >= 0.5).long(), labels.long()
        assert finished.exact_match == float((chosen == labels).all(-1).double().mean())
        loss = F.binary_cross_entropy_with_logits(logits, labels.double())
    assert finished.f1_macro == pytest.approx(f1_score(labels, chosen, average="macro", zero_division=0))
    assert finished.loss == pytest.approx(float(loss), rel=1e-5)


def test_training_tells_each_encoder_what_it_read(finished: TrainingResult) -> None:
    encoders = load_checkpoint(finished.directory).config.encoders
    assert encoders["words"].max_length == 16
    assert (encoders["front"].image_size, encoders["back"].image_size) == ((8, 12), (4, 8))
    assert finished.task.model.labels == (("a", "b") if finished.task.headline == "f1_macro" else ("bright", "dark"))


def test_evaluate_says_what_the_run_wrote(finished: TrainingResult, table: Path, spectral) -> None:
    metrics = json.loads((finished.directory / "metrics.json").read_text(encoding="utf-8"))
    for options in ([], ["--batch-size", 5]):
        told = dict(line.split("  ", 1) for line in spectral("evaluate", finished.directory, *options).out.splitlines())
        told.pop("measured on")
        for name, value in told.items():
            assert f"{metrics[name.strip().replace(' ', '_')]:.4f}" == value.split()[0], name
    assert "measured on  48 rows" in spectral("evaluate", finished.directory, "--data", table).out


def test_commands_read_rows_as_the_model_does(finished: TrainingResult, table: Path, spectral, tmp_path: Path) -> None:
    front, back = table.parent / "front2.png", table.parent / "back3.png"
    items = [
        {"words": "a bright day"},
        {"back": str(back), "front": str(front)},
        {"words": "dark" * 9, "back": str(back)},
    ]
    lines = tmp_path / "items.jsonl"
    lines.write_text("".join(f"{json.dumps(item)}\n" for item in items), encoding="utf-8")
    ended = spectral("classify", finished.directory, "--file", lines, "--json")
    names = finished.task.model.labels
    logits = logits_of(finished.directory, items)
    assert "1 of 3 texts were cut after 16 tokens" in ended.err
    for row, line in zip(logits, map(json.loads, ended.out.splitlines()), strict=True):
        if finished.task.headline == "accuracy":
            assert line["label"] == names[int(row.argmax())]
            wanted = row.softmax(-1)
        else:
            wanted = row.sigmoid()
            assert set(line["labels"]) == {name for name, p in zip(names, wanted, strict=True) if p >= 0.5}
        assert [line["probabilities"][name] for name in names] == pytest.approx(wanted.tolist(), rel=1e-5)
    embedded = spectral("embed", finished.directory, *map(json.dumps, items)).out.splitlines()
    model = load_checkpoint(finished.directory)
    with torch.no_grad():
        for item, line in zip(items, map(json.loads, embedded), strict=True):
            pooled = model(inputs_of(finished.directory, item)).pooled[0]
            assert line["embedding"] == pytest.approx(pooled.tolist(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("a text", "'a text' is no JSON object of inputs by name, and this model reads several: "),
        ("{}", "is no JSON object"),
        ('{"wrods": "a"}', "no input 'wrods'. Did you mean 'words'"),
        ('{"words": 3}', "'words' is a text or the path of a file"),
        (r'{"words": "\ud800"}', "'words' is a text or the path of a file"),
        (r'{"front": "a\u0000.png"}', "'front' is a text or the path of a file"),
        ("[" * 100_000, "is no JSON object"),
        ('{"front": "none.png"}', r"cannot read the image none\.png"),
    ],
)
def test_items_that_are_no_rows(item: str, message: str, finished: TrainingResult, spectral) -> None:
    for command in ("classify", "embed"):
        spectral(command, finished.directory, item).refused(message)


@pytest.mark.parametrize("changes", [{}, MULTI], ids=["single", "multi"])
def test_a_batch_of_unlike_rows_has_the_sum_of_their_losses(changes: dict[str, object], table: Path) -> None:
    run = make_run(table, **changes)
    task = run.task.load(run.model, run.data)
    torch.manual_seed(0)
    model = build_model(task.model).double()
    rows = [task.train[index] for index in range(12)]
    assert len({tuple(row) for row in rows}) > 4, "rows of many kinds"
    single = [task.loss(model, padded([row])) for row in rows]
    whole = task.loss(model, padded(rows))
    count = sum(part.count for part in single)
    torch.testing.assert_close(whole.nats, sum(part.nats for part in single))
    torch.testing.assert_close(whole.loss, whole.nats / count)
    assert whole.count == count
    gradient = torch.autograd.grad(whole.loss, model.head.weight)[0]
    parts = [task.loss(model, padded(part), count).loss for part in (rows[:5], rows[5:])]
    torch.testing.assert_close(sum(parts), whole.loss)
    torch.testing.assert_close(torch.autograd.grad(sum(parts), model.head.weight)[0], gradient)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo")
def test_batches_that_lack_a_modality_train_in_several_processes(table: Path, tmp_path: Path) -> None:
    """By the run's own arguments; without them the reducer waits for gradients of parameters that are not used."""
    run = make_run(table)
    task = run.task.load(run.model, run.data)
    assert task.train is not None
    rows = [task.train[index] for index in range(12)]
    batch = padded([row for row in rows if tuple(row) == tuple(rows[0])])
    assert any(f"inputs.{name}" not in batch for name in MODEL["encoders"])
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        for unused in (training_arguments(run, tmp_path).ddp_find_unused_parameters, False):
            model = InTraining(build_model(task.model), task.loss)
            shared = DistributedDataParallel(model, find_unused_parameters=unused)
            shared(batch).loss.backward()
            if unused:
                shared(batch).loss.backward()
            else:
                with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
                    shared(batch)
    finally:
        torch.distributed.destroy_process_group()


def test_auxiliary_losses_and_metrics_are_weighted_by_rows(table: Path) -> None:
    run = make_run(table, **{"model.encoders.words.layers": [EXPERTS]})
    task = run.task.load(run.model, run.data)
    torch.manual_seed(0)
    model = build_model(task.model).double()
    rows = [task.train[index] for index in range(16)]
    groups: dict[tuple[str, ...], list[Any]] = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append(row)
    found = [task.loss(model, padded(group)) for group in groups.values()]
    whole = task.loss(model, padded(rows))
    assert whole.losses
    assert whole.metrics
    for name, value in whole.losses.items():
        torch.testing.assert_close(
            value, sum(part.losses[name] * part.count for part in found if name in part.losses) / 16
        )
    for name, value in whole.metrics.items():
        having = [part for part in found if name in part.metrics]
        assert len(having) < len(found) or not name.startswith("encoders.words")
        mean = sum(part.metrics[name] * part.count for part in having) / sum(part.count for part in having)
        torch.testing.assert_close(value, mean)
    torch.testing.assert_close(whole.loss, whole.nats / 16 + sum(whole.losses.values()))
