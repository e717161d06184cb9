"""What was computed from weights alone, and for how long it may be used again.

No watching sees every write to a parameter: ``p.data.copy_``, an optimiser's fused kernel, another process that shares
the memory. So a plain call keeps nothing. Two things outlive a call, and both are asked for:

- :func:`fixed_weights`, a scope in which the caller promises that weights do not change;
- the state of a stream, which belongs to its caller (:class:`spectral_layers.State`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")

_lock = threading.Lock()


class Kept:
    """Values by the module that they were computed from, their kind and a key. Copies and pickles begin empty."""

    def __init__(self) -> None:
        self._values: dict[tuple[nn.Module, str], dict[Hashable, Any]] = {}

    def get(self, module: nn.Module, kind: str, key: Hashable, make: Callable[[], T], *, most: int | None = None) -> T:
        """What ``make`` returned for this kind and key, or returns now.

        most: values kept of the kind; the one unused for longest is dropped for another. Calls with gradients and
        traced ones keep nothing and use nothing.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return make()
        values = self._values.setdefault((module, kind), {})
        with _lock:
            found = values.pop(key, None)
        value: T = make() if found is None else found
        with _lock:
            values[key] = value  # the newest are last
            if most is not None and len(values) > most:
                del values[next(iter(values))]
        return value

    def __deepcopy__(self, memo: object) -> Kept:
        return Kept()

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()


_scopes: ContextVar[tuple[tuple[frozenset[nn.Module], Kept], ...]] = ContextVar("scopes", default=())


@contextmanager
def fixed_weights(model: object) -> Iterator[None]:
    """A scope in which the weights of ``model`` do not change, so that what is computed from them alone is kept.

    Kernels of long filters are then synthesised and transformed once for each length. In the scope no parameter or
    buffer of the model may be written, replaced, moved or cast: results would be those of the weights before. Calls
    that record gradients use nothing that was kept. Threads started in it are not in the scope. A scope inside another
    of the same model changes nothing, nor does one of what is no ``nn.Module``. At the end of the outermost all that
    was kept is let go.

    Of a filter at most the eight last kernels are kept, each of twice the size of its signal, and the tiles of streams.
    """
    scopes = _scopes.get()
    if not isinstance(model, nn.Module) or any(model in modules for modules, _ in scopes):
        yield
        return
    token = _scopes.set((*scopes, (frozenset(model.modules()), Kept())))
    try:
        yield
    finally:
        _scopes.reset(token)


def kept(module: nn.Module, kind: str, key: Hashable, make: Callable[[], T], *, most: int | None = None) -> T:
    """What ``make`` returned for this kind and key in the scope that ``module`` is in, or returns now.

    For values computed from the module's parameters and buffers alone, kind and key aside. most: as in
    :meth:`Kept.get`.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return make()
    for modules, values in _scopes.get():
        if module in modules:
            return values.get(module, kind, key, make, most=most)
    return make()
