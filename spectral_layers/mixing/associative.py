"""Associative memories: what queries read while keys are bound to values, token by token or in chunks.

M_t = g_t M_{t-1} + k_t u_t^T is read as q_t^T M_t / E. Stored is the value, u_t = v_t; or, where a memory corrects
itself, as far as b_t what the value says and the memory does not, u_t = b_t (v_t - g_t M_{t-1}^T k_t / E): the delta
rule, of keys of squared length E. In chunks all tokens are multiplied at once, as matrices; a memory that corrects
itself goes from one chunk to the next, another meets all chunks in one more product.

Fading chunks: Dao & Gu, "Transformers are SSMs", 2024. Delta rule: Widrow & Hoff, "Adaptive switching circuits", 1960;
of memories, Schlag et al., "Linear transformers are secretly fast weight programmers", 2021; in chunks, Yang et al.,
"Parallelizing linear transformers with the delta rule over sequence length", 2024; with decays, Yang et al., "Gated
delta networks", 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_layers.mixing.correction import Chunks, correct

_CHUNK = 32
"""Tokens in a chunk, a power of two: the fastest on a CPU, of 16 to 128."""
_EXPORTED_CHUNK = 128
"""In an exported program, which has a piece of graph for each chunk of a memory that corrects itself."""
_FASTEST = 100.0
"""Rates beyond leave nothing more, and their sums would round off the small ones beside them."""


@dataclass(frozen=True)
class Written:
    """What L tokens ask of a memory and store in it, in each of H heads; keys have 2E features, values C channels."""

    queries: Tensor
    """(B, H, L, 2E)."""
    keys: Tensor
    """(B, H, L, 2E), each of squared length E."""
    values: Tensor
    """(B, H, L, C)."""
    rates: Tensor
    """(B, H, L), positive: a token leaves g = e^-rate of what was before it. One B or L serves all."""
    strengths: Tensor | None
    """(B, H, L), from 0 to 1: how far a token corrects the memory; None where tokens are added to it."""

    def padded(self, more: int) -> Written:
        """With so many tokens behind that store nothing and leave all.

        A traced graph pads by nothing too: inductor fails on the strides of a symbolic length it divides unpadded.
        """
        if not torch.compiler.is_compiling() and not more:  # in this order, or a graph would hold for no padding only
            return self
        queries, keys, values = (F.pad(z, (0, 0, 0, more)) for z in (self.queries, self.keys, self.values))
        rates = F.pad(self.rates.expand(-1, -1, self.keys.shape[2]), (0, more))
        strengths = None if self.strengths is None else F.pad(self.strengths, (0, more))
        return Written(queries, keys, values, rates, strengths)


@dataclass(frozen=True)
class _Fades:
    """What the heads' decays leave, in chunks of S tokens; one B serves all.

    With c[t] the sum of a chunk's rates up to token t, itself included, and C[n] that of the chunks before chunk n.
    """

    within: Tensor
    """(B, H, N, S, S): of token s at token t >= s, e^(c[s] - c[t]); zero before it."""
    on_reading: Tensor
    """(B, H, N, S, 1): of what stood before the chunk, at token t, e^-c[t]."""
    on_storing: Tensor
    """(B, H, N, S, 1): of token t at the chunk's end, e^(c[t] - c[S - 1])."""
    totals: Tensor
    """(B, H, N): c[S - 1] of each chunk."""

    @classmethod
    def of(cls, rates: Tensor, chunks: int, size: int) -> _Fades:
        """rates: (B, H, L), or (B, H, 1) where they never change."""
        alike, rates = rates.shape[-1] == 1, rates.clamp(max=_FASTEST)
        rates = rates[..., None].expand(-1, -1, -1, size) if alike else rates.unflatten(2, (chunks, size))
        c = rates.cumsum(-1)
        lag = c[..., :, None] - c[..., None, :]
        return cls(
            within=torch.exp(-lag.clamp(min=0)).tril(),
            on_reading=torch.exp(-c)[..., None],
            on_storing=torch.exp(c - c[..., -1:])[..., None],
            totals=c[..., -1].expand(-1, -1, chunks),
        )

    def between(self) -> tuple[Tensor, Tensor]:
        """At the beginning of chunk n, or behind all: of each chunk's end, and of the memory before all chunks.

        (B, H, N + 1, N), for chunk j < n e^(C[j + 1] - C[n]), else zero; and (B, H, N + 1, 1, 1), e^-C[n].
        """
        before = F.pad(self.totals.cumsum(-1), (1, 0))
        between = before[..., :, None] - before[..., None, 1:]
        return torch.exp(-between.clamp(min=0)).tril(-1), torch.exp(-before)[..., None, None]


