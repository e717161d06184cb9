"""Third parties' parts in a decoder: those that look ahead or mix rows are refused, by name; the others are not."""

from __future__ import annotations

import pkgutil
import re
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any, Literal

import numpy
import pytest
import torch
from torch import Tensor, nn

from spectral_core import FFTBackend, FFTBackendConfig, PluginError, Spectrum, hookimpl
from spectral_core.backends.base import Request
from spectral_core.backends.torch_fft import TorchFFT
from spectral_core.config import PartConfig
from spectral_core.plugins import BUILTIN_PROVIDER, HOST, Registrar
from spectral_core.registry import Entry
from spectral_layers import MIXERS as MIXERS_REGISTRY
from spectral_layers import (
    FeedForward,
    FeedForwardConfig,
    FeedForwardOutput,
    Fusion,
    FusionConfig,
    FusionOutput,
    Gate,
    GateConfig,
    GateContext,
    LayerContext,
    Mixer,
    MixerConfig,
    MixerOutput,
    Modulation,
    Position,
    PositionConfig,
    Rotation,
    Rows,
    SpectralView,
    State,
    Stream,
)
from spectral_layers.fusion.base import lengths_of
from spectral_models import build_model, load_config
from spectral_models.causality import is_decoder
from spectral_models.variants.encoder import EncoderConfig
from spectral_models.variants.language_model import LanguageModelConfig


class BatchMean(Gate):
    """Reads the mean over the batch: in a causal mixer, the blocks of one sequence, later ones included."""

    def forward(self, view: SpectralView) -> Modulation:
        return Modulation(gain=torch.sigmoid(view.relative_magnitude.mean(0, keepdim=True)))


class BatchMeanInEvaluation(BatchMean):
    """The same when it is used, and nothing while it is trained."""

    def forward(self, view: SpectralView) -> Modulation:
        return Modulation() if self.training else super().forward(view)


class BatchNormalised(Gate):
    """Statistics of the batch in training, running ones in evaluation, as in nn.BatchNorm."""

    def setup(self, config: Any, context: Any) -> None:
        self.norm = nn.BatchNorm1d(1)

    def forward(self, view: SpectralView) -> Modulation:
        level = view.relative_magnitude.log()
        return Modulation(gain=torch.sigmoid(self.norm(level.reshape(-1, 1)).reshape(level.shape)))


class RunningLevel(Gate):
    """Uses a running statistic and renews it in training, for later passes: no sample sees another in a pass."""

    def setup(self, config: Any, context: Any) -> None:
        self.register_buffer("level", torch.ones(()))

    def forward(self, view: SpectralView) -> Modulation:
        gain = torch.sigmoid(view.magnitude / self.level)
        if self.training:
            self.level.lerp_(view.magnitude.mean(), 0.1)
        return Modulation(gain=gain)


class OwnBins(Gate):
    """A good gate, with a parameter of its own."""

    def setup(self, config: Any, context: Any) -> None:
        self.slope = nn.Parameter(torch.zeros(()))

    def forward(self, view: SpectralView) -> Modulation:
        return Modulation(gain=torch.exp(-self.slope * view.frequency) * torch.sigmoid(view.relative_magnitude))


class SingleOnly(Gate):
    """A constant of its own in float32, not the view's dtype."""

    def forward(self, view: SpectralView) -> Modulation:
        return Modulation(gain=torch.sigmoid(view.relative_magnitude @ torch.eye(view.real.shape[-1])))


class Logarithmic(Gate):
    """Its parameters start small and must stay positive, and nothing keeps them so."""

    def setup(self, config: Any, context: Any) -> None:
        self.level = nn.Parameter(torch.full((64, 1, 1), 1e-3))

    def forward(self, view: SpectralView) -> Modulation:
        return Modulation(gain=torch.sigmoid(self.level.log().mean() + view.relative_magnitude))


class WholeSpectrum(Mixer):
    """Gates the spectrum of the whole sequence."""

    streams = False

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        spectrum = torch.fft.rfft(x, dim=1)
        return MixerOutput(torch.fft.irfft(spectrum * torch.sigmoid(spectrum.abs()), x.shape[1], dim=1))


