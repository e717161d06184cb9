"""The contract of a fusion, by a toy that a third party registers: text that reads a longer sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import pytest
import torch
from torch import Tensor, nn

from spectral_core import hookimpl
from spectral_core.config import Config, OneOf
from spectral_core.errors import ConfigError
from spectral_core.plugins import HOST, Registrar
from spectral_layers import FUSIONS, Fusion, FusionConfig, FusionOutput, LayerContext, Rows, Stream


class MeanFusion(Fusion):
    """Adds the projected mean of each other stream to every token of the target."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim)

    def forward(self, streams: Mapping[str, Stream], target: str) -> FusionOutput:
        y = streams[target].x
        for name, stream in streams.items():
            if name != target:
                mask = torch.ones(stream.x.shape[:2]) if stream.rows is None else stream.rows.mask(stream.x.shape[1])
                weight = mask.to(stream.x.dtype)[..., None]
                y = y + self.proj((stream.x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1))
        return FusionOutput(y, metrics={"streams": torch.tensor(float(len(streams)))})


class MeanFusionConfig(FusionConfig):
    type: Literal["acme/mean"] = "acme/mean"

    def build(self, context: LayerContext) -> MeanFusion:
        return MeanFusion(context.hidden_dim)


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


def build() -> Fusion:
    from spectral_core import fft_backend

    config = Model.parse({"fusion": "acme/mean"}).fusion
    torch.manual_seed(0)
    return config.build(LayerContext(8, True, fft_backend("torch"))).double()


def streams() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"text": (2, 5, 8), "sound": (2, 11, 8)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def test_the_output_has_the_target_s_length() -> None:
    given = {name: Stream(x) for name, x in streams().items()}
    for target, length in (("text", 5), ("sound", 11)):
        assert build()(given, target).y.shape == (2, length, 8)


def test_a_causal_target_stays_causal_and_hears_all_of_the_others() -> None:
    x = streams()
    text = Stream(x["text"].requires_grad_(), kind="causal")
    sound = Stream(x["sound"].requires_grad_())
    y = build()({"text": text, "sound": sound}, "text").y
    for token in range(5):
        to_text, to_sound = torch.autograd.grad(y[:, token].sum(), (text.x, sound.x), retain_graph=True)
        assert not to_text[:, token + 1 :].any()
        assert to_sound.abs().sum(-1).all()


def test_padding_of_a_source_is_not_heard() -> None:
    x = streams()
    padded = x["sound"].clone()
    padded[:, 7:] = 1e3
    rows = Rows(torch.tensor([7, 7]))
    fused = build()({"text": Stream(x["text"]), "sound": Stream(padded, rows)}, "text").y
    alone = build()({"text": Stream(x["text"]), "sound": Stream(x["sound"][:, :7])}, "text").y
    torch.testing.assert_close(fused, alone)


def test_an_unknown_fusion_is_named() -> None:
    with pytest.raises(ConfigError, match=r"fusion: no fusion is called 'acme/meen'\. Did you mean 'acme/mean'"):
        Model.parse({"fusion": "acme/meen"})


def test_a_config_without_build_says_what_is_missing() -> None:
    from spectral_core import fft_backend

    with pytest.raises(NotImplementedError, match=r"FusionConfig must define build\(context\)"):
        FusionConfig(type="bare").build(LayerContext(8, True, fft_backend("torch")))
