"""Run configs, what a run leaves behind, and what the optimiser is really given."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F
from transformers import set_seed

from spectral_core import ConfigError
from spectral_layers.projection import Projection
from spectral_models import build_model, load_checkpoint, load_config, load_tokenizer
from spectral_models.data import ByteTokenizer, ContiguousWindows, RandomWindows, load_corpus
from spectral_models.evaluation import bits_per_byte
from spectral_models.tasks.causal_lm import CausalLM
from spectral_models.training import RunConfig, load_run
from spectral_models.training.optimizers import decayed_weights
from spectral_models.training.result import TrainingResult
from spectral_models.training.run import train
from spectral_models.training.trainer import RunningMeans
from spectral_models.variants.language_model import LanguageModel

CONTEXT = 64
MODEL = {
    "hidden_dim": 32,
    "num_layers": 2,
    "layers": [
        {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}}, "feedforward": "mlp"},
        {"mixer": {"type": "holographic", "phases": 8}, "feedforward": "mlp"},
    ],
}
EXPERTS = {"layers.0.feedforward": {"type": "moe", "experts": 4, "active": 1, "balance_weight": 0.5}}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """Regular enough to be learned from in a few steps."""
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text("".join(f"line {i}: the quick brown fox {i * i % 97}\n" for i in range(1200)), encoding="utf-8")
    return path


def make_run(text: Path, **changes: Any) -> RunConfig:
    """A run of a few steps; keyword arguments change the training, a mapping ``model`` the model."""
    model = changes.pop("model", {})
    return load_run(
        {
            "model": {**MODEL, **{key: value for key, value in model.items() if "." not in key}},
            "data": {"source": str(text), "context": CONTEXT, "validation_bytes": 2000},
            "training": {"steps": 8, "batch_size": 4, "eval_every": 100, "save_every": 100, "log_every": 1, **changes},
        },
        {f"model.{key}": value for key, value in model.items() if "." in key},
    )


def losses(result: TrainingResult) -> list[float]:
    return [row["loss"] for row in result.history if "loss" in row]


@pytest.fixture(scope="module")
def baseline(text, tmp_path_factory) -> TrainingResult:
    """Eight plain steps, which variations are compared with."""
    return train(make_run(text), tmp_path_factory.mktemp("baseline") / "run")


def test_a_run_of_bytes_leaves_a_tokenizer_beside_its_model(baseline):
    """For Hugging Face's tools; our own loader goes on with bytes."""
    model = baseline.directory / "model"
    assert {path.name for path in model.iterdir()} == {
        "README.md",
        "complete.json",
        "config.json",
        "curve.png",
        "model.safetensors",
        "modeling_spectral_networks.py",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert type(load_tokenizer(baseline.directory)) is ByteTokenizer
    assert not (baseline.directory / "tokenizer").exists(), "nothing was learned that a second process would need"


# Configs


def test_a_run_comes_from_a_file_a_preset_or_a_mapping(tmp_path, monkeypatch):
    data = {"model": {"num_layers": 1}, "training": {"steps": 7}}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert load_run(file) == load_run(str(file)) == load_run(data)
    assert load_run(file).training.steps == 7
    assert load_run("tiny").model == load_config("tiny")
    assert load_run("tiny").data.source == "stdlib", "a preset brings defaults for all else"


def test_changes_reach_every_depth_and_win_over_the_file():
    run = load_run(
        {"model": "tiny", "training": {"steps": 7}},
        {"training.steps": 9, "model.layers.0.mixer.filter.modes": 3, "model.hidden_dim": 64, "data.context": 32},
    )
    assert run.training.steps == 9
    assert run.data.context == 32
    assert run.model == load_config("tiny", hidden_dim=64, **{"layers.0.mixer.filter.modes": 3})


def test_the_model_itself_can_be_changed_to_a_preset_in_any_order():
    changes = {"model.hidden_dim": 64, "model": "small"}
    assert load_run("tiny", changes).model == load_config("small", hidden_dim=64)


def test_given_data_is_not_changed():
    data = {"model": {"num_layers": 1}, "training": {"steps": 7}}
    changes = {"model": "tiny", "training.steps": 8}
    load_run(data, changes)
    assert data == {"model": {"num_layers": 1}, "training": {"steps": 7}}
    assert changes == {"model": "tiny", "training.steps": 8}


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        ({"model": "tiny"}, {"training.stepz": 3}, r"training\.stepz: unknown key\. Did you mean 'steps'"),
        ({"model": "tiny"}, {"training.steps": "many"}, r"training\.steps: .*'many'"),
        ({"model": "tiny"}, {"training.learning_rate": float("inf")}, r"training\.learning_rate"),
        ({"model": "tiny"}, {"training.keep": 1}, r"training\.keep"),
        ({"model": "tiny"}, {"training.betas": [0.9, 1]}, r"training\.betas\.1: .*less than 1"),
        ({"model": "tiny"}, {"training.seed": 1 << 32}, r"training\.seed: .*less than 4294967296"),
        ({"model": "tiny"}, {"training.precision": "int8"}, r"training\.precision"),
        ({"model": "tiny"}, {"model.layers.0.mixer.filter.mode": 3}, r"model\.layers\.0\.mixer\.filter\.mode: .*modes"),
        ({"model": "tiny"}, {"model.layers.7.mixer": "holographic"}, r"layers\.7\.mixer: '7' is not an index"),
        ({"model": "tiny"}, {"model.layers.0.mixer": "fourier"}, r"model\.layers\.0\.mixer: .*may not see the future"),
        ({"model": "tiny"}, {"data": {"contxt": 3}}, r"data\.contxt: .*context"),
        ({"model": "tniy"}, {}, r"no preset is called 'tniy'\. Did you mean 'tiny'"),
        ({"training": {"steps": 3}}, {}, r"model: Field required"),
        ({"model": {"vocab_size": 255}}, {}, r"vocab_size of at least 256.*255"),
        ("no-such-run", {}, r"'no-such-run' is neither a run config .* nor a preset: .*tiny"),
        ("no-such-run.yaml", {}, r"cannot read the config no-such-run\.yaml"),
    ],
)
def test_a_wrong_run_is_refused_with_its_path(data, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_run(data, changes)


def test_a_batch_that_cannot_be_divided_is_refused_before_anything_is_written(text, tmp_path, monkeypatch):
    run = make_run(text, batch_size=6, accumulation=4)
    with pytest.raises(ConfigError, match=r"batch_size 6 must be a multiple of processes x accumulation = 1 x 4"):
        train(run, tmp_path / "run")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"batch_size 2 must be a multiple .* = 4 x 1"):
        train(make_run(text, batch_size=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is allowed on a GPU")
def test_fp16_without_a_gpu_is_refused_before_anything_is_written(text, tmp_path):
    with pytest.raises(ConfigError, match=r"fp16 needs a GPU\. Use bf16"):
        train(make_run(text, precision="fp16"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# What a run leaves


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory) -> tuple[RunConfig, TrainingResult]:
    """Forty steps with experts, evaluated and saved on the way."""
    run = make_run(text, model=EXPERTS, steps=40, log_every=4, eval_every=20, save_every=10, learning_rate=1e-2)
    return run, train(run, tmp_path_factory.mktemp("finished") / "run")


def test_training_lowers_the_loss_and_the_held_out_bits(finished):
    _, result = finished
    found = losses(result)
    assert found[-1] < 0.75 * found[0]
    bits = [row["eval_bits_per_byte"] for row in result.history if "eval_bits_per_byte" in row]
    assert len(bits) == 2, "at steps 20 and 40, and not again after the last"
    assert result.bits_per_byte == bits[-1] < bits[0] < 8
    assert all(math.isfinite(value) for row in result.history for value in row.values())


def test_a_run_leaves_its_config_checkpoints_model_and_numbers(finished):
    run, result = finished
    directory = result.directory
    assert load_run(directory / "run.yaml") == run, "with every default written out, it is the same run"
    kept = sorted(path.name for path in (directory / "checkpoints").iterdir())
    assert kept == ["checkpoint-30", "checkpoint-40"]
    metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["bits_per_byte"] == result.bits_per_byte
    assert metrics["xz_bits_per_byte"] == result.xz_bits_per_byte
    assert metrics["history"] == result.history
    for path in (directory, directory / "model", directory / "checkpoints" / "checkpoint-40"):
        saved = load_checkpoint(path)
        for name, value in result.model.state_dict().items():
            assert torch.equal(saved.state_dict()[name], value), (path, name)


def test_held_out_numbers_are_those_of_the_model_at_that_step(text, tmp_path):
    """A kernel that a filter keeps from an earlier evaluation must not serve a later one."""
    run = make_run(text, steps=6, eval_every=3, save_every=3, learning_rate=1e-2)
    result = train(run, tmp_path / "run")
    windows = ContiguousWindows(result.task.corpus.validation, CONTEXT)
    logged = {row["step"]: row["eval_bits_per_byte"] for row in result.history if "eval_bits_per_byte" in row}
    for step in (3, 6):
        saved = load_checkpoint(tmp_path / "run" / "checkpoints" / f"checkpoint-{step}")
        assert logged[step] == bits_per_byte(saved, windows), step
    assert bits_per_byte(result.model, windows) == logged[6], "the model that is handed back"


def test_the_learning_curve_is_a_picture_with_something_in_it(finished):
    _, result = finished
    picture = result.directory / "curve.png"
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 600
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 10, "lines in several colours"


def test_tensorboard_gets_losses_bits_and_the_parts_metrics(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, result = finished
    events = EventAccumulator(str(result.directory / "logs")).Reload()
    tags = events.Tags()["scalars"]
    uses = {f"train/layers.0.feedforward.{use}" for use in ("busiest_expert", "idlest_expert", "experts_in_use")}
    assert {"train/loss", "eval/bits_per_byte", *uses} <= set(tags)
    steps = [event.step for event in events.Scalars("train/loss")]
    assert steps == sorted({*range(4, 41, 4), 10, 20, 30, 40}), "every fourth step, and with every checkpoint"


def test_metrics_and_losses_of_the_parts_are_logged_by_layer(finished):
    _, result = finished
    rows = [row for row in result.history if "loss" in row]
    written = json.loads((result.directory / "metrics.json").read_text(encoding="utf-8"))["history"]
    assert rows == [row for row in written if "loss" in row]
    for row in rows:
        assert 0 <= row["layers.0.feedforward.idlest_expert"] <= 1 <= row["layers.0.feedforward.busiest_expert"] <= 4
        assert 1 <= row["layers.0.feedforward.experts_in_use"] <= 4
        assert 0 < row["loss/layers.0.feedforward.router_z"] < 0.1
        assert 0.4 < row["loss/layers.0.feedforward.load_balancing"] < 0.5 * 4, "its weight when balanced"


def test_a_run_shorter_than_its_intervals_is_logged_and_evaluated_once(text, tmp_path):
    result = train(make_run(text, steps=2, log_every=10, eval_every=100), tmp_path / "run")
    assert [row["step"] for row in result.history if "loss" in row] == [2]
    assert [row["step"] for row in result.history if "eval_bits_per_byte" in row] == [2]
    assert (result.directory / "curve.png").exists()


def test_progress_goes_to_stderr_in_plain_lines_when_it_is_no_terminal(text, tmp_path, capsys):
    train(make_run(text, steps=2, eval_every=2), tmp_path / "run")
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 1/2", "step 2/2", "step 2/2"]
    assert "loss" in lines[0]
    assert "held-out bits per byte" in lines[2]


# What the optimiser is given


def first_batch(run: RunConfig) -> tuple[LanguageModel, torch.Tensor, torch.Tensor]:
    """The model as training begins it, and the tokens and labels of its first step."""
    corpus = load_corpus(run.data)
    set_seed(run.training.seed)
    model = build_model(run.model)
    windows = RandomWindows(corpus.train, run.data.context, run.training.batch_size, run.training.seed)
    batch = [windows[i] for i in range(run.training.batch_size)]
    return model, torch.stack([item["input_ids"] for item in batch]), torch.stack([item["labels"] for item in batch])


def by_hand(model: LanguageModel, tokens: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    output = model(tokens)
    nats = -output.logits.log_softmax(-1).gather(-1, labels[..., None]).mean()
    return nats, sum(output.losses.values(), start=torch.zeros(()))


@pytest.mark.parametrize("changes", [{}, EXPERTS], ids=["plain", "experts"])
def test_the_first_logged_loss_is_the_mean_over_every_label_plus_the_parts_losses(text, tmp_path, changes):
    run = make_run(text, model=changes, steps=1)
    with torch.no_grad():
        nats, auxiliary = by_hand(*first_batch(run))
    result = train(run, tmp_path / "run")
    assert losses(result)[0] == pytest.approx(float(nats + auxiliary), rel=1e-6)
    assert (float(auxiliary) > 0.1) == bool(changes)


def test_the_parts_losses_reach_the_gradient_however_a_step_is_divided(text):
    run = make_run(text, model=EXPERTS)
    model, tokens, labels = first_batch(run)
    router = model.blocks[0].feedforward.router.weight

    (wanted,) = torch.autograd.grad(sum(by_hand(model, tokens, labels)), router)
    (without,) = torch.autograd.grad(by_hand(model, tokens, labels)[0], router)
    (found,) = torch.autograd.grad(
        CausalLM.loss(model, {"input_ids": tokens, "labels": labels}, labels.numel()).loss, router
    )
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)
    assert (found - without).norm() > 0.1 * without.norm(), "the balancing loss weighs something here"

    halves = torch.zeros_like(found)
    expected = torch.zeros_like(found)
    for part in (slice(0, 1), slice(1, 4)):  # uneven: each counts by its labels
        batch = {"input_ids": tokens[part], "labels": labels[part]}
        loss = CausalLM.loss(model, batch, labels.numel()).loss
        halves += torch.autograd.grad(loss, router)[0]
        share = labels[part].numel() / labels.numel()
        expected += share * torch.autograd.grad(sum(by_hand(model, tokens[part], labels[part])), router)[0]
    torch.testing.assert_close(halves, expected, rtol=1e-5, atol=1e-8)


def test_ignored_labels_count_for_nothing(text):
    model, tokens, labels = first_batch(make_run(text))
    labels[:, 10:] = -100
    wanted = F.cross_entropy(model(tokens).logits[:, :10].flatten(0, 1), labels[:, :10].flatten())
    torch.testing.assert_close(CausalLM.loss(model, {"input_ids": tokens, "labels": labels}).loss, wanted)


def test_drained_metrics_are_means_since_the_last_drain(text):
    model, tokens, labels = first_batch(make_run(text, model=EXPERTS))
    means = RunningMeans()
    name = "layers.0.feedforward.busiest_expert"
    values = []
    for part in (slice(0, 1), slice(1, 4)):
        means.add(CausalLM.loss(model, {"input_ids": tokens[part], "labels": labels[part]}))
        values.append(float(model(tokens[part]).metrics[name]))
    assert means.drain()[name] == pytest.approx(sum(values) / 2)
    assert means.drain() == {}


def test_evaluation_leaves_the_parts_losses_out(finished):
    run, result = finished
    model = result.model
    corpus = load_corpus(run.data)
    held_out = corpus.validation[: 20 * CONTEXT + 1].long()
    tokens, labels = held_out[:-1].view(20, CONTEXT), held_out[1:].view(20, CONTEXT)
    with torch.no_grad():
        output = model(tokens)
    assert float(sum(output.losses.values())) > 0.4
    bits = F.cross_entropy(output.logits.flatten(0, 1), labels.flatten()) / math.log(2)
    assert result.bits_per_byte == pytest.approx(float(bits), rel=0.1), "a different stretch of the same held-out text"
    assert result.bits_per_byte < float(bits) + 0.5 * float(sum(output.losses.values())) / math.log(2)


def test_only_weights_of_linear_layers_and_embeddings_decay(text, tmp_path):
    changes = {"tie_embeddings": False, "layers.0.norm": "layer_norm", "layers.0.mixer.filter": "implicit"}
    run = make_run(text, steps=1, weight_decay=0.3, model=changes)
    model, _, _ = first_batch(run)
    decayed = decayed_weights(model)
    parameters = dict(model.named_parameters())
    assert {"frontend.embedding.weight", "head.weight"} <= decayed <= set(parameters)
    for name in parameters:
        owner, _, kind = name.rpartition(".")
        module = model.get_submodule(owner)
        linear = isinstance(module, torch.nn.Linear | torch.nn.Embedding | Projection)
        assert (name in decayed) == (kind == "weight" and linear and ".filter." not in name), name
    assert "blocks.0.mixer.filter.hidden.weight" in parameters.keys() - decayed
    assert any("norm" in name for name in parameters.keys() - decayed)

    train(run, tmp_path / "run")
    optimizer = torch.load(tmp_path / "run" / "checkpoints" / "checkpoint-1" / "optimizer.pt", weights_only=True)
    sizes = [(group["weight_decay"], len(group["params"])) for group in optimizer["param_groups"]]
    assert sizes == [(0.3, len(decayed)), (0.0, len(parameters) - len(decayed))]


# Variations that must not change the numbers, and some that must


def test_two_runs_give_the_same_numbers_to_the_bit(text, tmp_path):
    dropout = {"layers.0.dropout": 0.2, "layers.1.dropout": 0.2}
    first, second = (train(make_run(text, model=dropout), tmp_path / name) for name in ("a", "b"))
    other = train(make_run(text, model=dropout, seed=1), tmp_path / "c")
    assert losses(first) == losses(second) != losses(other)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_accumulated_batches_give_the_losses_of_one_batch(text, tmp_path, baseline):
    halves = train(make_run(text, accumulation=2), tmp_path / "run")
    assert losses(halves) == pytest.approx(losses(baseline), rel=1e-5)
    assert halves.bits_per_byte == pytest.approx(baseline.bits_per_byte, rel=1e-5)


def test_gradient_checkpointing_changes_memory_only(text, tmp_path, baseline):
    result = train(make_run(text, gradient_checkpointing=True), tmp_path / "run")
    assert losses(result) == pytest.approx(losses(baseline), rel=1e-6)
    assert result.model.gradient_checkpointing


def test_bf16_trains_near_float32_and_keeps_float32_parameters(text, tmp_path, baseline):
    result = train(make_run(text, precision="bf16"), tmp_path / "run")
    assert losses(result) == pytest.approx(losses(baseline), abs=0.02)
    assert losses(result) != losses(baseline), "autocast was on"
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
    assert math.isfinite(result.bits_per_byte)


def test_the_rate_rises_to_the_wanted_one_and_falls_to_its_final_share(text, tmp_path):
    result = train(make_run(text, steps=10, warmup=0.3, final_rate=0.2, learning_rate=1e-3), tmp_path / "run")
    rates = [row["learning_rate"] for row in result.history if "loss" in row]
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) == 3
    assert rates[:4] == sorted(rates[:4])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] >= 0.2e-3
