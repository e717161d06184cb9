"""A long filter applied to a sequence that arrives in parts."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core import FFTBackend, convolve
from spectral_layers.filters.base import Filter, RecurrentFilter
from spectral_layers.rows import Rows, span
from spectral_layers.state import State


def continued(
    long_filter: Filter, u: Tensor, rows: Rows | None, state: State | None, fft: FFTBackend
) -> tuple[Tensor, dict[str, Tensor]]:
    """The causal convolution of u (B, D, L) behind what ``state`` remembers, and the tensors of the next state.

    A recurrent filter costs O(1) a token; another sums over the stored inputs, O(L) a token. Sums may be in float64.
    """
    length = u.shape[-1]
    if state is None:
        y = convolve(u, long_filter.prepared(length, fft), backend=fft)
    elif isinstance(long_filter, RecurrentFilter):
        if length == 1:
            y, modes = long_filter.step(state["modes"], u[..., 0])
            if rows is not None:
                real = (rows.lengths > 0).view(-1, *[1] * (modes.dim() - 1))
                modes = torch.where(real, modes, state["modes"])
            return y[..., None], {"modes": modes}
        y = convolve(u, long_filter.prepared(length, fft), backend=fft) + long_filter.carry(state["modes"], length)
    else:
        inputs = state["inputs"].to(u.dtype)
        if long_filter.length_limit is not None:
            # Columns further back hold zeros: no row has that many tokens.
            inputs = inputs[..., max(0, inputs.shape[-1] + length - long_filter.length_limit) :]
        joined = torch.cat([inputs, u], -1)
        if length == 1:
            taps = long_filter.taps(joined.shape[-1]).to(u.dtype)
            y = (joined * taps.flip(-1)).sum(-1, keepdim=True)
        else:
            y = convolve(joined, long_filter.prepared(joined.shape[-1], fft), backend=fft)[..., -length:]
    return y, remembered(long_filter, u, rows, state)


def remembered(long_filter: Filter, u: Tensor, rows: Rows | None, state: State | None) -> dict[str, Tensor]:
    """What :func:`continued` needs of u, and of what came before it, to go on."""
    if isinstance(long_filter, RecurrentFilter):
        lengths = None if rows is None else rows.lengths
        return {"modes": long_filter.absorb(None if state is None else state["modes"], u, lengths)}
    # Stored inputs end at the same column in every row; shorter rows have zeros, which add nothing, before them.
    inputs = u if state is None else torch.cat([state["inputs"].to(u.dtype), u], -1)
    width = inputs.shape[-1]
    if rows is not None:
        before = 0 if state is None else state.position
        longest = max([1, *(before + rows.lengths).tolist()])
        inputs = span(inputs, width - u.shape[-1] + rows.lengths - longest, longest)
        width = longest
    if long_filter.support is not None and width >= long_filter.support:
        inputs = inputs[..., width - long_filter.support + 1 :]
    return {"inputs": inputs}
