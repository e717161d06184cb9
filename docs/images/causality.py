"""Draws causality.png: how far each logit moves when one token changes, with gates of the past and of the whole row.

Both models have the same block, `adaptive`. The language model's gates see windows of past tokens; the encoder's see
the spectrum of the whole sequence, as gates of published spectral language models do.

    python docs/images/causality.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LogNorm
from torch import Tensor

from spectral_models import build_model

TOKENS = 96
BLOCK = {"type": "adaptive", "mixer": {"window": 32, "block": 16}}


def moved(model: torch.nn.Module) -> Tensor:
    """(t, s): the largest change of a logit at t when the token at s changes, over the largest of all."""
    model = model.double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        tokens = torch.randint(16, (1, TOKENS), generator=generator)
        changed = tokens.repeat(TOKENS, 1)
        changed[torch.arange(TOKENS), torch.arange(TOKENS)] += 1
        change = (model(changed % 16).logits - model(tokens).logits).abs().amax(-1).T
    return change / change.max()


def main() -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 16, "hidden_dim": 32, "num_layers": 1, "block": BLOCK}
    titles = {
        "language_model here: gates see past windows": build_model({**shape, "position": "rope"}),
        "the same gates on the whole sequence": build_model({"type": "encoder", "masked_lm": True, **shape}),
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, layout="constrained")
    for axis, (title, model) in zip(axes, titles.items(), strict=True):
        picture = axis.imshow(moved(model).clamp(min=1e-12), norm=LogNorm(1e-6, 1), cmap="magma", origin="upper")
        axis.plot([0, TOKENS - 1], [0, TOKENS - 1], color="white", linewidth=0.5)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("token that changes, s")
    axes[0].set_ylabel("logit, t")
    figure.colorbar(picture, ax=axes, label="change of the logit, relative to the largest")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
