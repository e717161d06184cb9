"""Caches of values computed from weights alone, such as the kernels of long filters.

Some writes to a parameter cannot be detected: ``p.data.copy_``, a fused optimiser kernel, another process with shared
memory. So nothing is cached between plain calls; values are cached only

- in :func:`fixed_weights`, a scope in which the caller guarantees that weights do not change;
- in the state of a stream, which belongs to the caller (:class:`spectral_layers.State`).
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


class WeightCache:
    """Values by module, kind and key, computed from the module's weights. Copies and pickles are empty."""

    def __init__(self) -> None:
        self._values: dict[tuple[nn.Module, str], dict[Hashable, Any]] = {}

    def get(self, module: nn.Module, kind: str, key: Hashable, make: Callable[[], T], *, most: int | None = None) -> T:
        """The cached result of ``make`` for this kind and key, computed on first use.

        most: limit of values per module and kind; beyond it the least recently used is dropped. While gradients are
        recorded, and in a traced graph, the cache is neither read nor written.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return make()
        values = self._values.setdefault((module, kind), {})
        with _lock:
            hit = values.pop(key, None)
        value: T = make() if hit is None else hit
        with _lock:
            values[key] = value  # the most recently used is last
            if most is not None and len(values) > most:
                del values[next(iter(values))]
        return value

    def __reduce__(self) -> tuple[type[WeightCache], tuple[()]]:
        return WeightCache, ()


_scopes: ContextVar[tuple[tuple[frozenset[nn.Module], WeightCache], ...]] = ContextVar("scopes", default=())


@contextmanager
def fixed_weights(model: object) -> Iterator[None]:
    """Cache values computed from the weights of ``model`` alone, while the caller guarantees that they do not change.

    Kernels of long filters are then computed and transformed once per length. Inside the scope no parameter or buffer
    of the model may be written, replaced, moved or cast: results would be those of the earlier weights. Calls that
    record gradients do not use the cache. Threads started in the scope do not see it. A nested scope of the same model
    has no effect, nor has a scope of anything but an ``nn.Module``. The cache is dropped when the outermost scope ends.

    Memory per filter: the eight most recent kernels, each twice the size of its signal, and the tiles of streams.
    """
    scopes = _scopes.get()
    if not isinstance(model, nn.Module) or any(model in modules for modules, _ in scopes):
        yield
        return
    token = _scopes.set((*scopes, (frozenset(model.modules()), WeightCache())))
    try:
        yield
    finally:
        _scopes.reset(token)


def cached(module: nn.Module, kind: str, key: Hashable, make: Callable[[], T], *, most: int | None = None) -> T:
    """The result of ``make``, cached under kind and key if ``module`` is in a :func:`fixed_weights` scope.

    The result must depend on the module's parameters and buffers, the kind and the key alone. most: as in
    :meth:`WeightCache.get`.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return make()
    for modules, values in _scopes.get():
        if module in modules:
            return values.get(module, kind, key, make, most=most)
    return make()
