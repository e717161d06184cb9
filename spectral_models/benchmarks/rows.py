"""Rows of results, and the growth of cost that follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spectral_models.benchmarks.accuracy import Accuracy
from spectral_models.benchmarks.measure import Spread
from spectral_models.benchmarks.problem import Workload

COST_BASE = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contestant at one length. Only a ``measured`` row, which passed every check, has times.

    status: measured; inaccurate: a result missed its bound; unsupported: the backend refuses, with its reasons;
    failed: it raised; skipped: not tried. runs_as: the backend that ran, if it was delegated to.
    seconds: per call, over rounds. ratio: to plain, round by round. extra_bytes: peak beyond inputs and results.
    """

    workload: Workload
    dtype: str
    length: int
    name: str
    provider: str
    runs_as: str
    status: Literal["measured", "inaccurate", "unsupported", "failed", "skipped"]
    note: str = ""
    accuracy: tuple[Accuracy, ...] = ()
    seconds: Spread | None = None
    ratio: Spread | None = None
    rounds: int = 0
    extra_bytes: int | None = None

    @property
    def error(self) -> float | None:
        """The largest relative error of its results."""
        return max((check.error for check in self.accuracy), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """How time over L log2 L at the largest length compares to the same at 8,192 tokens: 1 is ideal growth."""

    workload: Workload
    dtype: str
    name: str
    length: int
    growth: float


def costs(rows: Sequence[Row]) -> list[Cost]:
    """One for each contestant that was measured at 8,192 tokens and beyond."""
    made = []
    for base in rows:
        if base.length != COST_BASE or base.seconds is None:
            continue
        key = (base.workload, base.dtype, base.name)
        same = [row for row in rows if (row.workload, row.dtype, row.name) == key and row.seconds is not None]
        largest = max(same, key=lambda row: row.length)
        if largest.length > COST_BASE and largest.seconds is not None:
            growth = _unit(largest.seconds, largest.length) / _unit(base.seconds, base.length)
            made.append(
                Cost(workload=base.workload, dtype=base.dtype, name=base.name, length=largest.length, growth=growth)
            )
    return made


def _unit(seconds: Spread, length: int) -> float:
    return seconds.median / (length * math.log2(length))
