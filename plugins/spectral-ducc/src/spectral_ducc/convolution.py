"""Convolution a block of channels at a time; the backward pass transforms again instead of keeping spectra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spectral_core.backends.base import Support
from spectral_core.errors import UnsupportedInputError
from spectral_ducc.blocks import LANES, Array, Blocks, slices, view, zeros
from spectral_ducc.transforms import as_complex, c2r, complex_of, r2c

_LIBRARY = torch.library.Library("spectral_ducc", "FRAGMENT")
_ARGUMENTS = (
    "Tensor u, Tensor? kernel, Tensor? skip, Tensor? pre_gate, Tensor? post_gate, Tensor? spectrum, int[] support,"
    " ScalarType dtype, int? block_bytes, int? threads"
)
_LIBRARY.define(f"convolve({_ARGUMENTS}) -> Tensor")
_LIBRARY.define(f"convolve_backward(Tensor grad, {_ARGUMENTS}, bool[] wanted) -> Tensor[]")
convolve = torch.ops.spectral_ducc.convolve


class Plan(NamedTuple):
    """What a convolution needs besides its tensors. dtype: of the transforms."""

    support: Support
    dtype: torch.dtype
    blocks: Blocks

    @classmethod
    def of(cls, support: Sequence[int], dtype: torch.dtype, block_bytes: int | None, threads: int | None) -> Plan:
        return cls(Support(*support), dtype, Blocks(block_bytes, threads))


class Tensors(NamedTuple):
    """u and the gates (B, D, L), skip (D,). kernel: taps (D, K) or (B, D, K), None when its spectrum is given."""

    u: Tensor
    kernel: Tensor | None
    skip: Tensor | None
    pre_gate: Tensor | None
    post_gate: Tensor | None

    def arrays(self, dtype: torch.dtype) -> Arrays:
        """Rows along time, in the dtype of the transforms: the tensors' own memory where they are so already."""
        return Arrays(*(None if x is None else view(x.to(dtype).contiguous()) for x in self))


class Arrays(NamedTuple):
    u: Any  # always an array; Any because the fields are filled in one go
    kernel: Array | None
    skip: Array | None
    pre_gate: Array | None
    post_gate: Array | None


@torch.library.impl(_LIBRARY, "convolve", "CPU")
def _forward(*given: Any) -> Tensor:
    """The output post_gate * (kernel conv v + skip * v), v = pre_gate * u, in u's dtype.

    kernel: taps (D, K) or (B, D, K); or None, and their spectrum in real pairs, (D, F, 2) or (B, D, F, 2), which gets
    no gradient. support: the fields of a :class:`Support`. dtype: of the transforms.
    """
    tensors, spectrum, plan = _understood(given)
    u = tensors.u.to(plan.dtype).contiguous()
    # A copy of the input is of no use to anyone afterwards, and may as well hold the output.
    y = torch.empty_like(u) if u.data_ptr() == tensors.u.data_ptr() else u
    arrays, out = tensors._replace(u=u).arrays(plan.dtype), view(y)
    length, offset = u.shape[-1], plan.support.offset
    layout = _Layout.of(u.shape, plan)

    def prepare() -> Callable[[slice], None]:
        bench = _Bench(layout, plan, arrays, spectrum)

        def work(channels: slice) -> None:
            for rows in layout.rows:
                here = (rows, channels)
                response = bench.response(*here)
                circle, bins = bench.part(bench.circle, *here), bench.part(bench.bins, *here)
                bench.load_signal(circle, *here)
                if arrays.skip is not None:
                    np.multiply(circle[..., :length], arrays.skip[channels, None], out=out[here])
                r2c(circle, bins, threads=layout.inner_threads)
                np.multiply(bins, response, out=bins)
                c2r(bins, circle, threads=layout.inner_threads)
                z = circle[..., offset : offset + length]
                if arrays.skip is not None:
                    z += out[here]
                if arrays.post_gate is None:
                    out[here] = z
                else:
                    np.multiply(z, arrays.post_gate[here], out=out[here])

        return work

    plan.blocks.run(layout.channels, prepare)
    return y.to(tensors.u.dtype)


