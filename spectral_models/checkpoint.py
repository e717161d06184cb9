"""Checkpoints: a directory that is whole or is not there.

===================  =====================================================================================
config.json          schema version, framework version, the model's config, provider and version of its parts
model.safetensors    all parameters and buffers, under the model's own names
complete.json        size and SHA-256 of the other two; written last
===================  =====================================================================================

Files are written to a temporary directory beside the target, synced, and renamed into place; a reader never sees
half a checkpoint, and an interrupted save leaves the one before it. ``config.json`` is also a Hugging Face config.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from spectral_core import ConfigError, PluginError, __version__
from spectral_core.plugins import HOST
from spectral_models.assembly import build_model, components_of, parse_model
from spectral_models.config import ModelConfig
from spectral_models.errors import CheckpointError
from spectral_models.model import SpectralModel

SCHEMA_VERSION = 1
CONFIG, WEIGHTS, MARKER = "config.json", "model.safetensors", "complete.json"


def save_checkpoint(model: SpectralModel, path: str | Path) -> Path:
    """Write a model and its config to the directory ``path``, replacing a checkpoint that is there.

    Raises CheckpointError when the disk is full or the path cannot be written; what was there before is kept.
    """
    target = Path(path)
    if target.exists() and not (target / CONFIG).exists() and any(target.iterdir() if target.is_dir() else [target]):
        raise CheckpointError(f"{target} exists and is not a checkpoint. Choose another path; nothing was overwritten.")
    temporary = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write_files(model, temporary)
        _swap(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"could not save to {target}: {error.strerror or error}. Free space or choose another path; "
            "a checkpoint that was there before is untouched."
        ) from error
    return target


def load_checkpoint(path: str | Path, *, device: str | torch.device = "cpu", **overrides: Any) -> SpectralModel:
    """The model saved at ``path``, in eval mode. A run's directory stands for the model it finished with.

    overrides: config values to replace, as in :func:`build_model`, where the weights still fit: ``fft="hierarchical"``.

    Raises CheckpointError for a directory that is missing, incomplete, tampered with or of a newer schema, and
    PluginError naming the package to install when a part's provider is missing.
    """
    directory = find(Path(path))
    verify(directory)
    model = build_model(_config(read_record(directory), directory), **overrides)
    load_weights(model, directory)
    return model.to(device).eval()


def write_files(model: SpectralModel, directory: Path) -> None:
    """The three files of a checkpoint, synced, the marker last."""
    (directory / CONFIG).write_text(json.dumps(make_record(model.config), indent=2) + "\n", encoding="utf-8")
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    write_marker(directory, MARKER, [CONFIG, WEIGHTS])


def write_marker(directory: Path, name: str, files: Iterable[str]) -> None:
    """Sync files, then write the marker that says they are all there, each with its size and SHA-256."""
    entries = {}
    for file in files:
        _sync(directory / file)
        entries[file] = {"bytes": (directory / file).stat().st_size, "sha256": _digest(directory / file)}
    marker = directory / name
    marker.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    _sync(marker)
    _sync(directory)


def verify(directory: Path, marker: str = MARKER) -> None:
    """Raise CheckpointError unless every file is what the marker says."""
    try:
        entries: dict[str, dict[str, Any]] = json.loads((directory / marker).read_text(encoding="utf-8"))
        for file, entry in entries.items():
            size = (directory / file).stat().st_size
            if size != entry["bytes"]:
                raise CheckpointError(
                    f"{directory / file} is truncated or changed: {size} bytes, not {entry['bytes']}. "
                    "Use another checkpoint, or copy this one again."
                )
            if _digest(directory / file) != entry["sha256"]:
                raise CheckpointError(
                    f"{directory / file} was changed after it was saved (its SHA-256 differs). "
                    "Use another checkpoint, or copy this one again."
                )
    except OSError as error:
        name = Path(error.filename).name if error.filename else marker
        raise CheckpointError(
            f"{directory} is not a complete checkpoint: {name} is missing or unreadable. "
            "Saving was interrupted, or the path is wrong."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        raise CheckpointError(f"{directory / marker} is damaged. Use another checkpoint.") from None


def find(path: Path) -> Path:
    """The checkpoint directory a user means by ``path``: itself, or the ``model`` inside a run's directory."""
    previous = path.with_name(f".{path.name}.previous")
    if not path.exists() and previous.exists():
        previous.rename(path)  # a save was interrupted between its two renames
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint directory at {path}.")
    if not (path / CONFIG).exists() and ((path / "model").is_dir() or (path / ".model.previous").is_dir()):
        return find(path / "model")
    return path


def make_record(config: ModelConfig) -> dict[str, Any]:
    """What config.json holds."""
    components = [
        {"kind": part.kind, "name": part.name, "provider": part.provider, "version": part.version}
        for part in components_of(config)
    ]
    return {
        "model_type": "spectral",
        "schema_version": SCHEMA_VERSION,
        "framework_version": __version__,
        "spectral": config.model_dump(mode="json"),
        "components": components,
    }


def read_record(directory: Path) -> dict[str, Any]:
    """config.json, checked for its schema."""
    try:
        record = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{directory / CONFIG} is missing or damaged. Use another checkpoint.") from None
    if not isinstance(record, dict) or "schema_version" not in record:
        raise CheckpointError(f"{directory / CONFIG} is not a checkpoint's config.")
    if record["schema_version"] != SCHEMA_VERSION:
        raise CheckpointError(
            f"{directory / CONFIG} has schema version {record['schema_version']!r}; this release ({__version__}) reads "
            f"{SCHEMA_VERSION}. Install release {record.get('framework_version', 'unknown')}, which wrote it."
        )
    return record


def load_weights(model: SpectralModel, directory: Path) -> None:
    """Parameters and buffers from a checkpoint's weights file, every name and shape as in the model."""
    try:
        model.load_state_dict(load_file(directory / WEIGHTS))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{directory / WEIGHTS} does not fit its config: {error}") from error


def _config(record: Mapping[str, Any], directory: Path) -> ModelConfig:
    for part in record.get("components", []):
        registry = HOST.registries.get(part["kind"])
        entry = registry.get(part["name"]) if registry is not None and part["name"] in registry else None
        if entry is None:
            failed = [str(failure) for failure in HOST.failures() if failure.distribution == part["provider"]]
            raise PluginError(
                f"{directory} uses the {part['kind']} {part['name']!r} of the package {part['provider']} "
                f"{part['version']}, which "
                + (f"is installed but {failed[0]}." if failed else "is not installed here.")
                + f" Run: pip install '{part['provider']}=={part['version']}'"
            )
        if (entry.provider, entry.version) != (part["provider"], part["version"]):
            warnings.warn(
                f"{directory} was saved with {part['provider']} {part['version']}; "
                f"{part['kind']} {part['name']!r} now comes from {entry.provider} {entry.version}.",
                stacklevel=3,
            )
    try:
        return parse_model(record["spectral"])
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{directory / CONFIG} no longer validates: {error}") from error


def _swap(temporary: Path, target: Path) -> None:
    previous = target.with_name(f".{target.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        target.rename(previous)
    temporary.rename(target)
    _sync(target.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
