"""The contract of a fusion, by a toy that a third party registers: text that reads a longer sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import pytest
import torch
from torch import nn

from spectral_core import StateError, UnsupportedInputError, fft_backend, hookimpl
from spectral_core.config import Config, OneOf
from spectral_core.errors import ConfigError
from spectral_core.plugins import HOST, Registrar
from spectral_layers import FUSIONS, Fusion, FusionConfig, FusionOutput, LayerContext, Rows, State, Stream
from spectral_layers.testing import FUSION_CHECKS, Check, FusionCase, pairs


class MeanFusion(Fusion):
    """Adds the projected mean of each other stream to every token of the target."""

    def setup(self, config: FusionConfig, context: LayerContext) -> None:
        super().setup(config, context)
        self.proj = nn.Linear(context.hidden_dim, context.hidden_dim)

    def fuse(self, streams: Mapping[str, Stream], target: str, state: State | None, return_state: bool) -> FusionOutput:
        y = streams[target].x
        for name, stream in streams.items():
            if name != target:
                mask = torch.ones(stream.x.shape[:2]) if stream.rows is None else stream.rows.mask(stream.x.shape[1])
                weight = mask.to(stream.x.dtype)[..., None]
                y = y + self.proj((stream.x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1))
        return FusionOutput(y, metrics={"streams": torch.tensor(float(len(streams)))})


class MeanFusionConfig(FusionConfig):
    directions = frozenset({"bidirectional", "causal"})

    type: Literal["acme/mean"] = "acme/mean"

    def build(self, context: LayerContext) -> MeanFusion:
        return MeanFusion(context)


class Plugin:
    SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_layers(self, register: Registrar) -> None:
        register("fusion", "acme/mean", MeanFusionConfig, summary="Adds means.")


class Model(Config):
    fusion: Annotated[FusionConfig, OneOf(FUSIONS)]


@pytest.fixture(scope="module", autouse=True)
def _acme() -> Iterator[None]:
    assert FUSIONS.names("acme/*") == []
    HOST.register(Plugin(), namespace="acme")
    yield
    HOST.unregister("acme")


def streams() -> dict[str, Stream]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"text": (2, 5, 8), "sound": (2, 11, 8)}
    return {name: Stream(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def build(causal: bool = True) -> Fusion:
    config: FusionConfig = Model.parse({"fusion": "acme/mean"}).fusion
    return config.build(LayerContext(8, causal, fft_backend("torch")))


@pytest.mark.parametrize(
    ("check", "case"),
    pairs(FUSION_CHECKS, [FusionCase(MeanFusionConfig(), causal) for causal in (True, False)]),
    ids=str,
)
def test_a_third_party_s_fusion_passes_the_kit(check: Check[FusionCase], case: FusionCase) -> None:
    check(case)


def test_refusals_say_what_came_and_what_to_do() -> None:
    given, sound = streams(), streams()["sound"].x
    refused = {
        r"the target 'video' is not among the streams: text, sound\.": (given, "video"),
        r"'sound' .* D = 8; got \(2, 11, 4\).*Project it": (
            {**given, "sound": Stream(sound[..., :4])},
            "text",
        ),
        r"'sound' has 1 rows, another stream 2": ({**given, "sound": Stream(sound[:1])}, "text"),
        r"'sound' has 2 rows, and lengths are \(3,\)": ({**given, "sound": Stream(sound, Rows(torch.ones(3)))}, "text"),
    }
    for message, (wrong, target) in refused.items():
        with pytest.raises(UnsupportedInputError, match=message):
            build()(wrong, target)
    text = {**given, "text": Stream(given["text"].x, kind="causal")}
    with pytest.raises(UnsupportedInputError, match=r"'text' is causal\. Use .* such as source_product"):
        build(causal=False)(text, "text")
    with pytest.raises(StateError, match="MeanFusion cannot stream"):
        build()(text, "text", return_state=True)


def test_an_unknown_fusion_is_named() -> None:
    with pytest.raises(ConfigError, match=r"fusion: no fusion is called 'acme/meen'\. Did you mean 'acme/mean'"):
        Model.parse({"fusion": "acme/meen"})


def test_a_config_without_build_says_what_is_missing() -> None:
    with pytest.raises(TypeError, match=r"A part names its config: class Name\(Fusion\[FusionConfig\]\)"):
        FusionConfig(type="bare").build(LayerContext(8, True, fft_backend("torch")))
