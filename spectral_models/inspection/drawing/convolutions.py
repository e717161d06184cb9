"""Plots of kernels: long filters by frequency and lag, short convolutions by their taps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from spectral_models.inspection.drawing.axes import log_cells, log_frequency, log_image, log_tokens, strongest
from spectral_models.inspection.drawing.colours import PHASES, coloured, mark_turns
from spectral_models.inspection.drawing.layout import Grid
from spectral_models.inspection.readings import FilterReading, TapReading, decibels

_CELLS = 240
_RANGE = 60.0
"""Decibels from the largest value to the end of the colour scale."""
_AUDIBLE = 40.0
"""Decibels below the channel's maximum at which phases are drawn as background."""


def draw_filters(readings: Sequence[FilterReading]) -> Figure:
    """Magnitude, phase and taps of each filter; rows of a panel are channels, low frequencies at the bottom."""
    grid = Grid(
        len(readings),
        (4.2, 4.2, 3.6),
        height=2.0,
        title="Long filters: each line is a channel, low-pass channels at the bottom",
    )
    lowest = min(float(reading.frequency[1]) for reading in readings)
    longest = 1.0 + max(reading.kernel.shape[-1] * reading.spacing for reading in readings)
    loudest = max(float(decibels(reading.response.abs()).max()) for reading in readings)
    for row, reading in enumerate(readings):
        magnitude, phase, taps = (grid[row, column] for column in range(3))
        order = reading.centre.argsort()
        low, high = float(reading.frequency[1]), float(reading.frequency[-1])
        response = strongest(reading.response, reading.frequency, log_cells(low, high, _CELLS))[order]
        levels = decibels(response.abs(), loudest - _RANGE)
        loud = log_image(magnitude, levels, low, high, cmap="magma", vmin=loudest - _RANGE, vmax=loudest)
        relative = decibels(response.abs() / response.abs().amax(-1, keepdim=True).clamp(min=1e-300))
        log_image(phase, coloured(response.angle(), 1 + relative / _AUDIBLE), low, high)
        age = (torch.arange(reading.kernel.shape[-1], dtype=torch.float64) + 1) * reading.spacing
        # Up to ``age`` tokens ago; a logarithmic axis has no 0, so the newest token is 1 old.
        held = strongest(reading.kernel, age, log_cells(1, longest, _CELLS))[order].abs()
        held = decibels(held / held.amax(-1, keepdim=True).clamp(min=1e-300))
        held[:, log_cells(1, longest, _CELLS)[:-1] > age[-1]] = math.nan  # not looked at
        large = log_image(taps, held, 1, longest, cmap="magma", vmin=-_RANGE, vmax=0)
        lengths = reading.effective_length[order].double().log10().numpy()
        taps.plot(lengths, range(len(order)), color="cyan", linewidth=0.8)
        for panel in (magnitude, phase):
            log_frequency(panel, lowest, top=grid.is_first(row), bottom=grid.is_last(row))
        log_tokens(taps, longest, "age (tokens; the newest is 1)", bottom=grid.is_last(row))
        for panel in (magnitude, phase, taps):
            panel.set_yticks([])
        magnitude.set_ylabel(f"{len(order)} channels")
        grid.name(row, reading.place, f"a tap every {reading.spacing} tokens" if reading.spacing > 1 else "")
    grid[0, 2].set_title("line: 99 % of the energy", loc="right", fontsize=8)
    grid.scale(0, loud, "magnitude (dB)")
    turns = ScalarMappable(Normalize(-math.pi, math.pi), PHASES)
    mark_turns(grid.scale(1, turns, "phase (rad), grey where faint"))
    grid.scale(2, large, "tap (dB of the channel's largest)")
    return grid.figure


def draw_taps(readings: Sequence[TapReading]) -> Figure:
    """The taps of short convolutions, sorted by their mean lag, and the share of energy at each lag."""
    grid = Grid(len(readings), (6.5, 3.5), height=1.6, title="Short convolutions")
    largest = max(float(reading.taps.abs().max()) for reading in readings)
    for row, reading in enumerate(readings):
        panel, bars = grid[row, 0], grid[row, 1]
        lags = range(reading.taps.shape[-1])
        lag = torch.tensor(lags, dtype=torch.float64)
        power = reading.taps.square()
        middle = (power @ lag) / power.sum(-1).clamp(min=1e-300)
        shown = panel.imshow(
            reading.taps[middle.argsort()].T.numpy(),
            aspect="auto",
            cmap="RdBu_r",
            vmin=-largest,
            vmax=largest,
            interpolation="antialiased",
            interpolation_stage="rgba",
        )
        panel.set_ylabel("lag (tokens)")
        panel.set_yticks(lags)
        panel.set_xticks([0, len(middle) - 1], ["1", f"{len(middle):,}"])
        grid.name(row, reading.place)
        bars.bar(lags, (100 * reading.shares).tolist(), color="tab:blue")
        bars.set(ylim=(0, 100), ylabel="energy (%)")
        bars.set_xticks(lags)
        if grid.is_last(row):
            panel.set_xlabel("channels, from those that look at the present to those that look back")
            bars.set_xlabel("lag (tokens)")
    grid.scale(0, shown, "tap")
    return grid.figure
