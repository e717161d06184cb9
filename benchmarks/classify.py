"""What mixing is worth to classifiers of pictures and of sound: with it, without it, and beside a linear model.

    python benchmarks/classify.py tones     # two tones in noise, told by their order
    python benchmarks/classify.py digits    # scikit-learn's handwritten digits; needs scikit-learn

Accuracy on samples the model has not seen. ``without mixing``: the same classifier, its mixers' outputs zero.
Sound has no positions, which would tell a model without mixing when a tone stands. ``linear``: least squares on the
mean mel spectrogram, or on the pixels.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spectral_layers import LayerContext, Mixer, MixerOutput
from spectral_models import build_model
from spectral_models.data import tones_batch
from spectral_models.variants.classifier import Classifier

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
MEL = {"type": "mel", "sample_rate": 4000, "n_fft": 128, "hop_length": 64, "n_mels": 24, "bands": 4}
SOUND = {"type": "audio_encoder", "frontend": MEL, "hidden_dim": 32, "num_layers": 4, "position": "none"}
PATCHES = {"type": "patches", "size": 2, "channels": 1}
PICTURE = {"type": "vision_encoder", "frontend": PATCHES, "image_size": [8, 8], "hidden_dim": 64, "num_layers": 4}


class Nothing(Mixer):
    """y = 0: a block is left with its feed-forward."""

    def mix(self, x: Tensor, *_: Any) -> MixerOutput:
        return MixerOutput(torch.zeros_like(x))


def made(encoder: dict[str, Any], labels: int, *, mixing: bool = True, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    model = build_model({"type": "classifier", "num_labels": labels, "encoder": encoder})
    assert isinstance(model, Classifier)
    if not mixing:
        context = LayerContext(encoder["hidden_dim"], False, next(model.encoder.mixers()).fft)
        for block in model.encoder.blocks:
            block.mixer = Nothing(context)
    return model


def fit(model: Classifier, draw: Draw, *, steps: int, rate: float, batch: int = 64) -> Classifier:
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    for _ in range(steps):
        inputs, labels = draw(batch, generator)
        loss = model.loss(inputs, labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: Classifier, inputs: Tensor, labels: Tensor) -> float:
    found = torch.cat([model(part).logits.argmax(-1) for part in inputs.split(256)])
    return float((found == labels).double().mean())


def linear(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Least squares on standardised features, one output for each label."""
    mean, deviation = train[0].mean(0), train[0].std(0) + 1e-6
    (given, labels), (asked, answers) = (
        (torch.cat([(x - mean) / deviation, torch.ones(len(x), 1)], 1), y) for x, y in (train, test)
    )
    weights = torch.linalg.lstsq(given, torch.nn.functional.one_hot(labels).float(), driver="gelsd").solution
    return float(((asked @ weights).argmax(-1) == answers).double().mean())


def tones(steps: int, decibels: list[float]) -> None:
    print("| tone over noise | classifier | without mixing | linear, mean mel spectrogram |\n|---|---|---|---|")
    for snr in decibels:

        def draw(count: int, generator: torch.Generator, snr: float = snr) -> tuple[Tensor, Tensor]:
            return tones_batch(count, snr=snr, generator=generator)

        test = draw(2048, torch.Generator().manual_seed(2))
        scores = [
            accuracy(fit(made(SOUND, 2, mixing=mixing), draw, steps=steps, rate=3e-3), *test)
            for mixing in (True, False)
        ]
        spectrogram = made(SOUND, 2).encoder.frontend.spectrogram
        means = [
            (torch.log10(spectrogram(x).clamp(min=1e-10)).mean(-1), y)
            for x, y in (draw(2048, torch.Generator().manual_seed(3)), test)
        ]
        scores.append(linear(means[0], means[1]))
        print(f"| {snr:g} dB | " + " | ".join(f"{score:.3f}" for score in scores) + " |", flush=True)


def digits(steps: int) -> None:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit("the digits come with scikit-learn: pip install scikit-learn") from None
    data = load_digits()
    pictures = (torch.tensor(data.images, dtype=torch.float32)[:, None] - 4.9) / 6.0
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    split = len(order) * 3 // 4
    train, test = order[:split], order[split:]

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Shifted by up to a pixel each way, background coming in."""
        index = train[torch.randint(len(train), (count,), generator=generator)]
        shifts = torch.randint(3, (count, 2), generator=generator).tolist()
        wide = torch.nn.functional.pad(pictures[index], (1, 1, 1, 1), value=float(pictures.min()))
        moved = [picture[:, r : r + 8, c : c + 8] for picture, (r, c) in zip(wide, shifts, strict=True)]
        return torch.stack(moved), labels[index]

    print("| picture encoder | accuracy |\n|---|---|")
    for name, mixing, options in (
        ("sequence", True, {"mixing": "sequence"}),
        ("separable", True, {"mixing": "separable"}),
        ("without mixing", False, {"mixing": "sequence"}),
    ):
        model = fit(made({**PICTURE, **options}, 10, mixing=mixing), draw, steps=steps, rate=3e-3)
        print(f"| {name} | {accuracy(model, pictures[test], labels[test]):.4f} |", flush=True)
    flat = pictures.flatten(1)
    print(f"| linear, pixels | {linear((flat[train], labels[train]), (flat[test], labels[test])):.4f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["tones", "digits"])
    parser.add_argument("--steps", type=int, help="optimiser steps: 400 for tones, 800 for digits")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.0, -3.0, -6.0], help="tones over noise, in dB")
    given = parser.parse_args()
    if given.task == "tones":
        tones(given.steps or 400, given.snr)
    else:
        digits(given.steps or 800)


if __name__ == "__main__":
    main()
