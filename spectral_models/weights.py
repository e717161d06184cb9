"""The weights file of a checkpoint: reading, checking against a model, and loading."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from spectral_core.renamed import inherited
from spectral_models.errors import CheckpointError
from spectral_models.model import SpectralModel
from spectral_models.quantization import put_int8, take_int8

_PRECISIONS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, by name. Raises CheckpointError for a damaged file."""
    try:
        return load_file(file)
    except (SafetensorError, OSError, RuntimeError, KeyError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged: {error}. Use another checkpoint.") from error


def put_weights(
    model: SpectralModel, stored: Mapping[str, Tensor], file: Path, *, cast: bool = False, int8: Collection[str] = ()
) -> None:
    """Load the parameters and buffers of a weights file into a model; all names and shapes must match.

    file: its path, for messages. cast: cast the model to the file's precision, instead of the values to the model's.
    int8: layers with int8 weights in the file, which become int8 in the model. Raises CheckpointError, and leaves the
    model unchanged, for weights that do not fit or have several precisions.
    """
    weights, quantized = fitting(model, stored, file, int8)
    if cast:
        model.to(precision_of(weights, file))
    put_int8(model, quantized)
    weights.update({f"{layer}.weight": model.get_parameter(f"{layer}.weight").data for layer in quantized})
    model.load_state_dict(weights)


def precision_of(weights: Mapping[str, Tensor], file: Path) -> torch.dtype:
    """The one dtype of all floating-point weights. Raises CheckpointError for several, or an unsupported one."""
    kinds: dict[torch.dtype, str] = {}
    for name, tensor in weights.items():
        if tensor.is_floating_point() or tensor.is_complex():
            kinds.setdefault(tensor.dtype, name)
    if len(kinds) > 1 or not kinds.keys() <= set(_PRECISIONS):
        has = ", ".join(f"{name} is {str(dtype).removeprefix('torch.')}" for dtype, name in kinds.items())
        raise CheckpointError(
            f"{file} has weights that cannot be computed with: {has}. All must be float32, float64, float16 or "
            "bfloat16. Save the model again after model.float()."
        )
    return next(iter(kinds), torch.float32)


def fitting(
    model: SpectralModel, stored: Mapping[str, Tensor], file: Path, int8: Collection[str]
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """Weights by current names, and those of int8 layers, removed from them.

    Raises CheckpointError unless all fit the model.
    """
    earlier = earlier_names(model)
    weights = {current_name(name, earlier): tensor for name, tensor in stored.items()}
    try:
        quantized = take_int8(weights, [current_name(layer, earlier) for layer in int8])
    except KeyError as error:
        raise CheckpointError(f"{file} does not fit its config: {error} is missing.") from None
    tensors = {**weights, **{f"{layer}.weight": integers for layer, (integers, _) in quantized.items()}}
    precision = precision_of({**weights, **{layer: scale for layer, (_, scale) in quantized.items()}}, file)
    ours = model.state_dict()
    if different := misfits(ours, tensors) or _other_dtypes(ours, tensors, quantized, precision):
        raise CheckpointError(
            f"{file} does not fit its config: {different}. Leave out overrides of sizes and parts, or use another "
            "checkpoint."
        )
    return weights, quantized


def earlier_names(model: nn.Module) -> dict[str, str]:
    """Current names of weights and modules by earlier ones, from the ``earlier_names`` of all modules.

    A module comes before its submodules, as :func:`current_name` requires.
    """
    return {
        f"{path}.{earlier}".removeprefix("."): f"{path}.{now}".removeprefix(".")
        for path, module in model.named_modules()
        for earlier, now in inherited(type(module), "earlier_names").items()
    }


def current_name(name: str, earlier: Mapping[str, str]) -> str:
    """The current name of a weight or a layer. earlier: :func:`earlier_names` of its model."""
    for before, now in earlier.items():
        if name == before or name.startswith(f"{before}."):
            name = now + name[len(before) :]
    return name


def misfits(ours: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> str:
    """How stored weights differ from a model's in names and shapes, with examples; empty if they do not."""
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


def _other_dtypes(
    ours: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
    int8: Mapping[str, tuple[Tensor, Tensor]],
    precision: torch.dtype,
) -> str:
    """The first tensor with an unexpected dtype, as text; empty if there is none. Names and shapes must fit."""
    for name, tensor in stored.items():
        layer = name.removesuffix(".weight")
        wanted = ours[name].dtype
        if layer in int8:
            wanted, scale = torch.int8, int8[layer][1]
            if scale.shape not in ((len(tensor), 1), (len(tensor),)) or scale.dtype != precision:
                return f"the scales of {layer} are {scale.dtype} {tuple(scale.shape)}, for {len(tensor)} rows"
        elif ours[name].is_floating_point():
            wanted = precision
        if tensor.dtype != wanted:
            return f"{name} is {tensor.dtype} and should be {wanted}"
    return ""
