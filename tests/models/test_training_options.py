"""Optimisers, schedules and what else a run's config chooses: each does what its name says, and resumes to the bit."""

from __future__ import annotations

import gc
import importlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback, get_scheduler, set_seed
from transformers.integrations import integration_utils

from spectral_core import ConfigError
from spectral_models import CheckpointError, build_model, load_checkpoint, load_config
from spectral_models.data import ContiguousWindows
from spectral_models.evaluation import bits_per_byte
from spectral_models.registries import TASKS
from spectral_models.tasks.causal_lm import CausalLM
from spectral_models.tasks.task import Task
from spectral_models.training import RunConfig, load_run
from spectral_models.training.arguments import schedule as schedule_of
from spectral_models.training.checkpoints import TRAINED
from spectral_models.training.curve import plot_headline
from spectral_models.training.optimizers import MuonWithAdamW, freeze, parameter_groups
from spectral_models.training.result import TrainingResult
from spectral_models.training.run import train
from spectral_models.training.selection import Selection
from spectral_models.training.trainer import SpectralTrainer

RUN = {
    "model": {
        "hidden_dim": 16,
        "num_layers": 1,
        "block": {
            "mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}},
            "feedforward": "mlp",
            "dropout": 0.1,
        },
    },
    "data": {"context": 32, "validation_bytes": 500},
    "training": {
        "steps": 8,
        "batch_size": 2,
        "eval_every": 2,
        "save_every": 2,
        "log_every": 1,
        "keep": 9,
        "trackers": [],
    },
}
OPTIMIZERS = {
    "adamw": "exp_avg",
    "muon": "momentum_buffer",
    "adafactor": "exp_avg_sq_row",
    "adamw_8bit": "state1",
    "paged_adamw_32bit": "state1",
    "paged_adamw_8bit": "state1",
}
"""And what only it keeps of a matrix."""


@pytest.fixture(scope="module", autouse=True)
def cheap_runs() -> Iterator[None]:
    """Without pictures, and without a search for garbage among all modules at the beginning of each."""
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalLM, "draw", lambda self, history, path, title: path.touch())
        yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text("".join(f"line {i}: the quick brown fox {i * i % 97}\n" for i in range(300)), encoding="utf-8")
    return path


def make_run(text: Path, **training: Any) -> RunConfig:
    return load_run(RUN, {"data.source": str(text), **{f"training.{name}": value for name, value in training.items()}})


def interrupted(result: TrainingResult, step: int, directory: Path) -> Path:
    """The directory of a run as it was behind the checkpoint of that step."""
    shutil.copytree(result.directory, directory)
    shutil.rmtree(directory / "model")
    (directory / "metrics.json").unlink()
    for path in (directory / "checkpoints").iterdir():
        if int(path.name.partition("-")[2]) > step:
            shutil.rmtree(path)
    return directory


def assert_same(resumed: TrainingResult, whole: TrainingResult) -> None:
    assert resumed.history == whole.history
    for file in ("metrics.json", "model/model.safetensors"):
        assert (resumed.directory / file).read_bytes() == (whole.directory / file).read_bytes(), file


# Optimisers


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains_and_resumes_to_the_bit(text, tmp_path, optimizer):
    if optimizer.endswith("bit"):
        pytest.importorskip("bitsandbytes")
    if optimizer.startswith("paged") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    run = make_run(text, optimizer=optimizer, learning_rate=1e-2)
    whole = train(run, tmp_path / "whole")
    assert_same(train(run, interrupted(whole, 4, tmp_path / "stopped"), resume=True), whole)
    losses = [row["loss"] for row in whole.history if "loss" in row]
    assert losses[-1] < losses[0] - 0.3
    saved = torch.load(whole.directory / "checkpoints" / "checkpoint-8" / "optimizer.pt", weights_only=True)
    assert f"'{OPTIMIZERS[optimizer]}'" in repr(saved)


