"""The contract of an FFT backend, and the plain versions of the two operators that it inherits.

A backend must define :meth:`FFTBackend.rfft` and :meth:`FFTBackend.irfft` on pairs of real tensors. The operators are
built on them; a backend overrides :meth:`FFTBackend.plain_convolution`, or an operator, to compute it faster. Complex
tensors never cross this interface: some devices and exporters have none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from spectral_core.config import PartConfig
from spectral_core.contract import Contract
from spectral_core.errors import UnsupportedInputError
from spectral_kernels.tracing import power_of_two, transformed, varies

Mode = Literal["causal", "circular", "centered"]
"""Which tokens a kernel reaches, and what lies beyond the ends of a signal: see :func:`spectral_core.convolve`."""
MODES: tuple[Mode, ...] = ("causal", "circular", "centered")


class Spectrum(NamedTuple):
    """Real and imaginary part of a real transform of n points, each (..., F) with F = n // 2 + 1."""

    real: Tensor
    imag: Tensor


@dataclass(frozen=True, slots=True)
class Request:
    """The properties of an operator's call on which a backend may base a refusal or a plan."""

    operator: Literal["convolution", "modulation", "transform"]
    device: str
    dtype: torch.dtype
    batch: int
    channels: int
    length: int
    taps: int
    mode: Mode
    grad: bool

    @classmethod
    def of(
        cls,
        operator: Literal["convolution", "modulation", "transform"],
        x: Tensor,
        length: int,
        *,
        grad: bool,
        taps: int = 0,
        mode: Mode = "causal",
        dtype: torch.dtype | None = None,
    ) -> Request:
        """The request of a tensor (B, D, ...). More leading axes count as batch. dtype: by default the transform's."""
        batch = math.prod(x.shape[:-2])  # numel() would fix a traced batch
        channels = x.shape[-2] if x.dim() > 1 else 1
        return cls(
            operator, x.device.type, dtype or transform_dtype(x.dtype), batch, channels, length, taps, mode, grad
        )


@dataclass(frozen=True, slots=True)
class PreparedKernel:
    """A kernel's spectrum in one backend's own layout, for signals of one length. Opaque to everyone else.

    points: the transform's length. offset: where the output starts in it. data: the backend's own.
    """

    backend: FFTBackend
    mode: Mode
    length: int
    channels: int
    batch: int | None
    points: int
    offset: int
    dtype: torch.dtype
    data: Any


