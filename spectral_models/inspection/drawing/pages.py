"""All readings of a model as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spectral_models.inspection.drawing.convolutions import draw_filters, draw_taps
from spectral_models.inspection.drawing.gates import draw_gates
from spectral_models.inspection.drawing.memories import draw_memories, draw_poles
from spectral_models.inspection.readings import (
    FilterReading,
    GateReading,
    MemoryReading,
    PoleReading,
    Reading,
    TapReading,
)

_ROWS = 8
"""Parts per page."""
_KINDS: tuple[tuple[str, type[Reading], Callable[[Any], Figure]], ...] = (
    ("filters", FilterReading, draw_filters),
    ("poles", PoleReading, draw_poles),
    ("memories", MemoryReading, draw_memories),
    ("taps", TapReading, draw_taps),
    ("gates", GateReading, draw_gates),
)


def write_pictures(readings: Sequence[Reading], directory: Path) -> Iterator[tuple[Path, list[Reading]]]:
    """Write ``filters.png``, ``poles.png``, ..., further pages as ``filters-2.png``; yield each with its readings."""
    for name, kind, draw in _KINDS:
        found = [reading for reading in readings if isinstance(reading, kind)]
        for page, begin in enumerate(range(0, len(found), _ROWS), start=1):
            path = directory / (f"{name}.png" if page == 1 else f"{name}-{page}.png")
            shown = found[begin : begin + _ROWS]
            draw(shown).savefig(path, dpi=110)
            yield path, shown