class SingleConvolution(Mixer):
    """Causal, but its FFTs run in float32, whose rounding spreads over the whole sequence."""

    streams = False

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        length = x.shape[1]
        decay = torch.exp(-0.1 * torch.arange(length))[:, None]
        product = torch.fft.rfft(x.float(), 2 * length, dim=1) * torch.fft.rfft(decay, 2 * length, dim=0)
        return MixerOutput(torch.fft.irfft(product, 2 * length, dim=1)[:, :length].to(x.dtype))


class RunningMean(Mixer):
    """A good mixer, for 20 tokens at most."""

    streams = False
    length_limit = 20

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)[:, None]
        return MixerOutput(x.cumsum(1) / count)


def past_mean(x: Tensor) -> Tensor:
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]


def ahead(x: Tensor, tokens: Tensor, distance: int = 1) -> Tensor:
    """The mean of the past; at these tokens, where there are as many more, also the token that far on."""
    tokens = tokens[tokens + distance < x.shape[1]]
    y = past_mean(x).clone()
    y[:, tokens] += x[:, tokens + distance]
    return y


def edges(x: Tensor, block: int, offset: int = -1, distance: int = 1) -> Tensor:
    tokens = torch.arange(block + offset, x.shape[1], block) if block + offset < x.shape[1] else torch.empty(0).long()
    return ahead(x, tokens, distance)


def at(x: Tensor, token: int) -> Tensor:
    return ahead(x, torch.tensor([token]))


def whole_mean(x: Tensor) -> Tensor:
    return past_mean(x) + 0.1 * x.mean(1, keepdim=True)


CONDITIONS: dict[str, Callable[[Mixer, Tensor], bool]] = {
    "in_float32": lambda mixer, x: x.dtype == torch.float32,
    "in_float64": lambda mixer, x: x.dtype == torch.float64,
    "in_training": lambda mixer, x: mixer.training,
    "in_evaluation": lambda mixer, x: not mixer.training,
    "with_gradients": lambda mixer, x: torch.is_grad_enabled(),
    "without_gradients": lambda mixer, x: not torch.is_grad_enabled(),
}
LEAKS: dict[str, Callable[[Mixer, Tensor], Tensor]] = {
    **{
        f"edges_of_{block}": partial(lambda m, x, block: edges(x, block), block=block)
        for block in (7, 24, 40, 112, 200)
    },
    "after_edges_of_72": lambda m, x: edges(x, 72, 0),
    "two_ahead": lambda m, x: edges(x, 80, distance=2),
    "far_ahead": lambda m, x: edges(x, 90, distance=60),
    **{
        f"edges_of_{block}_in_long": partial(
            lambda m, x, block: edges(x, block, 0) if x.shape[1] > 700 else edges(x, 99999), block=block
        )
        for block in (40, 300, 768, 2000)
    },
    "over_1024": lambda m, x: edges(x, 512) if x.shape[1] > 1024 else past_mean(x),
    "roll_by_300": lambda m, x: past_mean(x) + (0.1 * x.roll(300, 1) if x.shape[1] > 300 else 0),
    "circle_over_1500": lambda m, x: past_mean(x) + (0.1 * x.roll(1, 1) if x.shape[1] > 1500 else 0),
    "circle_of_a_power_of_two": lambda m, x: past_mean(x) + (0.1 * x.roll(1, 1) if x.shape[1] in (128, 512) else 0),
    "five_rows": lambda m, x: past_mean(x) - (0.1 * past_mean(x).mean(0, keepdim=True) if x.shape[0] >= 5 else 0),
    "alone": lambda m, x: whole_mean(x) if x.shape[0] == 1 else past_mean(x),
    **{
        f"{name}_at_{token}": partial(
            lambda m, x, name, token: at(x, token) if CONDITIONS[name](m, x) else past_mean(x), name=name, token=token
        )
        for name in CONDITIONS
        for token in (2, 90, 254)
    },
    **{
        f"{name}_throughout": partial(
            lambda m, x, name: whole_mean(x) if CONDITIONS[name](m, x) else past_mean(x), name=name
        )
        for name in CONDITIONS
    },
    "stream_edges_of_60": lambda m, x: edges(x, 60),
    "stream_edges_of_1200": lambda m, x: edges(x, 1200),
    "stream_in_training_at_77": lambda m, x: at(x, 77) if m.training else past_mean(x),
}
ONE_AHEAD = [name for name in LEAKS if "edges_of" in name or "_at_" in name]


