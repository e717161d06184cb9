"""Checks of a task with a small model and small data."""

from __future__ import annotations

import json
import math
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

from spectral_layers.testing.check import for_all, only_for
from spectral_models.checkpoint import load_checkpoint
from spectral_models.config import ModelConfig
from spectral_models.data.config import AnyDataConfig
from spectral_models.loss import StepLoss, counted
from spectral_models.testing.cases import TaskCase, descent


class _NoTask(ModelConfig):
    """A model that declares no task."""

    type: str = "no_task"


class _Unread(AnyDataConfig):
    """Data that no task reads."""

    type: str = "unread"


@for_all
def check_it_says_what_it_does_not_support(case: TaskCase) -> None:
    """``unsupported_reasons`` is empty for the case, and not for a model or data that the task does not support."""
    if reasons := case.config.unsupported_reasons(case.config.adapted(case.model), case.data):
        raise AssertionError(
            f"{case}: unsupported_reasons() must be empty for the case's model and data; got {reasons}."
        )
    if not case.config.unsupported_reasons(_NoTask(), case.data):
        raise AssertionError(f"{case}: unsupported_reasons() must not be empty for a model without tasks.")
    if not case.config.unsupported_reasons(case.config.adapted(case.model), _Unread(source="nowhere")):
        raise AssertionError(f"{case}: unsupported_reasons() must not be empty for data that the task does not read.")


@for_all
def check_examples_depend_on_their_index_alone(case: TaskCase) -> None:
    """Example i is the same in every order of access: interrupted training continues exactly."""
    first, second = (case.task.examples(4, 3, 7) for _ in range(2))
    for index in (11, 0, 5):
        for name, value in first[index].items():
            if not torch.equal(value, second[index][name]) or not torch.equal(value, first[index][name]):
                raise AssertionError(f"{case}: example {index} differs between two reads in {name!r}.")


@for_all
def check_the_loss_divides_into_batches(case: TaskCase) -> None:
    """The losses of a step's batches, computed with the step's number of labels, add up to the loss of the step."""
    model, task = case.build().eval(), case.task
    rows = [task.examples(6, 1, 0)[index] for index in range(6)]
    whole = task.collate(rows)
    count = counted(whole["labels"])
    expected = float(task.loss(model, whole).loss.detach())
    found = sum(float(task.loss(model, task.collate(part), count).loss.detach()) for part in (rows[:2], rows[2:]))
    if expected == 0 or not math.isclose(found, expected, rel_tol=1e-5):
        raise AssertionError(f"{case}: two batches of a step give {found:g}, and the whole step {expected:g}.")


@for_all
def check_its_numbers_do_not_depend_on_the_batch_size(case: TaskCase) -> None:
    """The measures include the headline, are finite and JSON, and do not depend on the batch size."""
    model, task = case.build().eval(), case.task
    judged, again = (task.judge(model, batch_size=size) for size in (2, 5))
    if task.headline not in judged or not all(math.isfinite(value) for value in judged.values()):
        raise AssertionError(f"{case}: judge() must give finite numbers, {task.headline!r} among them; got {judged}.")
    for name, value in judged.items():
        if not math.isclose(value, again[name], rel_tol=1e-3, abs_tol=1e-5):
            raise AssertionError(f"{case}: {name} is {value:g} in batches of 2 and {again[name]:g} in batches of 5.")
    json.dumps(task.metrics(judged), allow_nan=False)
    if task.lines(judged)[0][0] != task.headline.replace("_", " "):
        raise AssertionError(f"{case}: lines() must begin with the headline; got {task.lines(judged)}.")


@for_all
def check_training_lowers_the_loss(case: TaskCase) -> None:
    """Training lowers the mean loss of the batches."""
    model, task, size = case.build().train(), case.task, 8
    examples = task.examples(size, case.steps, 0)

    def loss(step: int) -> StepLoss:
        return task.loss(model, task.collate([examples[size * step + index] for index in range(size)]))

    losses = descent(model, loss, steps=case.steps, learning_rate=case.learning_rate)
    third = max(1, case.steps // 3)
    if not sum(losses[-third:]) < sum(losses[:third]):
        raise AssertionError(f"{case}: {case.steps} steps must lower the loss; got {losses}.")


@only_for(lambda case: find_spec("transformers") is not None)
def check_a_run_is_resumed_and_judged_alike(case: TaskCase) -> None:
    """A resumed run, and the model that a run saved, have the measures of the run."""
    from spectral_models.training import load_run
    from spectral_models.training.run import train

    training = {"steps": 2, "batch_size": 4, "eval_every": 2, "save_every": 1}
    parts = {"model": case.model, "task": case.config, "data": case.data}
    run = load_run({**{name: part.model_dump() for name, part in parts.items()}, "training": training})
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "run"
        first, resumed = train(run, out), train(run, out, resume=True)
        judged = case.task.judge(load_checkpoint(out))
    for name, value in first.judged.items():
        for what, other in (("resumed", resumed.judged[name]), ("the saved model", judged[name])):
            if not math.isclose(value, other, rel_tol=1e-3, abs_tol=1e-5):
                raise AssertionError(f"{case}: {name} of a run is {value:g}, and of {what} {other:g}.")
