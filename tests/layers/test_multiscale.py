"""The multiscale mixer against its definition, and where blocks begin and end."""

from __future__ import annotations

import math
import re

import pytest
import torch

from spectral_core import ConfigError, StateError
from spectral_layers.filters.multiresolution import MultiresolutionConfig
from spectral_layers.filters.partitioned import PartitionedConfig
from spectral_layers.filters.spectrum import SpectrumConfig
from spectral_layers.mixers.multiscale import Multiscale, MultiscaleConfig
from spectral_layers.testing import MIXER_CHECKS, Check, MixerCase, pairs

# No scale of one token, scales that do not divide each other, and a ring buffer that wraps.
ODD = [
    MixerCase(MultiscaleConfig(scales=(2, 5)), hidden_dim=8, block=10),
    MixerCase(MultiscaleConfig(scales=(3, 7), filter=PartitionedConfig(chunk=2, chunks=3)), hidden_dim=8, block=7),
]


@pytest.mark.parametrize(("check", "case"), pairs(MIXER_CHECKS, ODD), ids=str)
def test_odd_scales(check: Check[MixerCase], case: MixerCase) -> None:
    check(case)


def build(**options) -> Multiscale:
    mixer = MixerCase(MultiscaleConfig(**options), hidden_dim=6, max_seq_len=64).build()
    assert isinstance(mixer, Multiscale)
    return mixer


def test_outputs_are_the_definition_token_by_token() -> None:
    mixer = build(scales=(1, 2, 5), filter=MultiresolutionConfig(taps=3, octaves=2))
    x = torch.randn(2, 23, 6, dtype=torch.float64)
    with torch.no_grad():
        post, pre, value = mixer.short(mixer.in_proj(x).transpose(1, 2)).chunk(3, 1)
        u = pre * value
        expected = mixer.skip[:, None] * u
        shares = (mixer.choice(x)[..., None] + mixer.leaning).softmax(2).sqrt()  # (B, L, scales, D)
        for at, scale in enumerate((1, 2, 5)):
            kernel = mixer.scales[str(scale)].filter.kernel(23)
            for t in range(23):
                complete = (t + 1) // scale
                for m in range(complete):
                    block = u[..., m * scale : (m + 1) * scale].sum(-1) / math.sqrt(scale)
                    expected[..., t] += shares[:, t, at] * kernel[:, complete - 1 - m] * block
        expected = mixer.out_proj((expected * post).transpose(1, 2))
        torch.testing.assert_close(mixer(x).y, expected, rtol=1e-10, atol=1e-12)


def test_a_block_is_heard_from_its_last_token_on() -> None:
    mixer = build(scales=(4, 9), short_taps=1)
    x = torch.randn(1, 12, 6, dtype=torch.float64)
    changed = x.clone()
    changed[:, 5] += 1.0
    with torch.no_grad():
        moved = (mixer(changed).y - mixer(x).y).abs().amax(-1)[0]
    # Token 5 itself has another gate and skip; its block, of tokens 4 ... 7, counts from 7 on.
    assert (moved > 1e-9).tolist() == [False] * 5 + [True] + [False] + [True] * 5


@pytest.mark.parametrize("batch", [1, 3])
def test_decoding_runs_a_scale_once_per_block(batch: int) -> None:
    mixer = build(scales=(1, 4))
    x = torch.randn(batch, 22, 6, dtype=torch.float64)
    calls = {"1": 0, "4": 0}
    for name, scale in mixer.scales.items():
        step = scale.filter.step

        def counted(memory, u, *tables, name=name, step=step):
            calls[name] += 1
            return step(memory, u, *tables)

        scale.filter.step = counted
    with torch.no_grad():
        state = mixer(x[:, :2], return_state=True).state
        for token in x[:, 2:].split(1, 1):
            state = mixer(token, state=state, return_state=True).state
    assert calls == {"1": 20, "4": 5}


def test_the_state_of_a_recurrent_filter_does_not_grow() -> None:
    mixer = build()
    sizes = set()
    with torch.no_grad():
        for length in (1, 50, 400):
            saved = mixer(torch.randn(2, length, 6, dtype=torch.float64), return_state=True).state.save()
            sizes.add(sum(tensor.numel() for tensor in saved.values()))
    assert len(sizes) == 1


def test_the_limit_counts_complete_blocks() -> None:
    # 11 blocks of 7 tokens, and 6 tokens of a block that is never heard.
    assert build(scales=(7, 8), filter=SpectrumConfig(size=11)).length_limit == 83
    assert build(scales=(1, 7), filter=SpectrumConfig(size=11)).length_limit == 11
    assert build(scales=(1, 7), filter=SpectrumConfig()).length_limit == 64, "the model's max_seq_len"
    assert build().length_limit is None


def test_a_state_continues_the_scales_it_was_made_by() -> None:
    mixer, x = build(scales=(1, 4)), torch.randn(1, 9, 6, dtype=torch.float64)
    state = mixer(x, return_state=True).state
    for scales in ((1, 4, 16), (1, 2), (4, 9)):
        message = f"belongs to Multiscale (scales 1, 4); it cannot continue Multiscale (scales {str(scales)[1:-1]})"
        with pytest.raises(StateError, match=re.escape(message)):
            build(scales=scales)(x, state=state)
    mixer(x, state=state)  # unharmed


def test_white_input_keeps_its_variance_at_every_scale() -> None:
    torch.manual_seed(0)
    mixer = build(scales=(1, 4, 16))
    u = torch.randn(64, 6, 256, dtype=torch.float64)
    with torch.no_grad():
        for scale in mixer.scales.values():
            # An impulse as the kernel: blocks themselves, held.
            scale.filter.prepared = lambda length, fft: torch.eye(1, length, dtype=torch.float64).expand(6, -1)
            assert scale(u)[..., 15:].var().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (4, 1)}, "scales go from the finest to the coarsest, none twice; got (4, 1)"),
        ({"scales": (1, 1)}, "scales go from the finest to the coarsest, none twice; got (1, 1)"),
        ({"scales": (4,)}, "scales: The list should have at least 2 items"),
        ({"scales": (0, 1)}, "scales.0: Input should be greater than 0"),
    ],
)
def test_scales_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        MultiscaleConfig.parse(options)
