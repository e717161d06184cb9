"""Convolution a block of channels at a time, as ``torch.library`` operators.

A whole-tensor convolution streams the padded signal and its spectra through memory several times. Channels do not mix,
so the same work done on as many channels as fit the cache touches memory once. The backward pass transforms again
instead of keeping spectra, so the extra memory is one block's, in both directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core.backends.base import Support, transform_dtype

# Defined by schema: torch.library.custom_op would import the compiler, and with it triton, at the first call.
_LIBRARY = torch.library.Library("spectral", "DEF")
_LIBRARY.define(
    "convolve_blocks(Tensor u, Tensor kernel, Tensor? skip, Tensor? pre_gate, Tensor? post_gate, int[] support,"
    " bool prepared, int block_bytes) -> Tensor"
)
_LIBRARY.define(
    "convolve_blocks_backward(Tensor grad, Tensor u, Tensor kernel, Tensor? skip, Tensor? pre_gate, Tensor? post_gate,"
    " int[] support, bool prepared, int block_bytes, bool[] wanted) -> Tensor[]"
)
convolve_blocks = torch.ops.spectral.convolve_blocks


@torch.library.impl(_LIBRARY, "convolve_blocks", "CompositeExplicitAutograd")
def _forward(
    u: Tensor,
    kernel: Tensor,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
    support: Sequence[int],
    prepared: bool,
    block_bytes: int,
) -> Tensor:
    """post_gate * (kernel conv v + skip * v), v = pre_gate * u; all (B, D, L), skip (D,), contiguous in u's dtype.

    kernel: taps (D, K) or (B, D, K); prepared: instead their spectrum as real pairs, (D, F, 2) or (B, D, F, 2), which
    gets no gradient. support: the fields of a :class:`Support`. block_bytes: working set of a block.
    """
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    for block in _blocks(u, kernel, Support(*support), prepared, block_bytes):
        x = block.signal(u, pre_gate)
        z = block.filtered(block.transform(x), skip, x)
        if post_gate is not None:
            z = z.mul_(block.part(post_gate))
        block.part(y).copy_(z)
    return y


def _forward_fake(u: Tensor, *_: Any) -> Tensor:
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


@torch.library.impl(_LIBRARY, "convolve_blocks_backward", "CompositeExplicitAutograd")
def _gradients(
    grad: Tensor,
    u: Tensor,
    kernel: Tensor,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
    support: Sequence[int],
    prepared: bool,
    block_bytes: int,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Gradients of u, kernel, skip, pre_gate, post_gate; those not wanted come back empty.

    With g = post_gate * grad: the signal's is the correlation of g with the kernel, the kernel's that of g with the
    signal, summed over rows that share it.
    """
    grads = [
        torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        if wants and tensor is not None
        else grad.new_empty(0)
        for wants, tensor in zip(wanted, (u, kernel, skip, pre_gate, post_gate), strict=True)
    ]
    to_u, to_kernel, to_skip, to_pre, to_post = wanted
    for block in _blocks(u, kernel, Support(*support), prepared, block_bytes):
        g = block.part(grad).to(block.dtype)
        x = block.signal(u, pre_gate)
        spectrum = block.transform(x) if to_kernel or (to_post and post_gate is not None) else None
        if post_gate is not None:
            if to_post:
                assert spectrum is not None
                block.part(grads[4]).copy_(block.filtered(spectrum, skip, x).mul_(g))
            g = g * block.part(post_gate)
        if to_skip and skip is not None:
            grads[2][block.channels] += (g * x).sum((0, 2)).to(skip.dtype)
        if not (to_u or to_kernel or to_pre):
            continue
        turned = block.transform(g, at=support[3])
        if to_kernel:
            assert spectrum is not None
            block.add_kernel_gradient(grads[1], spectrum.conj_physical_().mul_(turned))
        if to_u or to_pre:
            gx = block.inverse(turned * block.response.conj())
            if skip is not None:
                gx = torch.addcmul(gx, skip[block.channels, None].to(gx.dtype), g)
            if to_pre and pre_gate is not None:
                block.part(grads[3]).copy_(gx * block.part(u))
            if to_u:
                block.part(grads[0]).copy_(gx if pre_gate is None else gx * block.part(pre_gate))
    return grads


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
    ctx.options = inputs[5:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    wanted = [bool(needs) and tensor is not None for needs, tensor in zip(ctx.needs_input_grad, tensors, strict=False)]
    wanted[1] = wanted[1] and not ctx.options[1]
    grads = torch.ops.spectral.convolve_blocks_backward(grad, *tensors, *ctx.options, wanted)
    return (*(made if wants else None for made, wants in zip(grads, wanted, strict=True)), None, None, None)


torch.library.register_fake("spectral::convolve_blocks", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("spectral::convolve_blocks_backward", _gradients_fake, lib=_LIBRARY)
torch.library.register_autograd("spectral::convolve_blocks", _backward, setup_context=_keep, lib=_LIBRARY)


class _Block:
    """Some rows of some channels, and the channels' response."""

    def __init__(
        self, rows: slice, channels: slice, length: int, support: Support, response: Tensor, dtype: torch.dtype
    ) -> None:
        self.rows = rows
        self.channels = channels
        self.length = length
        self.support = support
        self.response = response
        self.dtype = dtype

    def part(self, x: Tensor) -> Tensor:
        return x[self.rows, self.channels]

    def signal(self, u: Tensor, gate: Tensor | None) -> Tensor:
        x = self.part(u).to(self.dtype)
        return x if gate is None else x * self.part(gate)

    def transform(self, x: Tensor, at: int = 0) -> Tensor:
        """The spectrum of x placed at that point of the circle."""
        return torch.fft.rfft(F.pad(x, (at, 0)) if at else x, n=self.support.points)

    def inverse(self, spectrum: Tensor, start: int = 0) -> Tensor:
        return torch.fft.irfft(spectrum, n=self.support.points)[..., start : start + self.length]

    def filtered(self, spectrum: Tensor, skip: Tensor | None, x: Tensor) -> Tensor:
        """The convolution's output, without the post gate."""
        z = self.inverse(spectrum * self.response, self.support.offset)
        return z if skip is None else torch.addcmul(z, skip[self.channels, None].to(z.dtype), x)

    def add_kernel_gradient(self, grad: Tensor, spectrum: Tensor) -> None:
        """Back from a spectrum (B, D, F) to the taps that took part; rows that share a kernel are summed."""
        shared = grad.dim() == 2
        circle = torch.fft.irfft(spectrum.sum(0) if shared else spectrum, n=self.support.points)
        target = (grad[self.channels] if shared else self.part(grad))[..., self.support.first : self.support.last]
        # A tap wrapped onto the circle of a circular convolution has the gradient of the point it fell on.
        for start in range(0, target.shape[-1], self.support.points):
            turn = target[..., start : start + self.support.points]
            turn += circle[..., : turn.shape[-1]].to(grad.dtype)


def _blocks(u: Tensor, kernel: Tensor, support: Support, prepared: bool, block_bytes: int) -> Iterator[_Block]:
    """Blocks of channels, and of rows where one channel of all rows is too much; a shared response is made once."""
    batch, dim, length = u.shape
    dtype = transform_dtype(torch.promote_types(u.dtype, kernel.dtype))
    # A block holds the padded signal, its spectrum and the output: three times the points.
    size = 3 * support.points * dtype.itemsize
    rows = max(1, min(batch, block_bytes // size))
    width = max(1, min(dim, block_bytes // (size * rows)))
    per_row = kernel.dim() == (4 if prepared else 3)
    for start in range(0, dim, width):
        channels = slice(start, min(dim, start + width))
        shared = None if per_row else _response(kernel[channels], support, prepared)
        for first in range(0, batch, rows):
            here = slice(first, min(batch, first + rows))
            response = _response(kernel[here, channels], support, prepared) if shared is None else shared
            yield _Block(here, channels, length, support, response, dtype)


def _response(kernel: Tensor, support: Support, prepared: bool) -> Tensor:
    return torch.view_as_complex(kernel) if prepared else torch.fft.rfft(support.place(kernel), n=support.points)
