"""Methods that run inside the call of their module, because that is where its parameters are.

What moves parameters about (accelerate's offloading, FSDP, ZeRO-3) brings a module's own in before ``module(...)`` and
takes them away after it. So a parameter is read inside the call of the module that owns it. A part that others use by
more methods than its forward marks these as entries: ``part.method(...)`` is then a call of the part, hooks included.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=Callable[..., Any])


def entry(method: M) -> M:
    """Mark a method of an :class:`Entered` class as an entry; methods that override it are entries too."""
    method.__dict__["is_entry"] = True
    return method


class Entered(nn.Module):
    """Base of modules with entries.

    An entry that the module calls itself, inside another call of it, is a plain method: hooks do not nest. Traced
    graphs inline the method without hooks. O(1), some microseconds a call.
    """

    dispatches: ClassVar[Callable[..., Any] | None] = None
    """The forward that tells entries from its own arguments."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, method in list(vars(cls).items()):
            if any(getattr(vars(base).get(name), "is_entry", False) for base in cls.__mro__):
                setattr(cls, name, _entered(method))
        if cls.forward is not cls.dispatches:
            cls.forward = cls.dispatches = _dispatching(cls.forward)

    def entering(self, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Called with what a call is given, before it runs; not for calls inside a call. Raises to refuse it."""


class _Inside(threading.local):
    """The modules whose call this thread is in."""

    def __init__(self) -> None:
        self.modules: set[int] = set()


_inside = _Inside()
_ENTRY = "_entry"
"""Keyword of a module's call for the entry to run; hooks see the entry's own arguments."""


def _entered(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def entered(self: Entered, *args: Any, **options: Any) -> Any:
        if _ENTRY in options:  # an entry took the place of forward
            return _run(self, options.pop(_ENTRY), args, options)
        if torch.compiler.is_compiling() or id(self) in _inside.modules:
            return method(self, *args, **options)
        return self(*args, **options, **{_ENTRY: method})

    return entered


def _dispatching(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def dispatching(self: Entered, *args: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():
            return forward(self, *args, **options)
        return _run(self, options.pop(_ENTRY, forward), args, options)

    return dispatching


def _run(module: Entered, method: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A method of the module, as the module's call."""
    modules, key = _inside.modules, id(module)
    if key in modules:
        return method(module, *args, **options)
    modules.add(key)
    try:
        module.entering(args, options)
        return method(module, *args, **options)
    finally:
        modules.discard(key)
