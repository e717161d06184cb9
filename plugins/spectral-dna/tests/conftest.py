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

INSTALLED = any(point.name == "dna" for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
if not INSTALLED:
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))


@contextmanager
def registered() -> Iterator[None]:
    """The plugin's parts are in the registries inside, and gone outside: other tests may count what is there."""
    if INSTALLED:
        yield
        return
    HOST.register(importlib.import_module("spectral_dna"), namespace="dna", distribution="spectral-dna")
    try:
        yield
    finally:
        HOST.unregister("dna")


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
