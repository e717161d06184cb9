"""Figures of small multiples: a row for each part, a column with its scale for each property."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullLocator

from spectral_models.inspection.readings import Place


class Grid:
    """Panels ``grid[row, column]`` of one figure. widths: of the columns, in inches; height: of a row."""

    def __init__(self, rows: int, widths: Sequence[float], *, height: float, title: str) -> None:
        self.figure = Figure(
            figsize=(sum(widths) + 0.8, rows * height + 1.9), layout=ConstrainedLayoutEngine(hspace=0.04, wspace=0.03)
        )
        self._axes = self.figure.subplots(rows, len(widths), squeeze=False, width_ratios=list(widths))
        self.rows = rows
        self.figure.suptitle(title, fontsize=12)

    def __getitem__(self, at: tuple[int, int]) -> Axes:
        axes: Axes = self._axes[at]
        return axes

    def is_first(self, row: int) -> bool:
        return row == 0

    def is_last(self, row: int) -> bool:
        return row == self.rows - 1

    def name(self, row: int, place: Place, more: str = "") -> None:
        """The row's part, over its first panel."""
        text = f"layer {place.layer}   {place.of_layer}" + (f", {more}" if more else "")
        self[row, 0].set_title(text, loc="left", fontsize=9, fontweight="bold")

    def scale(self, column: int, drawn: Any, label: str) -> Any:
        """A colour bar under a column, for all of its panels."""
        bar = self.figure.colorbar(
            drawn,
            ax=self._axes[:, column],
            location="bottom",
            label=label,
            aspect=30,
            fraction=0.3 / self.rows,
            pad=0.02 / self.rows,
        )
        bar.ax.xaxis.set_minor_locator(NullLocator())
        return bar
