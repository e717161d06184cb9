"""The memory of ``holographic``, held against its definition, token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core import fft_backend
from spectral_layers import LayerContext
from spectral_layers.mixers.holographic import Decay, Holographic, HolographicConfig, Update
from spectral_layers.testing import MixerCase


def made(*, decay: Decay = "constant", update: Update = "additive") -> Holographic:
    config = HolographicConfig(head_dim=8, phases=4, decay=decay, update=update)
    mixer = MixerCase(config, hidden_dim=16).build()
    assert isinstance(mixer, Holographic)
    return mixer


def defined(mixer: Holographic, x: Tensor) -> Tensor:
    """y of x (1, L, D) by the recurrence of complex memories."""
    heads, phases = mixer.heads, mixer.phases
    key, query, value = (z[0].T for z in mixer.short.each(x.transpose(1, 2)))
    turned = []
    for z, norm in ((key, mixer.key_norm), (query, mixer.query_norm)):
        theta = mixer.bandwidth[:, None] * (norm(z) @ mixer.phase_proj.weight.T).view(-1, heads, phases)
        turned.append(torch.polar(torch.ones_like(theta), theta))
    keys, queries = turned
    values = mixer.value_proj(value).view(x.shape[1], heads, -1)
    memory = torch.zeros(heads, phases, values.shape[-1], dtype=torch.complex128)
    reads = []
    for t in range(x.shape[1]):
        rate = mixer.log_decay.exp()
        if mixer.decay_proj is not None:
            rate = rate * F.softplus(mixer.decay_proj(x[0, t]))
        memory = torch.exp(-rate)[:, None, None] * memory
        stored = values[t]
        if mixer.beta_proj is not None:
            said = (keys[t].conj()[:, None] @ memory)[:, 0].real / phases
            stored = torch.sigmoid(mixer.beta_proj(x[0, t]))[:, None] * (stored - said)
        memory = memory + keys[t, :, :, None] * stored[:, None]
        reads.append((queries[t].conj()[:, None] @ memory)[:, 0].real / phases)
    y = F.layer_norm(torch.stack(reads), values.shape[-1:]).flatten(-2)
    return mixer.out_proj(y * F.silu(mixer.gate_proj(x[0])))[None]


@pytest.mark.parametrize("update", ["additive", "delta"])
@pytest.mark.parametrize("decay", ["constant", "per_token"])
@pytest.mark.parametrize("length", [1, 5, 64, 150])
def test_chunks_are_the_recurrence(length: int, decay: Decay, update: Update) -> None:
    mixer = made(decay=decay, update=update)
    x = torch.randn(1, length, 16, dtype=torch.float64)
    torch.testing.assert_close(mixer(x).y, defined(mixer, x), rtol=1e-10, atol=1e-12)


def test_a_decay_per_token_is_initialised_to_the_constant_one() -> None:
    context = LayerContext(64, True, fft_backend("auto"))
    fixed, free = (HolographicConfig(decay=decay).build(context) for decay in ("constant", "per_token"))
    missing = free.load_state_dict(fixed.state_dict(), strict=False).missing_keys
    assert missing == ["decay_proj.weight", "decay_proj.bias"]
    x = torch.randn(2, 100, 64)
    torch.testing.assert_close(free(x).y, fixed(x).y)


def test_a_token_of_large_decay_leaves_nothing_of_what_came_before() -> None:
    mixer = made(decay="per_token")
    assert mixer.decay_proj is not None
    with torch.no_grad():
        mixer.short.weight.zero_()
        mixer.short.weight.view(16, 3, -1)[..., -1] = 1.0  # each token by itself
        mixer.decay_proj.weight.zero_()
        mixer.decay_proj.weight[:, 0] = 1e6
        mixer.decay_proj.bias.zero_()
    x = torch.randn(1, 90, 16, dtype=torch.float64)
    x[..., 0] = 0.0
    x[:, 70, 0] = 1.0
    torch.testing.assert_close(mixer(x).y[:, 70:], mixer(x[:, 70:]).y)
    assert not torch.allclose(mixer(x).y[:, 69], mixer(x[:, 69:]).y[:, 0])


@pytest.mark.parametrize("update", ["additive", "delta"])
def test_autocast_leaves_the_memory_its_precision(update: Update) -> None:
    mixer = made(update=update).float()
    with torch.autocast("cpu", torch.bfloat16):
        state = mixer(torch.randn(1, 70, 16), return_state=True).state
    assert state is not None
    assert state["memory"].dtype == torch.float32
    wanted = mixer(torch.ones(1, 1, 16), return_state=True).state
    assert wanted is not None
    assert state["memory"].shape == wanted["memory"].shape
