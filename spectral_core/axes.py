"""The legend of axes, the same letters in every shape, docstring and error of the project.

==  ==========================================================================================
B   batch: one row is one sequence
L   time: tokens, samples or patches, in order
D   channel: features of a token (``hidden_dim``)
H   head: a group of channels that share gates or memories; C = D / H channels each
F   frequency bin of a real transform of n points: F = n // 2 + 1, bin f is f / n cycles a token
K   tap of a kernel: tap s weighs the input s tokens ago
M   mode: one damped complex exponential of a resonant filter
V   vocabulary
==  ==========================================================================================

Modules exchange ``(B, L, D)``; the spectral operators work on ``(B, D, L)``, time last.
"""

from __future__ import annotations

from torch import Tensor


def describe(tensor: object) -> str:
    """A tensor as error messages show it, ``(2, 3, 8) float32 on cpu``; of anything else its type."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{tuple(tensor.shape)} {dtype} on {tensor.device}"
