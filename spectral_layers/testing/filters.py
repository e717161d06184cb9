"""Checks of filters: a tap depends on its lag only, and recurrences agree with the kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core import convolve
from spectral_core.testing import assert_close, relative_error
from spectral_layers.filters.base import Filter, RecurrentFilter
from spectral_layers.testing.cases import FilterCase, is_limited, is_recurrent
from spectral_layers.testing.check import for_all, normal, only_for
from spectral_layers.testing.gradients import require_parameter_gradients

_BOUND = 1e-9


@for_all
def check_a_tap_depends_on_its_lag_alone(case: FilterCase) -> None:
    """kernel(L1) == kernel(L2)[:, :L1] for short, odd, prime and long lengths, and no kernel is all zero."""
    made = case.build()
    with torch.no_grad():
        longest = made.kernel(_longest(made))
        if not longest.any():
            raise AssertionError(f"{case}: the kernel is all zero, so its law says nothing.")
        for length in (1, 2, 3, 7, 64, 65, 127, 300):
            kernel = made.kernel(length)
            if kernel.shape != (case.channels, length):
                shown = (case.channels, length)
                raise AssertionError(f"{case}: kernel({length}) must be {shown}; got {tuple(kernel.shape)}.")
            what = f"{case}: kernel({length}) against the first taps of kernel({longest.shape[-1]})"
            assert_close(what, kernel, longest[:, :length], _BOUND)


@only_for(lambda case: case.build().support is not None)
def check_taps_beyond_the_support_are_zero(case: FilterCase) -> None:
    """From ``support`` on the kernel is zero; decoding forgets inputs older than that."""
    made = case.build()
    support = made.support
    assert support is not None
    with torch.no_grad():
        # A filter with a length limit is never called beyond it, and then needs no zeros.
        beyond = made.kernel(support + 9)[:, support:]
    if beyond.any():
        raise AssertionError(f"{case}: kernel taps from lag {support} on must be zero, as its support says.")


@only_for(is_limited)
def check_the_kernel_reaches_the_limit(case: FilterCase) -> None:
    """A filter limited to some length is defined up to it."""
    made = case.build()
    limit = made.length_limit
    assert limit is not None
    with torch.no_grad():
        for length in (limit - 1, limit):
            if made.kernel(length).shape[-1] != length:
                raise AssertionError(f"{case}: kernel({length}) must have {length} taps, as its limit is {limit}.")


@for_all
def check_autocast_leaves_the_kernel_alone(case: FilterCase) -> None:
    """Autocast does not change kernels: half precision would lose phases and tails."""
    made = case.build(torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = made.kernel(200)
    assert_close(f"{case}: a kernel made under autocast", rounded, case.build(torch.float32).kernel(200), 1e-6)


@for_all
def check_every_parameter_of_a_filter_learns(case: FilterCase) -> None:
    """In float32 each parameter gets a finite gradient that is not all zero, for one tap and for many."""
    made = case.build(torch.float32)
    for length in (1, 150):
        made.zero_grad()
        weights = normal(case.channels, length, dtype=torch.float32)
        (made.kernel(length) * weights).sum().backward()
        require_parameter_gradients(f"{case}, {length} taps", made, dead=length == 1)


@only_for(is_recurrent)
def check_recurrence_equals_convolution(case: FilterCase) -> None:
    """absorb, carry and step, in chunks, by tokens and for rows of different lengths, agree with the convolution."""
    made = case.build()
    assert isinstance(made, RecurrentFilter)
    u = normal(3, case.channels, case.length)
    with torch.no_grad():
        y = convolve(u, made.kernel(case.length))
        for chunk in (1, 2, 37, 64):
            assert_close(f"{case}: chunks of {chunk}", _in_chunks(made, u, chunk), y, _BOUND)
        lengths = torch.tensor([0, 1, case.length // 2])
        memory = made.absorb(None, u, lengths)
        memory = made.absorb(
            memory, torch.stack([u[row, :, n : n + 9] for row, n in enumerate(lengths)]), lengths * 0 + 9
        )
        for row, start in enumerate((lengths + 9).tolist()):
            rest = u[row : row + 1, :, start : start + 20]
            found = convolve(rest, made.kernel(20)) + made.carry(memory[row : row + 1], 20)
            what = f"{case}: 20 tokens after a row of {start}, absorbed raggedly"
            assert_close(what, found, y[row : row + 1, :, start : start + 20], _BOUND)


@only_for(is_recurrent)
def check_float32_recurrence_keeps_up(case: FilterCase) -> None:
    """In float32, over ``case.length`` tokens, decoding differs from the convolution by at most 1e-4 of its size.

    A recurrence whose angles or powers are float32 is off by 3e-3 at 2 thousand tokens and by 3 at 200 thousand.
    """
    made = case.build(torch.float32)
    assert isinstance(made, RecurrentFilter)
    length = case.length
    u = normal(1, case.channels, length, dtype=torch.float32)
    with torch.no_grad():
        y = convolve(u, made.kernel(length))
        memory = made.absorb(None, u[..., : length // 2], None)
        memory = made.absorb(memory, u[..., length // 2 : length - 8], None)
        outputs = []
        for token in u[..., length - 8 :].unbind(-1):
            out, memory = made.step(memory, token)
            outputs.append(out)
        error = relative_error(torch.stack(outputs, -1), y[..., length - 8 :])
    if not error <= 1e-4:
        raise AssertionError(
            f"{case}: the last of {length} tokens, decoded in float32, are off by {error:.2g} of their size; "
            "at most 1e-4. Take phases and powers in float64, reduced modulo 2 pi."
        )


def _in_chunks(made: RecurrentFilter, u: Tensor, chunk: int) -> Tensor:
    memory, outputs = None, []
    for part in u.split(chunk, -1):
        length = part.shape[-1]
        if memory is not None and length == 1:
            y, memory = made.step(memory, part[..., 0])
            outputs.append(y[..., None])
            continue
        y = convolve(part, made.kernel(length))
        outputs.append(y if memory is None else y + made.carry(memory, length))
        memory = made.absorb(memory, part, None)
    return torch.cat(outputs, -1)


def _longest(made: Filter) -> int:
    return 513 if made.length_limit is None else made.length_limit