@torch.library.impl(_LIBRARY, "convolve_backward", "CPU")
def _gradients(grad: Tensor, *arguments: Any) -> list[Tensor]:
    """Gradients of u, kernel, skip, pre_gate, post_gate, each in its tensor's dtype; those not wanted come back empty.

    With g = post_gate * grad: v's is the correlation of g with the kernel plus skip * g, the kernel's that of g with v,
    summed over the rows that share it.
    """
    *rest, wanted = arguments
    tensors, spectrum, plan = _understood(rest)
    given = tensors.arrays(plan.dtype)
    dy = view(grad.to(plan.dtype).contiguous())
    made = [
        torch.zeros(x.shape, dtype=plan.dtype) if wants and x is not None else None
        for x, wants in zip(tensors, wanted, strict=True)
    ]
    du, dkernel, dskip, dpre, dpost = (None if x is None else view(x) for x in made)
    length, support = dy.shape[-1], plan.support
    layout = _Layout.of(dy.shape, plan)
    threads = layout.inner_threads
    if layout.empty:
        return _cast(made, tensors, grad)

    def prepare() -> Callable[[slice], None]:
        bench = _Bench(layout, plan, given, spectrum)
        # The gradient on the circle, where the output lay. Its product with the signal's spectrum is the kernel's.
        other, other_bins = zeros(bench.circle.shape, dy.dtype), zeros(bench.bins.shape, bench.bins.dtype)
        total = zeros(bench.bins.shape[1:], bench.bins.dtype)
        shared = given.kernel is None or given.kernel.ndim == 2

        def work(channels: slice) -> None:
            total[:] = 0
            for rows in layout.rows:
                here = (rows, channels)
                response = bench.response(*here)
                circle, bins, turned, turned_bins = (
                    bench.part(buffer, *here) for buffer in (bench.circle, bench.bins, other, other_bins)
                )
                x = circle[..., :length]
                if dkernel is not None or dpost is not None or dskip is not None:
                    bench.load_signal(circle, *here)
                if dkernel is not None or dpost is not None:
                    r2c(circle, bins, threads=threads)
                if dpost is not None:
                    np.multiply(bins, response, out=turned_bins)
                    c2r(turned_bins, turned, threads=threads)
                    z = turned[..., support.offset : support.offset + length]
                    if given.skip is not None:
                        np.multiply(x, given.skip[channels, None], out=dpost[here])
                        z += dpost[here]
                    np.multiply(z, dy[here], out=dpost[here])
                turned[..., : support.offset] = 0
                turned[..., support.offset + length :] = 0
                g = turned[..., support.offset : support.offset + length]
                g[...] = dy[here]
                if given.post_gate is not None:
                    g *= given.post_gate[here]
                if dskip is not None:
                    x *= g
                    dskip[channels] += x.sum(axis=(0, 2))
                if dkernel is None and du is None and dpre is None:
                    continue
                r2c(turned, turned_bins, conjugate=True, threads=threads)
                if dkernel is not None:
                    bins *= turned_bins
                    if shared:
                        for row in bins:
                            total[: len(row)] += row
                    else:
                        c2r(bins, circle, conjugate=True, threads=threads)
                        _unplace(dkernel[here], circle, support)
                if du is not None or dpre is not None:
                    turned_bins *= response
                    c2r(turned_bins, circle, conjugate=True, threads=threads)
                    if given.skip is not None:
                        g *= given.skip[channels, None]
                        x += g
                    if dpre is not None:
                        np.multiply(x, given.u[here], out=dpre[here])
                    if du is not None:
                        np.multiply(x, 1 if given.pre_gate is None else given.pre_gate[here], out=du[here])
            if dkernel is not None and shared:
                count = channels.stop - channels.start
                circle = bench.circle[0, :count]
                c2r(total[:count], circle, conjugate=True, threads=threads)
                _unplace(dkernel[channels], circle, support)

        return work

    plan.blocks.run(layout.channels, prepare)
    return _cast(made, tensors, grad)


def _understood(given: Sequence[Any]) -> tuple[Tensors, Array | None, Plan]:
    spectrum = given[5]
    return Tensors(*given[:5]), None if spectrum is None else as_complex(spectrum), Plan.of(*given[6:])


def _cast(made: list[Tensor | None], tensors: Tensors, grad: Tensor) -> list[Tensor]:
    return [
        grad.new_empty(0) if x is None or like is None else x.to(like.dtype)
        for x, like in zip(made, tensors, strict=True)
    ]


def _forward_fake(u: Tensor, *_: Any) -> Tensor:
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


def _gradients_fake(grad: Tensor, *given: Any) -> list[Tensor]:
    return [
        torch.empty(x.shape, dtype=x.dtype, device=x.device) if wants and x is not None else grad.new_empty(0)
        for wants, x in zip(given[-1], given[:5], strict=True)
    ]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise UnsupportedInputError(
            "ducc/ducc0 has no gradients of gradients (create_graph=True). Choose another backend, such as fft: torch."
        )
    tensors = ctx.saved_tensors
    wanted = [bool(needs) and x is not None for needs, x in zip(ctx.needs_input_grad[:5], tensors[:5], strict=True)]
    grads = torch.ops.spectral_ducc.convolve_backward(grad, *tensors, *ctx.options, wanted)
    return (*(made if wants else None for made, wants in zip(grads, wanted, strict=True)), None, None, None, None, None)


