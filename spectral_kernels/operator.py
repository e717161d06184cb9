"""Defines ``torch.library`` operators: schema, implementation, fake and gradients in one call. Public API for plugins.

Operators are defined by their schema because ``torch.library.custom_op`` imports the compiler, and with it triton, at
its first call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["differentiable_operator", "operator"]


def operator(
    namespace: str,
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    backward: Callable[..., Any] | None = None,
    keep: Callable[..., None] | None = None,
    dispatch: str = "CompositeExplicitAutograd",
) -> Any:
    """Define ``torch.ops.<namespace>.<name>``, one opaque node for compilers.

    schema: ``"name(Tensor x, int n) -> Tensor"``. run: computes it, without autograd. fake: its outputs' shapes,
    strides and dtypes, from fake tensors. backward, keep: as ``torch.library.register_autograd`` takes them. dispatch:
    the key under which ``run`` is registered; the default serves every device.
    """
    library = _library(namespace)
    library.define(schema)
    name = schema.partition("(")[0]
    library.impl(name, run, dispatch)
    torch.library.register_fake(f"{namespace}::{name}", fake, lib=library)
    if backward is not None:
        torch.library.register_autograd(f"{namespace}::{name}", backward, setup_context=keep, lib=library)
    return getattr(getattr(torch.ops, namespace), name)


def differentiable_operator(
    namespace: str,
    schema: str,
    run: Callable[..., Tensor],
    fake: Callable[..., Tensor],
    *,
    gradients: Callable[..., Sequence[Tensor | None]],
    second: Callable[..., Sequence[Tensor | None]],
    dispatch: str = "CompositeExplicitAutograd",
) -> Any:
    """An :func:`operator` whose gradients are another operator, ``<name>_backward``. Saves its tensors, nothing else.

    schema: one output, and all tensors before the other arguments. gradients: called as ``gradients(grad, *arguments,
    wanted)`` without autograd. Returns a gradient for each tensor argument, contiguous, in its shape and dtype;
    ``wanted`` holds a bool for each, and unwanted gradients are dropped. second: called in the same way with autograd
    when gradients of gradients are recorded; raises if the operator has none.
    """
    name, _, rest = schema.partition("(")
    arguments = rest.partition(")")[0]
    tensors = sum(argument.lstrip().startswith("Tensor") for argument in arguments.split(","))

    def run_gradients(grad: Tensor, *given: Any) -> list[Tensor]:
        made = zip(gradients(grad, *given), given[-1], strict=True)
        return [each if wants and each is not None else grad.new_empty(0) for each, wants in made]

    def fake_gradients(grad: Tensor, *given: Any) -> list[Tensor]:
        return [
            torch.empty(like.shape, dtype=like.dtype, device=like.device)
            if wants and like is not None
            else grad.new_empty(0)
            for like, wants in zip(given[:tensors], given[-1], strict=True)
        ]

    backward_operator = operator(
        namespace,
        f"{name}_backward(Tensor grad, {arguments}, bool[] wanted) -> Tensor[]",
        run_gradients,
        fake_gradients,
        dispatch=dispatch,
    )

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.options = inputs[tensors:]

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[:tensors]
        wanted = [needs and tensor is not None for needs, tensor in zip(needed, saved, strict=True)]
        differentiate = second if torch.is_grad_enabled() else backward_operator
        made = differentiate(grad, *saved, *ctx.options, wanted)
        return (
            *(each if wants else None for each, wants in zip(made, wanted, strict=True)),
            *[None] * len(ctx.options),
        )

    return operator(namespace, schema, run, fake, backward=backward, keep=keep, dispatch=dispatch)


_LIBRARIES: dict[str, torch.library.Library] = {}
"""Kept for the life of the process: deleting a library unregisters its operators."""


def _library(namespace: str) -> torch.library.Library:
    if namespace not in _LIBRARIES:
        _LIBRARIES[namespace] = torch.library.Library(namespace, "FRAGMENT")
    return _LIBRARIES[namespace]
