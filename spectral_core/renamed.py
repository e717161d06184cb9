"""Options and weights that were renamed, as the classes list them that have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from spectral_core.errors import shown

_TRUTH: TypeAdapter[bool] = TypeAdapter(bool)


@dataclass(frozen=True, slots=True)
class Renamed:
    """The current name of an option. values: earlier values and what they are called now; empty if unchanged."""

    name: str
    values: Mapping[Any, Any] = field(default_factory=dict)

    def value_of(self, value: Any) -> Any:
        """The current value. Raises ValueError for one that the earlier option did not have."""
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
    """The entries of a mapping that a class and its bases define, each its own part."""
    return {name: value for base in reversed(cls.__mro__) for name, value in vars(base).get(attribute, {}).items()}