def remembers(mixer: Mixer, x: Tensor) -> Tensor:
    before, mixer.before = getattr(mixer, "before", None), past_mean(x).detach()
    return past_mean(x) + (0.1 * before if before is not None and before.shape == x.shape else 0)


def leaves(mixer: Mixer, x: Tensor) -> Tensor:
    raise SystemExit(0)


UNCHECKABLE: dict[str, tuple[Callable[[Mixer, Tensor], Any], str]] = {
    "remembers": (remembers, "answers differently to the same tokens"),
    "draws": (lambda m, x: past_mean(x) + numpy.random.rand(), "answers differently to the same tokens"),
    "writes": (lambda m, x: x.mul_(2) - x / 2 + past_mean(x), "writes into its input"),
    "leaves": (leaves, "it raised SystemExit: 0"),
    "short": (lambda m, x: past_mean(x)[:, :-1], "it raised RuntimeError: The size of tensor a"),
    "nan_at_300": (
        lambda m, x: past_mean(x).where(torch.arange(x.shape[1])[:, None] < 300, torch.nan),
        r"are not finite \(511 tokens",
    ),
    "returns_a_tensor": (
        lambda m, x: x,
        r"must return MixerOutput\(y, state, losses, metrics, hidden_states\); it returned \(9, 33, 8\)",
    ),
}
HONEST: dict[str, Callable[[Mixer, Tensor], Tensor]] = {
    "mean": lambda m, x: past_mean(x),
    "stream_mean": lambda m, x: past_mean(x),
    "drops": lambda m, x: nn.functional.dropout(past_mean(x), 0.3, m.training),
    "chooses": lambda m, x: (y := fft_mean(x)) * (y >= y.topk(4, -1).values[..., -1:]),
    "transforms": lambda m, x: fft_mean(x),
    "loops": lambda m, x: torch.stack(list(accumulate(x.unbind(1), lambda a, b: 0.9 * a + b)), 1),
}


def fft_mean(x: Tensor) -> Tensor:
    """A causal convolution whose rounding spreads over the whole sequence: 1e-7 of its size in float32."""
    length = x.shape[1]
    decay = torch.exp(-0.1 * torch.arange(length, dtype=x.dtype))[:, None]
    product = torch.fft.rfft(x, 2 * length, dim=1) * torch.fft.rfft(decay, 2 * length, dim=0)
    return torch.fft.irfft(product, 2 * length, dim=1)[:, :length]


def mixer_of(name: str, function: Callable[[Mixer, Tensor], Tensor]) -> type[Mixer]:
    """A mixer that does this in full passes; one whose name says so streams the mean of the past."""

    class Given(Mixer):
        streams = name.startswith("stream")

        def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
            if state is None and not return_state:
                y = function(self, x)
                return y if name == "returns_a_tensor" else MixerOutput(y)
            total = x.new_zeros(x.shape[0], 1, x.shape[2]) if state is None else state["total"]
            before = self.position(x, state)
            sums = total + x.cumsum(1)
            count = before[:, None, None] + torch.arange(1, x.shape[1] + 1)[:, None]
            return MixerOutput(sums / count, self.new_state(x, rows, state, {"total": sums[:, -1:]}))

    return Given


class Stateless(Mixer):
    """A good mixer that leaves ``streams`` as it is and returns no state."""

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        return MixerOutput(past_mean(x))


class NextRow(FeedForward):
    """Adds the following row of the batch; the last has none."""

    def forward(self, x: Tensor, *, rows: Rows | None = None) -> FeedForwardOutput:
        return FeedForwardOutput(x + torch.cat([x[1:], torch.zeros_like(x[:1])]))


class Peek(FeedForward):
    """Adds a millionth of the next token: a leak need not be large to be learnt from."""

    def forward(self, x: Tensor, *, rows: Rows | None = None) -> FeedForwardOutput:
        return FeedForwardOutput(x + 1e-6 * torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1))


