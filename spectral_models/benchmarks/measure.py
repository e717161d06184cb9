"""Paired, interleaved times and their statistics.

The noise of a shared machine varies over seconds. Contestants therefore take turns (A B C A B C …), and ratios are
formed within a round, under the same noise, before the median is taken.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TURN_SECONDS = 5e-3
"""Short tasks are repeated for about this long in a turn, so that the costs of clock and call are negligible."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and an interval."""

    median: float
    low: float
    high: float


class Stopwatch:
    """Times tasks in turns. synchronize: waits for the device."""

    def __init__(self, tasks: Mapping[str, Callable[[], Any]], synchronize: Callable[[], None] = lambda: None) -> None:
        self._tasks = tasks
        self._synchronize = synchronize
        self._repeats = dict.fromkeys(tasks, 1)
        once = {name: self._turn(name) for name in tasks}  # after the accuracy check, a second warm-up
        self._repeats = {name: max(1, min(100, math.ceil(TURN_SECONDS / once[name]))) for name in tasks}
        self.round_seconds = sum(once[name] * self._repeats[name] for name in tasks)

    def rounds(self, count: int) -> dict[str, list[float]]:
        """Seconds per call, one value a round for each task."""
        seconds: dict[str, list[float]] = {name: [] for name in self._tasks}
        gc.collect()
        enabled = gc.isenabled()
        gc.disable()
        try:
            for _ in range(count):
                for name, taken in seconds.items():
                    taken.append(self._turn(name))
        finally:
            if enabled:
                gc.enable()
        return seconds

    def _turn(self, name: str) -> float:
        task, repeats = self._tasks[name], self._repeats[name]
        self._synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            task()
        self._synchronize()
        return (time.perf_counter() - start) / repeats


def spread(values: Sequence[float]) -> Spread:
    """The median with the 20th and 80th percentile."""
    low, median, high = np.percentile(values, [20, 50, 80])
    return Spread(float(median), float(low), float(high))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The median of the ratios round by round, with its 95 % bootstrap interval (2,000 seeded resamples)."""
    ratios = np.asarray(ours) / np.asarray(theirs)
    drawn = np.random.default_rng(0).choice(ratios, size=(2000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return Spread(float(np.median(ratios)), float(low), float(high))