def read(written: Written, norm: float, memory: Tensor | None) -> tuple[Tensor, Tensor]:
    """All reads (B, H, L, C), from the memory so far and the tokens up to each, and the memory after them.

    norm: E, the keys' squared length. memory: (B, H, 2E, C), None before the first token. Strictly causal; O(L).
    """
    length = written.keys.shape[2]
    if length == 1 and memory is not None:
        return _step(written, norm, memory)
    size = _size(length)
    chunks = -(-length // size)
    padded = written.padded(chunks * size - length)
    q, k, v = (z.unflatten(2, (chunks, size)) for z in (padded.queries, padded.keys, padded.values))
    fades = _Fades.of(padded.rates, chunks, size)
    if padded.strengths is None:
        y, memory = _added(q, k, v, fades, memory)
    else:
        y, memory = _corrected(q, k, v, fades, padded.strengths.unflatten(2, (chunks, size)), norm, memory)
    return y.flatten(2, 3)[:, :, :length] / norm, memory


def _size(length: int) -> int:
    """Of the chunks: the least power of two that holds the sequence, or the fastest."""
    size, most = 1, _EXPORTED_CHUNK if torch.compiler.is_exporting() else _CHUNK
    while size < min(length, most):
        size *= 2
    return size


def _step(written: Written, norm: float, memory: Tensor) -> tuple[Tensor, Tensor]:
    """One token, by the definition."""
    memory = torch.exp(-written.rates)[..., None] * memory
    stored = written.values
    if written.strengths is not None:
        stored = written.strengths[..., None] * (stored - (written.keys @ memory) / norm)
    memory = memory + written.keys.transpose(-1, -2) * stored
    return (written.queries @ memory) / norm, memory


def _added(q: Tensor, k: Tensor, v: Tensor, fades: _Fades, memory: Tensor | None) -> tuple[Tensor, Tensor]:
    """Reads of chunks (B, H, N, S, .), times the norm, and the memory after them: a sum of what each stored."""
    y = ((q @ k.transpose(-1, -2)) * fades.within) @ v
    stored = (k.transpose(-1, -2) @ (v * fades.on_storing)).flatten(-2)  # (B, H, N, 2E C), of each chunk
    across, since = fades.between()

    def memories(at: slice) -> Tensor:
        """What the chunks before have stored, faded over those between, as a product of matrices over chunks."""
        found = (across[:, :, at] @ stored).unflatten(-1, (k.shape[-1], v.shape[-1]))
        return found if memory is None else found + since[:, :, at] * memory[:, :, None]

    if memory is not None or q.shape[2] > 1:
        # Decay meets the C channels of what is read, not the 2E features: fewer products, the same sum.
        y = y + (q @ memories(slice(0, -1))) * fades.on_reading
    return y, memories(slice(-1, None))[:, :, 0]


def _corrected(
    q: Tensor, k: Tensor, v: Tensor, fades: _Fades, strengths: Tensor, norm: float, memory: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `_added`, of a memory that stores what it did not say.

    Within a chunk u = b (v - e^-c K M_0 / E) - A u, with A[t, s] = b[t] (k_t . k_s) e^(c[s] - c[t]) / E for s < t.
    """
    keys = k.transpose(-1, -2)
    wrong = ((k @ keys) * fades.within * (strengths[..., None] / norm)).tril(-1)
    solving = _unit_lower_inverse(wrong) * strengths[..., None, :]
    if memory is None:
        memory = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
    shape = (v.shape[0], -1, v.shape[2], -1, -1)
    chunks = Chunks(
        keys=k,
        values=v,
        solving=solving,
        on_reading=(fades.on_reading / norm).expand(shape),
        on_storing=fades.on_storing.expand(shape),
        left=torch.exp(-fades.totals)[..., None, None].expand(shape),
        memory=memory,
    )
    stored, before, memory = correct(chunks)
    return ((q @ keys) * fades.within) @ stored + (q @ before) * fades.on_reading, memory


def _unit_lower_inverse(lower: Tensor) -> Tensor:
    """(I + A)^-1 of strictly lower triangular A (..., S, S), S a power of two: from blocks of four to the whole.

    I - A + A^2 - A^3 of four by four; then [[a, 0], [c, b]]^-1 = [[a^-1, 0], [-b^-1 c a^-1, b^-1]]. Products of
    matrices alone, which every compiler has.
    """
    whole = lower.shape[-1]
    size = min(4, whole)
    first = _diagonal_blocks(lower, size)
    one = torch.eye(size, dtype=lower.dtype, device=lower.device)
    inverses = (one - first) @ (one + first @ first)
    while size < whole:
        corner = _diagonal_blocks(lower, 2 * size)[..., size:, :size]
        upper, under = inverses[..., ::2, :, :], inverses[..., 1::2, :, :]
        corner = -(under @ corner @ upper)
        inverses = torch.cat([F.pad(upper, (0, size)), torch.cat([corner, under], -1)], -2)
        size *= 2
    return inverses[..., 0, :, :]


def _diagonal_blocks(matrix: Tensor, size: int) -> Tensor:
    """(..., N, S, S) of (..., N S, N S)."""
    blocks = matrix.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
    return blocks.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)
