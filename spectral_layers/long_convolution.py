"""Long filters on sequences that arrive in chunks: decoding of all mixers with a filter.

A recurrent filter updates its own memory of the past. For any other filter :mod:`spectral_layers.online` stores the
inputs and continues the convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core import FFTBackend, convolve
from spectral_layers.filters.base import Filter, RecurrentFilter
from spectral_layers.online import OnlineFilter
from spectral_layers.rows import Rows
from spectral_layers.state import State

_STEPS = 32
"""Tokens of a call up to which a recurrent filter takes steps on a CPU, where its tables and transforms are slower."""


def convolve_chunk(
    long_filter: Filter, u: Tensor, rows: Rows | None, state: State | None, fft: FFTBackend
) -> tuple[Tensor, dict[str, Tensor]]:
    """The causal convolution of u (B, D, L) after the inputs of ``state``, and the tensors of the next state.

    A recurrent filter costs O(1) a token, any other O(log^2 L) amortised (:class:`OnlineFilter`). Outputs may be in
    float64. The state caches kernels for single tokens.
    """
    length = u.shape[-1]
    if state is None:
        y = convolve(u, long_filter.prepared(length, fft), backend=fft)
        return y, initial_tensors(long_filter, u, rows, fft)
    if not isinstance(long_filter, RecurrentFilter):
        online = OnlineFilter(long_filter, fft, state["inputs"], state["pending"], state.kernels)
        return online.extend(u, state.position, rows), online.tensors()
    quick = u.device.type == "cpu" and not (torch.is_grad_enabled() or torch.compiler.is_compiling())
    if length <= (_STEPS if quick and rows is None else 1):
        kernels, modes = state.kernels, state["modes"]
        tables = () if kernels is None else kernels.get(long_filter, "step", u.device, long_filter.tables)
        outputs = []
        for token in u.unbind(-1):
            y, modes = long_filter.step(modes, token, *tables)
            outputs.append(y)
        if rows is not None:
            real = (rows.lengths > 0).view(-1, *[1] * (modes.dim() - 1))
            modes = torch.where(real, modes, state["modes"])
        return torch.stack(outputs, -1), {"modes": modes}
    y = convolve(u, long_filter.prepared(length, fft), backend=fft) + long_filter.carry(state["modes"], length)
    return y, {"modes": long_filter.absorb(state["modes"], u, None if rows is None else rows.lengths)}


def initial_tensors(long_filter: Filter, u: Tensor, rows: Rows | None, fft: FFTBackend) -> dict[str, Tensor]:
    """The tensors of a state after a first pass over u, as :func:`convolve_chunk` returns them."""
    if isinstance(long_filter, RecurrentFilter):
        return {"modes": long_filter.absorb(None, u, None if rows is None else rows.lengths)}
    return OnlineFilter.after(long_filter, fft, u, rows).tensors()
