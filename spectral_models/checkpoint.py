"""Checkpoints: a directory that is whole or is not there.

===================  =====================================================================================
config.json          schema version, framework version, the model's config, provider and version of its parts;
                     of a quantised model also which layers are int8
model.safetensors    all parameters and buffers, under the model's own names
tokenizer.json       the tokenizer, with tokenizer_config.json beside it; without both a model of text reads bytes
preprocessor_...     preprocessor_config.json, of a model of pictures or sound: how config.json says they are read, for
                     Hugging Face
complete.json        size and SHA-256 of the others; written last
===================  =====================================================================================

Files are written to a temporary directory beside the target, synced, and renamed into place; a reader never sees
half a checkpoint, and an interrupted save leaves the one before it. ``config.json`` is also a Hugging Face config.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from spectral_models.assembly import build_model
from spectral_models.config import ModelConfig
from spectral_models.data.byte_files import SETTINGS, TOKENIZER
from spectral_models.data.readers import reader_of
from spectral_models.data.subwords import read_tokenizer
from spectral_models.data.tokenizer import ByteTokenizer, Tokenizer
from spectral_models.errors import CheckpointError, DataError
from spectral_models.model import SpectralModel
from spectral_models.quantization import SCHEME, flattened, int8_layers, put_int8, take_int8
from spectral_models.record import CONFIG, config_of, int8_of, make_record, read_record
from spectral_models.variants.encoding import EncoderConfig

WEIGHTS, MARKER, PREPROCESSOR = "model.safetensors", "complete.json", "preprocessor_config.json"


def save_checkpoint(model: SpectralModel, path: str | Path, *, tokenizer: Tokenizer | None = None) -> Path:
    """Write a model and its config to the directory ``path``, replacing a checkpoint that is there.

    tokenizer: kept beside the model, for :func:`load_tokenizer` and Hugging Face's tools.
    Raises CheckpointError when the disk is full, the path cannot be written, or it holds anything that is not a
    checkpoint's, and for what is no model of ours; what was there before is kept.
    """
    if not isinstance(model, SpectralModel):
        raise CheckpointError(
            f"save_checkpoint(model, path) takes a model that build_model made; got {type(model).__name__}. Of a "
            "wrapped one give what is inside: .module of DDP, ._orig_mod of torch.compile, .model of our Hugging Face "
            "classes."
        )
    target = Path(os.path.realpath(path))  # a link keeps pointing where it did
    temporary = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        _check_replaceable(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        temporary.mkdir()
        write_files(model, temporary, tokenizer)
        _swap(temporary, target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"could not save to {target}: {getattr(error, 'strerror', None) or error}. Free space or choose another "
            "path; a checkpoint that was there before is untouched."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Path(path)


def load_checkpoint(path: str | Path, *, device: str | torch.device = "cpu", **overrides: Any) -> SpectralModel:
    """The model saved at ``path``, in eval mode. A run's directory stands for the model it finished with.

    overrides: config values to replace, as in :func:`build_model`, where the weights still fit: ``fft="hierarchical"``.
    The weights keep the dtypes they were saved in.

    Raises CheckpointError for a directory that is missing, incomplete, tampered with or of a newer schema, and
    PluginError naming the package to install when a part's provider is missing.
    """
    directory = find(Path(path))
    verify(directory, files=(CONFIG, WEIGHTS))
    record = read_record(directory)
    model = build_model(config_of(record, directory, overrides))
    load_weights(model, directory, cast=True, int8=int8_of(record, directory))
    return model.to(device).eval()


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer kept with the model at ``path``, which :func:`load_checkpoint` reads; bytes where there is none."""
    directory = find(Path(path))
    return read_tokenizer(directory) if (directory / TOKENIZER).exists() else ByteTokenizer()


def write_files(model: SpectralModel, directory: Path, tokenizer: Tokenizer | None = None) -> None:
    """The files of a checkpoint, synced, the marker last."""
    beside = {**preprocessor(model.config), **({} if tokenizer is None else tokenizer.files())}
    for name, content in beside.items():
        (directory / name).write_text(content, encoding="utf-8")
    record = {**make_record(model.config), **_ends(tokenizer)}
    if layers := int8_layers(model):
        record["quantization"] = {"scheme": SCHEME, "layers": layers}
    (directory / CONFIG).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    save_file(own_memory(flattened(model.state_dict())), directory / WEIGHTS, metadata={"format": "pt"})
    write_marker(directory, MARKER, [CONFIG, WEIGHTS, *beside])


