"""The gated convolution as a ``torch.library`` operator with its gradients. Triton is imported at the first launch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectral_kernels.factors import ON_CHIP, Digits, across_twiddles, tables
from spectral_kernels.launch import LONGEST, PRECISION, columns, points_for, refuse_higher_order, run, split
from spectral_kernels.operator import differentiable_operator, operator

_SHIFT = 0.25
_WORK_BYTES = 512 << 20
"""Largest workspace of the passes, unless a single channel needs more."""
_PROGRAMS = 1024
"""Programs of a backward launch: enough to fill any device, few enough that their partial sums stay small."""


def gated_convolution(
    u: Tensor,
    kernel: Tensor,
    skip: Tensor | None = None,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    *,
    first: int = 0,
    prepared: bool = False,
) -> Tensor:
    """y[t] = post[t] (sum_j kernel[j] v[t - first - j] + skip v[t]), v = pre u, zero outside of [0, L).

    u and gates (B, D, L), float32, float16 or bfloat16, any strides; skip (D,). kernel: (D, K) or (B, D, K), or its
    response by :func:`respond` (prepared), which gets no gradient. Returns a contiguous (B, D, L) in u's dtype; sums
    are float32. Differentiable, the same numbers every time. ``reference.py`` is the definition, README.md the
    derivation.
    """
    y: Tensor = _CONVOLUTION(u, kernel, skip, pre_gate, post_gate, first, prepared)
    return y


def circle(length: int, taps: int, first: int) -> int:
    """Samples of the smallest circle on which taps of lags first ... first + taps - 1 do not wrap into [0, L)."""
    return length + max(-first, first + taps - 1, 0)


def respond(kernel: Tensor, length: int, *, first: int = 0) -> Tensor:
    """The response (..., D, 2, M) in float32 of taps (..., D, K) for signals of that length; it has no gradient."""
    response: Tensor = _RESPOND(kernel, length, first)
    return response


class _Given(NamedTuple):
    u: Tensor
    kernel: Tensor
    skip: Tensor | None
    pre_gate: Tensor | None
    post_gate: Tensor | None

    def contiguous(self) -> _Given:
        optional = (None if tensor is None else tensor.detach().contiguous() for tensor in self[2:])
        return _Given(self.u.detach().contiguous(), self.kernel.detach().contiguous(), *optional)

    def points(self, first: int, prepared: bool) -> int:
        return self.kernel.shape[-1] if prepared else points_for(circle(self.u.shape[-1], self.kernel.shape[-1], first))

    def per_row(self, prepared: bool) -> bool:
        return self.kernel.dim() == (4 if prepared else 3)


class _Passes(NamedTuple):
    """The tables and constants of the three passes."""

    chunks: int
    chunk: int
    tiles: int
    leaving: tuple[Tensor, Tensor, Tensor]
    inside: tuple[Tensor, ...]
    outer: dict[str, int]
    inner: dict[str, int]

    @classmethod
    def of(cls, across: Digits, within: Digits, device: torch.device) -> _Passes:
        chunk = within.points
        wide = columns(across, chunk)
        matrices, first, _ = tables(across, _SHIFT, device)
        turns = across_twiddles(across, chunk, _SHIFT, device)
        outer = {"A": across.a, "B": across.b, "R": wide}
        inside = tuple(tables(within, 0.0, device))
        return cls(
            across.points, chunk, chunk // wide, (turns, matrices, first), inside, outer, _digits(within)
        )  # fmt: skip


def _digits(digits: Digits) -> dict[str, int]:
    return {"A": digits.a, "B": digits.b, "C": digits.c}


def _respond(kernel: Tensor, length: int, first: int) -> Tensor:
    taps = kernel.shape[-1]
    points = points_for(circle(length, taps, first))
    assert points <= LONGEST, f"a transform of {points} points is longer than {LONGEST}"
    rows = kernel.detach().flatten(0, -2).contiguous()
    response = torch.empty(rows.shape[0], 2, points, dtype=torch.float32, device=kernel.device)
    device = kernel.device
    cut = split(points)
    if cut is None:
        from spectral_kernels.gated_convolution import kernels

        chip = _digits(ON_CHIP[points])
        turning = tables(ON_CHIP[points], _SHIFT, device)
        run(kernels.respond, rows.shape[0], rows, rows, response, *turning, taps, first, **chip, PRECISION="ieee")
        return response.unflatten(0, kernel.shape[:-1])
    from spectral_kernels.gated_convolution import passes

    plan = _Passes.of(*cut, device)
    run(
        passes.spread_taps, rows.shape[0] * plan.tiles, rows,
        rows, response, *plan.leaving, taps, first, plan.chunk, plan.tiles, **plan.outer, PRECISION="ieee",
    )  # fmt: skip
    run(
        passes.respond_chunks, rows.shape[0] * plan.chunks, rows,
        response, *plan.inside, plan.chunks, **plan.inner, PRECISION="ieee",
    )  # fmt: skip
    return response.unflatten(0, kernel.shape[:-1])


def _forward(*arguments: Any) -> Tensor:
    given, first, prepared = _Given(*arguments[:5]).contiguous(), *arguments[5:]
    u, _, skip, pre, post = given
    batch, dim, length = u.shape
    out = torch.empty_like(u)
    points = given.points(first, prepared)
    has = {"HAS_PRE": pre is not None, "HAS_SKIP": skip is not None}
    rest = {"WIDE": length > points, "PRECISION": PRECISION[u.dtype]}
    cut = split(points)
    if cut is None:
        from spectral_kernels.gated_convolution import kernels

        response = given.kernel if prepared else _respond(given.kernel, length, first)
        run(
            kernels.convolve, batch * dim, u, u, _or(pre, u), _or(post, u), _or(skip, u), response, out,
            *tables(ON_CHIP[points], _SHIFT, u.device), batch, dim, length,
            PER_ROW=given.per_row(prepared), HAS_POST=post is not None, **has, **rest, **_digits(ON_CHIP[points]),
        )  # fmt: skip
        return out
    from spectral_kernels.gated_convolution import passes

    plan = _Passes.of(*cut, u.device)
    for start, response, rows in _blocks(given, points, 1, first, prepared):
        work = torch.empty(rows, 2, points, dtype=torch.float32, device=u.device)
        _spread(passes, plan, u, pre, work, start, rest)
        run(
            passes.convolve_chunks, rows * plan.chunks, u, work, response, *plan.inside, batch, plan.chunks,
            PER_ROW=given.per_row(prepared), **plan.inner, PRECISION=rest["PRECISION"],
        )  # fmt: skip
        run(
            passes.gather_output, rows * plan.tiles, u, work, u, _or(pre, u), _or(skip, u), _or(post, u), out,
            *plan.leaving, batch, dim, start, length, plan.chunk, plan.tiles,
            HAS_FACTOR=post is not None, **has, **rest, **plan.outer,
        )  # fmt: skip
    return out


def _gradients(grad: Tensor, *arguments: Any) -> tuple[Tensor | None, ...]:
    """Gradients of u, kernel, skip, pre_gate and post_gate; the kernel's is None unless it is wanted.

    With g = post grad: the signal's gradient is the correlation of g with the kernel; the kernel's is that of g with
    the signal, summed over rows that share the kernel.
    """
    given, first, prepared, wanted = _Given(*arguments[:5]).contiguous(), *arguments[5:]
    grad = grad.contiguous()
    points = given.points(first, prepared)
    differentiate = _gradients_on_chip if points in ON_CHIP else _gradients_in_passes
    return differentiate(grad, given, points, first, prepared, wanted[1])


def _gradients_on_chip(
    grad: Tensor, given: _Given, points: int, first: int, prepared: bool, to_kernel: bool
) -> tuple[Tensor | None, ...]:
    from spectral_kernels.gated_convolution import kernels

    u, kernel, skip, pre, post = given
    batch, dim, length = u.shape
    per_row = given.per_row(prepared)
    digits = ON_CHIP[points]
    turning = tables(digits, _SHIFT, u.device)
    response = kernel if prepared else _respond(kernel, length, first)
    splits = batch if per_row else min(batch, -(-_PROGRAMS // dim))
    made, to_pre, to_post = torch.empty_like(u), _maybe_empty(pre), _maybe_empty(post)
    to_skip = torch.empty(dim, splits, dtype=torch.float32, device=u.device)
    spectra = torch.empty((dim, splits, 2, points) if to_kernel else 0, dtype=torch.float32, device=u.device)
    run(
        kernels.differentiate, dim * splits, u, grad, u, _or(pre, u), _or(post, u), _or(skip, u), response,
        made, _or(to_pre, u), _or(to_post, u), to_skip, spectra, *turning, batch, dim, length, splits,
        PER_ROW=per_row, HAS_PRE=pre is not None, HAS_POST=post is not None, HAS_SKIP=skip is not None,
        TO_KERNEL=to_kernel, WIDE=length > points, PRECISION=PRECISION[u.dtype], **_digits(digits),
    )  # fmt: skip
    taps = None
    if to_kernel:
        rows = dim * batch if per_row else dim
        taps = torch.zeros(rows, kernel.shape[-1], dtype=kernel.dtype, device=u.device)
        run(
            kernels.collect, rows, u, spectra, taps, *turning, 1 if per_row else splits, kernel.shape[-1], first,
            **_digits(digits), PRECISION=PRECISION[u.dtype],
        )  # fmt: skip
        taps = _as_given(taps, given)
    return made, taps, None if skip is None else to_skip.sum(1).to(skip.dtype), to_pre, to_post


def _gradients_in_passes(
    grad: Tensor, given: _Given, points: int, first: int, prepared: bool, to_kernel: bool
) -> tuple[Tensor | None, ...]:
    from spectral_kernels.gated_convolution import passes

    u, kernel, skip, pre, post = given
    batch, dim, length = u.shape
    per_row, taps = given.per_row(prepared), kernel.shape[-1]
    cut = split(points)
    assert cut is not None
    plan = _Passes.of(*cut, u.device)
    rest = {"WIDE": length > points, "PRECISION": PRECISION[u.dtype]}
    has = {"HAS_PRE": pre is not None, "HAS_SKIP": skip is not None}
    made, to_pre, to_post = torch.empty_like(u), _maybe_empty(pre), _maybe_empty(post)
    to_skip = torch.empty(dim * batch, plan.tiles, dtype=torch.float32, device=u.device)
    to_taps = torch.zeros(dim * batch if per_row else dim, taps, dtype=kernel.dtype, device=u.device)
    for start, response, rows in _blocks(given, points, 3, first, prepared):
        work_x, work_g = torch.empty(2, rows, 2, points, dtype=torch.float32, device=u.device)
        shared = rows if per_row else rows // batch
        work_kernel = torch.empty((shared, 2, points) if to_kernel else 0, dtype=torch.float32, device=u.device)
        _spread(passes, plan, grad, post, work_g, start, rest)
        if to_kernel or post is not None:
            _spread(passes, plan, u, pre, work_x, start, rest)
        run(
            passes.differentiate_chunks, shared * plan.chunks, u, work_x, work_g, work_kernel, response, *plan.inside,
            batch, plan.chunks, PER_ROW=per_row, HAS_POST=post is not None, TO_KERNEL=to_kernel, **plan.inner,
            PRECISION=rest["PRECISION"],
        )  # fmt: skip
        place = (batch, dim, start, length, plan.chunk, plan.tiles)
        if post is not None:
            run(
                passes.gather_output, rows * plan.tiles, u, work_x, u, _or(pre, u), _or(skip, u), grad, to_post,
                *plan.leaving, *place, HAS_FACTOR=True, **has, **rest, **plan.outer,
            )  # fmt: skip
        run(
            passes.gather_source, rows * plan.tiles, u, work_g, grad, _or(post, u), u, _or(pre, u), _or(skip, u), made,
            _or(to_pre, u), to_skip[start * batch :], *plan.leaving, *place,
            HAS_POST=post is not None, **has, **rest, **plan.outer,
        )  # fmt: skip
        if to_kernel:
            here = start * batch if per_row else start
            run(
                passes.gather_taps, shared * plan.tiles, u, work_kernel, to_taps[here:], *plan.leaving, taps, first,
                plan.chunk, plan.tiles, **plan.outer, PRECISION=rest["PRECISION"],
            )  # fmt: skip
    made_taps = _as_given(to_taps, given) if to_kernel else None
    skipped = None if skip is None else to_skip.view(dim, -1).sum(1).to(skip.dtype)
    return made, made_taps, skipped, to_pre, to_post


def _spread(passes: Any, plan: _Passes, x: Tensor, gate: Tensor | None, work: Tensor, start: int, rest: Any) -> None:
    batch, dim, length = x.shape
    run(
        passes.spread, work.shape[0] * plan.tiles, x, x, _or(gate, x), work, *plan.leaving, batch, dim, start, length,
        plan.chunk, plan.tiles, HAS_GATE=gate is not None, **rest, **plan.outer,
    )  # fmt: skip


def _blocks(given: _Given, points: int, works: int, first: int, prepared: bool) -> Iterator[tuple[int, Tensor, int]]:
    """First channel, response and number of rows of blocks of channels whose workspaces are within the limit."""
    batch, dim, length = given.u.shape
    width = max(1, min(dim, _WORK_BYTES // (works * batch * 8 * points)))
    for start in range(0, dim, width):
        channels = slice(start, min(dim, start + width))
        if given.per_row(prepared):
            kernel = given.kernel[:, channels].transpose(0, 1).contiguous()
        else:
            kernel = given.kernel[channels]
        response = kernel if prepared else _respond(kernel, length, first)
        yield start, response, batch * (channels.stop - start)


def _as_given(taps: Tensor, given: _Given) -> Tensor:
    """Rows of taps, channel by channel, in the kernel's shape."""
    if given.kernel.dim() == 2:
        return taps
    batch, dim, count = given.kernel.shape
    return taps.view(dim, batch, count).transpose(0, 1).contiguous()


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    """The tensor, or another's pointer for an absent one, which the kernel does not read."""
    return stand_in if tensor is None else tensor


def _maybe_empty(like: Tensor | None) -> Tensor | None:
    return None if like is None else torch.empty_like(like)


def _respond_fake(kernel: Tensor, length: int, first: int) -> Tensor:
    points = points_for(circle(length, kernel.shape[-1], first))
    return torch.empty(*kernel.shape[:-1], 2, points, dtype=torch.float32, device=kernel.device)


def _forward_fake(u: Tensor, *_: Any) -> Tensor:
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


_ARGUMENTS = "Tensor u, Tensor kernel, Tensor? skip, Tensor? pre_gate, Tensor? post_gate, int first, bool prepared"
_RESPOND = operator(
    "spectral_kernels", "respond(Tensor kernel, int length, int first) -> Tensor", _respond, _respond_fake
)
_CONVOLUTION = differentiable_operator(
    "spectral_kernels",
    f"gated_convolution({_ARGUMENTS}) -> Tensor",
    _forward,
    _forward_fake,
    gradients=_gradients,
    second=refuse_higher_order,
)
