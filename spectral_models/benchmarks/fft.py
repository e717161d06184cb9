"""``spectral bench fft``: causal convolution by every backend beside plain torch.fft and causal attention."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from spectral_models.benchmarks import memory
from spectral_models.benchmarks.accuracy import Accuracy, Reference, check_attention
from spectral_models.benchmarks.contestants import Attention, Contestant, Plain, contestant
from spectral_models.benchmarks.measure import Stopwatch, paired_ratio, spread
from spectral_models.benchmarks.problem import Problem, Shape, Task, Workload
from spectral_models.benchmarks.rows import Row
from spectral_models.benchmarks.settings import Settings

Progress = Callable[[str], None]


def measure(settings: Settings, progress: Progress = lambda line: None) -> Iterator[Row]:
    """Yields rows as they are measured, the shortest signals first. progress: called with each next step."""
    for dtype in settings.dtypes:
        for length in settings.lengths:
            shape = Shape(
                batch=settings.batch, channels=settings.channels, length=length, dtype=dtype, device=settings.device
            )
            problem = functools.cache(functools.partial(Problem.make, shape))
            for workload in settings.workloads:
                yield from _Comparison(shape, workload, settings, progress).rows(problem)


class _Comparison:
    """All contestants on one problem: checks memory, support and accuracy first, and then measures times."""

    def __init__(self, shape: Shape, workload: Workload, settings: Settings, progress: Progress) -> None:
        self._shape = shape
        self._workload = workload
        self._settings = settings
        self._report = progress
        self._tasks: dict[str, Task] = {}

    def rows(self, make: Callable[[], Problem]) -> list[Row]:
        """The rows of all contestants. make: returns the problem, if it fits the memory."""
        note = memory.shortage(self._shape, self._workload)
        if note is not None:
            self._progress(f"skipped: {note}")
            return [self._row(name, status="skipped", note=note) for name in (Plain.name, *self._settings.names)]
        self._problem = make()
        self._progress("checking against float64")
        reference = Reference(self._problem, self._workload)
        plain: dict[str, float] = {}

        def yardstick(results: dict[str, Any]) -> list[Accuracy]:
            plain.update(reference.errors(results))
            return reference.yardstick(plain)

        rows = [self._enter(Plain.name, yardstick)]
        if rows[0].status != "measured":
            self._progress(f"{rows[0].status}: {rows[0].note}")
            note = f"plain, which sets the bound, is {rows[0].status}"
            return [*rows, *(self._row(name, status="skipped", note=note) for name in self._settings.names)]

        def judge(results: dict[str, Any]) -> list[Accuracy]:
            return reference.judge(reference.errors(results), plain)

        rows += [self._enter(name, judge) for name in self._settings.names]
        if self._workload != "training":
            rows.append(self._attention())
        return self._time(rows)

    def _attention(self) -> Row:
        limit = self._settings.attention_limit
        if self._shape.length > limit:
            note = f"its work grows with the square of the length; it is run up to {limit:,} tokens"
            return self._row(Attention.name, status="skipped", note=note)
        return self._enter(Attention.name, functools.partial(check_attention, self._problem))

    def _enter(self, name: str, check: Callable[[dict[str, Any]], list[Accuracy]]) -> Row:
        """The contestant's row, without times; its task is kept for timing if every result is accurate."""
        shape, workload = self._shape, self._workload
        try:
            who = contestant(name)
        except Exception as error:  # a plugin that does not load or build
            return self._row(name, status="failed", note=f"{type(error).__name__}: {error}")
        row = functools.partial(self._row, who)
        try:
            reasons = who.refusals(shape, workload)
            if reasons:
                return row(status="unsupported", note="; ".join(reasons))
            task = who.task(self._problem, workload)
            accuracy = tuple(check(task()))
            runs_as = who.runs_as(shape, workload)
        except Exception as error:  # whatever a third party's backend raises is its row's note, not the end
            return row(status="failed", note=f"{type(error).__name__}: {error}")
        wrong = [str(one) for one in accuracy if not one.passed]
        if wrong:
            note = f"{'; '.join(wrong)}: no time is given for a wrong result"
            return row(status="inaccurate", accuracy=accuracy, runs_as=runs_as, note=note)
        self._tasks[name] = task
        return row(status="measured", accuracy=accuracy, runs_as=runs_as)

    def _time(self, rows: list[Row]) -> list[Row]:
        stopwatch = Stopwatch(self._tasks, _synchronizer(self._shape.device))
        count = self._settings.rounds_within(stopwatch.round_seconds)
        estimate = stopwatch.round_seconds * count
        self._progress(f"timing {len(self._tasks)} operators in {count} rounds, about {estimate:.0f} s")
        seconds = stopwatch.rounds(count)
        timed = []
        for row in rows:
            if row.name in seconds:
                ratio = paired_ratio(seconds[row.name], seconds[Plain.name])
                row = replace(row, seconds=spread(seconds[row.name]), ratio=ratio, rounds=count)
                row = self._with_memory(row) if self._settings.memory else row
            timed.append(row)
        return timed

    def _with_memory(self, row: Row) -> Row:
        self._progress(f"peak memory of {row.name}")
        try:
            return replace(row, extra_bytes=memory.extra_bytes(row.name, self._shape, self._workload))
        except RuntimeError as error:
            return replace(row, note=str(error))

    def _progress(self, line: str) -> None:
        self._report(f"{self._workload}, {self._shape.dtype}, {self._shape.length:,} tokens: {line}")

    def _row(self, who: Contestant | str, **fields: Any) -> Row:
        name, provider = (who, "") if isinstance(who, str) else (who.name, who.provider)
        fields = {"runs_as": name, "workload": self._workload, "dtype": self._shape.dtype, **fields}
        return Row(length=self._shape.length, name=name, provider=provider, **fields)


def _synchronizer(device: str) -> Callable[[], None]:
    if torch.device(device).type == "cuda":
        return functools.partial(torch.cuda.synchronize, device)
    return lambda: None
