"""No module needs, at any depth, a module that needs it: nor in functions, nor for its types."""

from __future__ import annotations

import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

PACKAGES = ("spectral_kernels", "spectral_core", "spectral_layers", "spectral_models")
CONTRACT = {"spectral_models.config", "spectral_models.model"}
"""A config builds its model and a model keeps its config: either names the other's class in annotations."""


def imports(*packages: str, types: bool) -> dict[str, set[str]]:
    """The modules that each module imports, also inside functions. types: also under TYPE_CHECKING."""
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=not types, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in turn, the first again at the end; empty when there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_each_other() -> None:
    assert circle(imports(*PACKAGES, types=False)) == []


def test_no_modules_name_each_others_types() -> None:
    graph, run = imports(*PACKAGES, types=True), imports(*PACKAGES, types=False)
    assert circle({module: run[module] if module in CONTRACT else graph[module] for module in graph}) == []


@pytest.mark.parametrize(
    ("types", "line"),
    [
        (False, "def late():\n    import circles.b"),
        (False, "def late():\n    from circles import b"),
        (True, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from circles.b import B"),
    ],
)
def test_circles_are_found(types: bool, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "circles"
    package.mkdir()
    for name, text in {"__init__": "", "a": line, "b": "from circles.c import C", "c": "from .a import A"}.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = circle(imports("circles", types=types))
    assert set(found) == {"circles.a", "circles.b", "circles.c"}
    if types:
        assert circle(imports("circles", types=False)) == []
    sys.modules.pop("circles", None)
