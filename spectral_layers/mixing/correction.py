"""The memory that corrects itself from chunk to chunk, as a ``torch.library`` operator.

The chunks of a sequence wait for each other, and nothing else of the memory does. As one operator that part is no loop
that a compiler unrolls, and its backward pass keeps what it needs and no graph of a step for each chunk. An exported
program has the loop itself, since it must run where there is no operator of ours, and so have the transforms of
torch.func, which know no rules for one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectral_core.tracing import transformed


class Chunks(NamedTuple):
    """N chunks of S tokens in H heads, with keys of F features and values of C channels, all of one precision.

    In chunk n, u_n = T_n (v_n - r_n k_n M_n) is stored, and M_{n+1} = l_n M_n + k_n^T (s_n u_n).
    """

    keys: Tensor
    """k: (B, H, N, S, F)."""
    values: Tensor
    """v: (B, H, N, S, C)."""
    solving: Tensor
    """T: (B, H, N, S, S)."""
    on_reading: Tensor
    """r: (B, H, N, S, 1)."""
    on_storing: Tensor
    """s: (B, H, N, S, 1)."""
    left: Tensor
    """l: (B, H, N, 1, 1)."""
    memory: Tensor
    """M_0: (B, H, F, C)."""


# Defined by schema: torch.library.custom_op would import the compiler, and with it triton, at the first call.
_LIBRARY = torch.library.Library("spectral_layers", "FRAGMENT")
_ARGUMENTS = ", ".join(f"Tensor {name}" for name in Chunks._fields)
_LIBRARY.define(f"correct({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)")
_LIBRARY.define(
    f"correct_backward({_ARGUMENTS}, Tensor stored, Tensor before, Tensor to_stored, Tensor to_before, Tensor to_after)"
    " -> Tensor[]"
)


def correct(chunks: Chunks) -> tuple[Tensor, Tensor, Tensor]:
    """What each chunk stores, as values; the memory before each, (B, H, N, F, C); and the one after all.

    To be called outside autocast.
    """
    # To jvp an operator would be a constant, without a word.
    if torch.compiler.is_exporting() or transformed():
        return _correct(*chunks)
    return torch.ops.spectral_layers.correct(*chunks)


@torch.library.impl(_LIBRARY, "correct", "CompositeExplicitAutograd")
def _correct(*given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    chunks = Chunks(*given)
    heads = chunks.keys.shape[:2]
    read = (chunks.keys * chunks.on_reading).flatten(0, 1)
    store = (chunks.keys * chunks.on_storing).flatten(0, 1).transpose(-1, -2)
    v, t, leaves, m = (z.flatten(0, 1) for z in (chunks.values, chunks.solving, chunks.left, chunks.memory))
    stored, before = [], []
    for n in range(chunks.keys.shape[2]):
        before.append(m)
        stored.append(torch.bmm(t[:, n], torch.baddbmm(v[:, n], read[:, n], m, alpha=-1)))
        m = torch.baddbmm(leaves[:, n] * m, store[:, n], stored[-1])
    return (
        torch.stack(stored, 1).unflatten(0, heads),
        torch.stack(before, 1).unflatten(0, heads),
        m.unflatten(0, heads),
    )


@torch.library.impl(_LIBRARY, "correct_backward", "CompositeExplicitAutograd")
def _gradients(*given: Tensor) -> list[Tensor]:
    """Of all seven inputs. The loop has what waits for later chunks; all else is products of all chunks at once."""
    keys, values, solving, on_reading, on_storing, left, _ = given[:7]
    stored, before, to_stored, to_before, to_after = given[7:]
    heads, chunks = keys.shape[:2], keys.shape[2]
    read, store = (keys * on_reading).flatten(0, 1).transpose(-1, -2), (keys * on_storing).flatten(0, 1)
    t, leaves, g, of_stored, of_before = (z.flatten(0, 1) for z in (solving, left, to_after, to_stored, to_before))
    kept, to_solved, to_said = [], [], []
    for n in reversed(range(chunks)):
        kept.append(g)  # of the memory behind chunk n
        to_solved.append(torch.baddbmm(of_stored[:, n], store[:, n], g))
        to_said.append(torch.bmm(t[:, n].transpose(-1, -2), to_solved[-1]))
        g = torch.baddbmm(torch.addcmul(of_before[:, n], leaves[:, n], g), read[:, n], to_said[-1], alpha=-1)
    behind, u, v = (torch.stack(z[::-1], 1).unflatten(0, heads) for z in (kept, to_solved, to_said))
    said = keys @ before
    return [
        (stored * on_storing) @ behind.transpose(-1, -2) - (v * on_reading) @ before.transpose(-1, -2),
        v,
        u @ (values - said * on_reading).transpose(-1, -2),
        -(v * said).sum(-1, keepdim=True),
        (stored * (keys @ behind)).sum(-1, keepdim=True),
        (behind * before).sum((-2, -1), keepdim=True),
        g.unflatten(0, heads),
    ]


def _fake(keys: Tensor, values: Tensor, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, chunks, _, features = keys.shape
    before = values.new_empty(batch, heads, chunks, features, values.shape[-1])
    return values.new_empty(values.shape), before, before.new_empty(batch, heads, features, values.shape[-1])


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


def _backward(ctx: Any, to_stored: Tensor, to_before: Tensor, to_after: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.ops.spectral_layers.correct_backward(*ctx.saved_tensors, to_stored, to_before, to_after))


torch.library.register_fake("spectral_layers::correct", _fake, lib=_LIBRARY)
torch.library.register_fake("spectral_layers::correct_backward", _gradients_fake, lib=_LIBRARY)
torch.library.register_autograd("spectral_layers::correct", _backward, setup_context=_keep, lib=_LIBRARY)
torch.library.register_autograd("spectral_layers::correct_backward", _second, setup_context=_keep_all, lib=_LIBRARY)
