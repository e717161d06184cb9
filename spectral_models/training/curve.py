"""A learning curve as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def plot_curve(history: Sequence[dict[str, Any]], path: Path, *, title: str, reference: float | None = None) -> None:
    """Training loss and held-out bits per byte over steps, as a PNG.

    history: the trainer's log. reference: a compressor's bits per byte, drawn as a line.
    """
    training = [(row["step"], row["loss"] / math.log(2)) for row in history if "loss" in row]
    held_out = [(row["step"], row["eval_bits_per_byte"]) for row in history if "eval_bits_per_byte" in row]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    if training:
        axes.plot(*zip(*training, strict=True), color="0.6", linewidth=1, label="training batches")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color="tab:blue", marker="o", label="held-out text")
        axes.annotate(
            f"{held_out[-1][1]:.3f}", held_out[-1], textcoords="offset points", xytext=(0, 8), ha="center", fontsize=9
        )
    if reference is not None:
        axes.axhline(reference, color="tab:orange", linestyle="--", label=f"xz -9: {reference:.3f}")
    axes.set(xlabel="step", ylabel="bits per byte", title=title)
    axes.set_ylim(bottom=min([1.0, *(value for _, value in training + held_out)]) * 0.9, top=8.5)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
