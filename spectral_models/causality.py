"""A check that a decoder cannot see the future, for models that contain parts we did not write."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectral_core import PluginError
from spectral_models.config import ModelConfig

_TOLERANCE = 1e-9
_TOKENS = 160
_ROWS = 3


def check_causality(config: ModelConfig, *, suspects: list[str]) -> None:
    """Raise PluginError if an earlier logit, or another row's, moves when a token changes.

    Runs on a copy of the model with one layer of each kind, float64, random parameters (a zero-initialised gate passes
    any test) and three rows of up to 160 tokens, in training and in evaluation mode. Leaves the random state alone.
    A variant without a vocabulary is no decoder and is not checked. Costs a few small forward passes.
    """
    fields = type(config).model_fields
    if "vocab_size" not in fields:
        return
    changes: dict[str, object] = {"vocab_size": 11}
    if "num_layers" in fields:
        changes["num_layers"] = len(getattr(config, "blocks", (None,)))
    tokens = min(_TOKENS, getattr(config, "max_seq_len", None) or _TOKENS)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = config.model_copy(update=changes).build().double()
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        input_ids = torch.randint(11, (_ROWS, tokens))
        for training in (True, False):
            _check(model.train(training), input_ids, suspects)


def _check(model: nn.Module, input_ids: Tensor, suspects: list[str]) -> None:
    before = _logits(model, input_ids)
    for position in sorted({1, input_ids.shape[1] // 3, input_ids.shape[1] // 2, input_ids.shape[1] - 1}):
        changed = input_ids.clone()
        changed[0, position:] = (changed[0, position:] + 1) % 11
        moved = (_logits(model, changed) - before).abs()
        scale = float(moved[0, position:].max())
        for what, leak in (("tokens before it", moved[0, :position]), ("other rows of the batch", moved[1:])):
            if float(leak.max()) > _TOLERANCE * max(scale, 1e-12):
                mode = "training" if model.training else "evaluation"
                raise PluginError(
                    f"this decoder is not causal: changing the tokens from {position} on moves the logits of {what} "
                    f"(by {float(leak.max()):.0e}, later ones by {scale:.0e}; {mode} mode). "
                    f"One of these parts mixes rows or looks ahead: {', '.join(suspects)}."
                )


def _logits(model: nn.Module, input_ids: Tensor) -> Tensor:
    torch.manual_seed(1)  # the same dropout masks in every pass
    logits: Tensor = model(input_ids).logits
    return logits