class Lookahead(Position):
    """Adds a millionth of the next token where it should add its place."""

    def embed(self, x: Tensor, positions: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        return x + 1e-6 * torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)


class Turning(Position):
    """A good position, for 20 tokens at most."""

    length_limit = 20

    def rotation(self, positions: Tensor, dtype: torch.dtype, grid: tuple[int, int] | None = None) -> Rotation:
        theta = positions[..., None].to(dtype) / 7
        return Rotation(theta.cos(), theta.sin())


class Said(Fusion):
    """A good fusion: adds what its source says on the whole."""

    streams = True

    def fuse(self, streams: Mapping[str, Stream], target: str, state: State | None, return_state: bool) -> FusionOutput:
        assert state is not None
        given, said = streams[target], state["said"]
        after = self.new_state(state.position + lengths_of(given), {"said": said}) if return_state else None
        return FusionOutput(self.told(given.x, said[:, None]), after)

    def told(self, x: Tensor, said: Tensor) -> Tensor:
        return x + said

    def absorb(self, sources: Mapping[str, Stream]) -> State:
        (source,) = sources.values()
        return self.new_state(torch.zeros_like(lengths_of(source)), {"said": source.x.mean(1)})


class SaidLater(Said):
    """Also adds what the target is going to say."""

    def told(self, x: Tensor, said: Tensor) -> Tensor:
        return x + said + x.mean(1, keepdim=True)


class Wrapping(FFTBackend):
    """Transforms a signal turned by one: its last value comes first."""

    name = "acme/wrapping"

    def rfft(self, x: Tensor, n: int) -> Spectrum:
        spectrum = torch.fft.rfft(x.roll(1, -1), n)
        return Spectrum(spectrum.real, spectrum.imag)

    def irfft(self, spectrum: Spectrum, n: int) -> Tensor:
        return torch.fft.irfft(torch.complex(*spectrum), n)


class ElsewhereOnly(TorchFFT):
    """Runs on a device that is not here."""

    name = "acme/elsewhere"

    def unsupported_reasons(self, request: Request) -> list[str]:
        return [f"{request.device} is not an acme device"]


GATES = {
    "batch_mean": BatchMean,
    "batch_mean_in_evaluation": BatchMeanInEvaluation,
    "batch_normalised": BatchNormalised,
    "running_level": RunningLevel,
    "own_bins": OwnBins,
    "single_only": SingleOnly,
    "logarithmic": Logarithmic,
}
MIXERS = {
    "whole_spectrum": WholeSpectrum,
    "single_convolution": SingleConvolution,
    "running_mean": RunningMean,
    "stateless": Stateless,
    **{name: mixer_of(name, function) for name, function in (*LEAKS.items(), *HONEST.items())},
    **{name: mixer_of(name, function) for name, (function, _) in UNCHECKABLE.items()},
}
FEEDFORWARDS = {"next_row": NextRow, "peek": Peek}
POSITIONS = {"lookahead": Lookahead, "turning": Turning}
FUSIONS = {"said": Said, "said_later": SaidLater}
BACKENDS = {"wrapping": Wrapping, "elsewhere": ElsewhereOnly}


def config_class(base: type[PartConfig], part: str, build: Any) -> type[PartConfig]:
    """A part's config without options."""
    name = f"acme/{part}"
    return type(
        "Acme",
        (base,),
        {"__annotations__": {"type": Literal[name]}, "type": name, "build": build, "__module__": "acme"},
    )


def _builds_gate(part: type[Gate]) -> Any:
    def build(self: GateConfig, context: GateContext) -> Gate:
        return part()

    return build


def _builds_mixer(part: type[Mixer]) -> Any:
    def build(self: MixerConfig, context: LayerContext) -> Mixer:
        return part(context)

    return build


def _builds_feedforward(part: type[FeedForward]) -> Any:
    def build(self: FeedForwardConfig, context: LayerContext) -> FeedForward:
        return part()

    return build


def _builds_position(part: type[Position]) -> Any:
    def build(self: PositionConfig, context: LayerContext) -> Position:
        return part()

    return build


def _builds_fusion(part: type[Fusion]) -> Any:
    def build(self: FusionConfig, context: LayerContext) -> Fusion:
        return part(context)

    return build


