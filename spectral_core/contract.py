"""Checks of what methods of third-party parts return."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

from spectral_core.axes import describe
from spectral_core.errors import PluginError

PACKAGES = ("spectral_kernels", "spectral_core", "spectral_layers", "spectral_models")


class Contract:
    """Mixin of the base classes of parts: checks each call of a method that a subclass of a third party defines.

    must_return: names of methods, each with the type, or types, that it must return. A violation raises PluginError.
    Methods of our own parts are not wrapped; tests check them.
    """

    must_return: ClassVar[tuple[tuple[str, type | tuple[type, ...]], ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__.partition(".")[0] in PACKAGES:
            return
        for name, expected in cls.must_return:
            method = vars(cls).get(name)
            if callable(method):
                type.__setattr__(cls, name, _checked(method, f"{cls.__qualname__}.{name}", expected))


def _checked(method: Callable[..., object], where: str, expected: type | tuple[type, ...]) -> Callable[..., object]:
    @functools.wraps(method)
    def call(*given: Any, **named: Any) -> object:
        returned = method(*given, **named)
        if not isinstance(returned, expected):
            wanted = " or ".join(map(_form, expected if isinstance(expected, tuple) else (expected,)))
            raise PluginError(f"{where} must return {wanted}; it returned {describe(returned)}.")
        return returned

    return call


def _form(expected: type) -> str:
    """A type with its fields: ``Modulation(gain, phase, losses, metrics)``."""
    if expected is type(None):
        return "None"
    fields: tuple[str, ...] = getattr(expected, "_fields", ())
    if dataclasses.is_dataclass(expected):
        by_position_first = sorted(dataclasses.fields(expected), key=lambda field: field.kw_only is True)
        fields = tuple(field.name for field in by_position_first)
    return expected.__name__ + (f"({', '.join(fields)})" if fields else "")
