"""What the methods of a part must return, checked where a third party wrote them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

from spectral_core.axes import describe
from spectral_core.errors import PluginError

PACKAGES = ("spectral_kernels", "spectral_core", "spectral_layers", "spectral_models")


class Contract:
    """Base of the bases of parts: methods that a subclass outside the framework defines are checked at each call.

    must_return: methods, each with the type of what it returns, or several. PluginError names the class, the type and
    what came. Our own parts have tests instead, and their methods stay as written.
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
    """A type as one writes it: Modulation(gain, phase, losses, metrics)."""
    if expected is type(None):
        return "None"
    fields: tuple[str, ...] = getattr(expected, "_fields", ())
    if dataclasses.is_dataclass(expected):
        by_position_first = sorted(dataclasses.fields(expected), key=lambda field: field.kw_only is True)
        fields = tuple(field.name for field in by_position_first)
    return expected.__name__ + (f"({', '.join(fields)})" if fields else "")
