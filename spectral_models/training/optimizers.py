"""Optimisers by name, and the groups of parameters that share a learning rate and a weight decay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from spectral_core import ConfigError
from spectral_layers import Filter
from spectral_layers.projection import Projection
from spectral_models.block import Block
from spectral_models.model import SpectralModel
from spectral_models.training.config import TrainingConfig

Groups = list[dict[str, Any]]


def transformers_name(optimizer: str) -> str:
    """The name in transformers' ``optim`` of the optimiser, or of the one that takes what Muon does not."""
    return "adamw_torch_fused" if optimizer in ("adamw", "muon") else optimizer


def require_optimizer(optimizer: str) -> None:
    """Raise ConfigError for an optimiser whose library is not installed, or that needs a GPU where there is none."""
    if optimizer.endswith("bit") and find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"training.optimizer {optimizer} needs a library that is not installed: bitsandbytes. Run: pip install "
            "bitsandbytes, or choose adamw, muon or adafactor."
        )
    if optimizer.startswith("paged") and not torch.cuda.is_available():
        raise ConfigError(f"training.optimizer {optimizer} needs a GPU. Use adamw_8bit or adamw.")


def parameter_groups(model: SpectralModel, training: TrainingConfig) -> Groups:
    """The parameters that require a gradient, grouped; the first group has the rate that is logged.

    Raises ConfigError for Muon where no weight matrix of a block is trained.
    """
    decayed = decayed_weights(model)
    hidden = hidden_matrices(model) if training.optimizer == "muon" else set()
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found.setdefault((name in hidden, name in decayed), []).append(parameter)
    if training.optimizer == "muon" and not any(muon for muon, _ in found):
        raise ConfigError(
            f"training.optimizer muon is for weights of linear layers inside blocks, and this {model.config.type} "
            "trains none. Use adamw."
        )
    return [
        {
            "params": parameters,
            "lr": training.learning_rate,
            "weight_decay": training.weight_decay if decays else 0.0,
            **({"muon": muon} if training.optimizer == "muon" else {}),
        }
        for (muon, decays), parameters in sorted(found.items(), key=lambda item: item[0], reverse=True)
    ]


def decayed_weights(model: nn.Module) -> set[str]:
    """Weights of linear layers and embeddings; kernels, gates, norms and biases are not pulled towards zero."""
    filters = {part for module in model.modules() if isinstance(module, Filter) for part in module.modules()}
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding | Projection) and module not in filters
    }


def hidden_matrices(model: nn.Module) -> set[str]:
    """Those of linear layers inside blocks: no embedding, no head."""
    return {
        f"{name}.{weight}"
        for name, block in model.named_modules()
        if isinstance(block, Block)
        for weight in decayed_weights(block)
    }


class MuonWithAdamW(Optimizer):
    """Muon for the groups with ``muon``, AdamW for the others, as one optimiser with one schedule and state.

    Muon's update is scaled to the RMS of AdamW's, so both share learning rate and weight decay (Liu et al., 2025,
    "Muon is scalable for LLM training"). adamw: options of AdamW.
    """

    def __init__(self, params: Iterable[Mapping[str, Any]], **adamw: Any) -> None:
        groups: dict[bool, Groups] = {}
        for group in params:
            groups.setdefault(group["muon"], []).append({name: group[name] for name in group if name != "muon"})
        self.parts: list[Optimizer] = [
            Muon(part, adjust_lr_fn="match_rms_adamw") if muon else AdamW(part, **adamw)
            for muon, part in groups.items()
        ]
        super().__init__(self._groups(), {})

    def _groups(self) -> Groups:
        return [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        if closure is not None:
            raise NotImplementedError("MuonWithAdamW.step takes no closure")
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = self._groups()  # loading replaces a part's groups, whose rates a schedule sets here
