"""Silences log messages and progress bars of other libraries."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly(*loggers: str) -> Iterator[None]:
    """Limits these loggers to errors."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def without_bars() -> Iterator[None]:
    """Disables the progress bars of datasets and huggingface_hub, which fill log files."""
    import datasets
    import huggingface_hub.utils

    shown = [library for library in (datasets, huggingface_hub.utils) if not library.are_progress_bars_disabled()]
    try:
        for library in shown:
            library.disable_progress_bars()
        yield
    finally:
        for library in shown:
            library.enable_progress_bars()
