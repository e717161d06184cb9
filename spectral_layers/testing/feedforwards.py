"""Checks of feed-forwards, which process each token alone."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core.testing import assert_close
from spectral_layers.testing.cases import FeedForwardCase
from spectral_layers.testing.check import for_all, normal, only_for, ragged, require_like, require_scalars
from spectral_layers.testing.gradients import require_gradients

_BATCH, _LENGTH = 3, 40


def has_losses(case: FeedForwardCase) -> bool:
    return bool(case.build()(_tokens(case)).losses)


@for_all
def check_tokens_do_not_mix(case: FeedForwardCase) -> None:
    """A token has the output it has alone, whatever the other tokens, rows and padding are."""
    part, x = case.build(), _tokens(case)
    with torch.no_grad():
        y = part(x).y
        require_like(str(case), y, x)
        if not y.any():
            raise AssertionError(f"{case}: the output of noise is all zero, so its independence says nothing.")
        for row, token in ((0, 0), (1, 17), (2, _LENGTH - 1)):
            alone = part(x[row : row + 1, token : token + 1]).y[0, 0]
            assert_close(f"{case}: token {token} of row {row} without the others", alone, y[row, token], 1e-9)
            changed = x.clone()
            changed[row, token] *= -100
            others = part(changed).y
            others[row, token] = y[row, token]
            assert_close(f"{case}: the other tokens when token {token} of row {row} is new", others, y, 1e-9)
        padded = part(x, rows=ragged([_LENGTH, 5, 0])).y
        assert_close(f"{case}: tokens when others are padding", padded[0], y[0], 1e-9)


@for_all
def check_gradients_of_a_feedforward_at_any_scale(case: FeedForwardCase) -> None:
    """Inputs and parameters get finite gradients for inputs of size 0, 1e-30, 1e-25, 1e-10 and 1, in float32."""
    part = case.build(torch.float32)
    weights = normal(_BATCH, _LENGTH, case.hidden_dim, seed=1, dtype=torch.float32)

    def loss(x: Tensor) -> Tensor:
        output = part(x)
        return torch.stack([(output.y * weights).sum(), *output.losses.values()]).sum()

    require_gradients(str(case), part, loss, _tokens(case).float())


@for_all
def check_a_feedforward_keeps_dtypes(case: FeedForwardCase) -> None:
    """float32 and float64 come back as such; bfloat16 autocast gives finite outputs within a tenth of float32's."""
    x = _tokens(case)
    for dtype in (torch.float64, torch.float32):
        require_like(str(case), case.build(dtype)(x.to(dtype)).y, x.to(dtype))
    part = case.build(torch.float32)
    # The median: a token whose router nearly ties may go to another expert in half precision.
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = part(x.float()).y.float()
    with torch.no_grad():
        exact = part(x.float()).y
    error = (rounded - exact).norm(dim=-1) / exact.norm(dim=-1)
    if not error.median() <= 0.1:
        raise AssertionError(f"{case}: under bfloat16 autocast outputs are off by {error.median():.2g}; at most 0.1.")


@only_for(lambda case: case.build().divisible)
def check_a_divisible_feedforward_may_be_given_parts(case: FeedForwardCase) -> None:
    """Tokens have the same outputs in two calls as in one, and there are no losses or metrics over all tokens."""
    part, x = case.build(), _tokens(case)
    with torch.no_grad():
        whole = part(x)
        if whole.losses or whole.metrics:
            reported = ", ".join([*whole.losses, *whole.metrics])
            raise AssertionError(f"{case} is divisible, but reports {reported}, which parts would each report anew.")
        parts = torch.cat([part(x[:, :7]).y, part(x[:, 7:]).y], 1)
        assert_close(f"{case}: tokens in two calls", parts, whole.y, 1e-9)


@only_for(has_losses)
def check_losses_of_a_feedforward_ignore_padding(case: FeedForwardCase) -> None:
    """Losses and metrics depend on real tokens only, not on the values or the amount of padding."""
    part, x = case.build(), _tokens(case)
    rows = ragged([_LENGTH, 9, 0])
    real = x[rows.mask(_LENGTH)][None]
    with torch.no_grad():
        wanted = part(real)
        for loudness in (0.0, 100.0):
            padded = torch.where(rows.mask(_LENGTH)[..., None], x, loudness * x.flip(0))
            found = part(padded, rows=rows)
            for kind in ("losses", "metrics"):
                for name, scalar in getattr(wanted, kind).items():
                    what = f"{case}: {name!r} with padding of size {loudness:g}"
                    assert_close(what, getattr(found, kind)[name], scalar, 1e-6)
        for scalar in part(x, rows=ragged([0, 0, 0])).losses.values():
            if not scalar.isfinite():
                raise AssertionError(f"{case}: a loss over no real token must be finite; got {scalar.item()}.")


@only_for(has_losses)
def check_losses_of_a_feedforward_teach(case: FeedForwardCase) -> None:
    """Each loss is a scalar with a gradient for some parameter."""
    part = case.build()
    losses = part(_tokens(case)).losses
    require_scalars(str(case), losses)
    for name, scalar in losses.items():
        parameters = list(part.parameters())
        gradients: tuple[Tensor | None, ...] = (None,) * len(parameters)
        if scalar.requires_grad:
            # Retained: a part's losses may share what they are computed from.
            gradients = torch.autograd.grad(scalar, parameters, allow_unused=True, retain_graph=True)
        if not any(gradient is not None and gradient.any() for gradient in gradients):
            raise AssertionError(f"{case}: the loss {name!r} has no gradient for any parameter; is it detached?")


def _tokens(case: FeedForwardCase) -> Tensor:
    return normal(_BATCH, _LENGTH, case.hidden_dim)
