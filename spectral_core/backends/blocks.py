"""Convolution a block of channels at a time, as ``torch.library`` operators.

A whole-tensor convolution streams the padded signal and its spectra through memory several times, and asks the system
for that memory at every call. Channels do not mix, so the same work done on as many channels as fit the cache touches
memory once, and blocks need not wait for each other. The backward pass transforms again instead of keeping spectra, so
the extra memory is a block's for each thread, in both directions.
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

_BLOCK_BYTES = 4 << 20
"""A few times a core's L2: smaller blocks spend their time on calls, larger ones leave the cache."""
_ACCELERATOR_BLOCK_BYTES = 256 << 20
"""Elsewhere than on a CPU a block must fill the device; what it bounds is memory."""
_SHARED_POINTS = 1 << 24
"""Points in all from which blocks are shared out among threads: tens of milliseconds of work."""

# Defined by schema: torch.library.custom_op would import the compiler, and with it triton, at the first call.
_LIBRARY = torch.library.Library("spectral", "DEF")
_ARGUMENTS = (
    "Tensor u, Tensor kernel, Tensor? skip, Tensor? pre_gate, Tensor? post_gate, SymInt[] support, bool circular,"
    " bool prepared, int chunk_size, int? block_bytes"
)
_LIBRARY.define(f"convolve_blocks({_ARGUMENTS}) -> Tensor")
_LIBRARY.define(f"convolve_blocks_backward(Tensor grad, {_ARGUMENTS}, bool[] wanted) -> Tensor[]")
_LIBRARY.define(
    "respond_blocks(Tensor kernel, int length, int[] support, bool circular, bool prepared, int chunk_size,"
    " int? block_bytes) -> Tensor"
)
convolve_blocks = torch.ops.spectral.convolve_blocks
respond_blocks = torch.ops.spectral.respond_blocks