class CausalFusionConfig(FusionConfig):
    directions = frozenset({"causal"})


def _builds_backend(part: type[FFTBackend]) -> Any:
    def build(self: FFTBackendConfig) -> FFTBackend:
        return part()

    return build


FAMILIES = (
    ("gate", GateConfig, GATES, _builds_gate),
    ("mixer", MixerConfig, MIXERS, _builds_mixer),
    ("feedforward", FeedForwardConfig, FEEDFORWARDS, _builds_feedforward),
    ("position", PositionConfig, POSITIONS, _builds_position),
    ("fusion", CausalFusionConfig, FUSIONS, _builds_fusion),
)


@contextmanager
def acme() -> Iterator[None]:
    """A plugin with all of the parts above, registered in this process."""

    @hookimpl
    def spectral_register_layers(register: Registrar) -> None:
        for kind, base, parts, builds in FAMILIES:
            for name, part in parts.items():
                register(kind, f"acme/{name}", config_class(base, name, builds(part)), summary=part.__doc__ or "")

    @hookimpl
    def spectral_register_fft_backends(register: Registrar) -> None:
        for name, part in BACKENDS.items():
            made = config_class(FFTBackendConfig, name, _builds_backend(part))
            register("fft", f"acme/{name}", made, summary=part.__doc__)

    module = types.ModuleType("acme")
    module.SPECTRAL_PLUGIN_API = 1
    module.spectral_register_layers = spectral_register_layers
    module.spectral_register_fft_backends = spectral_register_fft_backends
    HOST.register(module, namespace="acme", distribution="acme-parts")
    try:
        yield
    finally:
        HOST.unregister("acme")


@pytest.fixture(scope="module", autouse=True)
def plugin() -> Iterator[None]:
    with acme():
        yield


def config(kind: str, name: str, **overrides: Any) -> dict[str, Any]:
    """A small language model with that part, meant for 40 tokens: all of them are quick to check."""
    block: dict[str, Any] = {"mixer": "gated_convolution", "feedforward": "mlp"}
    if kind == "gate":
        block["mixer"] = {"type": "spectral_gating", "gates": ["magnitude", name], "block": 8, "window": 16}
    elif kind in ("mixer", "feedforward"):
        block[kind] = name
    named = {kind: name} if kind in ("fft", "position", "fusion") else {}
    return {
        "vocab_size": 13,
        "hidden_dim": 32,
        "num_layers": 2,
        "max_seq_len": 40,
        "block": block,
        **named,
        **overrides,
    }


SEQ2SEQ = {"type": "seq2seq", "encoder": {"type": "encoder", "hidden_dim": 16, "num_layers": 1, "max_seq_len": 5}}


@pytest.mark.parametrize(
    ("kind", "name", "mode"),
    [
        ("gate", "acme/batch_mean", "training"),
        ("gate", "acme/batch_mean_in_evaluation", "evaluation"),
        ("gate", "acme/batch_normalised", "training"),
        ("mixer", "acme/whole_spectrum", "training"),
        ("feedforward", "acme/next_row", "training"),
        ("feedforward", "acme/peek", "training"),
        ("position", "acme/lookahead", "training"),
        ("fft", "acme/wrapping", "training"),
    ],
)
def test_a_part_that_sees_the_future_or_other_rows_is_refused_by_name(kind: str, name: str, mode: str) -> None:
    with pytest.raises(PluginError) as caught:
        build_model(config(kind, name))
    message = str(caught.value)
    assert "this decoder is not causal" in message
    assert f"{mode} mode" in message
    assert f"One of these parts mixes rows or looks ahead: {kind} {name!r} of acme-parts." in message


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_in_one_place_or_one_setting_is_found(name: str) -> None:
    with pytest.raises(PluginError, match=rf"not causal.*looks ahead: mixer 'acme/{name}' of acme-parts\.") as caught:
        build_model(config("mixer", f"acme/{name}", hidden_dim=8, max_seq_len=None))
    if name in ONE_AHEAD:
        assert re.search(
            r"token \d+, 1 before it \(by .* tokens, \d+ rows, float\d\d, \w+ mode, gradients", str(caught.value)
        )
    if "_at_" in name:
        token = int(name.rsplit("_", 1)[1])
        assert f"changing token {token + 1} moves the logits of token {token}, 1 before it" in str(caught.value)
    if name == "five_rows":
        assert "moves the logits of other rows of the batch" in str(caught.value)