def _ends(tokenizer: Tokenizer | None) -> dict[str, int]:
    """Hugging Face's names for the token that ends a text, and what it pads with."""
    try:
        return {} if tokenizer is None else dict.fromkeys(("eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    except DataError:  # it does not say
        return {}


def preprocessor(config: ModelConfig) -> dict[str, str]:
    """The file that says how a model's pictures or sounds are read, by its name; none for other models."""
    encoder = getattr(config, "encoder", config)
    if not isinstance(encoder, EncoderConfig) or encoder.modality == "text":
        return {}
    settings = reader_of(encoder).settings()
    return {PREPROCESSOR: json.dumps(settings, indent=2) + "\n"} if settings else {}


def own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, copied where a part holds one memory under two names: safetensors refuses to share."""
    made: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        made[name] = tensor.clone(memory_format=torch.contiguous_format) if memory in taken else tensor.contiguous()
        taken.add(memory)
    return made


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


def verify(directory: Path, marker: str = MARKER, *, files: Iterable[str] = ()) -> None:
    """Raise CheckpointError unless every file is what the marker says, and the marker names all of ``files``."""
    try:
        entries: dict[str, dict[str, Any]] = json.loads((directory / marker).read_text(encoding="utf-8"))
        for file, entry in [*entries.items(), *((file, {}) for file in files if file not in entries)]:
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
    path = Path(os.path.realpath(path))
    if not path.exists() and _previous(path).is_dir():
        # A save is between its two renames, or was interrupted there. A reader changes nothing: the save may go on.
        return _previous(path)
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint directory at {path}. spectral train makes one in its --out.")
    if not (path / CONFIG).exists() and ((path / "model").is_dir() or (path / ".model.previous").is_dir()):
        return find(path / "model")
    if (path / "checkpoints").is_dir() and (path / "run.yaml").is_file():
        raise CheckpointError(
            f"the run in {path} has not finished, so there is no model in it yet. Continue it: spectral train CONFIG "
            f"--out {path} --resume, as it was begun. Until then, what was saved on the way is in {path}/checkpoints."
        )
    return path


def load_weights(model: SpectralModel, directory: Path, *, cast: bool = False, int8: Collection[str] = ()) -> None:
    """Parameters and buffers from a checkpoint's weights file, every name and shape as in the model.

    cast: give the model's tensors the dtypes in the file, where otherwise the file's values are cast to the model's.
    int8: layers whose weights are int8 in the file, and in the model from then on.
    """
    try:
        stored = load_file(directory / WEIGHTS)
        weights = {model.earlier_names.get(name, name): tensor for name, tensor in stored.items()}
        found = take_int8(weights, int8)
        put_int8(model, found)
        weights.update({f"{layer}.weight": model.get_parameter(f"{layer}.weight").data for layer in found})
        if cast:
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                tensor.data = tensor.data.to(weights.get(name, tensor).dtype)
        if different := misfits(model.state_dict(), weights):
            raise CheckpointError(
                f"{directory / WEIGHTS} does not fit its config: {different}. Leave out overrides of "
                "sizes and parts, or use another checkpoint."
            )
        model.load_state_dict(weights)
    except (SafetensorError, OSError, RuntimeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{directory / WEIGHTS} does not fit its config: {error}") from error


def misfits(ours: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> str:
    """How stored weights differ from a model's in names and shapes, an example of each kind; empty if they do not."""
    shapes = [
        f"{name} is {tuple(stored[name].shape)} and should be {tuple(tensor.shape)}"
        for name, tensor in ours.items()
        if name in stored and stored[name].shape != tensor.shape
    ]
    kinds = {
        "missing": [name for name in ours if name not in stored],
        "unknown": [name for name in stored if name not in ours],
        "of another shape": shapes,
    }
    return "; ".join(
        f"{len(names)} {kind} ({names[0]}{', ...' if len(names) > 1 else ''})" for kind, names in kinds.items() if names
    )


def _check_replaceable(target: Path) -> None:
    """Raise CheckpointError if replacing the target would delete anything that is not a checkpoint's."""
    if not target.exists():
        return
    names = {item.name for item in target.iterdir()} if target.is_dir() else {target.name}
    foreign = names - {CONFIG, WEIGHTS, MARKER, TOKENIZER, SETTINGS, PREPROCESSOR}
    if not foreign and CONFIG in names and MARKER not in names:
        try:
            read_record(target)
        except CheckpointError:
            foreign = {CONFIG}  # another program's
    if foreign:
        raise CheckpointError(
            f"{target} exists and is not a checkpoint, or not only one: it holds {', '.join(sorted(foreign)[:5])}"
            f"{', ...' if len(foreign) > 5 else ''}. "
            "Choose another path; nothing was overwritten."
        )


def _remove_abandoned(target: Path) -> None:
    """Delete what saves to this target left behind when they were killed."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.writing-*"):
        owner = path.name.rpartition("-")[2]
        if not (owner.isdecimal() and int(owner) != os.getpid() and _runs(int(owner))):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def _previous(target: Path) -> Path:
    """Where the checkpoint before stands while a save puts the new one in its place."""
    return target.with_name(f".{target.name}.previous")


def _swap(temporary: Path, target: Path) -> None:
    previous = _previous(target)
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
        target.rename(previous)
    try:
        temporary.rename(target)
    except OSError:
        if previous.exists():
            previous.rename(target)
        raise
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
