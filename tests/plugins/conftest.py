"""Plugins that are really installed, into a folder of their own, and fresh processes that have it on their path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHRINKAGE = ROOT / "plugins" / "spectral-shrinkage"


@pytest.fixture(scope="session")
def pip_install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Installs a project's folder or a wheel, with what is here and nothing from an index, into a new folder."""

    def install(what: Path) -> Path:
        target = tmp_path_factory.mktemp("site")
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(what)], check=True
        )
        return target

    return install


@pytest.fixture(scope="session")
def shrinkage(pip_install: Callable[[Path], Path]) -> Path:
    """The folder in which the plugin is installed."""
    return pip_install(SHRINKAGE)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Runs a script in a fresh process, from an empty folder, with folders on its path; gives what it prints as JSON.

    Behind the folders stands this checkout, whichever one is installed. Importing torch takes seconds, so a script
    answers several questions and the tests ask them of its output.
    """

    def run(script: str, *folders: Path, **environment: str) -> dict[str, Any]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPECTRAL_")}
        paths = {"PYTHONPATH": os.pathsep.join(map(str, (*folders, ROOT))), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            env=inherited | paths | environment,
            cwd=tmp_path_factory.mktemp("empty"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run