class FFTBackend(Contract, ABC):
    """An implementation of real transforms, convolution and modulation.

    Inputs reach a backend validated by :func:`spectral_core.convolve` and :func:`spectral_core.modulate`.
    """

    must_return = (("rfft", Spectrum), ("irfft", Tensor))
    name: str
    higher_order: ClassVar[bool] = False
    """Whether the operators support gradients of gradients and the transforms of torch.func. A backend without them
    refuses both; an operator of its own raises in its backward pass if gradients are recorded there."""

    def unsupported_reasons(self, request: Request) -> list[str]:
        """Why this backend cannot serve the request; empty when it can."""
        return []

    def reasons_against(self, request: Request) -> list[str]:
        """Why this backend cannot serve the request now; also transforms of torch.func that are active."""
        if transformed() and not self.higher_order:
            return ["it has no rules for the transforms of torch.func"]
        return self.unsupported_reasons(request)

    def select(self, request: Request) -> FFTBackend:
        """The backend that serves the request: this one, unless it delegates. Raises UnsupportedInputError."""
        reasons = self.reasons_against(request)
        if reasons:
            raise UnsupportedInputError(
                f"{self.name} cannot run this {request.operator}: {'; '.join(reasons)}. "
                "Choose another backend (fft: torch runs everywhere), or fft: auto."
            )
        return self

    @abstractmethod
    def rfft(self, x: Tensor, n: int) -> Spectrum:
        """Real transform over the last axis, cropped or zero-padded to n points, unnormalised."""

    @abstractmethod
    def irfft(self, spectrum: Spectrum, n: int) -> Tensor:
        """Inverse of :meth:`rfft` (scaled by 1/n). Imaginary parts at DC and Nyquist do not contribute."""

    def prepare_kernel(self, kernel: Tensor, length: int, mode: Mode) -> PreparedKernel:
        """The kernel's spectrum for signals of that length. kernel: (D, K) or (B, D, K), floating point."""
        support = Support.of(kernel.shape[-1], length, mode)
        return self.prepared(kernel, length, mode, support, self.rfft(support.place(kernel), support.points))

    def convolution(
        self,
        u: Tensor,
        kernel: PreparedKernel,
        *,
        skip: Tensor | None = None,
        pre_gate: Tensor | None = None,
        post_gate: Tensor | None = None,
    ) -> Tensor:
        """post_gate * (kernel conv (pre_gate * u) + skip * pre_gate * u); u and the gates (B, D, L), skip (D,).

        Contiguous, in u's dtype. Applies casts, gates and skip around :meth:`plain_convolution`. A backend overrides
        that method, and this one only if it fuses them.
        """
        x = u.to(kernel.dtype)
        if pre_gate is not None:
            x = (x * pre_gate).to(kernel.dtype)
        y = self.plain_convolution(x, kernel)
        if skip is not None:
            y = torch.addcmul(y, skip.to(x.dtype)[:, None], x)
        if post_gate is not None:
            y = y * post_gate
        return y.to(u.dtype).contiguous()

    def plain_convolution(self, x: Tensor, kernel: PreparedKernel) -> Tensor:
        """The convolution without gates and skip: (B, D, L) to (B, D, L), both in the kernel's dtype, any strides."""
        a, b = self.rfft(x, kernel.points), kernel.data
        product = Spectrum(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)
        return self.irfft(product, kernel.points)[..., kernel.offset : kernel.offset + x.shape[-1]]

    def modulation(self, x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
        """irfft(gain * e^(i phase) * rfft(x, n), n); x (B, D, L), gain and phase broadcast to (B, D, F).

        The fields arrive in the dtype of the transform; the output is contiguous, in x's dtype.
        """
        real, imag = self.rfft(x.to(transform_dtype(x.dtype)), n)
        if phase is not None:
            cosine, sine = torch.cos(phase), torch.sin(phase)
            real, imag = real * cosine - imag * sine, real * sine + imag * cosine
        if gain is not None:
            real, imag = real * gain, imag * gain
        return self.irfft(Spectrum(real, imag), n).to(x.dtype).contiguous()

    def prepared(self, kernel: Tensor, length: int, mode: Mode, support: Support, data: Any) -> PreparedKernel:
        """What :meth:`prepare_kernel` of this backend returns for a kernel, (D, K) or (B, D, K), given its own data."""
        batch = kernel.shape[0] if kernel.dim() == 3 else None
        dtype = transform_dtype(kernel.dtype)
        return PreparedKernel(self, mode, length, kernel.shape[-2], batch, support.points, support.offset, dtype, data)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class FFTBackendConfig(PartConfig):
    """The name and the options of a backend; ``build()`` returns it."""

    must_return = (("build", FFTBackend),)

    def build(self) -> FFTBackend:
        raise NotImplementedError(f"{type(self).__name__} must define build()")


def transform_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a transform: float64 for float64, float32 for all smaller dtypes."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def fast_length(minimum: int) -> int:
    """The smallest 5-smooth number >= minimum; FFT libraries transform such lengths fastest."""
    best = 1 << (minimum - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            # The power of two that lifts 3^a 5^b over the minimum.
            candidate = three << max(0, -(-minimum // three) - 1).bit_length()
            if minimum <= candidate < best:
                best = candidate
            three *= 3
        five *= 5
    return best


class Support(NamedTuple):
    """The taps [first, last) that can reach the signal, and the ``points`` of the transform.

    The result starts at ``offset`` in the transform's output. causal: taps with lags beyond the signal are dropped.
    centered: likewise, on both sides of tap K // 2. circular: the kernel is wrapped onto the circle of the signal.
    Linear modes are zero-padded so that nothing wraps onto the L outputs: to L + K - 1 points for a causal kernel, and
    to L + K / 2 for one with as many taps on both sides.
    """

    first: int
    last: int
    points: int
    offset: int

    @classmethod
    def of(cls, taps: int, length: int, mode: Mode) -> Support:
        if mode == "circular":
            return cls(0, taps, length, 0)
        centre = 0 if mode == "causal" else taps // 2
        many = varies(length) or varies(taps)
        if many:
            # One transform serves all lengths of the graph.
            length = power_of_two(length)
        first, last = max(0, centre - length + 1), min(taps, centre + length)
        if varies(taps):
            first, last = 0, taps  # cutting would compare taps and length, which a trace cannot
        before, after = centre - first, last - centre - 1
        reach = max(before, after)
        return cls(first, last, fast_length(length + (power_of_two(reach + 1) if many else reach)), before)

    def place(self, kernel: Tensor) -> Tensor:
        """The taps that matter, in the transform's dtype, at most ``points`` of them."""
        kernel = kernel.to(transform_dtype(kernel.dtype))[..., self.first : self.last]
        turns = -(-kernel.shape[-1] // self.points)
        if turns == 1:
            return kernel
        padded = torch.nn.functional.pad(kernel, (0, turns * self.points - kernel.shape[-1]))
        return padded.unflatten(-1, (turns, self.points)).sum(-2)


_AUTOCAST = frozenset(
    device for device in ("cpu", "cuda", "xpu", "mps", "hpu", "xla") if torch.amp.is_autocast_available(device)
)
"""Computed here, since the compiler of PyTorch 2.9 cannot trace it."""


def without_autocast(device: str) -> AbstractContextManager[None]:
    """Disables autocast, which would round the factors of matrix products and convolutions in a backend."""
    if device in _AUTOCAST and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
