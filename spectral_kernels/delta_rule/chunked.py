"""The gated delta rule in chunks of tokens, as products of matrices, in plain torch.

Within a chunk all tokens are computed at once. Across chunks, the delta rule is a recurrence over chunks (``op.py``);
the additive update is one matrix product over all chunks. README.md derives both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_kernels.delta_rule.op import Chunks, recurrence

_CHUNK = 32
"""Tokens in a chunk, a power of two: the fastest on a CPU, of 16 to 128."""
_EXPORTED_CHUNK = 128
"""In an exported program, whose graph has nodes for each chunk of the recurrence."""
_LEAST = -100.0
"""Log decays below it leave nothing, and their sums would round off the small ones beside them."""


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor | None = None,
    *,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs o (B, H, L, C) and the final state (B, H, F, C) of a memory written and read by L tokens in H heads.

    S_t = e^(g_t) S_{t-1} + k_t u_t^T, o_t = scale S_t^T q_t, and u_t = beta_t (v_t - scale (e^(g_t) S_{t-1})^T k_t);
    where beta is None the update is additive, u_t = v_t. With beta, scale |k_t|^2 is to be at most 2 for the memory to
    stay bounded.

    q, k: (B, H, L, F). v: (B, H, L, C). g: log decays, (B, H, L), at most 0; one B, and one L, serves all. beta: (B, H,
    L). initial_state: (B, H, F, C); None for an empty memory. All of one dtype, float32 or float64; to be called
    outside autocast. Strictly causal. O(L F C) in time; a training step keeps some L (S + F C / S) numbers a head for
    chunks of S = 32 tokens. ``reference.py`` is the definition.

    Chunks with decay: Dao & Gu, "Transformers are SSMs", 2024. The delta rule in chunks: Yang et al., "Parallelizing
    linear transformers with the delta rule over sequence length", 2024.
    """
    length = k.shape[2]
    if length == 1 and initial_state is not None:
        return _step(q, k, v, g, beta, scale, initial_state)
    size = _size(length)
    chunks = -(-length // size)
    more = chunks * size - length
    # Traces pad by nothing too: inductor fails on the strides of a symbolic length divided unpadded. They are asked for
    # first, or a graph would hold for no padding only.
    if torch.compiler.is_compiling() or more:
        # Right-padded by tokens that leave the state unchanged.
        q, k, v = (F.pad(z, (0, 0, 0, more)) for z in (q, k, v))
        g = F.pad(g.expand(-1, -1, length), (0, more))
        beta = None if beta is None else F.pad(beta, (0, more))
    q, k, v = (z.unflatten(2, (chunks, size)) for z in (q, k, v))
    decays = _Decays.of(g, chunks, size)
    if beta is None:
        o, state = _additive(q, k, v, decays, initial_state)
    else:
        o, state = _delta(q, k, v, decays, beta.unflatten(2, (chunks, size)), scale, initial_state)
    return o.flatten(2, 3)[:, :, :length] * scale, state


def _size(length: int) -> int:
    """Tokens in a chunk: the least power of two that holds the sequence, or the fastest."""
    size, most = 1, _EXPORTED_CHUNK if torch.compiler.is_exporting() else _CHUNK
    while size < min(length, most):
        size *= 2
    return size


@dataclass(frozen=True)
class _Decays:
    """Decays between places of a sequence of N chunks of S tokens; one B serves all.

    With c[t] the sum of a chunk's log decays up to token t, itself included, and C[n] that of all chunks before chunk
    n.
    """

    within: Tensor
    """(B, H, N, S, S): from token s to token t >= s of a chunk, e^(c[t] - c[s]); zero for t < s."""
    from_start: Tensor
    """(B, H, N, S, 1): from the chunk's start to token t, e^c[t]."""
    to_end: Tensor
    """(B, H, N, S, 1): from token t to the chunk's end, e^(c[S - 1] - c[t])."""
    log_total: Tensor
    """(B, H, N): c[S - 1] of each chunk."""

    @classmethod
    def of(cls, g: Tensor, chunks: int, size: int) -> _Decays:
        """g: (B, H, L), or (B, H, 1) where it is constant."""
        constant, g = g.shape[-1] == 1, g.clamp(min=_LEAST)
        g = g[..., None].expand(-1, -1, -1, size) if constant else g.unflatten(2, (chunks, size))
        c = g.cumsum(-1)
        return cls(
            within=torch.exp((c[..., :, None] - c[..., None, :]).clamp(max=0)).tril(),
            from_start=torch.exp(c)[..., None],
            to_end=torch.exp(c[..., -1:] - c)[..., None],
            log_total=c[..., -1].expand(-1, -1, chunks),
        )

    def across(self) -> tuple[Tensor, Tensor]:
        """Decays to the start of chunk n, and, for n = N, to the end of the sequence.

        (B, H, N + 1, N): from the end of chunk j < n, e^(C[n] - C[j + 1]); zero for j >= n. (B, H, N + 1, 1, 1): from
        the start of the sequence, e^C[n].
        """
        before = F.pad(self.log_total.cumsum(-1), (1, 0))
        between = before[..., :, None] - before[..., None, 1:]
        return torch.exp(between.clamp(max=0)).tril(-1), torch.exp(before)[..., None, None]


def _step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor | None, scale: float, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token, by the definition."""
    state = torch.exp(g)[..., None] * state
    u = v if beta is None else beta[..., None] * (v - (k @ state) * scale)
    state = state + k.transpose(-1, -2) * u
    return (q @ state) * scale, state


def _additive(q: Tensor, k: Tensor, v: Tensor, decays: _Decays, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Outputs over scale, (B, H, N, S, C), and the final state of the additive update."""
    o = ((q @ k.transpose(-1, -2)) * decays.within) @ v
    stored = (k.transpose(-1, -2) @ (v * decays.to_end)).flatten(-2)  # (B, H, N, F C): each chunk's own contribution
    between, since = decays.across()

    def states(at: slice) -> Tensor:
        """The state at the start of the chunks ``at``: the contributions of all earlier chunks, decayed."""
        found = (between[:, :, at] @ stored).unflatten(-1, (k.shape[-1], v.shape[-1]))
        return found if state is None else found + since[:, :, at] * state[:, :, None]

    if state is not None or q.shape[2] > 1:
        # The decay multiplies C channels of the output, not F features of q: fewer products, the same sum.
        o = o + (q @ states(slice(0, -1))) * decays.from_start
    return o, states(slice(-1, None))[:, :, 0]


def _delta(
    q: Tensor, k: Tensor, v: Tensor, decays: _Decays, beta: Tensor, scale: float, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Outputs over scale, (B, H, N, S, C), and the final state of the delta rule.

    Within a chunk u = beta (v - scale e^c K S_0) - A u, with A[t, s] = scale beta[t] (k_t . k_s) e^(c[t] - c[s]) for s
    < t.
    """
    keys = k.transpose(-1, -2)
    a = ((k @ keys) * decays.within * (beta[..., None] * scale)).tril(-1)
    solve = _unit_lower_inverse(a) * beta[..., None, :]
    if state is None:
        state = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
    shape = (v.shape[0], -1, v.shape[2], -1, -1)
    chunks = Chunks(
        k=k,
        v=v,
        solve=solve,
        from_start=(decays.from_start * scale).expand(shape),
        to_end=decays.to_end.expand(shape),
        total=torch.exp(decays.log_total)[..., None, None].expand(shape),
        initial_state=state,
    )
    u, before, state = recurrence(chunks)
    return ((q @ keys) * decays.within) @ u + (q @ before) * decays.from_start, state


def _unit_lower_inverse(lower: Tensor) -> Tensor:
    """(I + A)^-1 of strictly lower triangular A (..., S, S), S a power of two: from blocks of four to the whole.

    I - A + A^2 - A^3 of four by four; then [[a, 0], [c, b]]^-1 = [[a^-1, 0], [-b^-1 c a^-1, b^-1]]. Matrix products
    alone, which every compiler has.
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