torch.library.register_fake("spectral_ducc::convolve", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("spectral_ducc::convolve_backward", _gradients_fake, lib=_LIBRARY)
torch.library.register_autograd("spectral_ducc::convolve", _backward, setup_context=_keep, lib=_LIBRARY)


def _unplace(grad: Array, circle: Array, support: Support) -> None:
    """The gradient of each tap that took part is that of the point of the circle it fell on."""
    taps = grad[..., support.first : support.last]
    for start in range(0, taps.shape[-1], support.points):
        turn = taps[..., start : start + support.points]
        turn[...] = circle[..., : turn.shape[-1]]


class _Layout(NamedTuple):
    """Which channels and rows make a block. Threads share out the channels, so that none adds to another's sums."""

    channels: list[slice]
    rows: list[slice]
    shape: tuple[int, int]
    inner_threads: int
    empty: bool

    @classmethod
    def of(cls, shape: tuple[int, ...] | torch.Size, plan: Plan) -> _Layout:
        batch, dim, _ = shape
        lines = plan.blocks.lines(plan.support.points, plan.dtype)
        threads = plan.blocks.count_threads()
        # Channels first, for a kernel's transform has one row for each; then rows; then the rest in channels.
        height = max(1, min(batch, lines // min(dim, lines, LANES)))
        width = max(1, min(lines // height, -(-dim // threads)))
        channels = slices(dim, width)
        return cls(channels, slices(batch, height), (height, width), max(1, threads // len(channels)), batch == 0)


class _Bench:
    """One thread's buffers: rows of a block on their circle, their spectra, and those of the kernel."""

    def __init__(self, layout: _Layout, plan: Plan, arrays: Arrays, spectrum: Array | None) -> None:
        self.arrays = arrays
        self.spectrum = spectrum
        self.support = plan.support
        self.length = arrays.u.shape[-1]
        self.threads = layout.inner_threads
        bins = plan.support.points // 2 + 1
        self.circle = zeros((*layout.shape, plan.support.points), arrays.u.dtype)
        self.bins = zeros((*layout.shape, bins), complex_of(arrays.u.dtype))
        self.kernel_bins = None
        self._held: slice | None = None
        if arrays.kernel is not None:
            self.kernel_bins = zeros((*layout.shape[2 - arrays.kernel.ndim + 1 :], bins), self.bins.dtype)

    def part(self, buffer: Array, rows: slice, channels: slice) -> Array:
        return buffer[: rows.stop - rows.start, : channels.stop - channels.start]

    def load_signal(self, circle: Array, rows: slice, channels: slice) -> None:
        """The signal, pre * u, followed by zeros."""
        x, u = circle[..., : self.length], self.arrays.u[rows, channels]
        if self.arrays.pre_gate is None:
            x[...] = u
        else:
            np.multiply(u, self.arrays.pre_gate[rows, channels], out=x)
        circle[..., self.length :] = 0

    def response(self, rows: slice, channels: slice) -> Array:
        """The kernel's spectrum for the block; one that rows share is transformed once."""
        if self.spectrum is not None:
            return self.spectrum[channels] if self.spectrum.ndim == 2 else self.spectrum[rows, channels]
        kernel, bins = self.arrays.kernel, self.kernel_bins
        assert kernel is not None  # noqa: S101
        assert bins is not None  # noqa: S101
        count = channels.stop - channels.start
        if kernel.ndim == 2:
            if self._held != channels:
                self._transform(kernel[channels], self.circle[0, :count], bins[:count])
                self._held = channels
            return bins[:count]
        part = self.part(bins, rows, channels)
        self._transform(kernel[rows, channels], self.part(self.circle, rows, channels), part)
        return part

    def _transform(self, kernel: Array, circle: Array, bins: Array) -> None:
        taps = kernel[..., self.support.first : self.support.last]
        turn = taps[..., : self.support.points]
        circle[..., : turn.shape[-1]] = turn
        circle[..., turn.shape[-1] :] = 0
        for start in range(self.support.points, taps.shape[-1], self.support.points):
            turn = taps[..., start : start + self.support.points]
            circle[..., : turn.shape[-1]] += turn
        r2c(circle, bins, threads=self.threads)
