"""Trackers of experiments, by transformers' names for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from spectral_core import ConfigError


def callbacks(names: Sequence[str], logs: Path) -> list[TrainerCallback]:
    """What reports to each tracker. logs: TensorBoard's directory.

    Raises ConfigError for a tracker that transformers does not know, and for one that is not installed or not set up.
    """
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(logs)
    return [_callback(name) for name in names]


def _callback(name: str) -> TrainerCallback:
    try:
        (tracker,) = get_reporting_integration_callbacks([name])
        return tracker()
    except (ValueError, ImportError, RuntimeError) as error:
        raise ConfigError(f"training.trackers: {name!r} cannot be used. {error}") from None
