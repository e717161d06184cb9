"""Checks that commands do not overwrite their inputs or write into checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from spectral_core import ConfigError
from spectral_models.checkpoint import find
from spectral_models.errors import CheckpointError
from spectral_models.record import CONFIG
from spectral_models.seal import MARKER

_REMEDY = "Choose another output; nothing was written."


def check_output(output: Path, inputs: Iterable[str | Path | None] = (), *, replaced: bool = False) -> None:
    """Raise ConfigError if writing to ``output`` would change an input or a checkpoint.

    The output may not be an input, by any path or link, nor lie in one or in a checkpoint. replaced: the output is a
    directory that is replaced as a whole, so no input may lie in it. The input of a run's directory is its model;
    inputs that name no file, such as presets and texts, are ignored.
    """
    try:
        target = output.resolve()
        for source in (_input(Path(given)) for given in inputs if given):
            if source is None:
                continue
            if source == target or (target.exists() and source.samefile(target)):
                raise ConfigError(f"{output} is an input. {_REMEDY}")
            if source in target.parents:
                raise ConfigError(f"{output} lies in the input {source}. {_REMEDY}")
            if replaced and target in source.parents:
                raise ConfigError(f"{output} would be replaced, and the input {source} lies in it. {_REMEDY}")
        for folder in (target, *target.parents):
            if (folder / MARKER).is_file() and (folder / CONFIG).is_file() and not (replaced and folder == target):
                raise ConfigError(
                    f"{output} lies in the checkpoint {folder}, which holds nothing else. Choose another output."
                )
    except OSError as error:
        raise ConfigError(f"cannot write to {output}: {error.strerror}. Choose another output.") from None


def _input(path: Path) -> Path | None:
    """The file or directory that a command reads for this path; None if there is none."""
    try:
        return find(path) if path.is_dir() else path.resolve() if path.exists() else None
    except (OSError, ValueError):  # a text, too long for a path
        return None
    except CheckpointError:  # a run that has not finished
        return path.resolve()
