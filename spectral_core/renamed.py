"""Renamed options and weights; the classes that own them list their earlier names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from spectral_core.errors import shown

_TRUTH: TypeAdapter[bool] = TypeAdapter(bool)


@dataclass(frozen=True, slots=True)
class Renamed:
    """The current name of an option. values: current values by earlier ones; empty if they did not change."""

    name: str
    values: Mapping[Any, Any] = field(default_factory=dict)

    def value_of(self, value: Any) -> Any:
        """The current value. Raises ValueError for a value that the earlier option did not have."""
        if not self.values:
            return value
        if self.values.keys() == {True, False}:
            try:
                return self.values[_TRUTH.validate_python(value)]
            except ValidationError:
                pass
        for earlier, now in self.values.items():
            if earlier == value:
                return now
        listed = ", ".join(f"{now} (was {earlier})" for earlier, now in self.values.items())
        raise ValueError(f"is {self.name} now, one of {listed}; got {shown(value)}")


def inherited(cls: type, attribute: str) -> dict[str, Any]:
    """The merged entries of a mapping attribute that a class and its bases each define in part."""
    return {name: value for base in reversed(cls.__mro__) for name, value in vars(base).get(attribute, {}).items()}
