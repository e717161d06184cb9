"""A plugin host of one's own, and plugins that look installed."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectral_core import FFTBackendConfig
from spectral_core.plugins import ENTRY_POINT_GROUP, PluginHost, Registrar, hookimpl, hookspec
from spectral_core.registry import Registry


class TorchlikeConfig(FFTBackendConfig):
    type: str = "torchlike"


def _spec() -> types.ModuleType:
    @hookspec
    def spectral_register_fft_backends(register: Registrar) -> None:
        """Register backends."""

    module = types.ModuleType("specs")
    module.spectral_register_fft_backends = spectral_register_fft_backends
    return module


def _builtin() -> types.ModuleType:
    @hookimpl
    def spectral_register_fft_backends(register: Registrar) -> None:
        register("fft", "torchlike", TorchlikeConfig, summary="Ours.")

    module = types.ModuleType("builtin_parts")
    module.spectral_register_fft_backends = spectral_register_fft_backends
    return module


class World:
    """One host with one registry, and the entry points it will find."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entry_points: list[importlib.metadata.EntryPoint] = []
        self.modules: list[str] = []
        self.host = PluginHost(lambda: list(self.entry_points))
        self.registry: Registry[FFTBackendConfig] = self.declare()

    def declare(self) -> Registry[FFTBackendConfig]:
        family = self.host.family("spectral_register_fft_backends", specs=_spec(), builtin=_builtin(), version="1.2.3")
        return family.registry("fft", FFTBackendConfig)

    def install(self, name: str, source: str, *, api: str = "SPECTRAL_PLUGIN_API = 1") -> None:
        """A module with that source behind an entry point of that name."""
        module = f"spectral_test_plugin_{len(self.modules)}"
        header = f"from spectral_core import FFTBackendConfig\nfrom spectral_core.plugins import hookimpl\n{api}\n"
        (self.folder / f"{module}.py").write_text(header + source)
        self.modules.append(module)
        self.entry_points.append(importlib.metadata.EntryPoint(name, module, ENTRY_POINT_GROUP))

    def reasons(self) -> dict[str, str]:
        return {failure.plugin: str(failure) for failure in self.host.failures()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("SPECTRAL_DISABLE_PLUGINS", raising=False)
    monkeypatch.delenv("SPECTRAL_PLUGINS", raising=False)
    made = World(tmp_path)
    yield made
    for module in made.modules:
        sys.modules.pop(module, None)
