"""Makes the plugin importable and known where it is not installed, as in a checkout of Spectral Networks."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from spectral_core.plugins import ENTRY_POINT_GROUP, HOST
from spectral_layers.testing import GATE_CHECKS, MIXER_CHECKS, gate_cases, mixer_cases, pairs

INSTALLED = any(point.name == "shrinkage" for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
if not INSTALLED:
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))


@contextmanager
def registered() -> Iterator[None]:
    """The plugin's parts are in the registries inside, and gone outside: other tests may count what is there."""
    if INSTALLED:
        yield
        return
    HOST.register(
        importlib.import_module("spectral_shrinkage"), namespace="shrinkage", distribution="spectral-shrinkage"
    )
    try:
        yield
    finally:
        HOST.unregister("shrinkage")


@pytest.fixture(scope="package", autouse=True)
def plugin() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are tiny: on a busy machine, threads waiting for each other would take all the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every public check of a gate on ours, and every check of a mixer on the mixers that hold it.

    Here and not as a decorator of the test, which would ask the registries before the plugin is in them.
    """
    if {"check", "case"} <= set(metafunc.fixturenames):
        with registered():
            gates, mixers = gate_cases("shrinkage/*"), mixer_cases("shrinkage/*")
        metafunc.parametrize(
            ("check", "case"), [*pairs(GATE_CHECKS, gates), *pairs(MIXER_CHECKS, mixers)], ids=lambda value: str(value)
        )
