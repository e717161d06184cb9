"""Checks that a causal mixer does not see the future.

In float64: there an FFT's rounding moves earlier outputs by 1e-15 of their size, and a leak by far more than 1e-9.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_layers.testing.cases import MixerCase, is_causal
from spectral_layers.testing.check import normal, only_for, relative_change

_ALLOWED = 1e-9


@only_for(is_causal)
def check_no_output_sees_a_later_token(case: MixerCase) -> None:
    """New tokens from a position on, in all rows, leave every earlier output as it was; at and around block bounds.

    Rows and blocks are several, so a part that pools over the batch into which a mixer folds its blocks is seen.
    """
    mixer, length = case.build(), case.length
    x, other = normal(3, length, case.hidden_dim), normal(3, length, case.hidden_dim, seed=1)
    with torch.no_grad():
        y = mixer(x).y
        for token in _positions(case):
            changed = mixer(torch.cat([x[:, :token], other[:, token:]], 1)).y
            _require_untouched(case, changed, y, token, "new tokens")


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
        if not leak <= _ALLOWED:
            raise AssertionError(
                f"{case} sees the future: the outputs before token {token} have a gradient for tokens from {token} on, "
                f"{leak:.2g} of their largest; at most {_ALLOWED:g} is rounding. Compute what shapes a token's output "
                "(gates, kernels, norms, statistics) from tokens up to it."
            )


def _positions(case: MixerCase) -> list[int]:
    block, length = case.block, case.length
    return sorted({1, block - 1, block, block + 1, 2 * block, 2 * block + block // 2, length - 1} - {0})


def _require_untouched(case: MixerCase, changed: Tensor, y: Tensor, token: int, what: str) -> None:
    answer = (changed - y)[:, token:].abs().max().item()
    if not answer > 1e-6 * y.abs().max().item():
        raise AssertionError(f"{case}: {what} from {token} on change nothing after it, so its causality says nothing.")
    leak = relative_change(changed[:, :token], y[:, :token], answer)
    if not leak <= _ALLOWED:
        first = int(((changed - y)[:, :token].abs().amax((0, 2)) > _ALLOWED * answer).nonzero()[0])
        raise AssertionError(
            f"{case} sees the future: {what} from {token} on move the output of token {first} already, earlier outputs "
            f"by up to {leak:.2g} of the change after; at most {_ALLOWED:g} is rounding. Compute what shapes a token's "
            "output (gates, kernels, norms, statistics) from tokens up to it."
        )
