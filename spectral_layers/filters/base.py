"""The contract of a filter: a kernel that is a function of the lag alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_core import FFTBackend, PreparedKernel, prepare_kernel
from spectral_core.config import PartConfig
from spectral_core.contract import Contract
from spectral_kernels.tracing import power_of_two, varies
from spectral_layers.context import FilterContext
from spectral_layers.entry import Entered, entry
from spectral_layers.kept import kept


class Filter(Contract, Entered):
    """Base of filters. Law: ``kernel(L1) == kernel(L2)[:, :L1]``; a tap depends on its lag, never on the length.

    A kernel is synthesised in every call, so that it is that of the weights whatever wrote them;
    :func:`spectral_layers.fixed_weights` opens a scope in which it is kept.

    support: taps from this lag on are zero; None when the kernel never ends.
    length_limit: the longest sequence it is defined for, and the most taps it is asked for; None for no limit.
    """

    must_return = (("kernel", Tensor),)
    support: int | None = None
    length_limit: int | None = None

    @entry
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

    def prepared(self, length: int, fft: FFTBackend) -> PreparedKernel | Tensor:
        """The kernel for a causal convolution of ``length`` tokens: its spectrum, when no gradients are recorded."""
        if torch.is_grad_enabled():
            return self.synthesised(length)
        key = (fft.name, length)
        return kept(self, "causal", key, lambda: prepare_kernel(self.synthesised(length), length, backend=fft), most=8)

    def prepared_with(self, reverse: Filter, length: int, fft: FFTBackend) -> PreparedKernel | Tensor:
        """The same for a centered convolution: this filter weighs the past, the other the future, and both the present.

        2 length - 1 taps.
        """

        def taps() -> Tensor:
            return _two_sided(self.synthesised(length), reverse.synthesised(length))

        if torch.is_grad_enabled():
            return taps()
        key = (reverse, fft.name, length)
        return kept(self, "centered", key, lambda: prepare_kernel(taps(), length, mode="centered", backend=fft), most=8)


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

    @entry
    @abstractmethod
    def carry(self, memory: Tensor, length: int) -> Tensor:
        """What the past adds to the next ``length`` outputs: (B, D, length)."""

    @entry
    @abstractmethod
    def absorb(self, memory: Tensor | None, u: Tensor, lengths: Tensor | None) -> Tensor:
        """The memory after u (B, D, L), of which row b counts ``lengths[b]`` tokens (all, if None)."""

    @entry
    @abstractmethod
    def step(self, memory: Tensor, u: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
        """One token u (B, D): its output (B, D) and the new memory. tables: those of :meth:`tables`, or none."""

    @entry
    def tables(self) -> tuple[Tensor, ...]:
        """What :meth:`step` computes from the parameters alone; a stream's state keeps it. By default nothing."""
        return ()


class FilterConfig(PartConfig):
    """Names a filter and its options; ``build(context)`` makes it."""

    must_return = (("build", Filter),)

    def build(self, context: FilterContext) -> Filter:
        raise NotImplementedError(f"{type(self).__name__} must define build(context)")