def test_muon_takes_the_linear_layers_of_blocks_alone():
    model = build_model(load_config("tiny"))
    training = make_run(Path("x"), optimizer="muon", learning_rate=0.5, weight_decay=0.25).training
    groups = parameter_groups(model, training)
    assert [(group["muon"], group["weight_decay"]) for group in groups] == [(True, 0.25), (False, 0.25), (False, 0.0)]
    names = {parameter: name for name, parameter in model.named_parameters()}
    first = [names[parameter] for parameter in groups[0]["params"]]
    assert "blocks.0.mixer.in_proj.weight" in first
    assert "blocks.3.feedforward.down.weight" in first
    assert not any("embedding" in name or "filter" in name or "norm" in name for name in first)
    assert all(model.get_parameter(name).ndim == 2 for name in first)
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_muon_with_adamw_is_muon_and_adamw():
    def layers() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4))

    model, twin = layers(), layers()
    matrices, others = [twin[0].weight, twin[1].weight], [twin[0].bias, twin[1].bias]
    options: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.2}
    apart = [
        torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **options),
        torch.optim.AdamW(others, **options),
    ]
    groups = [{"params": [layer.weight for layer in model], "muon": True, **options}]
    groups += [{"params": [layer.bias for layer in model], "muon": False, **options}]
    together = MuonWithAdamW(groups)
    for step in range(4):
        for part, optimizers in ((model, [together]), (twin, apart)):
            x = torch.linspace(-1, 1, 8).view(2, 4) + step
            part(x).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        together.load_state_dict(together.state_dict())
        for group in [*together.param_groups, *(group for part in apart for group in part.param_groups)]:
            group["lr"] *= 0.5  # as a schedule does
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_muon_of_a_model_without_matrices_to_train_is_refused():
    model = build_model(load_config("tiny"))
    model.blocks.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"muon is for weights of linear layers inside blocks, .* Use adamw"):
        parameter_groups(model, make_run(Path("x"), optimizer="muon").training)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name.endswith("bit")])