def test_the_message_says_how_far_the_leak_reaches() -> None:
    with pytest.raises(PluginError, match=r"token \d+, 60 before it"):
        build_model(config("mixer", "acme/far_ahead", max_seq_len=None))


@pytest.mark.parametrize("name", UNCHECKABLE)
def test_what_cannot_be_checked_is_refused_and_says_why(name: str) -> None:
    with pytest.raises(PluginError, match=UNCHECKABLE[name][1]):
        build_model(config("mixer", f"acme/{name}", hidden_dim=8, max_seq_len=None))


@pytest.mark.parametrize("name", HONEST)
def test_a_causal_mixer_of_any_length_is_let_through(name: str) -> None:
    """Whatever it is made of: dropout, choices that rounding may tip, a loop over tokens."""
    build_model(
        config(
            "mixer", f"acme/{name}", hidden_dim=8, max_seq_len=None if name in ("transforms", "stream_mean") else 300
        )
    )


def test_a_stream_that_is_not_the_full_pass_is_refused() -> None:
    original = MIXERS["stream_mean"].mix
    try:
        MIXERS["stream_mean"].mix = lambda self, *given: (
            replace(original(self, *given), y=1.001 * given[0]) if given[3] else original(self, *given)
        )
        with pytest.raises(PluginError, match="this decoder streams, and gives other logits in one pass"):
            build_model(config("mixer", "acme/stream_mean"))
    finally:
        MIXERS["stream_mean"].mix = original


@pytest.mark.parametrize(
    "place", ["assembly.check_causality", "causality.check._Check.perturb", "causality.cases.LONG"]
)
def test_a_replaced_check_is_refused_and_put_back(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    module, _, name = f"spectral_models.{place}".rpartition(".")
    owner = pkgutil.resolve_name(module)
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **named: None)
    with pytest.raises(PluginError, match=rf"one of mixer 'acme/mean' of acme-parts replaced .*{name}"):
        build_model(config("mixer", "acme/mean"))
    assert getattr(owner, name) is original


def test_a_part_that_passes_for_ours_is_checked() -> None:
    """Registered past the hooks, without a namespace, as if we provided it."""
    made = config_class(MixerConfig, "whole_mean", _builds_mixer(mixer_of("sneaky", lambda m, x: whole_mean(x))))
    made = type(
        "Sneaky", (made,), {"__annotations__": {"type": Literal["sneaky"]}, "type": "sneaky", "__module__": "acme"}
    )
    MIXERS_REGISTRY.add(Entry("mixer", "sneaky", "Ours.", made, BUILTIN_PROVIDER, "1", MixerConfig))
    try:
        with pytest.raises(PluginError, match="not causal"):
            build_model(config("mixer", "sneaky"))
    finally:
        MIXERS_REGISTRY.drop("sneaky")


def test_a_variant_cannot_opt_out_of_what_its_base_promises() -> None:
    class Encoderish(LanguageModelConfig):
        decoder = False

    assert is_decoder(Encoderish.model_construct())
    assert not is_decoder(EncoderConfig.model_construct())


@pytest.mark.parametrize(
    ("kind", "name"), [("gate", "acme/batch_mean"), ("mixer", "acme/whole_spectrum"), ("fusion", "acme/said_later")]
)
def test_a_decoder_that_reads_a_source_is_held_to_the_same(kind: str, name: str) -> None:
    with pytest.raises(PluginError, match=rf"not causal.*looks ahead: {kind} '{name}' of acme-parts\."):
        build_model(config(kind, name, **SEQ2SEQ))


def test_a_causal_encoder_is_held_to_its_direction_inside_a_classifier() -> None:
    """It is a language model's body: what would leak there is refused here, and what is causal let through."""
    for name, leaks in (("whole_spectrum", True), ("mean", False)):
        model = config("mixer", f"acme/{name}")
        encoder = {**model, "type": "encoder", "causal": True}
        with pytest.raises(PluginError, match="not causal") if leaks else nullcontext():
            build_model({"type": "classifier", "encoder": encoder})


