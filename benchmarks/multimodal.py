"""What it is worth that two modalities meet before they are pooled: cross_modal beside pooled embeddings side by side.

    python benchmarks/multimodal.py                # three seeds; minutes
    python benchmarks/multimodal.py --seeds 0

Which word of a text is said while a tone sounds (``spectral_models/data/coincidence.py``), among four kinds: chance is
0.25. Accuracy on samples no model has seen. ``concatenation``: the same encoders of the same seed, each pooled to one
vector (mean and largest, both), and two layers over all of these, as wide as it takes to have no fewer parameters.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spectral_models import build_model
from spectral_models.data import coincidence_batch
from spectral_models.variants.multimodal import Multimodal

WORDS, KINDS, SAMPLES, DIM = 16, 4, 1600, 32
BLOCK = {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}}, "feedforward": "mlp"}
STACK = {"hidden_dim": DIM, "num_layers": 1, "block": BLOCK}
MEL = {"type": "mel", "sample_rate": 4000, "n_fft": 64, "hop_length": 50, "n_mels": 8}
ENCODERS = {
    "text": {"type": "encoder", "vocab_size": KINDS, **STACK},
    "sound": {"type": "audio_encoder", "frontend": MEL, "mixing": "sequence", **STACK},
}


class Concatenation(nn.Module):
    """logits = W_2 gelu(W_1 [mean(x_m), max(x_m) of every modality m] + b_1) + b_2, x_m the tokens of its encoder."""

    def __init__(self, encoders: nn.ModuleDict, parameters: int) -> None:
        """parameters: that it has at least."""
        super().__init__()
        self.encoders = encoders
        pooled = 2 * DIM * len(encoders)
        missing = parameters - KINDS - sum(parameter.numel() for parameter in encoders.parameters())
        hidden = math.ceil(missing / (pooled + 1 + KINDS))
        self.head = nn.Sequential(nn.Linear(pooled, hidden), nn.GELU(), nn.Linear(hidden, KINDS))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = [self.encoders[name](x).hidden for name, x in inputs.items()]
        return self.head(torch.cat([vector for x in tokens for vector in (x.mean(1), x.amax(1))], 1))


class Fused(nn.Module):
    """The multimodal model as a function from inputs to logits."""

    def __init__(self, model: Multimodal) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model(inputs).logits


def made(seed: int) -> Multimodal:
    torch.manual_seed(seed)
    config: dict[str, Any] = {"type": "multimodal", "num_labels": KINDS, "hidden_dim": DIM, "encoders": ENCODERS}
    model = build_model(config, pooling="max")
    assert isinstance(model, Multimodal)
    return model


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def drawn(batch: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    text, sound, labels = coincidence_batch(batch, words=WORDS, kinds=KINDS, samples=SAMPLES, generator=generator)
    return {"text": text, "sound": sound}, labels


def fit(model: nn.Module, *, steps: int, rate: float, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(1000 + seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    for _ in range(steps):
        inputs, labels = drawn(64, generator)
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    generator = torch.Generator().manual_seed(0)
    batches = [drawn(256, generator) for _ in range(8)]
    return sum(float((model(inputs).argmax(-1) == labels).double().mean()) for inputs, labels in batches) / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps of 64 samples")
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate")
    given = parser.parse_args()
    contestants: dict[str, Callable[[int], nn.Module]] = {
        "cross_modal": lambda seed: Fused(made(seed)),
        "concatenation": lambda seed: Concatenation(made(seed).encoders, count(made(seed))),
    }
    seeds = " | ".join(f"seed {seed}" for seed in given.seeds)
    print(f"| | parameters | {seeds} |\n|---|---|{'---|' * len(given.seeds)}")
    for name, make in contestants.items():
        scores = []
        for seed in given.seeds:
            model = fit(make(seed), steps=given.steps, rate=given.rate, seed=seed)
            scores.append(f"{accuracy(model):.3f}")
        print(f"| {name} | {count(make(0)):,} | {' | '.join(scores)} |", flush=True)


if __name__ == "__main__":
    main()
