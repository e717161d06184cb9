"""Methods that run as a call of their module, so that its hooks run too.

Offloading (accelerate), FSDP and ZeRO-3 load a module's own parameters before ``module(...)`` and release them after
it, so a parameter may only be read inside a call of the module that owns it. A part marks its other public methods as
entries: ``part.method(...)`` then runs as a call of the part, with its hooks.
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

    Inside a call of the module, an entry runs as a plain method, so hooks do not nest. Traced graphs inline the method
    without hooks. Overhead: some microseconds a call.
    """

    dispatches: ClassVar[Callable[..., Any] | None] = None
    """The class's forward, wrapped so that a call of the module can also run an entry."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, method in list(vars(cls).items()):
            if any(getattr(vars(base).get(name), "is_entry", False) for base in cls.__mro__):
                setattr(cls, name, _entered(method))
        if cls.forward is not cls.dispatches:
            cls.forward = cls.dispatches = _dispatching(cls.forward)

    def entering(self, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Called before each outermost call, with its arguments; may raise to refuse the call."""


class _Inside(threading.local):
    """Ids of the modules whose calls are active in this thread."""

    def __init__(self) -> None:
        self.modules: set[int] = set()


_inside = _Inside()
_ENTRY = "_entry"
"""Keyword of a module's call that names the entry to run; hooks see the entry's own arguments."""


def _entered(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def entered(self: Entered, *args: Any, **options: Any) -> Any:
        if _ENTRY in options:  # the instance's forward was replaced by an entry
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
    """Run a method as a call of the module; directly if such a call is active already."""
    modules, key = _inside.modules, id(module)
    if key in modules:
        return method(module, *args, **options)
    modules.add(key)
    try:
        module.entering(args, options)
        return method(module, *args, **options)
    finally:
        modules.discard(key)
