"""Checks that a causal mixer does not see the future.

All but the check of other settings run in float64. Leaks only at other lengths, batches or dtypes are not found.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from spectral_layers.mixers.base import Mixer
from spectral_layers.testing.cases import MixerCase, is_causal, streams
from spectral_layers.testing.check import ROUNDING, normal, only_for, relative_change, require_causal

_ROUNDING_SINGLE = 1e-3
"""In float32, where an FFT's rounding moves earlier outputs by 1e-5 of their size."""
_LENGTHS = (129, 31, 128, 65, 64, 127, 33, 32)
"""Both sides of powers of two, one for each setting."""


@only_for(is_causal)
def check_no_output_sees_a_later_token(case: MixerCase) -> None:
    """New tokens from a position on, in all rows, do not change earlier outputs; at and around block bounds.

    With several rows and blocks, this also finds a part that pools over a batch into which the mixer folds blocks.
    """
    mixer, length = case.build(), case.length
    x, other = normal(3, length, case.hidden_dim), normal(3, length, case.hidden_dim, seed=1)
    with torch.no_grad():
        y = mixer(x).y
        for token in _positions(case):
            changed = mixer(torch.cat([x[:, :token], other[:, token:]], 1)).y
            require_causal(f"{case}: new tokens", changed, y, token)


@only_for(lambda case: case.causal and not streams(case))
def check_no_token_sees_the_next(case: MixerCase) -> None:
    """New tokens from any position on, each position in another row, do not change earlier outputs.

    For mixers without a state; for others, the equality of single-token chunks and the full pass implies it.
    """
    mixer = case.build()
    length = min(case.length, mixer.length_limit or case.length)
    x, other = normal(8, length, case.hidden_dim), normal(8, length, case.hidden_dim, seed=1)
    with torch.no_grad():
        y = mixer(x).y
        for first in range(1, length, 8):
            begins = (first + torch.arange(8))[:, None]
            later = torch.arange(length) >= begins
            moved = (mixer(other.where(later[..., None], x)).y - y).abs().amax(2)
            answer = moved.where(later, 0).max().item()
            leak = moved.masked_fill(later, 0)
            if not leak.max().item() <= ROUNDING * answer:
                row, token = divmod(int(leak.argmax()), length)
                raise AssertionError(
                    f"{case} sees the future: new tokens from {first + row} on move the output of token {token} "
                    f"already, by {leak.max().item():.2g}, later ones by {answer:.2g}. Look at what happens at the "
                    "edges of blocks and chunks."
                )


@only_for(is_causal)
def check_no_setting_sees_a_later_token(case: MixerCase) -> None:
    """The same in float32, in training, with gradients recorded, in batches of 1 and 9, around powers of two."""
    settings = product((torch.float64, torch.float32), (True, False), (True, False))
    for index, (dtype, training, grad) in enumerate(settings):
        mixer = case.build(dtype).train(training)
        length = min(_LENGTHS[index], mixer.length_limit or _LENGTHS[index])
        for rows in (9, 1):
            x = normal(rows, length, case.hidden_dim, dtype=dtype)
            other = normal(rows, length, case.hidden_dim, seed=1, dtype=dtype)
            with torch.set_grad_enabled(grad):
                y = _seeded(mixer, x)
                for token in sorted({length // 2, length - 1} - {0}):
                    changed = _seeded(mixer, torch.cat([x[:, :token], other[:, token:]], 1))
                    answer = (changed - y)[:, token:].abs().max().item()
                    leak = relative_change(changed[:, :token], y[:, :token], answer)
                    if not leak <= (ROUNDING if dtype == torch.float64 else _ROUNDING_SINGLE):
                        raise AssertionError(
                            f"{case} sees the future in {str(dtype).removeprefix('torch.')}, "
                            f"{'training' if training else 'evaluation'} mode, gradients "
                            f"{'recorded' if grad else 'not recorded'}, {rows} rows of {length} tokens: new tokens "
                            f"from {token} on move earlier outputs by up to {leak:.2g} of the change after. Compute "
                            "the same in every setting."
                        )


def _seeded(mixer: Mixer, x: Tensor) -> Tensor:
    """The mixer's outputs, with the same dropout at every call."""
    torch.default_generator.manual_seed(1)
    return mixer(x).y.detach()


@only_for(is_causal)
def check_the_jacobian_is_lower_triangular(case: MixerCase) -> None:
    """A random combination of the outputs up to a position has no gradient for any later input."""
    mixer, length = case.build(), case.length
    x = normal(2, length, case.hidden_dim).requires_grad_()
    y = mixer(x).y
    weights = normal(2, length, case.hidden_dim, seed=1)
    for token in _positions(case):
        # Outputs before ``token``, inputs from ``token`` on.
        (gradient,) = torch.autograd.grad((y * weights)[:, :token].sum(), x, retain_graph=True)
        size = gradient[:, :token].abs().max().item()
        if not size > 0:
            raise AssertionError(f"{case}: the outputs before token {token} depend on no input, so this says nothing.")
        leak = relative_change(gradient[:, token:], torch.zeros_like(gradient[:, token:]), size)
        if not leak <= ROUNDING:
            raise AssertionError(
                f"{case} sees the future: the outputs before token {token} have a gradient for tokens from {token} on, "
                f"{leak:.2g} of their largest; at most {ROUNDING:g} is rounding. Compute what shapes a token's output "
                "(gates, kernels, norms, statistics) from tokens up to it."
            )


def _positions(case: MixerCase) -> list[int]:
    block, length = case.block, case.length
    return sorted({1, block - 1, block, block + 1, 2 * block, 2 * block + block // 2, length - 1} - {0})
