"""Parts in other people's modules: made by keyword alone, with errors that say which keyword is wrong."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import new_class
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import spectral_layers
from spectral_core import ConfigError, fft_backend
from spectral_layers import (
    Filter,
    FilterConfig,
    FilterContext,
    Gate,
    GateConfig,
    GateContext,
    GatedConvolution,
    LayerContext,
    Mixer,
    MixerConfig,
    MixerOutput,
    Modulation,
    SpectralView,
)
from spectral_layers.builtin import CLASSES
from spectral_layers.registries import FEEDFORWARDS, FILTERS, FRONTENDS, FUSIONS, GATES, MIXERS, POSITIONS, SPARSITIES
from spectral_layers.testing import spectral_view

REGISTRIES = (MIXERS, FILTERS, GATES, SPARSITIES, FUSIONS, FEEDFORWARDS, POSITIONS, FRONTENDS)
PARTS = {name: getattr(spectral_layers, name) for name in CLASSES}
NEEDED = {"CrossModal": {"modalities": ("target", "source")}}
EVERY = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)


def where(part: Any) -> dict[str, Any]:
    if part.context_class is GateContext:
        return {"heads": 2, "head_dim": 4}
    width = "channels" if part.context_class is FilterContext else "dim"
    return {width: 32, "max_seq_len": 64}


def test_every_registered_part_of_ours_is_exported() -> None:
    ours = {
        config.part_class for registry in REGISTRIES for name, config in registry.configs().items() if "/" not in name
    }
    assert ours == set(PARTS.values())
    with pytest.raises(AttributeError, match="no attribute 'Attention'"):
        _ = spectral_layers.Attention


@EVERY
def test_defaults_are_those_of_the_config(part: Any) -> None:
    made = part(**where(part), **NEEDED.get(part.__name__, {}))
    assert isinstance(made, nn.Module)
    assert made.config == part.config_class(**NEEDED.get(part.__name__, {}))
    assert part.config_class.part_class is part
    options = [name for name in part.config_class.model_fields if name != "type"]
    assert list(inspect.signature(part).parameters) == [*part.context_class.keywords.model_fields, *options]
    # No default stands anywhere else.
    assert "__init__" not in vars(part)
    assert list(inspect.signature(part.setup).parameters) == ["self", "config", "context"]


@EVERY
def test_a_wrong_keyword_is_one_error_that_says_which_there_are(part: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        part(**where(part), **NEEDED.get(part.__name__, {}), temprature=2)
    message = str(caught.value)
    assert message.startswith(f"{part.__name__}: temprature: unknown key.")
    assert all(option in message for option in (*part.config_class.model_fields, *where(part)) if option != "type")


@EVERY
def test_what_says_where_it_stands_is_needed_and_checked(part: Any) -> None:
    needed = next(iter(where(part)))
    for given, problem in (
        ({}, "Field required"),
        ({needed: 0}, "greater than 0"),
        ({needed: "wide"}, "valid integer"),
    ):
        with pytest.raises(ConfigError, match=rf"^{part.__name__}: {needed}: .*{problem}"):
            part(**{**where(part), **given} if given else {}, **NEEDED.get(part.__name__, {}))
    with pytest.raises(ConfigError, match=rf"^{part.__name__} takes keywords, {needed}, .*; got 32"):
        part(32)


def test_errors_come_with_suggestions() -> None:
    for options, message in (
        ({"filtre": "resonant"}, r"filtre: unknown key\. Did you mean 'filter'"),
        ({"filter": "resonnant"}, r"filter: no filter is called 'resonnant'\. Did you mean 'resonant'"),
        ({"fft": "torhc"}, r"fft: no backend \(fft\) is called 'torhc'\. Did you mean 'torch'"),
        ({"fft": 3}, "fft: expected a backend"),
        ({"filter": {"type": "resonant", "modes": 0}}, r"GatedConvolution: .*greater than 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            GatedConvolution(dim=8, **options)
    with pytest.raises(ConfigError, match="fourier cannot be causal, only bidirectional"):
        PARTS["Fourier"](dim=8, causal=True)
    context = LayerContext(8, True, fft_backend("torch"))
    with pytest.raises(ConfigError, match=r"got a config and also options: short_taps"):
        GatedConvolution(context, GatedConvolution.config_class(), short_taps=2)
    with pytest.raises(ConfigError, match="dim: unknown key"):
        GatedConvolution(context, dim=4)


def test_parts_inside_and_backends_come_in_every_form() -> None:
    for given in ("resonant", {"type": "resonant", "modes": 16}, PARTS["Resonant"].config_class()):
        assert GatedConvolution(dim=8, filter=given).config == GatedConvolution(dim=8).config
    torch_fft = fft_backend("torch")
    assert GatedConvolution(dim=8, fft=torch_fft).fft is torch_fft is GatedConvolution(dim=8, fft="torch").fft
    assert GatedConvolution(dim=8, fft={"type": "torch"}).fft.name == "torch"


@pytest.mark.parametrize("name", [name for name in MIXERS.names() if "/" not in name])
def test_a_mixer_in_a_module_of_one_s_own(name: str) -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(32)
            self.mixer = MIXERS.get(name).load().part_class(dim=32)

        def forward(self, x: Tensor, state: Any = None, *, stream: bool = False) -> Any:
            output = self.mixer(self.norm(x), state=state, return_state=stream)
            return x + output.y, output.state

    torch.manual_seed(0)
    mine, x = Mine().double(), torch.randn(2, 40, 32, dtype=torch.float64)
    y, _ = mine(x)
    y.square().mean().backward()
    assert all(parameter.grad is not None for parameter in mine.parameters())
    again = Mine().double()
    again.load_state_dict(mine.state_dict())
    torch.testing.assert_close(again(x)[0], y)
    if mine.mixer.causal:
        first, state = mine(x[:, :17], stream=True)
        second, state = mine(x[:, 17:39], state, stream=True)
        third, _ = mine(x[:, 39:], state)
        torch.testing.assert_close(torch.cat([first, second, third], 1), y, rtol=1e-6, atol=1e-8)


def test_importing_the_package_imports_no_part() -> None:
    script = "import sys, spectral_layers; print([m for m in sys.modules if m.endswith(('.resonant', '.mel', '.moe'))])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Parts as plugins wrote them for the release before.


class SlopeConfig(GateConfig):
    type: Literal["acme/slope"] = "acme/slope"
    initial: float = 1.0

    def build(self, context: GateContext) -> Slope:
        return Slope(context.heads, initial=self.initial)


class Slope(Gate):
    def __init__(self, heads: int, *, initial: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.full((heads, 1, 1), initial))

    def forward(self, view: SpectralView) -> Modulation:
        return Modulation(gain=torch.exp(-self.rate.square() * view.frequency))


class PairConfig(FilterConfig):
    type: Literal["acme/pair"] = "acme/pair"

    def build(self, context: FilterContext) -> Pair:
        return Pair(context.channels)


class Pair(Filter):
    support = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.ones(channels, 2))

    def kernel(self, length: int) -> Tensor:
        return nn.functional.pad(self.taps, (0, max(0, length - 2)))[:, :length]


class ScaledConfig(MixerConfig):
    type: Literal["acme/scaled"] = "acme/scaled"
    size: float = 2.0

    def build(self, context: LayerContext) -> Scaled:
        return Scaled(context, size=self.size)


class Scaled(Mixer):
    streams = False

    def __init__(self, context: LayerContext, *, size: float) -> None:
        super().__init__(context)
        self.size = nn.Parameter(torch.full((context.hidden_dim,), size))

    def mix(self, x: Tensor, *_: Any) -> MixerOutput:
        return MixerOutput(self.size * x)


def test_constructors_of_the_release_before_work_and_warn() -> None:
    layer = LayerContext(8, True, fft_backend("torch"))
    with pytest.warns(
        DeprecationWarning, match=r"Slope has a constructor .*class Slope\(Gate\[SlopeConfig\]\)  .*setup"
    ) as heard:
        gate = SlopeConfig(initial=0.5).build(GateContext(2, 4))
    assert heard[0].filename == __file__
    assert gate(spectral_view(torch.randn(1, 2, 4, 16))).gain.shape == (2, 1, 9)
    with pytest.warns(DeprecationWarning, match=r"class Pair\(Filter\[PairConfig\]\)"):
        pair = PairConfig().build(FilterContext(8))
    mixer = GatedConvolution(layer)
    mixer.filter = pair
    assert mixer(torch.randn(1, 5, 8)).y.shape == (1, 5, 8)
    with pytest.warns(DeprecationWarning, match=r"class Scaled\(Mixer\[ScaledConfig\]\)"):
        scaled = ScaledConfig().build(layer)
    assert (scaled.hidden_dim, scaled.causal, scaled.fft) == (8, True, layer.fft)
    torch.testing.assert_close(scaled(torch.ones(1, 3, 8)).y, 2 * torch.ones(1, 3, 8))


def test_a_part_without_options_needs_no_config_and_two_parts_share_none() -> None:
    class Same(Mixer):
        streams = False

        def mix(self, x: Tensor, *_: Any) -> MixerOutput:
            return MixerOutput(x)

    class All(Gate):
        def forward(self, view: SpectralView) -> Modulation:
            return Modulation()

    assert Same(dim=4)(torch.ones(1, 2, 4)).y.sum() == 8
    assert All()(spectral_view(torch.randn(1, 2, 4, 16))).gain is None
    with pytest.raises(ConfigError, match=r"Same: dim: Field required"):
        Same()
    with pytest.raises(TypeError, match="ResonantConfig builds Resonant; give Mine its own"):

        class Mine(Filter[PARTS["Resonant"].config_class]):  # type: ignore[misc]
            pass


def test_a_class_may_be_defined_again_and_a_config_has_one() -> None:
    """As in a notebook, where a cell is run twice."""

    class OnceConfig(GateConfig):
        type: Literal["once"] = "once"

    def defined(name: str) -> type[Any]:
        return new_class(name, (Gate[OnceConfig],))  # type: ignore[misc]

    defined("Once")
    again = defined("Once")
    assert OnceConfig.part_class is again
    with pytest.raises(TypeError, match=r"OnceConfig builds Once; give Other its own"):
        defined("Other")
