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

    run, exact: the operator and its definition, called with the tensors by name. Each tensor is also differentiated
    alone: hand-written backward passes forget such cases. gradcheck needs float64 and is left out for a backend without
    it.
    """
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors.values()]
    if all(leaf.dtype == torch.float64 for leaf in leaves):
        try:
            torch.autograd.gradcheck(lambda *given: run(**dict(zip(tensors, given, strict=True))), leaves)
        except RuntimeError as error:
            raise AssertionError(f"{what}: gradients differ from finite differences.\n{error}") from error
    for name in tensors:
        found = _gradient(run, tensors, name)
        if found is None:
            raise AssertionError(
                f"{what}: no gradient for {name} when it alone requires one; is it detached, or its None forgotten in "
                "a hand-written backward?"
            )
        wanted = _gradient(exact, tensors, name)
        assert wanted is not None
        assert_close(f"{what}: gradient for {name} alone", found, wanted, 10 * tolerance)


def weighted_sum(y: Tensor) -> Tensor:
    """A scalar that depends on each output with another weight."""
    return (y * torch.linspace(-1.0, 2.0, y.numel(), dtype=y.dtype, device=y.device).reshape(y.shape)).sum()


def _gradient(run: Callable[..., Tensor], tensors: Mapping[str, Tensor], name: str) -> Tensor | None:
    """The gradient of :func:`weighted_sum` for one tensor alone; None when the outputs do not depend on it."""
    inputs = {other: tensor.detach().clone().requires_grad_(other == name) for other, tensor in tensors.items()}
    y = run(**inputs)
    if not y.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(weighted_sum(y), inputs[name], allow_unused=True)
    return gradient
