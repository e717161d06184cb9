"""The slow lane's proof that the default composition recalls: multi-query associative recall."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from spectral_models import build_model
from spectral_models.data import mqar_batch

STEPS, BATCH, RATE = 600, 64, 3e-3


@pytest.mark.slow
def test_alternating_model_solves_associative_recall() -> None:
    """Fresh key-value maps per sample cannot be memorised: only reading the past answers them."""
    torch.manual_seed(0)
    model = build_model(
        {
            "vocab_size": 512,
            "hidden_dim": 64,
            "num_layers": 2,
            "layers": [
                {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "timescales": [2, 64]}}},
                {"mixer": {"type": "holographic", "timescales": [8, 256]}},
            ],
        }
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
    )
    task = {"length": 64, "pairs": 8, "vocab_size": 512}
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        inputs, labels = mqar_batch(BATCH, generator=generator, **task)
        loss = F.cross_entropy(model(inputs).logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    inputs, labels = mqar_batch(512, generator=torch.Generator().manual_seed(2), **task)
    with torch.no_grad():
        answers = model.eval()(inputs).logits.argmax(-1)
    asked = labels != -100
    accuracy = (answers[asked] == labels[asked]).double().mean().item()
    assert accuracy >= 0.99, f"accuracy {accuracy:.4f} after {STEPS} steps"