def test_an_encoder_s_parts_may_see_the_whole_source() -> None:
    """And a fusion that keeps the contract is let through, whatever limit the encoder has."""
    build_model(config("fusion", "acme/said", **SEQ2SEQ), **{"encoder.position": "learned"})
    build_model(config("fft", "acme/elsewhere", **SEQ2SEQ))


@pytest.mark.parametrize("path", ["fft", "encoder.fft"])
@pytest.mark.parametrize("backend", ["acme/elsewhere", "triton"])
def test_a_backend_that_cannot_run_here_is_replaced_in_the_models_inside_too(
    monkeypatch: pytest.MonkeyPatch, backend: str, path: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    build_model(config("fusion", "acme/said", **SEQ2SEQ), **{path: backend})


def test_a_leak_in_training_alone_is_one_that_evaluation_cannot_show() -> None:
    """The twin of the batch-normalised case above: without the pass in training mode it would be let through."""
    model = load_config(config("gate", "acme/batch_normalised")).build().double().eval()
    tokens = torch.randint(13, (1, 40), generator=torch.Generator().manual_seed(0))
    changed = torch.cat([tokens[:, :30], (tokens[:, 30:] + 1) % 13], 1)
    with torch.no_grad():
        evaluated = (model(changed).logits - model(tokens).logits)[:, :30].abs().max()
        model.train()
        trained = (model(changed).logits - model(tokens).logits)[:, :30].abs().max()
    assert evaluated < 1e-12
    assert trained > 1e-6


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("gate", "acme/own_bins"),
        ("gate", "acme/running_level"),
        ("mixer", "acme/running_mean"),
        ("mixer", "acme/stateless"),
        ("position", "acme/turning"),
        ("fft", "acme/elsewhere"),
    ],
)
def test_a_part_that_keeps_the_contract_is_let_through(kind: str, name: str) -> None:
    assert build_model(config(kind, name)).config.num_layers == 2


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_short_models_can_be_checked_too(limit: int) -> None:
    build_model(config("gate", "acme/own_bins", max_seq_len=limit))
    with pytest.raises(PluginError, match="other rows of the batch"):
        build_model(config("feedforward", "acme/next_row", max_seq_len=limit))


def test_a_model_is_checked_where_it_is_built_for_another_device() -> None:
    with torch.device("meta"):
        model = build_model(config("gate", "acme/own_bins"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_the_check_leaves_the_random_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    source = load_config(config("gate", "acme/own_bins"))
    torch.manual_seed(5)
    unchecked, after = source.build(), torch.get_rng_state()
    torch.manual_seed(5)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    checked = build_model(source)
    assert torch.equal(torch.get_rng_state(), after)
    for ours, theirs in zip(checked.parameters(), unchecked.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert seeded == [], "an accelerator's generator is not the check's to seed: nothing would put it back"
    torch.manual_seed(5)
    assert seeded == [5], "that is where torch.manual_seed would have shown"


def test_a_part_that_computes_in_float32_alone_is_told_what_a_part_must_do() -> None:
    with pytest.raises(PluginError) as caught:
        build_model(config("gate", "acme/single_only"))
    message = str(caught.value)
    assert "could not be checked for causality" in message
    assert "RuntimeError: expected m1 and m2 to have the same dtype" in message
    assert "A part computes in the dtype and on the device of its input" in message
    assert message.endswith("Third-party parts: gate 'acme/single_only' of acme-parts.")


def test_rounding_in_float32_is_told_apart_from_looking_ahead() -> None:
    with pytest.raises(PluginError, match="may be the rounding of a part that casts to float32"):
        build_model(config("mixer", "acme/single_convolution"))


def test_a_model_that_gives_nan_is_not_let_through_unchecked() -> None:
    """NaN is not larger than any tolerance: comparisons alone would call it causal."""
    with pytest.raises(PluginError, match=r"its logits are not finite .*'acme/logarithmic'"):
        build_model(config("gate", "acme/logarithmic"))


def test_models_of_our_own_parts_are_built_without_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectral_models.assembly.check_causality", pytest.fail)
    build_model(config("gate", "band"))
