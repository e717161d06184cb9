"""Results as tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from pydantic_core import to_json as to_json_bytes
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from spectral_models.benchmarks.rows import Row, costs
from spectral_models.benchmarks.settings import Settings


def tables(rows: Sequence[Row], settings: Settings) -> Iterator[RenderableType]:
    """A table for each workload and dtype, and below it the rows without times, with reasons; up to 100 columns."""
    memory = settings.memory
    for (workload, dtype), members in groups(rows):
        title = f"{workload}, {dtype}, batch {settings.batch}, {settings.channels} channels"
        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("tokens", justify="right", no_wrap=True)
        table.add_column("operator", overflow="fold")
        for heading in ("ms", "p20-p80", "time / plain", "95 %", "error", *(["extra MiB"] if memory else [])):
            table.add_column(heading, justify="right", no_wrap=True)
        previous = None
        for row in members:
            table.add_row("" if row.length == previous else f"{row.length:,}", *_cells(row, memory))
            previous = row.length
        yield table
        for note, noted in groupby((row for row in members if row.note), key=lambda row: (row.length, row.note)):
            same = list(noted)
            who = ", ".join(row.name for row in same)
            yield Text(f"{note[0]:,} {who}: {same[0].status}: {note[1]}", style="yellow")
        grown = costs(members)
        if grown:
            shown = ", ".join(f"{cost.name} {cost.growth:.2f} (at {cost.length:,})" for cost in grown)
            yield Text(f"time/(L log L) at the largest length against 8,192 tokens: {shown}")
        yield Text()


def groups(rows: Sequence[Row]) -> list[tuple[tuple[str, str], list[Row]]]:
    """Rows by workload and dtype, in order of first occurrence."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.workload, row.dtype), []).append(row)
    return list(found.items())


def to_json(rows: Sequence[Row], settings: Settings, environment: Mapping[str, Any]) -> str:
    """Environment, settings, rows and growth of cost. Infinite errors are null."""
    document = {
        "environment": environment,
        "settings": {**asdict(settings), "backends": settings.names},
        "rows": rows,
        "costs": costs(rows),
    }
    return to_json_bytes(document, indent=1, inf_nan_mode="null").decode() + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """A line for each row; missing values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(_HEADINGS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flat(row) for row in rows)
    return text.getvalue()


_HEADINGS = (
    *("workload", "dtype", "length", "name", "runs_as", "provider", "status"),
    *("seconds", "seconds_p20", "seconds_p80", "ratio", "ratio_low", "ratio_high", "rounds"),
    *("error", "plain_error", "extra_bytes", "note"),
)


def _flat(row: Row) -> dict[str, Any]:
    plain = [check.plain for check in row.accuracy if check.plain is not None]
    flat: dict[str, Any] = {name: getattr(row, name, None) for name in _HEADINGS}
    flat["plain_error"] = max(plain, default=None)
    for name, suffixes in (("seconds", ("_p20", "_p80")), ("ratio", ("_low", "_high"))):
        value = getattr(row, name)
        if value is not None:
            flat[name], flat[name + suffixes[0]], flat[name + suffixes[1]] = value.median, value.low, value.high
    return flat


def _cells(row: Row, memory: bool) -> list[str | Text]:
    name = row.name if row.runs_as == row.name else f"{row.name} ({row.runs_as})"
    error = "" if row.error is None else f"{row.error:.1e}"
    if row.seconds is None or row.ratio is None:
        return [name, Text(row.status, style="yellow"), "", "", "", Text(error, style="red")]
    times = [_number(value * 1e3) for value in (row.seconds.median, row.seconds.low, row.seconds.high)]
    cells: list[str | Text] = [name, times[0], f"{times[1]}-{times[2]}"]
    if row.name == "plain":
        cells += ["1", ""]
    else:
        style = "green" if row.ratio.high < 1 else "red" if row.ratio.low > 1 else ""
        cells += [Text(_number(row.ratio.median), style=style), f"{_number(row.ratio.low)}-{_number(row.ratio.high)}"]
    extra = [] if not memory else ["" if row.extra_bytes is None else f"{row.extra_bytes / 2**20:,.0f}"]
    return [*cells, error, *extra]


def _number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
