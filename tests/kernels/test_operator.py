"""The helper that defines operators with gradients: what is wanted, saved and passed on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from spectral_kernels.operator import differentiable_operator

CALLS: list[list[bool]] = []


def run(x: Tensor, w: Tensor, b: Tensor | None, powers: Sequence[int], scale: float) -> Tensor:
    """scale * x^p * w + b."""
    y = scale * x ** powers[0] * w
    return y if b is None else y + b


def gradients(
    grad: Tensor, x: Tensor, w: Tensor, b: Tensor | None, powers: Sequence[int], scale: float, wanted: Sequence[bool]
) -> list[Tensor | None]:
    CALLS.append(list(wanted))
    made = (
        scale * grad * powers[0] * x ** (powers[0] - 1) * w,
        scale * grad * x ** powers[0] if wanted[1] else None,
        grad.clone(),
    )
    return list(made)


ARGUMENTS = "Tensor x, Tensor w, Tensor? b, int[] powers, float scale"


@pytest.fixture(scope="session")
def power() -> object:
    """Defined once a process, and for good: deleting a library of operators pulls them from under who calls them."""
    return differentiable_operator(
        "spectral_tests", f"power({ARGUMENTS}) -> Tensor", run, lambda x, *_: x.new_empty(x.shape),
        gradients=gradients, second=gradients,
    )  # fmt: skip


def leaves() -> list[Tensor]:
    return [(torch.arange(3.0, dtype=torch.float64) + 1 + shift).requires_grad_() for shift in range(3)]


def test_both_operators_are_sound_and_all_gradients_right(power) -> None:
    given = (*leaves(), [3], 0.5)
    torch.library.opcheck(power.default, given)
    detached = [each.detach() for each in given[:3]]
    wanted = [True, False, True]
    torch.library.opcheck(torch.ops.spectral_tests.power_backward.default, (detached[0], *detached, [3], 0.5, wanted))
    assert torch.autograd.gradcheck(lambda *given: power(*given, [3], 0.5), leaves())
    assert torch.autograd.gradgradcheck(lambda *given: power(*given, [3], 0.5), leaves())


def test_gradients_learn_which_are_wanted_and_may_give_more(power) -> None:
    x, w, b = leaves()
    CALLS.clear()
    y = power(x, w.detach(), None, [2], 1.0)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], 2 * x * w)
    power(x.detach(), w, b, [2], 1.0).sum().backward()
    assert torch.equal(w.grad, x.detach() ** 2)
    assert x.grad is None
    assert CALLS == [[True, False, False], [False, True, True]]


def test_an_operator_without_second_gradients_refuses_them() -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError("once only")

    once = differentiable_operator(
        "spectral_tests_once", f"power({ARGUMENTS}) -> Tensor", run, lambda x, *_: x.new_empty(x.shape),
        gradients=gradients, second=refuse,
    )  # fmt: skip
    x, w, b = leaves()
    torch.autograd.grad(once(x, w, b, [2], 1.0).sum(), x)
    with pytest.raises(NotImplementedError, match="once only"):
        torch.autograd.grad(once(x, w, b, [2], 1.0).sum(), x, create_graph=True)
