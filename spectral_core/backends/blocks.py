"""Convolution in blocks of channels, as ``torch.library`` operators.

A convolution of whole tensors moves the padded signal and its spectra through main memory several times, and allocates
them at every call. Channels do not mix, so blocks of channels can be small enough to stay in the cache, and threads
process them independently. The backward pass recomputes the spectra instead of saving them: in both directions the
extra memory is one block for each thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core.backends.base import Support, transform_dtype
from spectral_core.backends.layouts import Layout, layout_of
from spectral_core.backends.threads import share
from spectral_core.memory import keep_freed_memory, unwritten
from spectral_kernels.operator import differentiable_operator, operator

_BLOCK_BYTES = 4 << 20
"""A few times a core's L2: smaller blocks spend their time on calls, larger ones leave the cache."""
_ACCELERATOR_BLOCK_BYTES = 256 << 20
"""On accelerators a block must fill the device, and only bounds the memory."""
_SHARED_POINTS = 1 << 24
"""Total points from which blocks are distributed over threads: tens of milliseconds of work."""


class Plan(NamedTuple):
    """The non-tensor arguments of a convolution.

    prepared: the kernel argument holds the frequency response as real pairs, (D, W, F, 2) or (B, D, W, F, 2), instead
    of the taps; a response has no gradient. block_bytes: working set of a block; None: :func:`block_rows` chooses.
    """

    support: Sequence[int]
    circular: bool
    prepared: bool
    chunk_size: int
    block_bytes: int | None

    def layout(self, length: int) -> Layout:
        return layout_of(Support(*self.support), length, circular=self.circular, chunk_size=self.chunk_size)


class _Tensors(NamedTuple):
    """u and the gates (B, D, L), kernel (D, K) or (B, D, K) or prepared, skip (D,)."""

    u: Tensor
    kernel: Tensor
    skip: Tensor | None
    pre_gate: Tensor | None
    post_gate: Tensor | None


def _forward(*given: Any) -> Tensor:
    """post_gate * (kernel conv v + skip * v), v = pre_gate * u, contiguous in u's dtype."""
    tensors, plan = _Tensors(*given[:5]), Plan(*given[5:])
    y = unwritten(tensors.u.shape, tensors.u)

    def convolve(block: _Block) -> None:
        x = block.signal()
        z = block.filtered(block.layout.spectrum(x), x)
        if tensors.post_gate is not None:
            z = z.mul_(block.part(tensors.post_gate))
        block.part(y).copy_(z)

    _run(tensors, plan, convolve)
    return y


def _forward_fake(u: Tensor, *_: Any) -> Tensor:
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


def _gradients(grad: Tensor, *given: Any) -> list[Tensor | None]:
    """Gradients of u, kernel, skip, pre_gate and post_gate; None for those that are not wanted.

    With g = post_gate * grad: the signal's gradient is the correlation of g with the kernel; the kernel's is that of g
    with the signal, summed over rows that share the kernel.
    """
    tensors, plan = _Tensors(*given[:5]), Plan(*given[5:-1])
    wanted = [tensor if wants else None for wants, tensor in zip(given[-1], tensors, strict=True)]
    to_u, to_pre, to_post = (None if like is None else unwritten(like.shape, like) for like in (wanted[0], *wanted[3:]))
    # Rows that share a kernel or a skip add to its gradient.
    to_kernel, to_skip = (
        None if like is None else torch.zeros_like(like, memory_format=torch.contiguous_format) for like in wanted[1:3]
    )

    def differentiate(block: _Block) -> None:
        g = block.part(grad).to(block.dtype)
        x = block.signal()
        if to_kernel is not None or to_post is not None:
            spectrum = block.layout.spectrum(x)
        if tensors.post_gate is not None:
            if to_post is not None:
                kept = spectrum if to_kernel is None else spectrum.clone()
                block.part(to_post).copy_(block.filtered(kept, x).mul_(g))
            g = g * block.part(tensors.post_gate)
        if to_skip is not None:
            to_skip[block.channels] += (g * x).sum((0, 2)).to(to_skip.dtype)
        if to_u is None and to_kernel is None and to_pre is None:
            return
        turned = block.layout.turned(g)
        if to_kernel is not None:
            block.add_kernel_gradient(to_kernel, spectrum.conj_physical_().mul_(turned))
        if to_u is not None or to_pre is not None:
            # Not conj(): inside an operator of a compiled graph torch does not resolve it.
            gx = block.layout.source(turned.mul_(block.response.conj_physical()))
            if tensors.skip is not None:
                gx = torch.addcmul(gx, tensors.skip[block.channels, None].to(gx.dtype), g)
            if to_pre is not None:
                block.part(to_pre).copy_(gx * block.part(tensors.u))
            if to_u is not None:
                block.part(to_u).copy_(gx if tensors.pre_gate is None else gx * block.part(tensors.pre_gate))

    _run(tensors, plan, differentiate)
    return [to_u, to_kernel, to_skip, to_pre, to_post]


