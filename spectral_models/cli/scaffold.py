"""Writes a new plugin: a package with one working part and its tests.

``templates/common`` and ``templates/<kind>`` have the layout of the package. ``package`` in a path is replaced by the
package's name, and ``$name`` and other words in a file by the values of :func:`_values`.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import yaml

from spectral_core import ConfigError, __version__
from spectral_core.plugins import BUILTIN_PROVIDER

_TEMPLATES = Path(__file__).parent / "templates"
_PREFIX = "spectral-"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Kind(str, Enum):
    """Kinds of part for which there is a template."""

    gate = "gate"
    filter = "filter"
    mixer = "mixer"
    backend = "backend"
    model = "model"
    task = "task"


@dataclass(frozen=True)
class Plugin:
    """A plugin's names: ``acme``, its distribution ``spectral-acme`` and its package ``spectral_acme``."""

    name: str

    @classmethod
    def called(cls, given: str) -> Plugin:
        """From ``acme`` or ``spectral-acme``. Raises ConfigError for invalid names and names of installed packages."""
        name = given.removeprefix(_PREFIX)
        if not _NAME.fullmatch(name):
            nearest = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").lstrip("-0123456789")
            hint = f" Try {nearest!r}." if _NAME.fullmatch(nearest) else ""
            raise ConfigError(
                f"{given!r} cannot name a plugin: a name is lower-case letters, digits and single hyphens, and begins "
                f"with a letter, as in acme or spectral-acme.{hint}"
            )
        plugin = cls(name)
        if plugin.distribution == BUILTIN_PROVIDER or importlib.util.find_spec(plugin.package):
            raise ConfigError(
                f"{given!r} would make the package {plugin.package}, and {plugin.distribution} is installed here "
                "already. Choose another name."
            )
        return plugin

    @property
    def distribution(self) -> str:
        return _PREFIX + self.name

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")

    def part(self, kind: Kind) -> str:
        """The name of the template's part in configs."""
        return f"{self.name}/{_parts()[kind.value]['part']}"


def write(plugin: Plugin, kind: Kind, directory: Path) -> Path:
    """Write the plugin to a new folder in that directory, and return the folder.

    Raises ConfigError when the folder exists or cannot be written.
    """
    folder = directory / plugin.distribution
    files = _files(plugin, kind)
    try:
        folder.mkdir(parents=True)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise ConfigError(
            f"{folder} exists already, and nothing in it is overwritten. Choose another name or --directory."
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}. Choose another --directory.") from None
    return folder


def _files(plugin: Plugin, kind: Kind) -> dict[Path, str]:
    """Each file's text by its path in the package."""
    values = _values(plugin, kind)
    texts = {}
    for root in (_TEMPLATES / "common", _TEMPLATES / kind.value):
        for source in root.rglob("*.tmpl"):
            path = source.relative_to(root).with_suffix("")
            path = Path(*(plugin.package if step == "package" else step for step in path.parts))
            texts[path] = Template(source.read_text(encoding="utf-8")).substitute(values)
    return texts


def _values(plugin: Plugin, kind: Kind) -> dict[str, str]:
    """Values of the ``$words`` in templates."""
    part = {"kind": kind.value, "needs": [], **_parts()[kind.value]}
    needs = [Template(need).substitute(version=__version__) for need in part.pop("needs")]
    needs += [f"spectral-networks>={__version__}", "torch>=2.9", "pydantic>=2.10"]
    return {
        **part,
        "name": plugin.name,
        "distribution": plugin.distribution,
        "package": plugin.package,
        "use": Template(part["use"]).substitute(part=plugin.part(kind)),
        "dependencies": ", ".join(f'"{need}"' for need in sorted(needs)),
    }


@cache
def _parts() -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = yaml.safe_load((_TEMPLATES / "parts.yaml").read_text(encoding="utf-8"))
    return parts
