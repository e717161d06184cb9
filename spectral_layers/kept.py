"""Caches of values that are computed from weights alone, such as the kernels of long filters.

Not every write to a parameter can be detected: ``p.data.copy_``, an optimiser's fused kernel, another process with
shared memory. So nothing is cached between plain calls, and only where the caller asks for it:

- in :func:`fixed_weights`, a scope in which the caller promises that weights do not change;
- in the state of a stream, which belongs to its caller (:class:`spectral_layers.State`).
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
    """Values by the module from whose weights they were computed, kind and key. Copies and pickles are empty."""

    def __init__(self) -> None:
        self._values: dict[tuple[nn.Module, str], dict[Hashable, Any]] = {}

    def get(self, module: nn.Module, kind: str, key: Hashable, make: Callable[[], T], *, most: int | None = None) -> T:
        """The cached result of ``make`` for this kind and key; computed now if there is none.

        most: values cached of a module and kind; beyond it the least recently used is dropped. With gradients recorded
        or in a traced graph the cache is neither read nor written.
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
    """A scope in which the weights of ``model`` do not change, so that values computed from them alone are cached.

    Kernels of long filters are then computed and transformed once for each length. In the scope no parameter or buffer
    of the model may be written, replaced, moved or cast: results would be those of the earlier weights. Calls that
    record gradients do not use the cache. Threads started in the scope are outside of it. A scope inside another of the
    same model has no effect, nor has one of anything but an ``nn.Module``. The cache is dropped at the end of the
    outermost scope.

    Per filter the eight most recent kernels are cached, each of twice the size of its signal, and the tiles of streams.
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
    """The result of ``make`` for this kind and key, cached in the :func:`fixed_weights` scope of ``module`` if any.

    For values that depend on the module's parameters and buffers, the kind and the key alone. most: as in
    :meth:`Kept.get`.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return make()
    for modules, values in _scopes.get():
        if module in modules:
            return values.get(module, kind, key, make, most=most)
    return make()
