"""Learning curves as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

History = Sequence[dict[str, Any]]


def plot_bits(
    history: History, path: Path, *, title: str, tokens_per_byte: float = 1.0, reference: float | None = None
) -> None:
    """Training loss and held-out bits per byte over steps.

    history: the trainer's log, its losses in nats per token. reference: a compressor's bits per byte, drawn as a line.
    """
    scale = tokens_per_byte / math.log(2)
    training = [(row["step"], row["loss"] * scale) for row in history if "loss" in row]
    held_out = _values(history, "eval_bits_per_byte")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    if training:
        axes.plot(*zip(*training, strict=True), color="0.6", linewidth=1, label="training batches")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color="tab:blue", marker="o", label="held-out text")
        _mark_chosen(axes, history, held_out, ".3f")
    if reference is not None:
        axes.axhline(reference, color="tab:orange", linestyle="--", label=f"xz -9: {reference:.3f}")
    axes.set(xlabel="step", ylabel="bits per byte", title=title)
    axes.set_ylim(bottom=min([1.0, *(value for _, value in training + held_out)]) * 0.9, top=8.5)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def plot_headline(
    history: History,
    path: Path,
    *,
    title: str,
    headline: str,
    digits: int,
    what: str,
    references: Mapping[str, float],
) -> None:
    """Above, the headline on held-out data (``what``) and values to compare it with; below, the losses."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    if values := _values(history, f"eval_{headline}"):
        upper.plot(*zip(*values, strict=True), color="tab:blue", marker="o", label=f"held-out {what}")
        _mark_chosen(upper, history, values, f".{digits}f")
    for (name, value), color in zip(references.items(), ("tab:orange", "tab:green"), strict=False):
        upper.axhline(value, color=color, linestyle="--", label=f"{name}: {value:.3f}")
    upper.set(ylabel=headline.replace("_", " "), title=title)
    for name, label, style in (
        ("loss", "training batches", {"color": "0.6", "linewidth": 1}),
        ("eval_loss", f"held-out {what}", {"color": "tab:blue", "marker": "o"}),
    ):
        if values := _values(history, name):
            lower.plot(*zip(*values, strict=True), label=label, **style)
    lower.set(xlabel="step", ylabel="loss", ylim=(0.0, None))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def _values(history: History, name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in history if name in row]


def _mark_chosen(axes: Any, history: History, values: Sequence[tuple[int, float]], digits: str) -> None:
    """The value of the weights that the run keeps: the best evaluation's, or the last."""
    best = [row["best_step"] for row in history if "best_step" in row]
    chosen = next(value for value in reversed(values) if not best or value[0] == best[-1])
    axes.annotate(f"{chosen[1]:{digits}}", chosen, textcoords="offset points", xytext=(0, 8), ha="center", fontsize=9)
    if best:
        axes.plot(*chosen, color="tab:red", marker="o", linestyle="none", label=f"best: step {best[-1]}")
