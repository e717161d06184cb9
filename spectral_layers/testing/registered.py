"""Cases of all registered parts, those of installed plugins included, so that each added part is checked."""

from __future__ import annotations

import fnmatch
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

from spectral_core.config import OneOf, PartConfig, Parts
from spectral_layers.mixers.base import MixerConfig
from spectral_layers.registries import FEEDFORWARDS, FILTERS, FRONTENDS, FUSIONS, GATES, MIXERS, POSITIONS, SPARSITIES
from spectral_layers.testing.cases import (
    FeedForwardCase,
    FilterCase,
    FrontEndCase,
    FusionCase,
    GateCase,
    MixerCase,
    PartCase,
    PositionCase,
    SparsityCase,
    part_names,
)

P = TypeVar("P", bound=PartConfig)
C = TypeVar("C", bound=PartCase[Any])

# Options with which a short sequence has several blocks.
_SMALL: dict[str, dict[str, Any]] = {
    "spectral_gating": {"block": 8, "window": 16},
    "moe": {"experts": 4},
    "cross_modal": {"modalities": ("text", "image", "audio"), "head_dim": 8},
    "source_product": {"head_dim": 4, "phases": 16},
}


def mixer_cases(pattern: str = "*") -> list[MixerCase]:
    """Every registered mixer with each registered part that it accepts, in each of its directions.

    pattern: selects cases in which the name of some part matches: ``acme/*`` gives that plugin's mixers with all parts,
    and all mixers with that plugin's parts. For parts without a working default, write a :class:`MixerCase`.
    """
    found = []
    for entry in MIXERS:
        for config in _variants(entry.load()):
            block = getattr(config, "block", 64)
            found += [
                MixerCase(config, causal=direction == "causal", block=block) for direction in sorted(config.directions)
            ]
    return _matching(found, pattern)


def filter_cases(pattern: str = "*") -> list[FilterCase]:
    """Every registered filter whose name matches."""
    return _matching([FilterCase(_small(entry.load())) for entry in FILTERS], pattern)


def gate_cases(pattern: str = "*") -> list[GateCase]:
    """Every registered gate whose name matches."""
    return _matching([GateCase(_small(entry.load())) for entry in GATES], pattern)


def sparsity_cases(pattern: str = "*") -> list[SparsityCase]:
    """Every registered sparsity whose name matches."""
    return _matching([SparsityCase(_small(entry.load())) for entry in SPARSITIES], pattern)


def fusion_cases(pattern: str = "*") -> list[FusionCase]:
    """Every registered fusion whose name matches, in each of its directions."""
    found = []
    for entry in FUSIONS:
        config = _small(entry.load())
        found += [FusionCase(config, causal=direction == "causal") for direction in sorted(config.directions)]
    return _matching(found, pattern)


def feedforward_cases(pattern: str = "*") -> list[FeedForwardCase]:
    """Every registered feed-forward whose name matches."""
    return _matching([FeedForwardCase(_small(entry.load())) for entry in FEEDFORWARDS], pattern)


def position_cases(pattern: str = "*") -> list[PositionCase]:
    """Every registered position whose name matches."""
    return _matching([PositionCase(_small(entry.load())) for entry in POSITIONS], pattern)


def frontend_cases(pattern: str = "*") -> list[FrontEndCase]:
    """Every registered front end whose name matches."""
    return _matching([FrontEndCase(_small(entry.load())) for entry in FRONTENDS], pattern)


def _variants(kind: type[MixerConfig]) -> Iterator[MixerConfig]:
    """The mixer with its defaults, and with each other part in each field for a part."""
    default = _small(kind)
    yield default
    for name, field in kind.model_fields.items():
        several, registry = _registry_of(field.annotation, field.metadata)
        if registry is None or registry is MIXERS:
            continue
        standing = getattr(default, name)
        for other in registry:
            part = _small(other.load())
            value = (part,) if several else part
            if value != standing:
                yield default.model_copy(update={name: value})


def _registry_of(annotation: Any, metadata: list[Any]) -> tuple[bool, Parts | None]:
    """Whether a field takes several parts, and the registry of its parts; None for other fields."""
    for note in metadata:
        if isinstance(note, OneOf):
            return False, note.registry
    for inner in typing.get_args(annotation):
        for note in getattr(inner, "__metadata__", ()):
            if isinstance(note, OneOf):
                return typing.get_origin(annotation) is tuple, note.registry
    return False, None


def _small(kind: type[P]) -> P:
    return kind.model_validate(_SMALL.get(kind.model_fields["type"].default, {}))


def _matching(cases: list[C], pattern: str) -> list[C]:
    found = [case for case in cases if any(fnmatch.fnmatchcase(name, pattern) for name in part_names(case.config))]
    if not found:
        raise ValueError(f"no registered part matches {pattern!r}, so nothing would be checked. Is its plugin loaded?")
    return found
