"""Adapters that training saved beside a model: low-rank updates of a checkpoint's weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spectral_models.checkpoint import WEIGHTS, find, load_checkpoint
from spectral_models.errors import CheckpointError
from spectral_models.model import SpectralModel
from spectral_models.seal import read_json, sealed

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model.model."
"""In front of a layer's name in peft's files, of an adapter of one of our Hugging Face classes."""
BASE = "base_weights_sha256"
_NOT_PLAIN = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save")
"""Options of peft's LoRA by which its product is not (alpha / r) B A."""


def load_adapter(path: str | Path, *, base: str | Path | None = None) -> SpectralModel:
    """The model of an adapter's checkpoint, with W + (alpha / rank) B A in place of W; in eval mode.

    path: the directory ``adapter/`` of a run. base: the checkpoint it was trained on, if that is elsewhere now. Raises
    CheckpointError, with what fits and what does not, for an adapter of other weights.
    """
    directory = Path(path)
    if not (directory / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"there is no adapter at {directory}: it has no {ADAPTER_CONFIG}.")
    config = read_json(directory / ADAPTER_CONFIG)
    try:
        scale = float(config["lora_alpha"]) / int(config["r"])
        source = find(Path(config["base_model_name_or_path"] if base is None else base))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise CheckpointError(f"{directory / ADAPTER_CONFIG} is damaged: it is no config of a LoRA adapter.") from None
    if other := [name for name in _NOT_PLAIN if config.get(name)]:
        raise CheckpointError(f"the adapter {directory} sets {', '.join(other)}; only plain LoRA is read. Use peft.")
    weights, sha256 = _read(directory / ADAPTER)
    model = load_checkpoint(source)
    parameters = dict(model.named_parameters())
    layers = sorted({name.rpartition(".lora_")[0] for name in weights})
    fitting = [layer for layer in layers if _fits(layer, weights, parameters)]
    if len(fitting) < len(layers) or not layers:
        other = sorted(set(layers) - set(fitting))
        raise CheckpointError(
            f"the adapter {directory} is of another model than {source}: {len(fitting)} of its {len(layers)} layers fit"
            f"{f', {other[0]} does not' if other else ''}. Give its own checkpoint: base=..."
        )
    if sha256 is not None and sha256 != sealed(source)[WEIGHTS]["sha256"]:
        raise CheckpointError(
            f"the adapter {directory} fits {source} by its shapes, but was trained on other weights. Give its own "
            "checkpoint: base=..."
        )
    with torch.no_grad():
        for layer in layers:
            a, b = (weights[f"{layer}.lora_{part}.weight"] for part in "AB")
            parameters[f"{layer}.weight"].add_(scale * (b @ a))
    return model


def _read(file: Path) -> tuple[dict[str, Tensor], str | None]:
    """The adapter's tensors, by our names, and the SHA-256 of the weights it was trained on, if it names that."""
    try:
        with safe_open(file, framework="pt") as opened:
            sha256 = (opened.metadata() or {}).get(BASE)
            names: list[str] = list(opened.keys())
            return {name.removeprefix(PREFIX): opened.get_tensor(name) for name in names}, sha256
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged: {error}. Use another adapter.") from error


def _fits(layer: str, weights: dict[str, Tensor], parameters: dict[str, torch.nn.Parameter]) -> bool:
    a, b = (weights.get(f"{layer}.lora_{part}.weight") for part in "AB")
    weight = parameters.get(f"{layer}.weight")
    if a is None or b is None or weight is None or a.dim() != 2 or b.dim() != 2 or len(a) != b.shape[1]:
        return False
    return weight.is_floating_point() and weight.shape == (len(b), a.shape[1])
