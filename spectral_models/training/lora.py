"""Low-rank adapters of linear layers (LoRA), by peft: added before training, merged or saved after it.

Hu et al., "LoRA: low-rank adaptation of large language models", 2022.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from spectral_core import ConfigError
from spectral_core.config import Config, Scale, Width
from spectral_models.adapters import ADAPTER, ADAPTER_CONFIG, BASE, PREFIX
from spectral_models.errors import needs_extra
from spectral_models.model import SpectralModel


class LoraConfig(Config):
    """W x becomes W x + (alpha / rank) B A x, with A (rank, D_in) and B (D_out, rank) trained and W frozen.

    Parameters that begin new, as a classifier's head, are trained too.
    """

    rank: Width = 8
    alpha: Scale = 16.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout on x in front of A, in training."""
    targets: tuple[str, ...] = Field(default=("*",), max_length=1 << 10)
    """Patterns of the names of the linear layers that are adapted: ``["*.mixer.*"]``. Heads that begin new are not."""
    keep: bool = False
    """Save the adapter in ``adapter/`` too, in peft's format; ``model/`` has it merged either way."""


def add_adapters(model: SpectralModel, lora: LoraConfig, new: Collection[str]) -> None:
    """Put an adapter into each linear layer that ``targets`` match, and freeze all else but parameters in ``new``.

    Raises ConfigError for a pattern that matches no linear layer, and for an adapter to keep beside new parameters,
    which it would not hold.
    """
    with needs_extra("training.lora needs", "train"):
        import peft
    if lora.keep and new:
        raise ConfigError(
            f"training.lora.keep: {len(new)} parameters begin new ({sorted(new)[0]}, ...), and an adapter would not "
            "hold them. Leave keep out: the model in model/ has all."
        )
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(f"{name}.{own}" in new for own, _ in module.named_parameters())
    ]
    for pattern in lora.targets:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise ConfigError(f"training.lora.targets: {pattern!r} matches no linear layer: {', '.join(layers)}.")
    chosen = [name for name in layers if any(fnmatchcase(name, pattern) for pattern in lora.targets)]
    peft.inject_adapter_in_model(_peft_config(lora, chosen), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or name in new)


def save_adapter(model: SpectralModel, lora: LoraConfig, path: Path) -> None:
    """Write the adapter of a model that is not merged yet; peft and :mod:`spectral_models.adapters` read it."""
    assert model.origin is not None
    weights: dict[str, Tensor] = {
        PREFIX + name.replace(".default.", "."): tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if "lora_" in name
    }
    layers = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    config = _peft_config(lora, layers)
    config.base_model_name_or_path = model.origin["checkpoint"]
    config.inference_mode = True
    path.mkdir(parents=True, exist_ok=True)
    save_file(weights, path / ADAPTER, metadata={"format": "pt", BASE: model.origin["weights_sha256"]})
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
    (path / ADAPTER_CONFIG).write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def merge_adapters(model: SpectralModel) -> None:
    """Add each adapter's product to the weight of its layer, and put the layers back where they were."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            layer: Any = module
            with torch.no_grad():
                layer.merge()
            model.set_submodule(name, layer.get_base_layer())
    model.requires_grad_(True)


def _peft_config(lora: LoraConfig, layers: list[str]) -> Any:
    import peft

    alpha: Any = lora.alpha  # peft declares an integer, and only multiplies by it
    return peft.LoraConfig(r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=layers)