class Plan(NamedTuple):
    """How a convolution is done, besides its tensors.

    prepared: the kernel is its response as real pairs, (D, W, F, 2) or (B, D, W, F, 2), which gets no gradient, and
    not its taps. block_bytes: working set of a block; None: :func:`block_rows` chooses.
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


@torch.library.impl(_LIBRARY, "convolve_blocks", "CompositeExplicitAutograd")
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


@torch.library.impl(_LIBRARY, "convolve_blocks_backward", "CompositeExplicitAutograd")
def _gradients(grad: Tensor, *given: Any) -> list[Tensor]:
    """Gradients of u, kernel, skip, pre_gate, post_gate; those not wanted come back empty.

    With g = post_gate * grad: the signal's is the correlation of g with the kernel, the kernel's that of g with the
    signal, summed over rows that share it.
    """
    tensors, plan, wanted = _Tensors(*given[:5]), Plan(*given[5:-1]), given[-1]
    to_u, to_kernel, to_skip, to_pre, to_post = (
        wants and tensor is not None for wants, tensor in zip(wanted, tensors, strict=True)
    )
    nothing = grad.new_empty(0)
    u, pre, post = (unwritten(tensors.u.shape, tensors.u) if wants else nothing for wants in (to_u, to_pre, to_post))
    # Rows that share a kernel or a skip add to its gradient.
    kernel, skip = (
        torch.zeros_like(tensor, memory_format=torch.contiguous_format) if wants and tensor is not None else nothing
        for wants, tensor in ((to_kernel, tensors.kernel), (to_skip, tensors.skip))
    )

    def differentiate(block: _Block) -> None:
        g = block.part(grad).to(block.dtype)
        x = block.signal()
        spectrum = block.layout.spectrum(x) if to_kernel or to_post else None
        if tensors.post_gate is not None:
            if to_post:
                assert spectrum is not None
                block.part(post).copy_(block.filtered(spectrum.clone() if to_kernel else spectrum, x).mul_(g))
            g = g * block.part(tensors.post_gate)
        if to_skip:
            skip[block.channels] += (g * x).sum((0, 2)).to(skip.dtype)
        if not (to_u or to_kernel or to_pre):
            return
        turned = block.layout.turned(g)
        if to_kernel:
            assert spectrum is not None
            block.add_kernel_gradient(kernel, spectrum.conj_physical_().mul_(turned))
        if to_u or to_pre:
            # Inside an operator of a compiled graph torch does not resolve a lazy conj().
            gx = block.layout.source(turned.mul_(block.response.conj_physical()))
            if tensors.skip is not None:
                gx = torch.addcmul(gx, tensors.skip[block.channels, None].to(gx.dtype), g)
            if to_pre:
                block.part(pre).copy_(gx * block.part(tensors.u))
            if to_u:
                block.part(u).copy_(gx if tensors.pre_gate is None else gx * block.part(tensors.pre_gate))

    _run(tensors, plan, differentiate)
    return [u, kernel, skip, pre, post]


def _gradients_fake(grad: Tensor, *given: Any) -> list[Tensor]:
    tensors, wanted = given[:5], given[-1]
    return [
        torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        if wants and tensor is not None
        else grad.new_empty(0)
        for wants, tensor in zip(wanted, tensors, strict=True)
    ]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.plan = Plan(*inputs[5:])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = _Tensors(*ctx.saved_tensors)
    wanted = [bool(needs) and tensor is not None for needs, tensor in zip(ctx.needs_input_grad, tensors, strict=False)]
    wanted[1] = wanted[1] and not ctx.plan.prepared
    if torch.is_grad_enabled():
        grads = _differentiable_gradients(grad, tensors, ctx.plan, wanted)
    else:
        grads = torch.ops.spectral.convolve_blocks_backward(grad, *tensors, *ctx.plan, wanted)
    return (*(made if wants else None for made, wants in zip(grads, wanted, strict=True)), *[None] * len(ctx.plan))


def _differentiable_gradients(
    grad: Tensor, tensors: _Tensors, plan: Plan, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """What :func:`_gradients` computes, of differentiable operators: for gradients of gradients.

    The matrix of a convolution is Toeplitz, so its transpose is the same convolution of the reversed signal, reversed.
    """
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


@torch.library.impl(_LIBRARY, "respond_blocks", "CompositeExplicitAutograd")
def _respond(kernel: Tensor, length: int, *given: Any) -> Tensor:
    """The prepared response (..., D, W, F, 2) of taps (..., D, K) for signals of that length, which has no gradient."""
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


torch.library.register_fake("spectral::convolve_blocks", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("spectral::convolve_blocks_backward", _gradients_fake, lib=_LIBRARY)
torch.library.register_fake("spectral::respond_blocks", _respond_fake, lib=_LIBRARY)
torch.library.register_autograd("spectral::convolve_blocks", _backward, setup_context=_keep, lib=_LIBRARY)


class _Block:
    """Some rows of some channels, and the channels' response."""

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
        """The convolution's output without the post gate, in memory that is free to write. Overwrites the spectrum."""
        z = self.layout.output(spectrum.mul_(self.response))
        skip = self._tensors.skip
        return z if skip is None else z.addcmul_(skip[self.channels, None].to(z.dtype), x)

    def add_kernel_gradient(self, grad: Tensor, spectrum: Tensor) -> None:
        """Back from bins (B, D, W, F) to the taps that took part; rows that share a kernel are summed."""
        shared = grad.dim() == 2
        circle = self.layout.taps(spectrum.sum(0) if shared else spectrum)
        target = (grad[self.channels] if shared else self.part(grad))[
            ..., self.layout.support.first : self.layout.support.last
        ]
        # A tap wrapped onto the circle of a circular convolution has the gradient of the point it fell on.
        for start in range(0, target.shape[-1], circle.shape[-1]):
            turn = target[..., start : start + circle.shape[-1]]
            turn += circle[..., : turn.shape[-1]].to(grad.dtype)


def _run(tensors: _Tensors, plan: Plan, work: Callable[[_Block], None]) -> None:
    """Every block of rows and channels to ``work``, blocks of different channels at the same time."""
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
    """Slices of at most that many, equally many for each thread if there are enough."""
    count = -(-total // most)
    count = min(total, -(-count // threads) * threads)
    width = -(-total // max(1, count))
    return [slice(start, min(total, start + width)) for start in range(0, total, max(1, width))]


def block_rows(layout: Layout, dtype: torch.dtype, device: torch.device, block_bytes: int | None) -> int:
    """Rows of a block: of the padded signal, its spectrum and the output, three times the points."""
    size = 3 * layout.points * dtype.itemsize
    if block_bytes:
        return max(1, block_bytes // size)
    return max(layout.fewest_rows, (_BLOCK_BYTES if device.type == "cpu" else _ACCELERATOR_BLOCK_BYTES) // size)
