"""Where commands may write: never over what they read, and never into a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from spectral_core import ConfigError
from spectral_models.checkpoint import find
from spectral_models.errors import CheckpointError
from spectral_models.record import CONFIG
from spectral_models.seal import MARKER


def check_output(output: Path, inputs: Iterable[str | Path | None] = (), *, replaced: bool = False) -> None:
    """Raise ConfigError where writing to ``output`` would change an input or a checkpoint; before any work.

    The output may be none of the inputs, by whatever path or link; nor lie in one, or in any checkpoint. replaced: it
    is a directory that is replaced as a whole, so that no input may lie in it. An input that is a run's directory
    stands for the model in it; what names no file, as a preset or a text, is none.
    """
    try:
        target = output.resolve()
        for source in (_found(Path(given)) for given in inputs if given):
            if source is None:
                continue
            if source == target or (target.exists() and source.samefile(target)):
                raise ConfigError(f"{output} is what is read. Choose another output; nothing was written.")
            if source in target.parents:
                raise ConfigError(
                    f"{output} lies in {source}, which is read. Choose an output outside of it; nothing was written."
                )
            if replaced and target in source.parents:
                raise ConfigError(
                    f"{output} would be replaced, and {source} in it is read. Choose another output; nothing was "
                    "written."
                )
        for folder in (target, *target.parents):
            if (folder / MARKER).is_file() and (folder / CONFIG).is_file() and not (replaced and folder == target):
                raise ConfigError(
                    f"{output} lies in the checkpoint {folder}, which holds nothing else. Choose another output."
                )
    except OSError as error:
        raise ConfigError(f"cannot write to {output}: {error.strerror}. Choose another output.") from None


def _found(path: Path) -> Path | None:
    """What is read where a user names this path; None where there is nothing."""
    try:
        return find(path) if path.is_dir() else path.resolve() if path.exists() else None
    except (OSError, ValueError):  # a text, too long for a path
        return None
    except CheckpointError:  # a run that has not finished
        return path.resolve()
