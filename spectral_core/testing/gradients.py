"""Gradients of an operator against finite differences and against the definition's."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from spectral_core.testing.numerics import assert_close


def assert_gradients(
    what: str,
    run: Callable[..., Tensor],
    exact: Callable[..., Tensor],
    tensors: Mapping[str, Tensor],
    tolerance: float,
) -> None:
    """Raise AssertionError unless ``run`` has the right gradient for every tensor.

    run, exact: the operator and its definition, called with the tensors in their order. Each tensor is also
    differentiated alone, which is where a hand-written backward forgets a case. gradcheck needs float64 and is left
    out for a backend that has none.
    """
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors.values()]
    if all(leaf.dtype == torch.float64 for leaf in leaves):
        try:
            torch.autograd.gradcheck(run, leaves)
        except RuntimeError as error:
            raise AssertionError(f"{what}: gradients differ from finite differences.\n{error}") from error
    for index, name in enumerate(tensors):
        found = _gradient(run, list(tensors.values()), index)
        if found is None:
            raise AssertionError(
                f"{what}: no gradient for {name} when it alone requires one; is it detached, or its None forgotten in "
                "a hand-written backward?"
            )
        wanted = _gradient(exact, list(tensors.values()), index)
        assert wanted is not None
        assert_close(f"{what}: gradient for {name} alone", found, wanted, 10 * tolerance)


def _gradient(run: Callable[..., Tensor], values: list[Tensor], index: int) -> Tensor | None:
    """d/d(values[index]) of a fixed weighted sum of the outputs; None when it does not depend on it."""
    inputs = [value.detach().clone() for value in values]
    inputs[index].requires_grad_()
    y = run(*inputs)
    if not y.requires_grad:
        return None
    weights = torch.linspace(-1.0, 2.0, y.numel(), dtype=y.dtype, device=y.device).reshape(y.shape)
    (gradient,) = torch.autograd.grad((y * weights).sum(), inputs[index], allow_unused=True)
    return gradient
