"""Optimisers by name, and the groups of parameters that share a learning rate and a weight decay."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
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
from spectral_models.training.options import TrainingConfig

Groups = list[dict[str, Any]]


def require_optimizer(optimizer: str) -> None:
    """Raise ConfigError for an optimiser whose library is not installed, or that needs a GPU where there is none."""
    if optimizer.endswith("bit") and find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"training.optimizer {optimizer} needs a library that is not installed: bitsandbytes. Run: pip install "
            "bitsandbytes, or choose adamw, muon or adafactor."
        )
    if optimizer.startswith("paged") and not torch.cuda.is_available():
        raise ConfigError(f"training.optimizer {optimizer} needs a GPU. Use adamw_8bit or adamw.")


def freeze(model: SpectralModel, patterns: Collection[str]) -> None:
    """Leave parameters as they are, by patterns of their names (fnmatch).

    Raises ConfigError for a pattern that matches none, and if all parameters match.
    """
    names = [name for name, _ in model.named_parameters()]
    frozen = {name for pattern in patterns for name in _matches(pattern, names, "freeze")}
    if len(frozen) == len(names):
        raise ConfigError(f"training.freeze matches all parameters, so nothing would be trained. {_listed(names)}")
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)


def parameter_groups(model: SpectralModel, training: TrainingConfig) -> Groups:
    """The parameters that require a gradient, by rate and weight decay. Those at learning_rate, which is logged, first.

    Raises ConfigError for a pattern in ``rates`` that matches none of them, and for Muon where no weight matrix of a
    block is among them.
    """
    muon = training.optimizer == "muon"
    decayed = decayed_weights(model)
    hidden = hidden_matrices(model) if muon else set()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if muon and not hidden & trained.keys():
        raise ConfigError(
            f"training.optimizer muon is for weights of linear layers inside blocks, and this {model.config.type} "
            "trains none. Use adamw."
        )
    factors = dict.fromkeys(trained, 1.0)
    for pattern, factor in training.rates.items():
        factors.update(dict.fromkeys(_matches(pattern, trained, "rates"), factor))
    groups: dict[tuple[bool, float, bool, bool], dict[str, Any]] = {}
    for name, parameter in trained.items():
        factor, in_muon, decays = factors[name], name in hidden, name in decayed
        group = groups.setdefault((factor != 1, factor, not in_muon, not decays), {"params": []})
        group["params"].append(parameter)
        group["lr"] = factor * training.learning_rate
        group["weight_decay"] = training.weight_decay if decays else 0.0
        if muon:
            group["muon"] = in_muon
    return [group for _, group in sorted(groups.items(), key=lambda item: item[0])]


def _matches(pattern: str, names: Collection[str], option: str) -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise ConfigError(f"training.{option}: {pattern!r} matches no parameter that is trained. {_listed(names)}")
    return found


def _listed(names: Iterable[str]) -> str:
    """The names, those of numbered modules together."""
    patterns = dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in names)
    return f"Parameters: {', '.join(patterns)}."


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