def test_an_optimizer_that_is_not_installed_is_one_error_and_nothing_is_written(text, tmp_path, monkeypatch, optimizer):
    monkeypatch.setattr("spectral_models.training.optimizers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"training\.optimizer {optimizer} needs .*pip install bitsandbytes"):
        train(make_run(text, optimizer=optimizer), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="paged memory is there on a GPU")
def test_a_paged_optimizer_without_a_gpu_is_one_error(text, tmp_path, monkeypatch):
    monkeypatch.setattr("spectral_models.training.optimizers.find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=r"paged_adamw_8bit needs a GPU\. Use adamw_8bit or adamw"):
        train(make_run(text, optimizer="paged_adamw_8bit"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Schedules


SCHEDULES = {
    "cosine": [0, 0.5, 1, 0.8682, 0.55, 0.2318],
    "linear": [0.1, 0.55, 1, 0.775, 0.55, 0.325],
    "warmup_stable_decay": [0.1, 0.55, 1, 1, 1, 0.55],
    "constant": [0, 0.5, 1, 1, 1, 1],
}
"""Of six steps, two of them warm-up and of the third the last two cool-down, down to a tenth; relative."""


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_give_the_rates_of_their_names(schedule):
    training = load_run(
        "tiny", {"training.schedule": schedule, "training.steps": 6, "training.warmup": 2, "training.cooldown": 2}
    ).training
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    chosen = schedule_of(training)
    scheduler = get_scheduler(
        chosen["lr_scheduler_type"], optimizer, 2, 6, scheduler_specific_kwargs=chosen.get("lr_scheduler_kwargs")
    )
    found = []
    for _ in range(6):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert found == pytest.approx(SCHEDULES[schedule], abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "step"}, r"training\.schedule: .*'cosine', 'linear', 'warmup_stable_decay' or 'constant'"),
        ({"optimizer": "sgd"}, r"training\.optimizer: .*'adamw', 'muon', 'adafactor'"),
        ({"warmup": 2.5}, r"training\.warmup: .*a share of the steps up to 1, or a whole number of steps"),
        ({"warmup": 900}, r"training\.steps 500 has no room for a warmup of 900 steps: set training\.warmup"),
        (
            {"schedule": "warmup_stable_decay", "cooldown": 490},
            r"no room for a warmup of 20 steps and a cooldown of 490 steps: set training\.warmup or training\.cooldown",
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_one_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_run("tiny", {f"training.{name}": value for name, value in changes.items()})


# More steps


SPANS = {
    "constant": {"warmup": 2},
    "warmup_stable_decay": {"warmup": 2, "cooldown": 0.25},
}


@pytest.mark.parametrize("schedule", SPANS)
def test_a_run_resumed_with_more_steps_is_one_that_had_them_from_the_start(text, tmp_path, schedule):
    def with_steps(steps: int) -> RunConfig:
        return make_run(text, schedule=schedule, steps=steps, **SPANS[schedule])

    short = train(with_steps(8), tmp_path / "run")
    before = {path: path.read_bytes() for path in short.directory.rglob("*.*") if path.is_file()}
    del before[short.directory / "run.lock"]
    content = text.read_bytes()
    text.write_bytes(content + b"more")
    try:
        with pytest.raises(ConfigError, match="begun with other data"):
            train(with_steps(12), short.directory, resume=True)
    finally:
        text.write_bytes(content)
    assert {path: path.read_bytes() for path in before} == before, "no checkpoint is deleted before all is checked"
    whole = train(with_steps(12), tmp_path / "whole")
    longer = train(with_steps(12), short.directory, resume=True)
    timeless = [[{k: v for k, v in row.items() if k != "epoch"} for row in one.history] for one in (longer, whole)]
    assert timeless[0] == timeless[1], "an epoch is all steps"
    for name, value in whole.model.state_dict().items():
        assert torch.equal(longer.model.state_dict()[name], value), name
    assert load_run(longer.directory / "run.yaml").training.steps == 12
    assert_same(train(with_steps(12), longer.directory, resume=True), longer)
    with pytest.raises(ConfigError, match="another config"):
        train(with_steps(8), longer.directory, resume=True)


def test_more_steps_of_other_schedules_or_behind_a_cool_down_are_refused(text, tmp_path):
    directory = train(make_run(text), tmp_path / "run").directory

    def refused(message: str, steps: int = 12, **training: Any) -> None:
        before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        with pytest.raises(ConfigError, match=message):
            train(make_run(text, steps=steps, **training), directory, resume=True)
        assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before

    def began(**training: Any) -> None:
        config = make_run(text, **training).model_dump(mode="json")
        (directory / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    refused(r"from 8 to 12: every rate of its cosine schedule depends on the number of all steps\. .*--from .*run")
    refused("another config", learning_rate=1.0)
    refused("another config", steps=6)
    began(schedule="linear")
    refused("linear schedule depends", schedule="linear")
    share = {"schedule": "constant", "warmup": 0.25}
    began(**share)
    refused(r"warm-up is a share of them, 2 steps until now\. Keep that with --set training\.warmup=2, or", **share)
    stable = {"schedule": "warmup_stable_decay", "warmup": 2, "cooldown": 0.25}
    began(**stable)
    for step in (2, 4, 6):
        shutil.rmtree(directory / "checkpoints" / f"checkpoint-{step}")
    refused(r"its cool-down began behind step 6, and no checkpoint from before that is left\. .*--from", **stable)


# Frozen parameters and rates by name


def test_frozen_parameters_stay_as_they_began_and_the_others_are_trained(text, tmp_path):
    run = make_run(text, steps=2, freeze=["frontend.*", "blocks.*.mixer.*"], learning_rate=1e-2)
    result = train(run, tmp_path / "run")
    set_seed(run.training.seed)
    begun = dict(build_model(run.model).named_parameters())
    for name, value in result.model.named_parameters():
        frozen = name.startswith("frontend.") or ".mixer." in name
        assert torch.equal(value, begun[name]) == frozen, name


RATES = {"rates": {"*": 0.5, "blocks.*": 0.1, "*.skip": 1}, "freeze": ["*.short.*"]}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_rates_multiply_the_learning_rate_of_what_is_trained(optimizer):
    run = make_run(Path("x"), optimizer=optimizer, learning_rate=1e-2, **RATES)
    model = build_model(run.model)
    freeze(model, run.training.freeze)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, run.training)
    assert [names[parameter] for parameter in groups[0]["params"]] == ["blocks.0.mixer.skip"], "whose rate is logged"
    rate = {names[parameter]: group["lr"] / 1e-2 for group in groups for parameter in group["params"]}
    assert rate["frontend.embedding.weight"] == rate["norm.weight"] == 0.5
    assert rate["blocks.0.feedforward.up.weight"] == pytest.approx(0.1)
    assert rate.keys() == {name for name in names.values() if ".short." not in name}


def test_a_run_with_rates_and_frozen_parameters_resumes_to_the_bit(text, tmp_path):
    run = make_run(text, optimizer="muon", steps=4, learning_rate=1e-2, schedule="constant", warmup=0, **RATES)
    whole = train(run, tmp_path / "whole")
    assert [row["learning_rate"] for row in whole.history if "loss" in row] == [1e-2] * 4
    assert_same(train(run, interrupted(whole, 2, tmp_path / "stopped"), resume=True), whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"freeze": ["embedding.*"]},
            r"training\.freeze: 'embedding\.\*' matches no parameter .*frontend\.embedding\.",
        ),
        (
            {"freeze": ["norm.*", "blocks.*", "front*"]},
            r"freeze matches all parameters, so nothing .*blocks\.\*\.mixer\.",
        ),
        (
            {"rates": {"head.*": 0.1}},
            r"training\.rates: 'head\.\*' matches no parameter that is trained\. Parameters: f",
        ),
        ({"rates": {"front*": 0.1}, "freeze": ["front*"]}, r"'front\*' matches no parameter that is trained"),
    ],
)
def test_a_pattern_that_matches_nothing_or_freezes_all_is_one_error(text, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        train(make_run(text, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Trackers


def test_a_tracker_that_transformers_knows_gets_what_is_logged(text, tmp_path, monkeypatch):
    seen = {}

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            seen.setdefault(state.global_step, set()).update(logs)
            assert args.run_name == str(tmp_path / "run")

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "ours", Tracker)
    result = train(make_run(text, steps=2, trackers=["ours"]), tmp_path / "run")
    assert {"loss", "learning_rate", "eval_bits_per_byte"} <= seen[2]
    assert not (result.directory / "logs").exists(), "TensorBoard is not among them"


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("notebook", r"training\.trackers: 'notebook' cannot be used\. .*only .*tensorboard.* are supported"),
        ("comet_ml", r"'comet_ml' cannot be used\. .*pip install comet-ml"),
    ],
)
def test_a_tracker_that_is_unknown_or_not_installed_is_one_error(text, tmp_path, tracker, message):
    with pytest.raises(ConfigError, match=message):
        train(make_run(text, trackers=["tensorboard", tracker]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# The best evaluation, and early stopping


@pytest.fixture
def judged(monkeypatch) -> dict[int, float]:
    """Bits per byte of the evaluations after each step, in place of the model's own."""
    values = {2: 5.0, 4: 3.0, 6: 3.0, 8: 4.0, 10: 6.0, 12: 2.0}
    seen = []

    def judge(self, model):
        seen.append(values[current[0].state.global_step])
        return {"bits_per_byte": seen[-1]}

    current = []
    monkeypatch.setattr(CausalLM, "judge", judge)
    plain = SpectralTrainer.__init__

    def begin(self, *arguments, **options):
        current[:] = [self]
        plain(self, *arguments, **options)

    monkeypatch.setattr(SpectralTrainer, "__init__", begin)
    return values


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(directory).state_dict()


def test_the_best_evaluation_is_kept_however_old_its_checkpoint_is(text, tmp_path, judged):
    run = make_run(text, best=True, keep=2, save_every=100, steps=10)
    whole = train(run, tmp_path / "whole")
    assert {path.name for path in (whole.directory / "checkpoints").iterdir()} == {"checkpoint-4", "checkpoint-10"}
    assert whole.step == 4, "of equal ones the first"
    assert whole.bits_per_byte == 3.0
    assert whole.history[-1]["best_step"] == 4
    assert json.loads((whole.directory / "metrics.json").read_text(encoding="utf-8"))["step"] == 4
    assert whole.report().endswith("best evaluation         step 4")
    assert "at step 4, the best evaluation on these data" in (whole.directory / "model" / "README.md").read_text(
        "utf-8"
    )
    best, last = (weights(whole.directory / "checkpoints" / f"checkpoint-{step}") for step in (4, 10))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(weights(whole.directory)[name], value), name
        assert torch.equal(best[name], value), name
    assert not torch.equal(last["norm.weight"], whole.model.state_dict()["norm.weight"])
    assert_same(train(run, interrupted(whole, 4, tmp_path / "stopped"), resume=True), whole)


def test_training_stops_after_as_many_evaluations_as_patience_says_and_stays_so(text, tmp_path, judged):
    run = make_run(text, patience=2, keep=2, save_every=100, steps=12)
    whole = train(run, tmp_path / "whole")
    assert [row["step"] for row in whole.history if "eval_bits_per_byte" in row] == [2, 4, 6, 8]
    assert whole.step == 4
    assert_same(train(run, interrupted(whole, 4, tmp_path / "stopped"), resume=True), whole)
    again = shutil.copytree(whole.directory, tmp_path / "again")
    shutil.rmtree(again / "model")
    assert_same(train(run, again, resume=True), whole)
    (again / "checkpoints" / "checkpoint-4" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="checkpoint-4"):
        train(run, again, resume=True)


@pytest.mark.parametrize("greater", [True, False])
def test_a_selection_is_read_off_the_log(greater):
    sign = 1 if greater else -1
    history = [{"step": step, "eval_x": sign * value} for step, value in enumerate([1, 3, math.nan, 3, 2])]
    history.insert(2, {"step": 1, "loss": 9.0})
    selection = Selection("eval_x", greater, patience=3)
    assert selection.best_step([]) is None
    assert not selection.is_over([])
    assert [selection.best_step(history[:n]) for n in range(1, 7)] == [0, 1, 1, 1, 1, 1]
    assert [selection.is_over(history[:n]) for n in range(1, 7)] == [False] * 5 + [True]
    assert not Selection("eval_x", greater, None).is_over(history)


def test_the_curve_marks_the_best_evaluation(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    history = [
        {"step": step, "eval_accuracy": value, "eval_loss": 1.0} for step, value in ((1, 0.5), (2, 0.9), (3, 0.7))
    ]
    options: dict[str, Any] = {"title": "", "headline": "accuracy", "digits": 2, "what": "texts", "references": {}}
    plot_headline(history, tmp_path, **options)
    plot_headline([*history, {"step": 3, "best_step": 2}], tmp_path, **options)
    (plain,), (marked,) = ([text.get_text() for text in figure.axes[0].texts] for figure in figures)
    assert (plain, marked) == ("0.70", "0.90")
    assert "best: step 2" in figures[1].axes[0].get_legend_handles_labels()[1]


@pytest.mark.parametrize("name", TASKS.names())
def test_every_task_says_whether_more_of_its_main_number_is_better(name):
    """A run's best evaluation is chosen by that."""
    module = importlib.import_module(type(TASKS.get(name).load().model_construct()).__module__)
    tasks = [part for part in vars(module).values() if isinstance(part, type) and issubclass(part, Task)]
    here = [task for task in tasks if task.__module__ == module.__name__ and hasattr(task, "headline")]
    assert here
    assert all(task.greater_is_better is not None for task in here)


def test_a_task_that_does_not_say_what_is_better_cannot_have_a_best_evaluation(text, tmp_path, monkeypatch):
    monkeypatch.setattr(CausalLM, "greater_is_better", None)
    with pytest.raises(ConfigError, match=r"training\.patience: CausalLM does not say whether more bits_per_byte is"):
        train(make_run(text, patience=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Averaged weights


@pytest.fixture(scope="module")
def averaged(text, tmp_path_factory) -> tuple[RunConfig, TrainingResult]:
    run = make_run(text, ema=0.6, learning_rate=3e-2, steps=6, eval_every=3, save_every=1, freeze=["frontend.*"])
    return run, train(run, tmp_path_factory.mktemp("averaged") / "run")


def test_an_average_is_that_of_the_trained_weights(averaged):
    run, result = averaged
    directory = result.directory / "checkpoints"
    trained = [load_file(directory / f"checkpoint-{step}" / TRAINED) for step in range(1, 7)]
    average = {name: value.double() for name, value in trained[0].items()}
    for n, step in enumerate(trained[1:], start=1):
        decay = min(0.6, (1 + n) / (10 + n))
        average = {name: decay * average[name] + (1 - decay) * step[name].double() for name in step}
        saved = load_file(directory / f"checkpoint-{n + 1}" / "model.safetensors")
        for name, value in saved.items():
            torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-7)
    assert not torch.equal(saved["norm.weight"], trained[-1]["norm.weight"])
    set_seed(run.training.seed)
    frozen = "frontend.embedding.weight"
    assert torch.equal(saved[frozen], build_model(run.model).state_dict()[frozen])
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, saved[name]), name


def test_held_out_numbers_are_those_of_the_average_at_that_step(averaged):
    _, result = averaged
    windows = ContiguousWindows(result.task.corpus.validation, 32)
    logged = {row["step"]: row["eval_bits_per_byte"] for row in result.history if "eval_bits_per_byte" in row}
    for step in (3, 6):
        saved = load_checkpoint(result.directory / "checkpoints" / f"checkpoint-{step}")
        assert logged[step] == bits_per_byte(saved, windows), step
    assert result.bits_per_byte == bits_per_byte(result.model, windows) == logged[6]


def test_a_run_with_averaged_weights_resumes_to_the_bit(averaged, tmp_path):
    run, whole = averaged
    assert_same(train(run, interrupted(whole, 2, tmp_path / "stopped"), resume=True), whole)


def test_averaging_leaves_what_is_trained_alone(averaged, text, tmp_path):
    run, result = averaged
    plain = train(load_run(run.model_dump(), {"training.ema": None}), tmp_path / "run")
    trained = load_file(result.directory / "checkpoints" / "checkpoint-6" / TRAINED)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, trained[name]), name
