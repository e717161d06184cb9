"""The model card: its commands exist, with the options that it writes."""

from __future__ import annotations

import shlex

import pytest
import typer

from spectral_models.cli.commands import app
from spectral_models.integrations import huggingface
from spectral_models.training.card import _COMMANDS, _PIPELINES


@pytest.mark.parametrize("architecture", _COMMANDS)
def test_its_command_is_one_of_ours(architecture):
    assert hasattr(huggingface, architecture)
    program, name, *arguments = shlex.split(_COMMANDS[architecture].format(path="PATH"))
    command = typer.main.get_command(app).get_command(None, name)
    options = {option for parameter in command.params for option in parameter.opts}
    assert program == "spectral"
    assert {argument for argument in arguments if argument.startswith("--")} <= options


def test_pipelines_are_named_for_classes_that_exist():
    assert all(hasattr(huggingface, architecture) for architecture in _PIPELINES)
