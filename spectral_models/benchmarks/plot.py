"""Plots results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from spectral_models.benchmarks.report import groups
from spectral_models.benchmarks.rows import Row


def plot_ratios(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Time relative to plain over length, a panel for each workload and dtype, as a PNG. Bars: 95 % intervals."""
    panels = groups(rows)
    figure = Figure(figsize=(1.5 + 4.5 * max(1, len(panels)), 4.8), layout="constrained")
    names = list(dict.fromkeys(row.name for row in rows if row.name != "plain"))
    handles = {}
    grid = figure.subplots(1, max(1, len(panels)), squeeze=False, sharey=True)
    for axes, ((workload, dtype), members) in zip(grid[0], panels, strict=False):
        for index, name in enumerate(names):
            line = [(row.length, row.ratio) for row in members if row.name == name and row.ratio is not None]
            if not line:
                continue
            middle = [ratio.median for _, ratio in line]
            below = [max(0.0, ratio.median - ratio.low) for _, ratio in line]
            above = [max(0.0, ratio.high - ratio.median) for _, ratio in line]
            handles[name] = axes.errorbar(
                *([length for length, _ in line], middle), yerr=[below, above], color=f"C{index}", marker="o", capsize=3
            )
        handles["plain torch.fft"] = axes.axhline(1.0, color="0.3", linestyle="--", linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="tokens", title=f"{workload}, {dtype}")
        lengths = sorted({row.length for row in members})
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths], rotation=45, ha="right")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(alpha=0.3)
    grid[0][0].set_ylabel("time relative to plain (lower is faster)")
    figure.suptitle(title, fontsize=10)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    figure.savefig(path, dpi=120)
