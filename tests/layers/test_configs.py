"""What a config refuses, and in which words."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pytest

from spectral_core import ConfigError, fft_backend
from spectral_core.config import Config, OneOf
from spectral_layers import (
    FEEDFORWARDS,
    FILTERS,
    FRONTENDS,
    FUSIONS,
    GATES,
    MIXERS,
    POSITIONS,
    SPARSITIES,
    FeedForwardConfig,
    FilterConfig,
    FilterContext,
    FrontEndConfig,
    GateConfig,
    GateContext,
    LayerContext,
    MixerConfig,
    PositionConfig,
    SparsityConfig,
)


class Block(Config):
    mixer: Annotated[MixerConfig, OneOf(MIXERS)] = "gated_convolution"  # type: ignore[assignment]
    feedforward: Annotated[FeedForwardConfig, OneOf(FEEDFORWARDS)] = "swiglu"  # type: ignore[assignment]


def context(hidden_dim: int = 64, max_seq_len: int | None = None) -> LayerContext:
    return LayerContext(hidden_dim, True, fft_backend("torch"), max_seq_len)


@pytest.mark.parametrize("name", ["holographic", "spectral_gating"])
def test_heads_must_divide_the_width(name: str) -> None:
    config = Block.parse({"mixer": {"type": name, "head_dim": 48}}).mixer
    with pytest.raises(ConfigError, match=r"head_dim 48 does not divide hidden_dim 64\."):
        config.build(context())


def test_a_free_filter_needs_a_length() -> None:
    config = Block.parse({"mixer": {"type": "gated_convolution", "filter": "spectrum"}}).mixer
    with pytest.raises(
        ConfigError, match="'spectrum' has one parameter per position: set its size, or the model's max_s"
    ):
        config.build(context())
    assert config.build(context(max_seq_len=100)).length_limit == 100
    sized = Block.parse({"mixer": {"type": "gated_convolution", "filter": {"type": "spectrum", "size": 40}}}).mixer
    assert sized.build(context(max_seq_len=100)).length_limit == 40
    assert Block().mixer.build(context(max_seq_len=100)).length_limit is None, "a resonant model has no limit"


def gating(**options: Any) -> dict[str, Any]:
    return {"mixer": {"type": "spectral_gating", **options}}


def convolution(part: Any) -> dict[str, Any]:
    return {"mixer": {"type": "gated_convolution", "filter": part}}


def moe(**options: Any) -> dict[str, Any]:
    return {"feedforward": {"type": "moe", **options}}


REFUSED: list[tuple[Any, str]] = [
    (gating(window=63), "mixer: window must be even and at least block = 32; got 63"),
    (gating(window=16), "mixer: window must be even and at least block = 32; got 16"),
    (gating(gates=[]), "mixer.gates: The list should have at least 1 item"),
    (gating(gates=["bend"]), "mixer.gates.0: no gate is called 'bend'. Did you mean 'band'?"),
    (gating(gates=[{"type": "band", "bands": 1}]), "mixer.gates.0.bands: Input should be greater than or equal to 2"),
    (gating(sparsity="fix"), "mixer.sparsity: no sparsity is called 'fix'. Did you mean 'fixed'?"),
    (gating(sparsity={"type": "fixed", "share": 0}), "mixer.sparsity.share: Input should be greater than 0 (got 0)"),
    (gating(sparsity={"type": "energy", "share": 1}), "mixer.sparsity.share: Input should be less than 1 (got 1)"),
    (gating(head_dim=0), "mixer.head_dim: Input should be greater than 0 (got 0)"),
    (convolution("band"), "mixer.filter: no filter is called 'band'."),
    (convolution({"type": "resonant", "modes": 0}), "mixer.filter.modes: Input should be greater than 0 (got 0)"),
    (
        convolution({"type": "resonant", "timescales": (9.0, 2.0)}),
        "mixer.filter: timescales go from the shortest to the longest; got (9.0, 2.0)",
    ),
    # One octave has no low-pass: a parameter without a gradient, which stops DDP.
    (convolution({"type": "multiresolution", "octaves": 1}), "filter.octaves: Input should be greater than"),
    ({"mixer": {"type": "gated_convolution", "heads": 4}}, "mixer.heads: unknown key. Known: short_taps, filter."),
    ({"mixer": "gated_convolutions"}, "mixer: no mixer is called 'gated_convolutions'. Did you mean 'gated_conv"),
    (moe(experts=2, active=3), "feedforward: active = 3 exceeds experts = 2"),
    (moe(balance_weight=-1), "feedforward.balance_weight: Input should be greater than or equal to 0"),
    (moe(z_weight=-1), "feedforward.z_weight: Input should be greater than or equal to 0"),
    ({"feedforward": "holographic"}, "feedforward: no feedforward is called 'holographic'."),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_work_is_refused_with_its_path(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Block.parse(given)


def test_directions_say_which_models_take_a_mixer() -> None:
    directions = {entry.name: sorted(entry.load().directions) for entry in MIXERS}
    assert (
        directions
        | {
            "fourier": ["bidirectional"],
            "gated_convolution": ["bidirectional", "causal"],
            "holographic": ["causal"],
            "spectral_gating": ["bidirectional", "causal"],
            "spectral_product": ["causal"],
        }
        == directions
    )


def test_every_part_describes_itself() -> None:
    for registry in (MIXERS, FILTERS, GATES, SPARSITIES, FUSIONS, FEEDFORWARDS, POSITIONS, FRONTENDS):
        for entry in registry:
            config = entry.load()
            assert config.__doc__, entry.name
            assert entry.summary.endswith("."), entry.name
            missing = [name for name, field in config.model_fields.items() if name != "type" and not field.description]
            assert not missing, f"{entry.name}: options without a docstring: {missing}"


@pytest.mark.parametrize(
    ("base", "given"),
    [
        (MixerConfig, context()),
        (FeedForwardConfig, context()),
        (FilterConfig, FilterContext(4)),
        (GateConfig, GateContext(2, 4)),
        (SparsityConfig, GateContext(2, 4)),
        (PositionConfig, context()),
        (FrontEndConfig, context()),
    ],
)
def test_a_config_without_build_says_what_is_missing(base: Any, given: Any) -> None:
    with pytest.raises(TypeError, match=rf"A part names its config: class Name\(\w+\[{base.__name__}\]\)"):
        base(type="bare").build(given)