def _differentiable_gradients(grad: Tensor, *given: Any) -> list[Tensor | None]:
    """:func:`_gradients` by differentiable operations.

    The matrix of a convolution is Toeplitz, so its transpose is the same convolution of the reversed signal, reversed.
    """
    tensors, plan, wanted = _Tensors(*given[:5]), Plan(*given[5:-1]), given[-1]
    kernel, skip, pre, post = tensors[1:]
    dtype = transform_dtype(torch.promote_types(tensors.u.dtype, kernel.dtype))
    u, g = tensors.u.to(dtype), grad.to(dtype)
    x = u if pre is None else u * pre
    to_post = None
    if post is not None:
        if wanted[4]:
            y = convolve_blocks(x, kernel, skip, None, None, *plan)
            to_post = g * y
        g = g * post
    to_x = convolve_blocks(g.flip(-1), kernel, skip, None, None, *plan).flip(-1)
    to_kernel = None
    if wanted[1]:
        support = Support(*plan.support)
        # The correlation at every lag of the circle: tap s is at s - offset, and a circular kernel wraps around.
        spectra = torch.fft.rfft(g, n=support.points) * torch.fft.rfft(x, n=support.points).conj()
        lags = torch.arange(support.last - support.first, device=g.device) - support.offset
        taps = torch.fft.irfft(spectra, n=support.points)[..., lags % support.points]
        taps = taps.sum(0) if kernel.dim() == 2 else taps
        to_kernel = F.pad(taps, (support.first, kernel.shape[-1] - support.last))
    made = (
        to_x if pre is None else to_x * pre,
        to_kernel,
        None if skip is None else (g * x).sum((0, 2)),
        None if pre is None else to_x * u,
        to_post,
    )
    return [
        None if each is None or like is None else each.to(like.dtype) for each, like in zip(made, tensors, strict=True)
    ]


def _respond(kernel: Tensor, length: int, *given: Any) -> Tensor:
    """The response (..., D, W, F, 2), without gradient, of taps (..., D, K) for signals of that length."""
    plan = Plan(*given)
    layout = plan.layout(length)
    dtype = transform_dtype(kernel.dtype)
    rows = kernel.flatten(0, -2)
    response = torch.empty(*rows.shape[:1], *layout.bins, 2, dtype=dtype, device=kernel.device)

    def prepare() -> Callable[[slice], None]:
        layout = plan.layout(length)

        def respond(channels: slice) -> None:
            response[channels] = torch.view_as_real(layout.response(layout.support.place(rows[channels])))

        return respond

    threads = _threads(layout, rows.shape[0], kernel.device)
    most = block_rows(layout, dtype, kernel.device, plan.block_bytes)
    share(_divided(rows.shape[0], most, threads), prepare, threads)
    return response.unflatten(0, kernel.shape[:-1])


def _respond_fake(kernel: Tensor, length: int, *given: Any) -> Tensor:
    bins = Plan(*given).layout(length).bins
    return torch.empty(*kernel.shape[:-1], *bins, 2, dtype=transform_dtype(kernel.dtype), device=kernel.device)


