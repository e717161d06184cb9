"""The recurrence of the delta rule over chunks, as a ``torch.library`` operator with its own backward pass.

Only the recurrence over chunks is sequential. As an operator it is one node for a compiler, which would unroll the
loop, and its backward pass saves inputs and states instead of a graph for each chunk. Exported programs run the plain
loop because they must not need this package, and transforms of torch.func because they have no rule for the operator.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectral_kernels.operator import operator
from spectral_kernels.tracing import transformed


class Chunks(NamedTuple):
    """N chunks of S tokens in H heads, with keys of F features and values of C channels, all of one dtype.

    For chunk n: u_n = T_n (v_n - r_n k_n S_n), S_{n+1} = l_n S_n + k_n^T (s_n u_n).
    """

    k: Tensor
    """(B, H, N, S, F)."""
    v: Tensor
    """(B, H, N, S, C)."""
    solve: Tensor
    """T, (B, H, N, S, S): from the errors at the chunk's start to what its tokens store."""
    from_start: Tensor
    """r, (B, H, N, S, 1): decay from the chunk's start to each token, times scale."""
    to_end: Tensor
    """s, (B, H, N, S, 1): decay from each token to the chunk's end."""
    total: Tensor
    """l, (B, H, N, 1, 1): decay over the chunk."""
    initial_state: Tensor
    """S_0, (B, H, F, C)."""


def recurrence(chunks: Chunks) -> tuple[Tensor, Tensor, Tensor]:
    """u, (B, H, N, S, C); the state before each chunk, (B, H, N, F, C); and the final state, (B, H, F, C).

    To be called outside autocast. O(N S F C), sequential over N.
    """
    if torch.compiler.is_exporting() or transformed():  # jvp would silently take the operator for a constant
        return _loop(*chunks)
    return _RECURRENCE(*chunks)


def _loop(*given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    chunks = Chunks(*given)
    heads = chunks.k.shape[:2]
    read = (chunks.k * chunks.from_start).flatten(0, 1)
    store = (chunks.k * chunks.to_end).flatten(0, 1).transpose(-1, -2)
    v, solve, total, state = (z.flatten(0, 1) for z in (chunks.v, chunks.solve, chunks.total, chunks.initial_state))
    u, before = [], []
    for n in range(chunks.k.shape[2]):
        before.append(state)
        u.append(torch.bmm(solve[:, n], torch.baddbmm(v[:, n], read[:, n], state, alpha=-1)))
        state = torch.baddbmm(total[:, n] * state, store[:, n], u[-1])
    return torch.stack(u, 1).unflatten(0, heads), torch.stack(before, 1).unflatten(0, heads), state.unflatten(0, heads)


def _gradients(*given: Tensor) -> list[Tensor]:
    """Gradients of all seven inputs. Only the loop is sequential; the rest are products over all chunks at once."""
    k, v, solve, from_start, to_end, total, _ = given[:7]
    u, before, to_u, to_before, to_final = given[7:]
    heads, chunks = k.shape[:2], k.shape[2]
    read, store = (k * from_start).flatten(0, 1).transpose(-1, -2), (k * to_end).flatten(0, 1)
    t, leaves, g, of_u, of_before = (z.flatten(0, 1) for z in (solve, total, to_final, to_u, to_before))
    to_next, to_solved, to_error = [], [], []
    for n in reversed(range(chunks)):
        to_next.append(g)  # of the state after chunk n
        to_solved.append(torch.baddbmm(of_u[:, n], store[:, n], g))
        to_error.append(torch.bmm(t[:, n].transpose(-1, -2), to_solved[-1]))
        g = torch.baddbmm(torch.addcmul(of_before[:, n], leaves[:, n], g), read[:, n], to_error[-1], alpha=-1)
    after, solved, error = (torch.stack(z[::-1], 1).unflatten(0, heads) for z in (to_next, to_solved, to_error))
    said = k @ before
    return [
        (u * to_end) @ after.transpose(-1, -2) - (error * from_start) @ before.transpose(-1, -2),
        error,
        solved @ (v - said * from_start).transpose(-1, -2),
        -(error * said).sum(-1, keepdim=True),
        (u * (k @ after)).sum(-1, keepdim=True),
        (after * before).sum((-2, -1), keepdim=True),
        g.unflatten(0, heads),
    ]


def _fake(k: Tensor, v: Tensor, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, chunks, _, features = k.shape
    before = v.new_empty(batch, heads, chunks, features, v.shape[-1])
    return v.new_empty(v.shape), before, before.new_empty(batch, heads, features, v.shape[-1])


def _gradients_fake(*given: Tensor) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in given[:7]]


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output[:2])


def _keep_all(ctx: Any, inputs: tuple[Tensor, ...], output: list[Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _second(ctx: Any, grads: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of gradients, by autograd through the loop: rarely asked for."""
    inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
    with torch.enable_grad():
        made = _gradients(*inputs)
    return torch.autograd.grad(made, inputs, grads, allow_unused=True)


def _backward(ctx: Any, to_u: Tensor, to_before: Tensor, to_final: Tensor) -> tuple[Tensor, ...]:
    return tuple(_GRADIENTS(*ctx.saved_tensors, to_u, to_before, to_final))


_ARGUMENTS = ", ".join(f"Tensor {name}" for name in Chunks._fields)
_RECURRENCE = operator(
    "spectral_kernels",
    f"delta_rule({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
    _loop,
    _fake,
    backward=_backward,
    keep=_keep,
)
_GRADIENTS = operator(
    "spectral_kernels",
    f"delta_rule_backward({_ARGUMENTS}, Tensor u, Tensor before, Tensor to_u, Tensor to_before, Tensor to_final)"
    " -> Tensor[]",
    _gradients,
    _gradients_fake,
    backward=_second,
    keep=_keep_all,
)
