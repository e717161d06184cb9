"""The contract of a filter: a kernel that is a function of the lag alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, UntypedStorage, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from spectral_core import FFTBackend, PreparedKernel, prepare_kernel
from spectral_core.config import PartConfig
from spectral_core.tracing import power_of_two, varies
from spectral_layers.context import FilterContext

T = TypeVar("T")


class Filter(nn.Module):
    """Base of filters. Law: ``kernel(L1) == kernel(L2)[:, :L1]``; a tap depends on its lag, never on the length.

    support: taps from this lag on are zero; None when the kernel never ends.
    length_limit: the longest sequence it is defined for, and the most taps it is asked for; None for no limit.
    """

    support: int | None = None
    length_limit: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self._cache = _KernelCache(limit=8)
        # One entry per power of two: as many as the longest sequence has bits.
        self._tiles = _KernelCache(limit=64)

    @abstractmethod
    def kernel(self, length: int) -> Tensor:
        """The first ``length`` taps, (D, length), tap s weighing the input s tokens ago. Differentiable."""

    def synthesised(self, length: int) -> Tensor:
        """:meth:`kernel` for a convolution; in a graph for many lengths up to the next power of two of taps.

        Taps beyond the signal meet none of it, and the synthesis of a fixed number of them is the same for all lengths.
        """
        if not varies(length):
            return self.kernel(length)
        rounded = power_of_two(length)
        return self.kernel(rounded if self.length_limit is None else min(rounded, self.length_limit))

    def taps(self, length: int) -> Tensor:
        """:meth:`kernel`, kept between calls while parameters rest and no gradients are recorded.

        A growing length costs one synthesis per doubling.
        """
        if torch.is_grad_enabled():
            self._forget()
            return self.kernel(length)
        rounded = 1 << (length - 1).bit_length()
        if self.length_limit is not None:
            rounded = max(length, min(rounded, self.length_limit))
        return self._kept(("taps", rounded), lambda: self.kernel(rounded))[:, :length]

    def prepared(self, length: int, fft: FFTBackend) -> PreparedKernel | Tensor:
        """The kernel for a causal convolution: its spectrum, kept, when no gradients are recorded."""
        if torch.is_grad_enabled():
            self._forget()
            return self.synthesised(length)
        return self._kept((fft.name, length), lambda: prepare_kernel(self.synthesised(length), length, backend=fft))

    def prepared_with(self, reverse: Filter, length: int, fft: FFTBackend) -> PreparedKernel | Tensor:
        """The same for a centered convolution: this filter weighs the past, the other the future, and both the present.

        2 length - 1 taps.
        """
        if torch.is_grad_enabled():
            self._forget()
            return _two_sided(self.synthesised(length), reverse.synthesised(length))
        return self._cache.get(
            (self, reverse),
            ("centered", fft.name, length),
            lambda: prepare_kernel(
                _two_sided(self.synthesised(length), reverse.synthesised(length)), length, mode="centered", backend=fft
            ),
        )

    def tile(self, points: int, fft: FFTBackend) -> PreparedKernel | Tensor:
        """The first ``points`` taps, a power of two, for a circle of as many points: what online convolution needs.

        Its spectrum, kept apart from the others, when no gradients are recorded: one synthesis per doubling.
        """
        taps = points if self.length_limit is None else min(points, self.length_limit)
        if torch.is_grad_enabled():
            self._forget()
            return self.kernel(taps)
        key = (fft.name, points)
        return self._tiles.get(
            (self,), key, lambda: prepare_kernel(self.kernel(taps), points, mode="circular", backend=fft)
        )

    def train(self, mode: bool = True) -> Filter:
        self._forget()
        return super().train(mode)

    def _forget(self) -> None:
        self._cache.clear()
        self._tiles.clear()

    def _kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returned for this key since the parameters last changed, or returns now."""
        return self._cache.get((self,), key, make)


def _two_sided(forward: Tensor, reverse: Tensor) -> Tensor:
    """(D, 2 L - 1) taps in order of their lags, from 1 - L to L - 1, of (D, L) for either side."""
    return torch.cat([reverse[:, 1:].flip(-1), forward[:, :1] + reverse[:, :1], forward[:, 1:]], -1)


@dataclass(frozen=True)
class Poles:
    """Damped modes of a kernel, for inspection, (D, M) each: kernel[t] = Re sum_m w z^t with z = e^(-1/tau + i omega).

    time_constant: tau, in tokens. frequency: |omega| in cycles per token, from 0 to 0.5; as kernels are real, the
    conjugate of z is a pole too. strength: size of the mode in the kernel.
    """

    time_constant: Tensor
    frequency: Tensor
    strength: Tensor


class RecurrentFilter(Filter):
    """A filter that is also a linear recurrence: decoding costs the same at every position.

    Its memory is a float64 tensor with the batch first: rounding must not grow with the sequence.
    """

    @abstractmethod
    def carry(self, memory: Tensor, length: int) -> Tensor:
        """What the past adds to the next ``length`` outputs: (B, D, length)."""

    @abstractmethod
    def absorb(self, memory: Tensor | None, u: Tensor, lengths: Tensor | None) -> Tensor:
        """The memory after u (B, D, L), of which row b counts ``lengths[b]`` tokens (all, if None)."""

    @abstractmethod
    def step(self, memory: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """One token u (B, D): its output (B, D) and the new memory."""


class FilterConfig(PartConfig):
    """Names a filter and its options; ``build(context)`` makes it."""

    def build(self, context: FilterContext) -> Filter:
        raise NotImplementedError(f"{type(self).__name__} must define build(context)")


class _KernelCache:
    """What was computed from modules' parameters, until one of them changes. Never copied or saved.

    limit: entries kept at most; one more drops them all.

    A change is seen by the tensors' memory and version, and by the steps of all optimisers, for fused ones move no
    version. The memory is held on to, so that no other tensor comes to stand at its address. Values written through
    ``parameter.data`` are not seen; filters also clear it whenever gradients are recorded or the mode changes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        self._stamp: tuple[int, ...] = ()
        self._held: list[UntypedStorage] = []
        self._made: dict[Hashable, Any] = {}

    def get(self, modules: Sequence[nn.Module], key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returned for this key, or returns now."""
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        if torch.compiler.is_compiling() or any(tensor.is_inference() for tensor in tensors):
            return make()  # traced and inference tensors carry no storage or version to watch
        try:
            stamp = (_steps, *(number for tensor in tensors for number in (tensor.data_ptr(), tensor._version)))
        except RuntimeError:
            return make()  # nor do those of torch.func.vmap
        if stamp != self._stamp:
            self.clear()
            self._stamp, self._held = stamp, [tensor.untyped_storage() for tensor in tensors]
        if key not in self._made:
            if len(self._made) == self.limit:
                self._made = {}
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def __deepcopy__(self, memo: object) -> _KernelCache:
        return _KernelCache(self.limit)

    def __reduce__(self) -> tuple[type[_KernelCache], tuple[int]]:
        return _KernelCache, (self.limit,)


_steps = 0
"""Steps that optimisers have taken in this process."""


def _count_step(*_: object) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count_step)
