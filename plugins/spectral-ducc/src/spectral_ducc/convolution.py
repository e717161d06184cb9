"""Convolution in blocks of channels; the backward pass recomputes spectra instead of saving them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from spectral_core import UnsupportedInputError
from spectral_ducc.blocks import LANES, Array, Blocks, slices, view, zeros
from spectral_ducc.transforms import c2r, complex_of, r2c
from spectral_kernels.operator import differentiable_operator


class Plan(NamedTuple):
    """The arguments of a convolution that are not tensors.

    points: of the transform. offset: where the output starts in it. prepared: the kernel argument is a spectrum.
    """

    points: int
    offset: int
    prepared: bool
    block_bytes: int | None
    threads: int | None

    @property
    def blocks(self) -> Blocks:
        return Blocks(self.block_bytes, self.threads)


class Tensors(NamedTuple):
    """u and the gates (B, D, L), skip (D,). kernel, in the dtype of the transforms: at most ``points`` taps, (D, K) or
    (B, D, K), or their spectrum in real pairs, (D, F, 2) or (B, D, F, 2), which has no gradient.
    """

    u: Tensor
    kernel: Tensor
    skip: Tensor | None
    pre_gate: Tensor | None
    post_gate: Tensor | None

    def arrays(self) -> Arrays:
        """Rows along time, in the dtype of the transforms: the tensors' own memory where they are so already."""
        return Arrays(*(None if x is None else view(x.to(self.kernel.dtype).contiguous()) for x in self))


class Arrays(NamedTuple):
    u: Any  # always an array, as kernel is; Any because the fields are filled in one go
    kernel: Any
    skip: Array | None
    pre_gate: Array | None
    post_gate: Array | None


def _forward(*given: Any) -> Tensor:
    """The output post_gate * (kernel conv v + skip * v), v = pre_gate * u, in u's dtype."""
    tensors, plan = Tensors(*given[:5]), Plan(*given[5:])
    u = tensors.u.to(tensors.kernel.dtype).contiguous()
    # A copy of the input is not needed after its block is done, so its memory holds the output.
    y = torch.empty_like(u) if u.data_ptr() == tensors.u.data_ptr() else u
    arrays, out = tensors._replace(u=u).arrays(), view(y)
    length, offset = u.shape[-1], plan.offset
    layout = _Layout.of(u.shape, u.dtype, plan)

    def prepare() -> Callable[[slice], None]:
        bench = _Bench(layout, plan, arrays)

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


def _gradients(grad: Tensor, *arguments: Any) -> list[Tensor | None]:
    """Gradients of u, kernel, skip, pre_gate, post_gate, None where not wanted.

    With g = post_gate * grad: v's is the correlation of g with the kernel plus skip * g, the kernel's that of g with v,
    summed over the rows that share it.
    """
    tensors, plan, wanted = Tensors(*arguments[:5]), Plan(*arguments[5:-1]), arguments[-1]
    given, dtype = tensors.arrays(), tensors.kernel.dtype
    dy = view(grad.to(dtype).contiguous())
    made = [
        torch.zeros(x.shape, dtype=dtype) if wants and x is not None else None
        for x, wants in zip(tensors, wanted, strict=True)
    ]
    du, dkernel, dskip, dpre, dpost = (None if x is None else view(x) for x in made)
    length = dy.shape[-1]
    inside = slice(plan.offset, plan.offset + length)
    layout = _Layout.of(tensors.u.shape, dtype, plan)
    threads = layout.inner_threads

    def prepare() -> Callable[[slice], None]:
        bench = _Bench(layout, plan, given)
        # The gradient on the circle, where the output lay. Its product with the signal's spectrum is the kernel's.
        other, other_bins = zeros(bench.circle.shape, dy.dtype), zeros(bench.bins.shape, bench.bins.dtype)
        total = zeros(bench.bins.shape[1:], bench.bins.dtype)
        shared = given.kernel.ndim == 2

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
                    z = turned[..., inside]
                    if given.skip is not None:
                        np.multiply(x, given.skip[channels, None], out=dpost[here])
                        z += dpost[here]
                    np.multiply(z, dy[here], out=dpost[here])
                turned[..., : inside.start] = 0
                turned[..., inside.stop :] = 0
                g = turned[..., inside]
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
                        dkernel[here] = circle[..., : dkernel.shape[-1]]
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
                dkernel[channels] = circle[..., : dkernel.shape[-1]]

        return work

    plan.blocks.run(layout.channels, prepare)
    return [None if x is None or like is None else x.to(like.dtype) for x, like in zip(made, tensors, strict=True)]


def _forward_fake(u: Tensor, *_: Any) -> Tensor:
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


def _refuse(*_: Any) -> NoReturn:
    raise UnsupportedInputError(
        "ducc/ducc0 has no gradients of gradients (create_graph=True). Choose another backend, such as fft: torch."
    )


convolve = differentiable_operator(
    "spectral_ducc",
    "convolve(Tensor u, Tensor kernel, Tensor? skip, Tensor? pre_gate, Tensor? post_gate,"
    " SymInt points, SymInt offset, bool prepared, int? block_bytes, int? threads) -> Tensor",
    _forward,
    _forward_fake,
    gradients=_gradients,
    second=_refuse,
    dispatch="CPU",
)


class _Layout(NamedTuple):
    """Which channels and rows make a block. Threads share out the channels, so that none adds to another's sums."""

    channels: list[slice]
    rows: list[slice]
    shape: tuple[int, int]
    inner_threads: int

    @classmethod
    def of(cls, shape: torch.Size, dtype: torch.dtype, plan: Plan) -> _Layout:
        batch, dim, _ = shape
        lines = plan.blocks.lines(plan.points, dtype)
        threads = plan.blocks.count_threads()
        # Channels first, for a kernel's transform has one row for each; then rows; then the rest in channels.
        height = max(1, min(batch, lines // min(dim, lines, LANES)))
        width = max(1, min(lines // height, -(-dim // threads)))
        channels = slices(dim, width)
        return cls(channels, slices(batch, height), (height, width), max(1, threads // len(channels)))


class _Bench:
    """One thread's buffers: a block's rows padded to ``points``, their spectra, and the kernel's spectrum."""

    def __init__(self, layout: _Layout, plan: Plan, arrays: Arrays) -> None:
        self.arrays = arrays
        self.prepared = plan.prepared
        self.length = arrays.u.shape[-1]
        self.threads = layout.inner_threads
        bins, dtype = plan.points // 2 + 1, complex_of(arrays.u.dtype)
        self.circle = zeros((*layout.shape, plan.points), arrays.u.dtype)
        self.bins = zeros((*layout.shape, bins), dtype)
        self.kernel = arrays.kernel.view(dtype)[..., 0] if plan.prepared else arrays.kernel
        self.kernel_bins = zeros((*layout.shape[3 - self.kernel.ndim :], 0 if plan.prepared else bins), dtype)
        self._held: tuple[slice, ...] | None = None

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
        here = (rows, channels) if self.kernel.ndim == 3 else (channels,)
        if self.prepared:
            spectrum: Array = self.kernel[here]
            return spectrum
        corner = tuple(slice(each.stop - each.start) for each in here)
        bins = self.kernel_bins[corner]
        if self._held != here:
            self._held = here
            taps, circle = self.kernel[here], (self.circle if len(here) == 2 else self.circle[0])[corner]
            circle[..., : taps.shape[-1]] = taps
            circle[..., taps.shape[-1] :] = 0
            r2c(circle, bins, threads=self.threads)
        return bins
