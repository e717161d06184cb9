"""Who calls: plain eager code, a trace of ``torch.compile``, or a transform of ``torch.func``."""

from __future__ import annotations

import torch
from torch import Tensor


def varies(size: int) -> bool:
    """Whether a graph is being traced in which this size stands for many. Costs nothing outside of a trace."""
    if not torch.compiler.is_compiling():
        return False
    # Imports sympy, which a process that compiles nothing does not need.
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return not has_static_value(size)


def power_of_two(minimum: int) -> int:
    """The least power of two that is at least so large.

    Found by comparisons with powers of two alone, so that of a size that :func:`varies` a trace learns no more than
    between which two of them it lies: one graph serves all sizes between these, and the result is a constant in it.
    """
    power = 1
    while power < minimum:
        power *= 2
    return power


def transformed() -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp, ...) is at work: operators of ours have no rules for one."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def readable(tensor: Tensor) -> bool:
    """Whether a check may read the tensor's values back.

    That stalls an accelerator at every step, and a trace and the transforms of torch.func have no values to read.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling() and not transformed()
