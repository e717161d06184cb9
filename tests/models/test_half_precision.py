"""How far bfloat16 takes a model's logits from its own in float32, part by part.

Sums and decisions are made in float32, so what is left is the rounding of features. It can still turn a decision where
two choices are nearly equal: an expert or a bin is then another one. Bounds are the largest of three seeds, doubled.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from spectral_layers import FEEDFORWARDS, GATES, MIXERS, SPARSITIES
from spectral_models import build_model

ROUNDING = 0.03
"""Relative root-mean-square error of logits, of parts that decide nothing."""
TURNED = {"adaptive": 0.1, "energy": 0.1, "moe": 0.25}
"""Of parts whose choices upstream rounding turns."""
PARTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"mixer": name}) for name in MIXERS.configs()),
    ("delta_rule", {"mixer": {"type": "holographic", "decay": "per_token", "update": "delta"}}),
    *((name, {"mixer": {"type": "spectral_gating", "gates": [name]}}) for name in GATES.configs()),
    *((name, {"mixer": {"type": "spectral_gating", "sparsity": name}}) for name in SPARSITIES.configs()),
    *((name, {"mixer": "gated_convolution", "feedforward": name}) for name in FEEDFORWARDS.configs()),
]


@pytest.mark.parametrize(("name", "block"), PARTS, ids=[name for name, _ in PARTS])
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_logits_in_bfloat16_are_near_those_in_float32(name: str, block: dict[str, Any]) -> None:
    mixer = block["mixer"] if isinstance(block["mixer"], str) else block["mixer"]["type"]
    causal = "causal" in MIXERS.configs()[mixer].directions
    kind = {"type": "language_model"} if causal else {"type": "encoder", "masked_lm": True}
    torch.manual_seed(0)
    model = build_model({**kind, "vocab_size": 64, "hidden_dim": 64, "num_layers": 2, "block": block}).eval()
    ids = torch.randint(0, 64, (4, 130))
    with torch.no_grad():
        exact = model(ids).logits
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(ids).logits
        half = copy.deepcopy(model).bfloat16()(ids).logits
    size = exact.square().mean().sqrt()
    errors = [((logits.float() - exact).square().mean().sqrt() / size).item() for logits in (mixed, half)]
    assert max(errors) <= TURNED.get(name, ROUNDING), f"autocast {errors[0]:.3f}, bfloat16 {errors[1]:.3f}"
