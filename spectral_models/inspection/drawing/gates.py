"""Plots of gates and sparsities on a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from spectral_models.inspection.drawing.axes import bins_image, linear_frequency
from spectral_models.inspection.drawing.colours import PHASES, mark_turns
from spectral_models.inspection.drawing.layout import Grid
from spectral_models.inspection.readings import GateReading, decibels

_FLOOR = -40.0


def draw_gates(readings: Sequence[GateReading]) -> Figure:
    """Requested and realised gains by head, one head over the text, and its last block; kept bins, requested phases.

    By head: means over the blocks of the text. The single head is the one whose realised gain varies most.
    """
    extra = [name for name in ("kept", "phase") if any(getattr(reading, name) is not None for reading in readings)]
    title = "Gates on a text: what they ask for, and what the mixer realises"
    grid = Grid(len(readings), (3.2, 3.2, 3.2, 3.2, *[3.2 for _ in extra]), height=2.0, title=title)
    means = [_level(gain) for reading in readings for gain in (reading.asked, reading.realised) if gain is not None]
    passing = torch.cat([mean[mean > _FLOOR + 1].abs() for mean in means])
    reach = max(6.0, float(passing.quantile(0.98))) if passing.numel() else -_FLOOR
    how = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
    for row, reading in enumerate(readings):
        made = reading.asked if reading.realised is None else reading.realised
        head = int(decibels(made, _FLOOR).std(-1).mean(0).argmax()) if made.shape[-1] > 1 else 0
        shown = _heads(grid[row, 0], _level(reading.asked), **how)
        grid.name(row, reading.place)
        if reading.realised is None or reading.frequency is None:
            _nothing(grid[row, 1], "the mixer does not say")
        else:
            _heads(grid[row, 1], _level(reading.realised), **how)
        at = reading.bins if reading.frequency is None else reading.frequency
        bins_image(grid[row, 2], decibels(made[:, head], _FLOOR), **how)
        grid[row, 2].set_ylabel("block of the text")
        grid[row, 2].yaxis.set_major_locator(MaxNLocator(4, integer=True))
        _last_block(grid[row, 3], reading, at, made, head)
        for column, name in enumerate(extra, start=4):
            panel, field = grid[row, column], getattr(reading, name)
            if field is None:
                _nothing(panel, "none")
            elif name == "kept":
                kept = _heads(panel, 100 * field.mean(0), cmap="Greens", vmin=0, vmax=100)
            else:
                turn = _heads(panel, field.mean(0), cmap=PHASES, vmin=-math.pi, vmax=math.pi)
        for column in range(4 + len(extra)):
            linear_frequency(grid[row, column], top=grid.is_first(row), bottom=grid.is_last(row))
    _key(grid, 3)
    for column, what in enumerate(("asked for", "realised", "realised, one head")):
        grid.scale(column, shown, f"gain {what} (dB)")
    for column, name in enumerate(extra, start=4):
        if name == "kept":
            grid.scale(column, kept, "blocks in which a bin is kept (%)")
        else:
            mark_turns(grid.scale(column, turn, "phase asked for (rad)"))
    return grid.figure


def _level(gain: Tensor) -> Tensor:
    """Decibels (H, F) of the mean over blocks."""
    return decibels(gain.mean(0), _FLOOR)


def _heads(panel: Axes, values: Tensor, **how: Any) -> Any:
    shown = bins_image(panel, values, **how)
    panel.set_ylabel("head")
    panel.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    return shown


def _last_block(panel: Axes, reading: GateReading, at: Tensor, made: Tensor, head: int) -> None:
    """Lines of one head's gains in the last block; marks below where its bins are kept."""
    asked = decibels(reading.asked[-1, head], _FLOOR)
    panel.plot(reading.bins.tolist(), asked.tolist(), color="0.6", drawstyle="steps-mid", label="asked for")
    if reading.realised is not None:
        levels = decibels(made[-1, head], _FLOOR)
        panel.plot(at.tolist(), levels.tolist(), color="tab:blue", linewidth=1.2, label="realised")
    if reading.kept is not None:
        bins = reading.bins[reading.kept[-1, head] > 0].tolist()
        panel.plot(bins, [_FLOOR] * len(bins), "|", color="tab:green", markersize=7, label="kept")
    panel.set(ylim=(min(-10.0, panel.get_ylim()[0]), max(10.0, panel.get_ylim()[1])), ylabel="gain (dB)")
    panel.set_title(f"head {head}, last block", loc="right", fontsize=8)
    panel.grid(alpha=0.3)


def _key(grid: Grid, column: int) -> None:
    """The legend of a column, at the place of the other columns' colour bars."""
    named: dict[str, Any] = {}
    for row in range(grid.rows):
        handles, labels = grid[row, column].get_legend_handles_labels()
        named.update(zip(labels, handles, strict=True))
    key = grid[grid.rows - 1, column].legend(
        named.values(), named.keys(), loc="upper center", bbox_to_anchor=(0.5, -0.42), ncols=3, fontsize=8
    )
    key.set_in_layout(False)


def _nothing(panel: Axes, why: str) -> None:
    panel.set_facecolor("0.92")
    panel.set_yticks([])
    panel.text(0.5, 0.5, why, ha="center", va="center", color="0.4", transform=panel.transAxes)
