"""The contract of a filter: a kernel that is a function of the lag alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from spectral_core import FFTBackend, PreparedKernel, prepare_kernel
from spectral_core.config import PartConfig
from spectral_kernels.tracing import power_of_two, varies
from spectral_layers.context import FilterContext
from spectral_layers.entry import Entered, entry
from spectral_layers.part import C, Part
from spectral_layers.weight_cache import cached


class Filter(Part[FilterContext, C], Entered):
    """Base of filters. Law: ``kernel(L1) == kernel(L2)[:, :L1]``; a tap depends on its lag, never on the length.

    A kernel is computed from the weights in every call, so that it follows any change of them;
    :func:`spectral_layers.fixed_weights` opens a scope in which it is kept.

    support: number of taps; those from this lag on are zero. None for an infinite kernel.
    length_limit: the longest sequence it is defined for, and so the most taps; None for no limit.
    """

    context_class = FilterContext
    must_return = (("kernel", Tensor),)
    support: int | None = None
    length_limit: int | None = None

    @entry
    @abstractmethod
    def kernel(self, length: int) -> Tensor:
        """The first ``length`` taps, (D, length); tap s is the weight of the input s tokens ago. Differentiable."""

    def synthesised(self, length: int) -> Tensor:
        """:meth:`kernel` for a convolution; in a graph for varying lengths, with the next power of two of taps.

        Taps beyond the signal's length have no effect, and a graph with a fixed number of taps serves many lengths.
        """
        if not varies(length):
            return self.kernel(length)
        rounded = power_of_two(length)
        return self.kernel(rounded if self.length_limit is None else min(rounded, self.length_limit))

    def prepared(self, length: int, fft: FFTBackend) -> PreparedKernel | Tensor:
        """The kernel for a causal convolution of ``length`` tokens, transformed unless gradients are recorded."""
        if torch.is_grad_enabled():
            return self.synthesised(length)
        key = (fft.name, length)
        return cached(
            self, "causal", key, lambda: prepare_kernel(self.synthesised(length), length, backend=fft), most=8
        )

    def prepared_with(self, reverse: Filter, length: int, fft: FFTBackend) -> PreparedKernel | Tensor:
        """The same for a centered convolution: this filter for the past, ``reverse`` for the future.

        2 length - 1 taps; the tap of lag 0 is the sum of both.
        """

        def taps() -> Tensor:
            return _two_sided(self.synthesised(length), reverse.synthesised(length))

        if torch.is_grad_enabled():
            return taps()
        key = (reverse, fft.name, length)
        return cached(
            self, "centered", key, lambda: prepare_kernel(taps(), length, mode="centered", backend=fft), most=8
        )


def _two_sided(forward: Tensor, reverse: Tensor) -> Tensor:
    """(D, 2 L - 1) taps for lags from 1 - L to L - 1, from the (D, L) taps of each side."""
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


class RecurrentFilter(Filter[C]):
    """A filter that is also a linear recurrence: decoding costs the same at every position.

    Its memory is a tensor with the batch first, in float64 so that rounding errors do not grow with the sequence.
    """

    @entry
    @abstractmethod
    def carry(self, memory: Tensor, length: int) -> Tensor:
        """The contribution of the past to the next ``length`` outputs: (B, D, length)."""

    @entry
    @abstractmethod
    def absorb(self, memory: Tensor | None, u: Tensor, lengths: Tensor | None) -> Tensor:
        """The memory after u (B, D, L): after ``lengths[b]`` tokens of row b, or after all if None."""

    @entry
    @abstractmethod
    def step(self, memory: Tensor, u: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
        """One token u (B, D): its output (B, D) and the new memory. tables: those of :meth:`tables`, or none."""

    @entry
    def tables(self) -> tuple[Tensor, ...]:
        """Tensors that :meth:`step` computes from parameters alone, kept in a stream's state. By default none."""
        return ()


class FilterConfig(PartConfig):
    """Names a filter and its options."""

    must_return = (("build", Filter),)

    part_class: ClassVar[Any] = Filter

    def build(self, context: FilterContext) -> Filter:
        return self.part_class(context, self)
