"""Sizes in a graph of ``torch.compile`` that serves many lengths."""

from __future__ import annotations

import torch


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
