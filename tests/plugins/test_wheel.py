"""The wheel: what is in it, and that it works where the source tree is not."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

from spectral_core import __version__
from spectral_models import list_blocks, list_models

ROOT = Path(__file__).parents[2]
PACKAGES = ("spectral_core", "spectral_kernels", "spectral_layers", "spectral_models")
METADATA = f"spectral_networks-{__version__}.dist-info"

ELSEWHERE = """
import importlib.metadata, json
import torch
import spectral_core, spectral_kernels, spectral_layers, spectral_models
from spectral_models import build_model, list_blocks, list_models

print(json.dumps({
    "files": [module.__file__ for module in (spectral_core, spectral_kernels, spectral_layers, spectral_models)],
    "models": list_models(),
    "blocks": list_blocks(),
    "shape": list(build_model("tiny")(torch.zeros(2, 5, dtype=torch.long)).logits.shape),
    "version": importlib.metadata.version("spectral-networks"),
    "command": [
        point.load().__module__ for point in importlib.metadata.entry_points(group="console_scripts", name="spectral")
    ],
}))
"""


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    before = visible(ROOT)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert visible(ROOT) == before, "a build leaves nothing in the source tree"
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def archive(wheel: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(wheel) as opened:
        yield opened


def test_it_holds_the_four_packages_and_nothing_else(archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {*PACKAGES, METADATA}
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".orig", ".so"))] == []


def test_it_holds_every_file_of_the_packages(archive: zipfile.ZipFile) -> None:
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {name for name in archive.namelist() if not name.startswith(METADATA)}
    assert sources == shipped
    assert {f"{package}/py.typed" for package in PACKAGES} <= shipped
    presets = {f"spectral_models/presets/{name}.yaml" for name in list_models()}
    assert presets
    assert presets <= shipped


def test_its_metadata_names_licence_dependencies_and_command(archive: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(archive.read(f"{METADATA}/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("spectral-networks", __version__)
    assert metadata["License-Expression"] == "MIT"
    assert f"{METADATA}/licenses/LICENSE" in archive.namelist()
    needed = {line.split(">")[0].split(";")[0] for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert {"torch", "pydantic", "pluggy", "pyyaml", "safetensors"} <= needed
    assert needed.isdisjoint({"pytest", "hypothesis", "transformers", "datasets"}), "those are extras"
    entry_points = configparser.ConfigParser()
    entry_points.read_string(archive.read(f"{METADATA}/entry_points.txt").decode())
    assert dict(entry_points["console_scripts"]) == {"spectral": "spectral_models.cli.app:main"}


def test_installed_it_works_away_from_the_source(
    wheel: Path, pip_install: Callable[[Path], Path], python: Callable[..., dict[str, Any]]
) -> None:
    target = pip_install(wheel)
    answer = python(ELSEWHERE, target)
    assert [Path(file).parents[1] for file in answer["files"]] == [target] * 4
    assert answer["models"] == list_models()
    assert answer["blocks"] == list_blocks()
    assert answer["shape"] == [2, 5, 256]
    assert answer["version"] == __version__
    assert set(answer["command"]) == {"spectral_models.cli.app"}
