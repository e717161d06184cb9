"""Sizes by name, as the original's functions take them: our language models' presets."""

from __future__ import annotations

import re

from spectral_core import ConfigError
from spectral_core.errors import suggestion
from spectral_models.assembly import list_models, load_config
from spectral_models.variants.language_model import LanguageModelConfig

_UNITS = {"m": 10**6, "b": 10**9}


def list_sizes() -> list[str]:
    """Names of sizes: presets of language models, those in numbers also without their ``slm-``, the smallest first."""
    numbers = sorted((name.removeprefix("slm-") for name in list_models("slm-*")), key=_parameters)
    return ["tiny", "small", "base", "medium", "large", "xlarge", *numbers]


def preset_of(size: str) -> LanguageModelConfig:
    """The preset of a size. Raises ConfigError with the nearest sizes for a name that none has."""
    short = size.removeprefix("slm-") if isinstance(size, str) else size
    sizes = list_sizes()
    if short not in sizes:
        raise ConfigError(f"no size is called {size!r}.{_nearest(short, sizes)} Sizes: {', '.join(sizes)}.")
    config = load_config(f"slm-{short}" if short[0].isdigit() else short)
    assert isinstance(config, LanguageModelConfig)
    return config


def _nearest(size: object, sizes: list[str]) -> str:
    """The sizes in numbers below and above one, or the name most like it."""
    wanted = _parameters(size)
    if not wanted:
        return suggestion(str(size), sizes)
    numbers = [name for name in sizes if _parameters(name)]
    below = [name for name in numbers if _parameters(name) < wanted][-1:]
    above = [name for name in numbers if _parameters(name) > wanted][:1]
    return f" Nearest: {' and '.join(below + above)}."


def _parameters(size: object) -> float:
    """``1b`` → 1e9; 0 for what is no number of parameters."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mb])", str(size).lower())
    return float(found[1]) * _UNITS[found[2]] if found else 0.0
