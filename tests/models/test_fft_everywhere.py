"""One ``fft`` of a config reaches every spectral operator of its model, those of the models inside it too."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

import pytest
import torch

from spectral_core import FFTBackendConfig, hookimpl
from spectral_core.backends.torch_fft import TorchFFT
from spectral_core.config import OneOf
from spectral_core.plugins import HOST
from spectral_models import MODELS, ModelConfig, build_model, load_checkpoint, load_config, save_checkpoint

S = {"hidden_dim": 16, "vocab_size": 32}
TEXT = {"type": "encoder", **S, "num_layers": 2, "layers": ["dense", {"mixer": "fourier", "feedforward": "mlp"}]}
SOUND = {"type": "audio_encoder", "hidden_dim": 16, "num_layers": 2}
GATING = {"mixer": {"type": "spectral_gating", "head_dim": 8, "window": 16, "block": 8}, "feedforward": "mlp"}
PARTITIONED = {"mixer": {"type": "gated_convolution", "filter": "partitioned"}, "feedforward": "mlp"}
FUSION, CROSS = ({"type": name, "head_dim": 8} for name in ("source_product", "cross_modal"))
IDS = torch.arange(24).remainder(32).repeat(2, 1)
CASES: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "language_model": ({**S, "num_layers": 4, "layers": [GATING, PARTITIONED, "multiscale", "dense"]}, (IDS,)),
    "classifier": ({"type": "classifier", "encoder": TEXT}, (IDS,)),
    "token_classifier": ({"type": "token_classifier", "encoder": TEXT}, (IDS,)),
    "sounds": ({"type": "classifier", "encoder": SOUND}, (torch.randn(2, 1600),)),
    "multimodal": (
        {"type": "multimodal", "hidden_dim": 16, "encoders": {"a": TEXT, "b": SOUND}, "fusion": CROSS},
        ({"a": IDS, "b": torch.randn(2, 1600)},),
    ),
    "seq2seq": (
        {"type": "seq2seq", **S, "num_layers": 2, "layers": [GATING, "dense"], "encoder": TEXT, "fusion": FUSION},
        (IDS, IDS),
    ),
}  # fmt: skip
CALLS: list[str] = []
INSIDE: list[bool] = []


def counted(method: Any) -> Any:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        CALLS.append(method.__name__)
        INSIDE.append(True)
        try:
            return method(*args, **kwargs)
        finally:
            INSIDE.pop()

    return call


class Counted(TorchFFT):
    """torch.fft that counts its calls."""

    name = "counted/torch"
    rfft, irfft = counted(TorchFFT.rfft), counted(TorchFFT.irfft)
    convolution, modulation = counted(TorchFFT.convolution), counted(TorchFFT.modulation)
    prepare_kernel = counted(TorchFFT.prepare_kernel)


class CountedConfig(FFTBackendConfig):
    """torch.fft that counts its calls."""

    type: Literal["counted/torch"] = "counted/torch"

    def build(self) -> Counted:
        return Counted()


class Pair(ModelConfig):
    """A plugin's variant that contains models, in a list and by name."""

    type: Literal["counted/pair"] = "counted/pair"
    members: tuple[Annotated[ModelConfig, OneOf(MODELS)], ...]
    named: dict[str, Annotated[ModelConfig, OneOf(MODELS)]]


class Plugin:
    SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_fft_backends(self, register: Any) -> None:
        register("fft", "counted/torch", CountedConfig, summary="Counts.")

    @hookimpl
    def spectral_register_models(self, register: Any) -> None:
        register("model", "counted/pair", Pair, summary="Two models.")


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """The counting backend, and a record of every transform that runs outside it."""
    outside: list[str] = []

    def recorded(name, function):
        def call(*args, **kwargs):
            if not INSIDE:
                outside.append(name)
            return function(*args, **kwargs)

        return call

    HOST.register(Plugin(), namespace="counted")
    for name in ("rfft", "irfft", "fft", "ifft", "rfftn", "irfftn", "fftn", "ifftn"):
        monkeypatch.setattr(torch.fft, name, recorded(name, getattr(torch.fft, name)))
    CALLS.clear()
    yield outside
    HOST.unregister("counted")


@pytest.mark.filterwarnings("ignore:.*counted:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_every_operator_runs_on_the_one_that_is_named(name, backend, tmp_path):
    config, given = CASES[name]
    assert not CALLS
    torch.manual_seed(0)
    model = load_config(config, fft="counted/torch").build().eval()  # without the check of third-party decoders
    backend.clear()
    CALLS.clear()
    with torch.no_grad():
        logits = model(*given).logits
    assert CALLS
    assert backend == []
    save_checkpoint(build_model(config), tmp_path / "model")
    loaded = load_checkpoint(tmp_path / "model", fft="counted/torch").eval()
    loaded.load_state_dict(model.state_dict())
    backend.clear()
    with torch.no_grad():
        torch.testing.assert_close(loaded(*given).logits, logits)
    assert backend == []


@pytest.mark.parametrize("name", ["classifier", "multimodal", "seq2seq"])
def test_null_leaves_the_models_inside_their_own(name):
    """And a twin that must not hold: with a value, theirs is replaced."""
    config, _ = CASES[name]
    inner = {"seq2seq": "encoder", "classifier": "encoder", "multimodal": "encoders.a"}[name]
    kept = load_config(config, **{f"{inner}.fft": "direct"})
    assert kept.fft is None

    def of(model):
        return (model.encoders["a"] if name == "multimodal" else model.encoder).fft.type

    assert of(kept) == "direct"
    assert of(load_config(kept, fft="hierarchical")) == "hierarchical"
    assert of(load_config(load_config(kept, fft="hierarchical"), fft=None)) == "hierarchical"


def test_a_plugin_s_variant_inherits_it():
    members = ["language_model", CASES["classifier"][0]]
    pair = load_config({"type": "counted/pair", "members": members, "named": {"x": TEXT}})
    assert [member.fft for member in pair.members][1] is None
    pair = load_config(pair, fft="hierarchical")
    assert {m.fft.type for m in (*pair.members, pair.named["x"], pair.members[1].encoder)} == {"hierarchical"}
