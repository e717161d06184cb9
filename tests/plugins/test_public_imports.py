"""Our own plugins are third parties in all but name: they import public modules and names, nothing internal."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
FRAMEWORK = ("spectral_kernels", "spectral_core", "spectral_layers", "spectral_models")
PUBLIC = {"spectral_core", "spectral_core.plugins", "spectral_core.testing", "spectral_kernels.operator"}
"""Modules of which a test pins the public names, or which docs/api lists."""


def private_imports(source: str, public: set[str]) -> Iterator[str]:
    """What a module takes from the framework that no plugin may: other modules, and names with an underscore."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for module, name in imported:
            ours = module.partition(".")[0] in FRAMEWORK
            if ours and (module not in public or name.startswith("_")):
                yield f"{module}.{name}".rstrip(".")


def inherited_private_attributes(source: str) -> set[str]:
    """Attributes with an underscore that the module uses and does not itself define; namedtuples' own are public."""
    nodes = list(ast.walk(ast.parse(source)))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    defined = {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    defined |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    used = {node.attr for node in attributes if node.attr.startswith("_") and not node.attr.startswith("__")}
    return used - defined - {"_replace", "_asdict", "_fields", "_make"}


@pytest.mark.parametrize("path", sorted((PLUGINS / "spectral-ducc" / "src").rglob("*.py")), ids=lambda path: path.name)
def test_a_fused_backend_needs_public_names_only(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not list(private_imports(source, PUBLIC))
    assert not inherited_private_attributes(source)


@pytest.mark.parametrize(
    "line",
    [
        "from spectral_core.backends.base import Support",
        "import spectral_core.backends.torch_fft",
        "from spectral_core import _hidden",
        "def late():\n    from spectral_kernels.launch import run",
        "if TYPE_CHECKING:\n    from spectral_core.backends import base",
    ],
)
def test_private_imports_are_seen(line: str) -> None:
    assert len(list(private_imports(line, PUBLIC))) == 1


def test_private_attributes_are_seen() -> None:
    source = (
        "class A(B):\n    def _own(self): self._x = self._own() + self._prepared(1)\n    def b(self): return self._x"
    )
    assert inherited_private_attributes(source) == {"_prepared"}
