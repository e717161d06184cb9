"""A long filter applied to a sequence that arrives in parts: what every mixer that holds a filter decodes by.

Here is chosen, by the filter, what is remembered and how it goes on: a recurrent filter keeps its modes and does the
work itself; for any other, :mod:`spectral_layers.online` keeps the inputs and does it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core import FFTBackend, convolve
from spectral_layers.filters.base import Filter, RecurrentFilter
from spectral_layers.online import OnlineFilter
from spectral_layers.rows import Rows
from spectral_layers.state import State


def continued(
    long_filter: Filter, u: Tensor, rows: Rows | None, state: State | None, fft: FFTBackend
) -> tuple[Tensor, dict[str, Tensor]]:
    """The causal convolution of u (B, D, L) behind what ``state`` remembers, and the tensors of the next state.

    A recurrent filter costs O(1) a token, another O(log^2 L) amortised (:class:`OnlineFilter`). Sums may be in float64.
    Kernels that single tokens need again are kept in the state (:class:`State`).
    """
    length = u.shape[-1]
    if state is None:
        y = convolve(u, long_filter.prepared(length, fft), backend=fft)
        return y, remembered(long_filter, u, rows, fft)
    if not isinstance(long_filter, RecurrentFilter):
        online = OnlineFilter(long_filter, fft, state["inputs"], state["pending"], state.kernels)
        return online.extend(u, state.position, rows), online.tensors()
    if length == 1:
        kernels = state.kernels
        tables = () if kernels is None else kernels.get(long_filter, "step", u.device, long_filter.tables)
        y, modes = long_filter.step(state["modes"], u[..., 0], *tables)
        if rows is not None:
            real = (rows.lengths > 0).view(-1, *[1] * (modes.dim() - 1))
            modes = torch.where(real, modes, state["modes"])
        return y[..., None], {"modes": modes}
    now = convolve(u, long_filter.prepared(length, fft), backend=fft)
    lengths = None if rows is None else rows.lengths
    memory = {"modes": long_filter.absorb(state["modes"], u, lengths)}
    return now + long_filter.carry(state["modes"], length), memory


def remembered(long_filter: Filter, u: Tensor, rows: Rows | None, fft: FFTBackend) -> dict[str, Tensor]:
    """What :func:`continued` needs of a first pass over u to go on."""
    if isinstance(long_filter, RecurrentFilter):
        return {"modes": long_filter.absorb(None, u, None if rows is None else rows.lengths)}
    return OnlineFilter.after(long_filter, fft, u, rows).tensors()
