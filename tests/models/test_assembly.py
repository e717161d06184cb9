"""From presets, files, mappings and config objects to models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml
from torch import nn

from spectral_core import ConfigError, PluginError, __version__
from spectral_core.plugins import HOST, Registrar, hookimpl
from spectral_layers import Mixer, MixerConfig
from spectral_layers.mixers.base import MixerOutput
from spectral_models import BlockConfig, ModelConfig, build_model, list_models, load_config
from spectral_models.assembly import components_of

SMALL = {"vocab_size": 11, "hidden_dim": 32, "num_layers": 2}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_presets_are_found_by_pattern() -> None:
    assert {"tiny", "small", "base"} <= set(list_models())
    assert list_models("t*") == ["tiny"]
    assert list_models("[bt]*") == ["base", "tiny"]
    assert list_models("none*") == []
    assert list_models() == sorted(list_models())


def test_all_sources_give_the_same_config(tmp_path: Path) -> None:
    data = {**SMALL, "layers": [{"mixer": "holographic"}, {"feedforward": {"type": "mlp", "expansion": 1e-3}}]}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(data))
    (tmp_path / "model.json").write_text(json.dumps(data, indent="\t"))  # tabs are JSON, and not YAML
    config = load_config(data)
    for source in (tmp_path / "model.yaml", str(tmp_path / "model.json"), config, config.model_dump()):
        assert load_config(source) == config
    (tmp_path / "model").write_text(yaml.safe_dump(data))
    assert load_config(tmp_path / "model") == config  # any file that is there


def test_a_preset_is_not_shadowed_by_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_text("hidden_dim: 2\n")
    assert load_config("tiny").hidden_dim == 128
    assert load_config(Path("tiny")).hidden_dim == 2


def test_overrides_reach_everywhere() -> None:
    config = load_config(
        "tiny",
        vocab_size=11,
        fft="torch",
        **{"layers.0.mixer.filter.modes": 3, "layers.1.mixer.phases": 5, "layers.0.feedforward": "swiglu"},
    )
    convolution, holographic = config.layers
    assert (config.vocab_size, config.fft.type) == (11, "torch")
    assert (convolution.mixer.filter.modes, convolution.feedforward.type) == (3, "swiglu")
    assert holographic.mixer.phases == 5  # a bare name in the preset
    assert load_config(config, hidden_dim=64).layers == config.layers


def refusal(source: object, **overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source, **overrides)  # type: ignore[arg-type]
    return str(caught.value)


def test_an_unknown_preset_is_told_from_a_missing_file() -> None:
    message = refusal("tinny")
    assert "Did you mean 'tiny'?" in message
    assert all(name in message for name in list_models())
    assert "cannot read the config nowhere.yaml: No such file" in refusal("nowhere.yaml")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("list.yaml", b"- a\n- b\n", "must be a mapping of keys to values; got list"),
        ("empty.yaml", b"", "got NoneType"),
        ("broken.yaml", b"a: [1\n", "is not YAML"),
        ("broken.json", b"{'a': 1}", "is not JSON"),
        ("latin.yaml", "größe: 1".encode("latin-1"), "is not UTF-8 text (byte 2)"),
    ],
)
def test_a_file_that_is_no_config_says_so(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert expected in refusal(tmp_path / name)


def test_a_directory_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert "cannot read" in refusal(tmp_path / "folder.yaml")
    assert "no preset is called" in refusal(tmp_path)


@pytest.mark.parametrize("source", [3, None, BlockConfig(), nn.Linear(1, 1)])
def test_an_object_of_another_kind_is_refused(source: object) -> None:
    message = refusal(source)
    assert "a preset's name, the path of a config file, a mapping or a ModelConfig" in message
    assert message.endswith(f"got {type(source).__name__}.")


def test_a_variant_that_is_not_registered_is_refused() -> None:
    """Its checkpoints could never be read."""

    class Homemade(ModelConfig):
        type: str = "language_model"

    assert "registered ModelConfig; got Homemade" in refusal(Homemade())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"hidden_dim": 33, "block": {"mixer": "holographic"}}, "block.mixer: head_dim 32 does not divide"),
        ({"hidden_dim": 33, "layers": [{}, {"mixer": "spectral_gating"}]}, "layers.1.mixer: head_dim 32 does not"),
        (
            {"block": {"mixer": {"type": "gated_convolution", "filter": "spectrum"}}},
            "block.mixer: the filter 'spectrum'",
        ),
    ],
)
def test_what_only_building_finds_out_carries_its_path(data: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(data)
    assert str(caught.value).startswith(expected)


def test_tied_embeddings_are_one_parameter() -> None:
    tied, untied = build_model(SMALL), build_model(SMALL, tie_embeddings=False)
    assert parameters(untied) - parameters(tied) == 11 * 32
    assert tied.head is None
    before = tied(torch.tensor([[1, 2]])).logits
    with torch.no_grad():
        tied.frontend.embedding.weight[7] += 1  # a token that is not in the input: only the head can notice
    assert (tied(torch.tensor([[1, 2]])).logits - before)[..., 7].abs().min() > 0
    assert untied.head.weight is not untied.frontend.embedding.weight


def test_a_model_is_initialised_from_the_random_seed_alone() -> None:
    first, second, third = (seeded(seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), third.parameters(), strict=True))


def seeded(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(SMALL)


def test_components_are_listed_once_each_with_their_provider() -> None:
    config = load_config({"layers": [{"mixer": "holographic"}, {"mixer": "holographic"}, {}]})
    found = [(component.kind, component.name) for component in components_of(config)]
    assert found == [
        ("feedforward", "swiglu"),
        ("fft", "auto"),
        ("filter", "resonant"),
        ("mixer", "gated_convolution"),
        ("mixer", "holographic"),
        ("model", "language_model"),
        ("position", "none"),
    ]
    assert {(part.provider, part.version) for part in components_of(config)} == {("spectral-networks", __version__)}


class AveragingConfig(MixerConfig):
    type: Literal["acme/averaging"] = "acme/averaging"
    span: Literal["past", "all"] = "past"


class Averaging(Mixer[AveragingConfig]):
    """Subtracts the mean over ``span``: of the past and present, or of the whole sequence."""

    def mix(self, x, rows, state, return_state):  # type: ignore[no-untyped-def]
        count = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        mean = x.cumsum(1) / count if self.config.span == "past" else x.mean(1, keepdim=True)
        return MixerOutput(x - mean)


class AcmePlugin:
    SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_layers(self, register: Registrar) -> None:
        register("mixer", "acme/averaging", AveragingConfig, summary="Subtracts a mean.")


@pytest.fixture
def acme():  # type: ignore[no-untyped-def]
    HOST.register(AcmePlugin(), namespace="acme", distribution="acme-spectral")
    yield
    HOST.unregister("acme")


@pytest.mark.usefixtures("acme")
def test_a_third_party_part_is_built_and_one_that_sees_the_future_is_not() -> None:
    mixer = {"type": "acme/averaging", "span": "past"}
    assert build_model(SMALL, **{"block.mixer": mixer})(torch.tensor([[1, 2]])).logits.shape == (1, 2, 11)
    with pytest.raises(PluginError, match=r"not causal.*mixer 'acme/averaging' of acme-spectral"):
        build_model(SMALL, **{"block.mixer": {**mixer, "span": "all"}})


@pytest.mark.usefixtures("acme")
def test_the_causality_check_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_config(SMALL)
    config = load_config(SMALL, **{"block.mixer": "acme/averaging"})
    with torch.device("meta"):  # which draws nothing, so that only the check could
        build_model(config)
    assert torch.equal(torch.rand(1), expected)
