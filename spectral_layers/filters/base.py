"""The contract of a filter: a kernel that is a function of the lag alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from spectral_core import FFTBackend, Mode, PreparedKernel, prepare_kernel
from spectral_core.config import PartConfig
from spectral_kernels.tracing import power_of_two, varies
from spectral_layers.context import FilterContext
from spectral_layers.entry import Entered, entry
from spectral_layers.part import C, Part
from spectral_layers.weight_cache import cached


class Filter(Part[FilterContext, C], Entered):
    """Base of filters. Law: ``kernel(L1) == kernel(L2)[:, :L1]``; a tap depends on its lag, never on the length.

    A kernel is computed from the weights in every call, so it follows any change of them;
    :func:`spectral_layers.fixed_weights` opens a scope in which it is cached.

    support: number of taps; taps from this lag on are zero. None for an infinite kernel.
    length_limit: the longest sequence that the filter is defined for; None for no limit.
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
        """:meth:`kernel` for a convolution; in a graph for varying lengths, rounded up to a power of two of taps.

        Taps beyond the signal's length have no effect, and one graph then serves all lengths up to the power of two.
        """
        if not varies(length):
            return self.kernel(length)
        rounded = power_of_two(length)
        return self.kernel(rounded if self.length_limit is None else min(rounded, self.length_limit))

    def prepared(self, length: int, fft: FFTBackend, reverse: Filter | None = None) -> PreparedKernel | Tensor:
        """The kernel for a convolution of ``length`` tokens, transformed unless gradients are recorded.

        reverse: None for a causal convolution. Otherwise the filter over later tokens in a centered one: 2 length - 1
        taps, for lags from 1 - length to length - 1; the tap of lag 0 is the sum of both filters'.
        """
        mode: Mode = "causal" if reverse is None else "centered"

        def taps() -> Tensor:
            past = self.synthesised(length)
            if reverse is None:
                return past
            future = reverse.synthesised(length)
            return torch.cat([future[:, 1:].flip(-1), past[:, :1] + future[:, :1], past[:, 1:]], -1)

        if torch.is_grad_enabled():
            return taps()
        key = (reverse, fft.name, length)
        return cached(self, mode, key, lambda: prepare_kernel(taps(), length, mode=mode, backend=fft), most=8)


@dataclass(frozen=True)
class Poles:
    """Damped modes of a kernel, for inspection, (D, M) each: kernel[t] = Re sum_m w z^t with z = e^(-1/tau + i omega).

    time_constant: tau, in tokens. frequency: |omega| in cycles per token, from 0 to 0.5; kernels are real, so the
    conjugate of z is a pole too. strength: magnitude of the mode in the kernel.
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
        """The memory after u (B, D, L), of which row b has ``lengths[b]`` tokens; all L if None."""

    @entry
    @abstractmethod
    def step(self, memory: Tensor, u: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
        """Output (B, D) for one token u (B, D), and the new memory. tables: the result of :meth:`tables`, or none."""

    @entry
    def tables(self) -> tuple[Tensor, ...]:
        """Tensors that :meth:`step` needs and that depend on parameters alone; streams cache them. By default none."""
        return ()


class FilterConfig(PartConfig):
    """Names a filter and its options."""

    must_return = (("build", Filter),)

    part_class: ClassVar[Any] = Filter

    def build(self, context: FilterContext) -> Filter:
        return self.part_class(context, self)
