"""The memory of ``holographic``, held against its definition, token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core import fft_backend
from spectral_layers import LayerContext
from spectral_layers.mixing import associative
from spectral_layers.mixing.associative import Written, read
from spectral_layers.mixing.holographic import Holographic, HolographicConfig
from spectral_layers.testing import MixerCase


def made(*, forgetting: bool = False, correcting: bool = False) -> Holographic:
    config = HolographicConfig(head_dim=8, phases=4, forgetting=forgetting, correcting=correcting)
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
        if mixer.forget_proj is not None:
            rate = rate * F.softplus(mixer.forget_proj(x[0, t]))
        memory = torch.exp(-rate)[:, None, None] * memory
        stored = values[t]
        if mixer.correct_proj is not None:
            said = (keys[t].conj()[:, None] @ memory)[:, 0].real / phases
            stored = torch.sigmoid(mixer.correct_proj(x[0, t]))[:, None] * (stored - said)
        memory = memory + keys[t, :, :, None] * stored[:, None]
        reads.append((queries[t].conj()[:, None] @ memory)[:, 0].real / phases)
    y = F.layer_norm(torch.stack(reads), values.shape[-1:]).flatten(-2)
    return mixer.out_proj(y * F.silu(mixer.gate_proj(x[0])))[None]


@pytest.mark.parametrize("correcting", [False, True])
@pytest.mark.parametrize("forgetting", [False, True])
@pytest.mark.parametrize("length", [1, 5, 64, 150])
def test_chunks_are_the_recurrence(length: int, forgetting: bool, correcting: bool) -> None:
    mixer = made(forgetting=forgetting, correcting=correcting)
    x = torch.randn(1, length, 16, dtype=torch.float64)
    torch.testing.assert_close(mixer(x).y, defined(mixer, x), rtol=1e-10, atol=1e-12)


def test_forgetting_begins_as_the_decay_it_replaces() -> None:
    context = LayerContext(64, True, fft_backend("auto"))
    fixed, free = (HolographicConfig(forgetting=forgetting).build(context) for forgetting in (False, True))
    missing = free.load_state_dict(fixed.state_dict(), strict=False).missing_keys
    assert missing == ["forget_proj.weight", "forget_proj.bias"]
    x = torch.randn(2, 100, 64)
    torch.testing.assert_close(free(x).y, fixed(x).y)


def test_a_token_that_forgets_leaves_nothing_of_what_came_before() -> None:
    mixer = made(forgetting=True)
    assert mixer.forget_proj is not None
    with torch.no_grad():
        mixer.short.weight.zero_()
        mixer.short.weight.view(16, 3, -1)[..., -1] = 1.0  # each token by itself
        mixer.forget_proj.weight.zero_()
        mixer.forget_proj.weight[:, 0] = 1e6
        mixer.forget_proj.bias.zero_()
    x = torch.randn(1, 90, 16, dtype=torch.float64)
    x[..., 0] = 0.0
    x[:, 70, 0] = 1.0
    torch.testing.assert_close(mixer(x).y[:, 70:], mixer(x[:, 70:]).y)
    assert not torch.allclose(mixer(x).y[:, 69], mixer(x[:, 69:]).y[:, 0])


@pytest.mark.parametrize("correcting", [False, True])
def test_autocast_leaves_the_memory_its_precision(correcting: bool) -> None:
    mixer = made(correcting=correcting).float()
    with torch.autocast("cpu", torch.bfloat16):
        state = mixer(torch.randn(1, 70, 16), return_state=True).state
    assert state is not None
    assert state["memory"].dtype == torch.float32
    wanted = mixer(torch.ones(1, 1, 16), return_state=True).state
    assert wanted is not None
    assert state["memory"].shape == wanted["memory"].shape


@pytest.mark.parametrize("fastest", [1e4, 1e38])
@pytest.mark.parametrize("correcting", [False, True])
def test_a_rate_beyond_all_rounds_off_no_other(correcting: bool, fastest: float) -> None:
    torch.manual_seed(0)
    theta = torch.randn(1, 1, 150, 16, dtype=torch.float64)
    keys, values = torch.cat([theta.cos(), theta.sin()], -1), torch.randn(1, 1, 150, 8, dtype=torch.float64)
    rates = torch.full((1, 1, 150), 0.01, dtype=torch.float64)
    rates[..., ::50] = fastest
    exact = Written(keys, keys, values, rates, torch.full_like(rates, 0.5) if correcting else None)
    tensors = (exact.queries, exact.keys, exact.values, exact.rates, exact.strengths)
    rounded = Written(*(None if tensor is None else tensor.float() for tensor in tensors))
    said, wanted = read(rounded, 16, None)[0], read(exact, 16, None)[0]
    torch.testing.assert_close(said.double(), wanted, rtol=0, atol=1e-4)


def test_what_is_corrected_is_said_whatever_was_stored_before() -> None:
    """Wholly corrected, a memory says of a key the value it was given; a sum, what all keys have left."""
    torch.manual_seed(0)
    theta = torch.randn(1, 1, 200, 16, dtype=torch.float64)
    keys = torch.cat([theta.cos(), theta.sin()], -1)
    values = torch.randn(1, 1, 200, 8, dtype=torch.float64)
    rates, wholly = torch.zeros(1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 200, dtype=torch.float64)
    said, _ = read(Written(keys, keys, values, rates, wholly), 16, None)
    torch.testing.assert_close(said, values, rtol=1e-9, atol=1e-9)
    summed, _ = read(Written(keys, keys, values, rates, None), 16, None)
    assert (summed - values).abs().mean() > 1.0


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_inverses_of_alike_keys_keep_their_digits(size: int) -> None:
    """Keys all alike, wholly corrected: the powers of A pass 1e18, its inverse stays at one."""
    lower = torch.ones(3, size, size).tril(-1)
    expected = torch.eye(size) - torch.diag(torch.ones(size - 1), -1)
    torch.testing.assert_close(associative._unit_lower_inverse(lower), expected.expand(3, -1, -1), rtol=0, atol=1e-5)
