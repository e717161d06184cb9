"""Axes for frequencies, lags and channels: logarithmic cells and readable ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

_MOST_PERIODS = 7


def log_cells(low: float, high: float, count: int) -> Tensor:
    """The edges (count + 1,) of cells evenly spaced in the logarithm."""
    return torch.logspace(math.log10(low), math.log10(high), count + 1, dtype=torch.float64)


def strongest(values: Tensor, at: Tensor, edges: Tensor) -> Tensor:
    """The value of largest magnitude in each cell, or the nearest value to an empty cell: (D, N) -> (D, cells).

    at: (N,) ascending, the places of the values. Keeps narrow peaks, and their phases.
    """
    begin = torch.searchsorted(at, edges[:-1])
    end = torch.searchsorted(at, edges[1:])
    columns = []
    for a, b, centre in zip(begin.tolist(), end.tolist(), (edges[:-1] * edges[1:]).sqrt(), strict=True):
        if a == b:
            nearest = int((at - centre).abs().argmin())
            columns.append(values[:, nearest])
            continue
        peak = values[:, a:b].abs().argmax(-1, keepdim=True)
        columns.append(values[:, a:b].gather(-1, peak)[:, 0])
    return torch.stack(columns, -1)


def log_image(axes: Axes, values: Tensor, low: float, high: float, **how: Any) -> Any:
    """Rows of values (rows, cells[, 3]), their cells from ``low`` to ``high`` on a logarithmic x axis."""
    return _image(axes, values, (math.log10(low), math.log10(high)), how)


def bins_image(axes: Axes, values: Tensor, **how: Any) -> Any:
    """Rows of values (rows, F) on bins evenly spaced from 0 to 0.5 cycles per token, each bin in its middle."""
    half = 0.25 / max(1, values.shape[-1] - 1)
    return _image(axes, values, (-half, 0.5 + half), how)


def _image(axes: Axes, values: Tensor, span: tuple[float, float], how: dict[str, Any]) -> Any:
    """The first row at the bottom; missing values are grey."""
    axes.set_facecolor("0.92")
    return axes.imshow(
        values.numpy(),
        aspect="auto",
        origin="lower",
        extent=(*span, -0.5, values.shape[0] - 0.5),
        interpolation="antialiased",
        interpolation_stage="rgba",
        **how,
    )


def log_frequency(axes: Axes, low: float, *, top: bool, bottom: bool) -> None:
    """The x axis in log10 of cycles per token, from ``low`` to 0.5: frequencies below, periods in tokens above."""
    axes.set_xlim(math.log10(low), math.log10(0.5))
    marks = [mark for mark in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5) if mark >= 0.99 * low]
    labels = [f"{mark:.5f}".rstrip("0") for mark in marks]
    _below(axes, [math.log10(mark) for mark in marks], labels, "frequency (cycles per token)", bottom)
    if top:
        periods = [2 * 4**power for power in range(12) if 0.5 / 4**power >= low]
        periods = periods[:: -(-len(periods) // _MOST_PERIODS)]
        _above(axes, [-math.log10(period) for period in periods], periods)


def linear_frequency(axes: Axes, *, top: bool, bottom: bool) -> None:
    """The x axis in cycles per token, from 0 to 0.5: frequencies below, periods in tokens above."""
    axes.set_xlim(0, 0.5)
    marks = (0, 0.1, 0.2, 0.3, 0.4, 0.5)
    _below(axes, marks, [f"{mark:g}" for mark in marks], "frequency (cycles per token)", bottom)
    if top:
        periods = (2, 3, 4, 8, 32)
        _above(axes, [1 / period for period in periods], periods)


def log_tokens(axes: Axes, high: float, label: str, *, bottom: bool) -> None:
    """The x axis in log10 of tokens, from 1 to ``high``."""
    axes.set_xlim(0, math.log10(high))
    marks = [10**power for power in range(7) if 10**power <= high]
    _below(axes, range(len(marks)), [f"{mark:,}" for mark in marks], label, bottom)


def _below(axes: Axes, places: Sequence[float], labels: Sequence[str], title: str, shown: bool) -> None:
    axes.set_xticks(places, labels if shown else [""] * len(labels))
    if shown:
        axes.set_xlabel(title)


def _above(axes: Axes, places: list[float], periods: tuple[int, ...] | list[int]) -> None:
    above = axes.secondary_xaxis("top")
    above.set_xticks(places, [f"{period:,}" for period in periods])
    above.set_xlabel("period (tokens)")