class _Block:
    """Some rows of some channels, with the response of these channels."""

    def __init__(self, tensors: _Tensors, layout: Layout, rows: slice, channels: slice, response: Tensor) -> None:
        self.layout = layout
        self.channels = channels
        self.response = response
        self.dtype = response.real.dtype
        self._rows = rows
        self._tensors = tensors

    def part(self, x: Tensor) -> Tensor:
        return x[self._rows, self.channels]

    def signal(self) -> Tensor:
        x = self.part(self._tensors.u).to(self.dtype)
        return x if self._tensors.pre_gate is None else x * self.part(self._tensors.pre_gate)

    def filtered(self, spectrum: Tensor, x: Tensor) -> Tensor:
        """The convolution's output without the post gate, in memory of its own. Overwrites the spectrum."""
        z = self.layout.output(spectrum.mul_(self.response))
        skip = self._tensors.skip
        return z if skip is None else z.addcmul_(skip[self.channels, None].to(z.dtype), x)

    def add_kernel_gradient(self, grad: Tensor, spectrum: Tensor) -> None:
        """Add the gradient of the taps, from bins (B, D, W, F); rows that share a kernel are summed."""
        shared = grad.dim() == 2
        circle = self.layout.taps(spectrum.sum(0) if shared else spectrum)
        target = (grad[self.channels] if shared else self.part(grad))[
            ..., self.layout.support.first : self.layout.support.last
        ]
        # The gradient of a tap that a circular convolution wraps is that of the point it wraps to.
        for start in range(0, target.shape[-1], circle.shape[-1]):
            turn = target[..., start : start + circle.shape[-1]]
            turn += circle[..., : turn.shape[-1]].to(grad.dtype)


def _run(tensors: _Tensors, plan: Plan, work: Callable[[_Block], None]) -> None:
    """Call ``work`` on every block of rows and channels; threads share out the channels."""
    u, kernel = tensors.u, tensors.kernel
    batch, dim, length = u.shape
    layout = plan.layout(length)
    dtype = transform_dtype(torch.promote_types(u.dtype, kernel.dtype))
    most = block_rows(layout, dtype, u.device, plan.block_bytes)
    rows = min(batch, most)
    per_row = kernel.dim() == (5 if plan.prepared else 3)

    def prepare() -> Callable[[slice], None]:
        layout = plan.layout(length)

        def response_of(values: Tensor) -> Tensor:
            return torch.view_as_complex(values) if plan.prepared else layout.response(layout.support.place(values))

        def block_of_channels(channels: slice) -> None:
            shared = None if per_row else response_of(kernel[channels])
            for start in range(0, batch, rows):
                here = slice(start, min(batch, start + rows))
                response = response_of(kernel[here, channels]) if shared is None else shared
                work(_Block(tensors, layout, here, channels, response))

        return block_of_channels

    keep_freed_memory()
    threads = _threads(layout, batch * dim, u.device)
    share(_divided(dim, most // rows, threads), prepare, threads)


def _threads(layout: Layout, rows: int, device: torch.device) -> int:
    worth = device.type == "cpu" and rows * layout.points >= _SHARED_POINTS
    return torch.get_num_threads() if worth else 1


def _divided(total: int, most: int, threads: int) -> list[slice]:
    """Slices of at most ``most`` elements; as many for each thread where there are enough."""
    count = -(-total // most)
    count = min(total, -(-count // threads) * threads)
    width = -(-total // max(1, count))
    return [slice(start, min(total, start + width)) for start in range(0, total, max(1, width))]


def block_rows(layout: Layout, dtype: torch.dtype, device: torch.device, block_bytes: int | None) -> int:
    """Rows of a block. A row takes three times its points: padded signal, spectrum and output."""
    size = 3 * layout.points * dtype.itemsize
    if block_bytes:
        return max(1, block_bytes // size)
    return max(layout.fewest_rows, (_BLOCK_BYTES if device.type == "cpu" else _ACCELERATOR_BLOCK_BYTES) // size)


_PLAN = "SymInt[] support, bool circular, bool prepared, int chunk_size, int? block_bytes"
convolve_blocks = differentiable_operator(
    "spectral",
    f"convolve_blocks(Tensor u, Tensor kernel, Tensor? skip, Tensor? pre_gate, Tensor? post_gate, {_PLAN}) -> Tensor",
    _forward,
    _forward_fake,
    gradients=_gradients,
    second=_differentiable_gradients,
)
respond_blocks = operator(
    "spectral", f"respond_blocks(Tensor kernel, int length, {_PLAN}) -> Tensor", _respond, _respond_fake
)
