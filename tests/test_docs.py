"""What the documents list is what is there, and what they show runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spectral_core.plugins import BUILTIN_PROVIDER, HOST
from spectral_layers.builtin import CLASSES
from spectral_models import list_blocks, list_models
from spectral_models.registries import MODELS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
PAGES = [
    "index.md",
    "layers.md",
    "migration.md",
    "causality.md",
    "tutorials/compose.md",
    "tutorials/backends.md",
    "tutorials/variant.md",
    "tutorials/huggingface.md",
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_readme_names_every_part_block_and_preset() -> None:
    assert len(MODELS)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = [e.name for r in HOST.registries.values() for e in r if e.provider == BUILTIN_PROVIDER]
    assert [name for name in (*parts, *list_blocks(), *list_models()) if f"`{name}`" not in readme] == []


def test_the_page_of_layers_shows_every_part() -> None:
    shown = "".join(blocks(ROOT / "docs" / "layers.md", "python"))
    assert [name for name in CLASSES if not re.search(rf"\b{name}\(", shown)] == []


def test_no_number_is_left_open() -> None:
    assert [path.name for path in DOCUMENTS if re.search(r"@[A-Z]+@", path.read_text(encoding="utf-8"))] == []


def test_decisions_are_numbered_without_gap_or_repeat() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_links_between_documents_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_s_python_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks in order, in one namespace, as a reader would paste them."""
    page = ROOT / "docs" / name
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    found = blocks(page, "python")
    assert found
    try:
        for block in found:
            exec(compile(block, str(page), "exec", dont_inherit=True), names)  # noqa: S102
    finally:
        for namespace in {provider.namespace for provider in HOST.discover().values()} & {"acme", "series"}:
            HOST.unregister(namespace)


def test_the_gate_tutorial_s_commands_run(tmp_path: Path) -> None:
    """In an environment of its own, with the packages that are here and nothing from an index."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    scripts = tmp_path / "env" / "bin"
    modules = {"spectral": "spectral_models.cli.app", "pip": "pip", "pytest": "pytest"}
    for command, module in modules.items():
        (scripts / command).write_text(f'#!/bin/sh\nexec "{scripts / "python"}" -m {module} "$@"\n', encoding="utf-8")
        (scripts / command).chmod(0o755)
    site = next(path for path in sys.path if path.endswith("site-packages"))
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "OMP_NUM_THREADS": "1"}
    environment = {
        **os.environ,
        **offline,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), site]),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    (tmp_path / "work").mkdir()
    script = "\n".join(["set -e", *blocks(ROOT / "docs" / "tutorials" / "gate-plugin.md", "sh")])
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path / "work", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "gate acme/limiter" in done.stdout
    assert "valid, language_model" in done.stdout


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    layers = (tmp_path / "site" / "api" / "layers.html").read_text(encoding="utf-8")
    assert "Base of mixers" in layers
    assert ":meth:" not in layers
    assert "1.83" in (tmp_path / "site" / "results.html").read_text(encoding="utf-8")
