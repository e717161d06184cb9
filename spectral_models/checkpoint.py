"""Checkpoints: directories that are written and replaced atomically.

===================  =====================================================================================
config.json          schema version, framework version, the model's config, provider and version of its parts;
                     of a quantised model also which layers are int8
model.safetensors    all parameters and buffers, under the model's own names
tokenizer.json       the tokenizer, with tokenizer_config.json beside it; without both a model of text reads bytes
preprocessor_...     preprocessor_config.json, of a model of images or audio: how config.json says they are read, for
                     Hugging Face
modeling_...         modeling_spectral_networks.py, by which Hugging Face's Auto classes find ours: see shim.py
complete.json        size and SHA-256 of the others, of config.json only of our fields: see seal.py; written last
===================  =====================================================================================

Files are written to a temporary directory beside the target, synced, and renamed into place: a reader never sees half a
checkpoint, and an interrupted save keeps the previous one. Other files beside a checkpoint, such as a model card, are
kept by the next save. ``config.json`` is also a Hugging Face config.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from spectral_core import SpectralError
from spectral_models.assembly import build_model
from spectral_models.config import ModelConfig, parts_of
from spectral_models.data.byte_files import SETTINGS, TOKENIZER
from spectral_models.data.subwords import read_tokenizer
from spectral_models.data.tokenizer import ByteTokenizer, Tokenizer
from spectral_models.errors import CheckpointError, DataError, not_written
from spectral_models.model import SpectralModel
from spectral_models.quantization import SCHEME, flattened, int8_layers
from spectral_models.record import CONFIG, config_of, int8_of, make_record, read_record
from spectral_models.seal import MARKER, read_stably, sealed, sync, verify, write_marker
from spectral_models.shim import SHIM, TEXT, in_shim
from spectral_models.weights import fitting, put_weights, read_weights

WEIGHTS, PREPROCESSOR = "model.safetensors", "preprocessor_config.json"


def save_checkpoint(model: SpectralModel, path: str | Path, *, tokenizer: Tokenizer | None = None) -> Path:
    """Write a model and its config to the directory ``path``, replacing a checkpoint that is there.

    tokenizer: saved beside the model, for :func:`load_tokenizer` and Hugging Face's tools.
    Files beside a checkpoint that no save wrote are kept. Raises CheckpointError if the disk is full, the path cannot
    be written, or is anything but a checkpoint or an empty directory, and if the model is not a SpectralModel; the
    previous checkpoint is kept.
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
        kept = _foreign(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        temporary.mkdir()
        write_files(model, temporary, tokenizer)
        for item in kept:
            _link(item, temporary / item.name)
        _swap(temporary, target)
    except (OSError, SafetensorError) as error:
        raise not_written(
            f"could not save to {target}", error, "; a checkpoint that was there before is untouched."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Path(path)


def load_checkpoint(path: str | Path, *, device: str | torch.device = "cpu", **overrides: Any) -> SpectralModel:
    """The model saved at ``path``, in eval mode. path: a checkpoint, or the directory of a finished run.

    overrides: config values to replace, as in :func:`build_model`, if the weights still fit: ``fft="hierarchical"``.
    The weights keep their saved precision. If another process replaces the checkpoint meanwhile, it is read again, so
    config and weights belong to one save.

    Raises CheckpointError for a directory that is missing, incomplete, changed or of a newer schema, and for weights of
    several precisions; PluginError, naming the package to install, if a part's provider is missing.
    """
    record, stored, directory = read_stably(Path(path), find, _read)
    config = config_of(record, directory, overrides)
    int8 = int8_of(record, directory)
    _check_size(config, stored, directory, int8)
    model = build_model(config)
    put_weights(model, stored, directory / WEIGHTS, cast=True, int8=int8)
    model.origin = record.get("init_from")
    return model.to(device).eval()


def read_checkpoint(path: str | Path) -> tuple[ModelConfig, dict[str, Tensor], Path]:
    """The config and the weights of a checkpoint, and its directory, for training that begins from it.

    Raises CheckpointError as :func:`load_checkpoint`, and for int8 weights, which cannot be trained.
    """
    record, stored, directory = read_stably(Path(path), find, _read)
    if int8_of(record, directory):
        raise CheckpointError(
            f"{directory} has int8 weights, which cannot be trained. Begin from the checkpoint it was quantised from."
        )
    return config_of(record, directory), stored, directory


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer saved with the model at ``path``; a ByteTokenizer if there is none."""
    return read_stably(Path(path), find, _read_tokenizer)


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """The record, and the weights as memory maps, which stay valid if another save replaces the files."""
    verify(directory, files=(CONFIG, WEIGHTS), only=True)
    return read_record(directory), read_weights(directory / WEIGHTS), directory


def _read_tokenizer(directory: Path) -> Tokenizer:
    kept = (TOKENIZER, SETTINGS)
    verify(directory, files=[name for name in kept if name in sealed(directory)], only=True)
    if not (directory / TOKENIZER).exists():
        return ByteTokenizer()
    try:
        return read_tokenizer(directory)
    except DataError as error:  # as a CheckpointError, after which a replaced checkpoint is read again
        raise CheckpointError(str(error)) from error


def write_files(model: SpectralModel, directory: Path, tokenizer: Tokenizer | None = None) -> None:
    """The files of a checkpoint, synced, the marker last."""
    beside = {**companions(model.config), **({} if tokenizer is None else tokenizer.files())}
    for name, content in beside.items():
        (directory / name).write_text(content, encoding="utf-8")
    record = {**make_record(model.config), **_ends(tokenizer)}
    if model.origin is not None:
        record["init_from"] = model.origin
    if layers := int8_layers(model):
        record["quantization"] = {"scheme": SCHEME, "layers": layers}
    (directory / CONFIG).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_weights(model, directory / WEIGHTS)
    write_marker(directory, MARKER, [CONFIG, WEIGHTS, *beside])


def write_weights(model: SpectralModel, file: Path) -> None:
    """The weights alone; the config of the same model is beside the file already."""
    save_file(own_memory(flattened(model.state_dict())), file, metadata={"format": "pt"})
    shutil.copymode(file.with_name(CONFIG), file)  # safetensors' own is readable to nobody else


def _ends(tokenizer: Tokenizer | None) -> dict[str, int]:
    """The end-of-text and padding tokens under Hugging Face's names."""
    try:
        return {} if tokenizer is None else dict.fromkeys(("eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    except DataError:  # the tokenizer has none
        return {}


def companions(config: ModelConfig) -> dict[str, str]:
    """Hugging Face's files beside a model, by name: the shim, and of one of images or audio the preprocessor's."""
    reader = config.reader()
    settings = {} if reader is None else reader.settings()
    if name := settings.get("image_processor_type"):
        settings["auto_map"] = {"AutoImageProcessor": in_shim(name)}
    return {SHIM: TEXT, **({PREPROCESSOR: json.dumps(settings, indent=2) + "\n"} if settings else {})}


def own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors without shared memory, which safetensors refuses. Raises CheckpointError for those on meta."""
    made: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise CheckpointError(
                f"{name} holds no values here: it is offloaded, or on the meta device. Save the model before that; "
                "save_pretrained of our Hugging Face classes fetches what accelerate has offloaded."
            )
        memory = tensor.untyped_storage().data_ptr()
        made[name] = tensor.clone(memory_format=torch.contiguous_format) if memory in taken else tensor.contiguous()
        taken.add(memory)
    return made


def find(path: Path) -> Path:
    """The checkpoint directory for a user's ``path``: itself, or ``model`` inside a run's directory."""
    path = Path(os.path.realpath(path))
    if not path.exists() and _previous(path).is_dir():
        # A save is between its two renames, or was interrupted there. Readers change nothing: the save may continue.
        return _previous(path)
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint directory at {path}. spectral train makes one in its --out.")
    if not (path / CONFIG).exists() and ((path / "model").is_dir() or (path / ".model.previous").is_dir()):
        return find(path / "model")
    if (path / "adapter_config.json").is_file() and not (path / CONFIG).exists():
        raise CheckpointError(
            f"{path} holds an adapter, not a model: spectral_models.adapters.load_adapter reads it, and model/ of the "
            "run that made it has it merged."
        )
    if (path / "checkpoints").is_dir() and (path / "run.yaml").is_file():
        raise CheckpointError(
            f"the run in {path} has not finished, so there is no model in it yet. Continue it: spectral train CONFIG "
            f"--out {path} --resume, as it was begun. Until then, what was saved on the way is in {path}/checkpoints."
        )
    return path


def _check_size(config: ModelConfig, stored: Mapping[str, Tensor], directory: Path, int8: Collection[str]) -> None:
    """Raise CheckpointError if the config does not fit the weights, before memory is allocated for the model."""
    models = [config, *(part for _, part in parts_of(config) if isinstance(part, ModelConfig))]
    layers = max(sum(1 for _ in model.stack()) for model in models)
    if layers > len(stored):
        raise CheckpointError(
            f"{directory / WEIGHTS} does not fit its config: {len(stored)} tensors for {layers} layers. Leave out "
            "overrides of sizes, or use another checkpoint."
        )
    try:
        with torch.device("meta"):
            model = config.build()
    except SpectralError:
        raise
    except Exception:  # a part that cannot be built on meta; build_model reports it
        return
    fitting(model, stored, directory / WEIGHTS, int8)


def _foreign(target: Path) -> list[Path]:
    """What lies in a checkpoint and no save wrote. Raises CheckpointError for a target that is not a checkpoint."""
    if not target.exists():
        return []
    items = list(target.iterdir()) if target.is_dir() else [target]
    names = {item.name for item in items}
    foreign = names - {CONFIG, WEIGHTS, MARKER, TOKENIZER, SETTINGS, PREPROCESSOR, SHIM}
    if CONFIG in names and MARKER in names:
        with suppress(CheckpointError):  # of a damaged marker
            foreign = names - {MARKER, SHIM, *sealed(target)}
        return [item for item in items if item.name in foreign]
    if not foreign and CONFIG in names:
        try:
            read_record(target)
        except CheckpointError:
            foreign = {CONFIG}  # of another program
    if foreign:
        raise CheckpointError(
            f"{target} exists and is not a checkpoint: it holds {', '.join(sorted(foreign)[:5])}"
            f"{', ...' if len(foreign) > 5 else ''}. Choose another path; nothing was overwritten."
        )
    return []


def _link(source: Path, target: Path) -> None:
    """The same file or directory under another path, as hard links where the file system has them."""
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        for item in source.iterdir():
            _link(item, target / item.name)
    elif not target.exists():  # what the save wrote under the same name stays
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:
            shutil.copy2(source, target, follow_symlinks=False)


def _remove_abandoned(target: Path) -> None:
    """Delete temporary directories of killed saves to this target."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.writing-*"):
        owner = path.name.rpartition("-")[2]
        if not (owner.isdecimal() and int(owner) != os.getpid() and _runs(int(owner))):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:  # a process of another user runs too
        return not isinstance(error, ProcessLookupError)
    return True


def _previous(target: Path) -> Path:
    """The place of the previous checkpoint while a save renames the new one."""
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
    sync(target.parent)
    shutil.rmtree(previous, ignore_errors=True)
