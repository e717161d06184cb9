"""The perturbations of the causality check: lengths, positions, batches, dtypes and modes.

Changing the tokens of a row from p on must not change its logits before p. A leak from token j to i < j shows at every
p with i < p <= j: a far-reaching one at almost any p, but one of a single token at p = j only. So every p is tried,
each in another row of a batch.

Crossing every p with every dtype, mode and batch would take minutes. Instead each p up to 257 tokens is tried twice, in
two settings that differ in dtype, in mode and in whether gradients are recorded. Each value of each of the three is
therefore tried at every p, and most pairs of values at every block size. If the model streams, one of the two is its
stream: no token in a stream can see a later one, so a full pass that equals it has no leak.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

SHORT = 257
LONG = 2049
"""The longest sequence."""
_DENSE = 33
"""A short sequence, tried in all settings."""


class Setting(NamedTuple):
    """The settings of a call."""

    dtype: torch.dtype
    training: bool
    grad: bool

    @property
    def opposite(self) -> Setting:
        """The setting that differs in everything."""
        dtype = torch.float32 if self.dtype == torch.float64 else torch.float64
        return Setting(dtype, not self.training, not self.grad)

    def __str__(self) -> str:
        grad = "recorded" if self.grad else "not recorded"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{dtype}, {'training' if self.training else 'evaluation'} mode, gradients {grad}"


@dataclass(frozen=True)
class Case:
    """One unchanged batch, and the changed batches that are compared with it.

    starts: for each changed batch, the first changed token of each row; ``length`` for an unchanged row.
    """

    setting: Setting
    length: int
    starts: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> int:
        return len(self.starts[0])


_DOUBLE = tuple(Setting(torch.float64, training, grad) for training in (True, False) for grad in (False, True))
_SETTINGS = tuple(setting for double in _DOUBLE for setting in (double, double.opposite))


STREAM = Setting(torch.float64, training=False, grad=False)
"""The setting in which full passes are compared with a stream."""


def first_cases(limit: int) -> Iterator[Case]:
    """A short sequence in all settings, which most leaks show in."""
    for setting in _SETTINGS:
        yield _batch(setting, min(_DENSE, limit))
        yield _single(setting, min(_DENSE, limit))


def short_cases(limit: int, *, streams: bool) -> Iterator[Case]:
    """Sequences of at most 257 tokens. limit: the model's longest. streams: see :func:`_sweep`."""
    for index, length in enumerate(lengths_around_powers(limit, last=SHORT)):
        setting = _SETTINGS[index % len(_SETTINGS)]
        if length > SHORT // 2 and setting.dtype == torch.float64:
            setting = setting.opposite  # nine rows in float64 would cost four times as much
        yield _batch(setting, length)
        yield _single(setting.opposite, length)
        if length < SHORT // 2:
            yield _batch(setting.opposite, length)
            yield _single(setting, length)
    yield from _sweep(limit, streams=streams)


def _sweep(limit: int, *, streams: bool) -> Iterator[Case]:
    """Every position, twice: in float64 in sequences that end shortly after it, in float32 in long ones.

    streams: whether a stream covers every position in the float64 setting, which is then left out.
    """
    for index, first in enumerate(range(1, min(SHORT, limit), 32)):
        double = STREAM if streams else _DOUBLE[(index + index // 4) % 4]
        positions = range(first, min(first + 32, limit))
        if not streams:
            yield _rows_of(double, positions, positions.stop)
        yield _rows_of(double.opposite, positions, min(SHORT, limit))


def long_cases(limit: int, *, positions: bool) -> Iterator[Case]:
    """Sequences of 511 to 2049 tokens.

    positions: whether positions at which blocks of other sizes may end are tried too.
    """
    settings = (*_SETTINGS[1::2], *_SETTINGS[::2])  # float32 first: it costs a quarter
    lengths = lengths_around_powers(limit, first=SHORT + 1)
    for index, length in enumerate(lengths):
        yield _single(settings[index % len(settings)], length)
    for length in (length for length in (513, 1025) if length in lengths):
        yield _batch(_SETTINGS[1 if length == 513 else 3], length)
    if not positions or limit <= SHORT:
        return
    ends = [end for end in range(SHORT + 256, LONG + 1, 256) if end < limit] + [min(limit, LONG)]
    first = SHORT
    for index, end in enumerate(ends):
        here = [position for position in around_blocks() if first <= position < end]
        single = _SETTINGS[1::2][index % 4]
        if here:
            yield Case(single, end, tuple((position,) for position in here))
            edges = [position for position in here if position % 256 == 0]
            if edges:
                yield Case(single.opposite, end, tuple((position,) for position in edges))
        first = end


def lengths_around_powers(limit: int, *, first: int = 1, last: int = LONG) -> list[int]:
    """A power of two, one less and one more, and the limit where there is one."""
    around = {2**power + offset for power in range(1, 12) for offset in (-1, 0, 1)} | {limit}
    return sorted(length for length in around if first <= length <= min(last, limit))


def around_blocks() -> list[int]:
    """From 257 tokens on: multiples of 64, 96 and 100, beyond 1025 of 128, 192 and 100, and their neighbours."""
    centres = {m for step in (64, 96, 100) for m in range(step, 1026, step)}
    centres |= {m for step in (128, 192, 100) for m in range(step, LONG, step)}
    return sorted({centre + offset for centre in centres for offset in (-1, 0, 1)})


def _batch(setting: Setting, length: int) -> Case:
    """Nine rows; the middle one, which a part may mix with either neighbour, is unchanged."""
    spread = (1, length // 4, length // 3, length // 2, 2, 3 * length // 4, length - 2, length - 1)
    starts = [min(max(0, start), length - 1) for start in spread]
    return Case(setting, length, ((*starts[:4], length, *starts[4:]),))


def _single(setting: Setting, length: int) -> Case:
    """One row, changed from the middle on and at the end."""
    starts = sorted({length // 2, length - 1} - {0}) or [0]
    return Case(setting, length, tuple((start,) for start in starts))


def _rows_of(setting: Setting, positions: range, length: int) -> Case:
    """A position per row, in batches of eight; the remaining rows of the last are unchanged."""
    padded = [*positions, *[length] * (-len(positions) % 8)]
    return Case(setting, length, tuple(tuple(padded[start : start + 8]) for start in range(0, len(padded), 8)))
