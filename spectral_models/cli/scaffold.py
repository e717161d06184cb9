"""Writes a new plugin: a package of its own, with one working part and its tests.

``templates/common`` and ``templates/<kind>`` are laid out as the package they become. ``package`` in a path stands for
the package's name, and ``$name`` and the like in a file for the values of :func:`_values`.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from string import Template

from spectral_core import ConfigError, __version__
from spectral_core.plugins import BUILTIN_PROVIDER

_TEMPLATES = Path(__file__).parent / "templates"
_PREFIX = "spectral-"
_TRAIN = f"spectral-networks[train]>={__version__}"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Kind(str, Enum):
    """What a new plugin may begin with."""

    gate = "gate"
    filter = "filter"
    mixer = "mixer"
    backend = "backend"
    model = "model"
    task = "task"


@dataclass(frozen=True)
class _Part:
    """The part in a kind's template. use: how a model's config names it."""

    name: str
    config: str
    module: str
    summary: str
    use: str
    registry: str
    hook: str = "spectral_register_layers"
    needs: tuple[str, ...] = ()


_PARTS = {
    Kind.gate: _Part(
        name="wiener",
        config="WienerConfig",
        module="gates",
        summary="Passes strong bins and fades weak ones, around a learned threshold.",
        use="block:\n  mixer: {type: spectral_gating, gates: [$part]}",
        registry="gate",
    ),
    Kind.filter: _Part(
        name="damped_cosine",
        config="DampedCosineConfig",
        module="filters",
        summary="A damped cosine for each channel.",
        use="block:\n  mixer: {type: gated_convolution, filter: $part}",
        registry="filter",
    ),
    Kind.mixer: _Part(
        name="moving_average",
        config="MovingAverageConfig",
        module="mixers",
        summary="Exponential moving averages at learned rates; O(1) state.",
        use="block:\n  mixer: $part",
        registry="mixer",
    ),
    Kind.backend: _Part(
        name="numpy",
        config="NumpyFFTConfig",
        module="backends",
        summary="numpy.fft on the CPU.",
        use="fft: $part",
        registry="fft",
        hook="spectral_register_fft_backends",
        needs=("numpy>=1.26",),
    ),
    Kind.model: _Part(
        name="bag",
        config="BagConfig",
        module="models",
        summary="Labels of texts: a mixer between an embedding and a mean.",
        use="type: $part",
        registry="model",
        hook="spectral_register_models",
        needs=(_TRAIN,),
    ),
    Kind.task: _Part(
        name="ratings",
        config="RatingsConfig",
        module="tasks",
        summary="Ratings of texts: squared error, measured in steps of the scale.",
        use="task: $part",
        registry="task",
        hook="spectral_register_models",
        needs=(_TRAIN, "numpy>=1.26"),
    ),
}


@dataclass(frozen=True)
class Plugin:
    """A plugin's names: ``acme``, its distribution ``spectral-acme`` and its package ``spectral_acme``."""

    name: str

    @classmethod
    def called(cls, given: str) -> Plugin:
        """From ``acme`` or ``spectral-acme``. Raises ConfigError for what cannot be a name, or is one already."""
        name = given.removeprefix(_PREFIX)
        if not _NAME.fullmatch(name):
            nearest = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").lstrip("-0123456789")
            hint = f" Try {nearest!r}." if _NAME.fullmatch(nearest) else ""
            raise ConfigError(
                f"{given!r} cannot name a plugin: a name is lower-case letters, digits and single hyphens, and begins "
                f"with a letter, as in acme or spectral-acme.{hint}"
            )
        made = cls(name)
        if made.distribution == BUILTIN_PROVIDER or importlib.util.find_spec(made.package):
            raise ConfigError(
                f"{given!r} would make the package {made.package}, and {made.distribution} is installed here already. "
                "Choose another name."
            )
        return made

    @property
    def distribution(self) -> str:
        return _PREFIX + self.name

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")

    def part(self, kind: Kind) -> str:
        """What configs call the part of the template."""
        return f"{self.name}/{_PARTS[kind].name}"


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
    found = {}
    for root in (_TEMPLATES / "common", _TEMPLATES / kind.value):
        for source in root.rglob("*.tmpl"):
            path = source.relative_to(root).with_suffix("")
            path = Path(*(plugin.package if step == "package" else step for step in path.parts))
            found[path] = Template(source.read_text(encoding="utf-8")).substitute(values)
    return found


def _values(plugin: Plugin, kind: Kind) -> dict[str, str]:
    """What each ``$word`` in a template stands for."""
    part = _PARTS[kind]
    needs = sorted([f"spectral-networks>={__version__}", "torch>=2.9", "pydantic>=2.10", *part.needs])
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "package": plugin.package,
        "kind": {Kind.backend: "FFT backend"}.get(kind, kind.value),
        "registry": part.registry,
        "hook": part.hook,
        "part": part.name,
        "module": part.module,
        "config": part.config,
        "summary": part.summary,
        "use": Template(part.use).substitute(part=plugin.part(kind)),
        "dependencies": ", ".join(f'"{need}"' for need in needs),
    }
