"""Detects the caller: eager code, a trace of ``torch.compile``, or a transform of ``torch.func``."""

from __future__ import annotations

import torch
from torch import Tensor


def varies(size: int) -> bool:
    """Whether a graph is being traced in which this size is symbolic. Free outside of a trace."""
    if not torch.compiler.is_compiling():
        return False
    # Imports sympy, so only where something is compiled.
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return not has_static_value(size)


def power_of_two(minimum: int) -> int:
    """The least power of two that is at least ``minimum``.

    Compares with powers of two only. A trace of a symbolic size therefore guards on two neighbouring powers alone: one
    graph serves all sizes between them, and the result is a constant in it.
    """
    power = 1
    while power < minimum:
        power *= 2
    return power


def transformed() -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp, ...) is active; our operators have no rules for them."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def readable(tensor: Tensor) -> bool:
    """Whether a check may read the tensor's values.

    Reading would stall an accelerator, and in a trace or a transform of torch.func there are no values.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling() and not transformed()
