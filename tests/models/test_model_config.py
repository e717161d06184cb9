"""Configs of models: what validates, what does not, and what the errors say."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from spectral_core import ConfigError, UnknownComponentError
from spectral_core.plugins import HOST
from spectral_layers import FEEDFORWARDS, MIXERS
from spectral_models import MODELS, BlockConfig, ModelConfig, load_config
from spectral_models.config import Blocks, parts_of
from spectral_models.overrides import override, parse_assignment
from spectral_models.variants.encoder import TextEncoderConfig
from spectral_models.variants.language_model import LanguageModelConfig
from spectral_models.variants.stack import StackConfig

CAUSAL = [entry.name for entry in MIXERS if "causal" in entry.load().directions]


def refusal(data: object, **overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(data, **overrides)  # type: ignore[arg-type]
    return str(caught.value)


def test_an_empty_config_is_the_default_language_model() -> None:
    config = load_config({})
    assert config.type == "language_model"
    assert config == load_config({"type": "language_model", "block": "hybrid"})
    assert (
        load_config({"type": "encoder"}).blocks
        == (BlockConfig(),)
        == load_config({"type": "encoder", "block": "dense"}).blocks
    )


def test_every_problem_is_reported_at_once_with_its_full_path() -> None:
    lines = refusal(
        {
            "vocab_size": "many",
            "num_layer": 3,
            "layers": [{}, {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "mods": 8}}}],
        }
    ).splitlines()
    assert len(lines) == 3
    by_path = dict(line.split(": ", 1) for line in lines)
    assert "(got 'many')" in by_path["vocab_size"]
    assert "Did you mean 'num_layers'?" in by_path["num_layer"]
    assert "Did you mean 'modes'?" in by_path["layers.1.mixer.filter.mods"]


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"hidden_dim": 0}, "hidden_dim"),
        ({"hidden_dim": 12.5}, "hidden_dim"),
        ({"num_layers": -1}, "num_layers"),
        ({"max_seq_len": 0}, "max_seq_len"),
        ({"tie_embeddings": "perhaps"}, "tie_embeddings"),
        ({"block": {"dropout": 1.0}}, "block.dropout"),
        ({"block": {"dropout": float("nan")}}, "block.dropout"),
        ({"block": {"norm": "batch_norm"}}, "block.norm"),
        ({"block": {"mixer": {"type": "holographic", "phases": "x"}}}, "block.mixer.phases"),
        ({"block": {"mixer": {"phases": 3}}}, "block.mixer"),
        ({"block": {"mixer": 7}}, "block.mixer"),
        ({"block": {"feedforward": {"type": "moe", "experts": 2, "active": 3}}}, "block.feedforward"),
        ({"block": {"mixer": {"type": "spectral_gating", "gates": ["magnitude", "magnitud"]}}}, "block.mixer.gates.1"),
        ({"layers": {"0": {}}}, "layers"),
        ({"fft": "fastest"}, "fft"),
        ({"position": "ropes"}, "position"),
        ({"position": {"type": "rope", "base": 1}}, "position.base"),
        ({"embed_dim": 0}, "embed_dim"),
        ({"fft": {"type": "hierarchical", "block_bytes": 0}}, "fft.block_bytes"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(data: dict[str, object], path: str) -> None:
    assert refusal(data).startswith(f"{path}: ")


def test_keys_that_are_no_names_are_refused() -> None:
    """YAML has them: ``1: 2``."""
    assert "1" in refusal({1: 2})


@pytest.mark.parametrize("name", ["block", "layers"])
def test_a_mixer_that_sees_the_future_is_refused_with_the_causal_ones(name: str) -> None:
    blocks = {"mixer": "fourier"} if name == "block" else [{}, {"mixer": "fourier"}]
    message = refusal({name: blocks})
    assert message.startswith("block.mixer: 'fourier'" if name == "block" else "layers.1.mixer: 'fourier'")
    assert f"Causal mixers: {', '.join(CAUSAL)}." in message
    assert "fourier" not in CAUSAL


def test_one_kind_of_block_or_several_but_not_both() -> None:
    assert "either block (one kind) or layers" in refusal({"block": {}, "layers": [{}]})
    assert "either block" in refusal("tiny", **{"block.mixer": "holographic"})  # a preset with layers


@pytest.mark.parametrize(
    "name", ["os.system", "torch.nn:Linear", "spectral_layers.mixers.holographic:HolographicConfig", "__import__('os')"]
)
def test_a_config_names_registered_parts_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config from the internet runs no code: only what plugins registered is imported to find a name."""
    registered = {entry.target.partition(":")[0] for registry in HOST.registries.values() for entry in registry}
    imported = set()
    real = importlib.import_module
    monkeypatch.setattr(
        importlib, "import_module", lambda module, *rest: (imported.add(module), real(module, *rest))[1]
    )
    for data in ({"block": {"mixer": name}}, {"block": {"mixer": {"type": name}}}, {"fft": name}):
        assert "is called" in refusal(data)
    with pytest.raises(UnknownComponentError, match="no model is called"):
        load_config({"type": name})
    assert imported <= registered


def test_the_type_is_a_name() -> None:
    assert refusal({"type": 3}).startswith("type: ")
    assert refusal({"type": None}).startswith("type: ")


def test_yaml_tags_make_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("hidden_dim: !!python/object/apply:os.getpid []\n")
    assert "is not YAML" in refusal(path)


def variants() -> list[dict[str, object]]:
    blocks: list[object] = [{"mixer": mixer} for mixer in CAUSAL]
    blocks += [{"feedforward": entry.name, "norm": "layer_norm", "dropout": 0.1} for entry in FEEDFORWARDS]
    return [
        {},
        {"layers": blocks, "num_layers": 9, "max_seq_len": 64, "tie_embeddings": False},
        {"block": {"mixer": {"type": "spectral_gating", "gates": ["band", "magnitude"], "head_dim": 8}}},
        {"fft": {"type": "hierarchical", "block_bytes": 7}},
        {"position": {"type": "rope", "base": 100.0}, "embed_dim": 8},
    ]


@pytest.mark.parametrize("data", variants())
@pytest.mark.parametrize("mode", ["python", "json"])
def test_a_dumped_config_parses_to_the_same(data: dict[str, object], mode: str) -> None:
    """Checkpoints hold the dump: a part's own fields must survive it."""
    config = load_config(data)
    dumped = config.model_dump(mode=mode)
    assert load_config(dumped) == config
    assert load_config(config) == config
    assert MODELS.get("language_model").load().model_validate_json(config.model_dump_json()) == config


def test_configs_are_frozen() -> None:
    config = load_config({})
    with pytest.raises(ValueError, match="frozen"):
        config.hidden_dim = 3


def test_layers_take_turns_up_to_num_layers() -> None:
    config = load_config({"num_layers": 5, "layers": [{"mixer": "holographic"}, {}]})
    assert [path for path, _ in config.stack()] == ["layers.0", "layers.1", "layers.0", "layers.1", "layers.0"]
    assert [block.mixer.type for _, block in config.stack()][1] == "gated_convolution"
    assert [path for path, _ in load_config({"num_layers": 2, "block": {}}).stack()] == ["block", "block"]
    assert [path for path, _ in load_config({"num_layers": 3}).stack()] == ["layers.0", "layers.1", "layers.0"]


def test_the_schema_names_every_part() -> None:
    schema = MODELS.get("language_model").load().model_json_schema()
    assert {f"mixer.{name}" for name in MIXERS.names()} <= set(schema["$defs"])
    assert {"filter.resonant", "gate.magnitude", "fft.hierarchical", "position.rope"} <= set(schema["$defs"])


@pytest.mark.parametrize(
    ("changes", "made"),
    [
        ({"a": 1}, {"a": 1, "list": [{"b": 2}, "name"]}),
        ({"new.deep.er": 1}, {"list": [{"b": 2}, "name"], "new": {"deep": {"er": 1}}}),
        ({"list.0.b": 3}, {"list": [{"b": 3}, "name"]}),
        ({"list.1.key": 3}, {"list": [{"b": 2}, {"type": "name", "key": 3}]}),
        ({"list.0": "other"}, {"list": ["other", "name"]}),
        ({"list.0.b": 1, "list.0.c": 2}, {"list": [{"b": 1, "c": 2}, "name"]}),
    ],
)
def test_overrides_reach_into_mappings_lists_and_bare_names(
    changes: dict[str, object], made: dict[str, object]
) -> None:
    data = {"list": [{"b": 2}, "name"]}
    assert override(data, changes) == made
    assert data == {"list": [{"b": 2}, "name"]}  # the original is the caller's


@pytest.mark.parametrize("path", ["list.2.b", "list.-1.b", "list.0.c.1.d", "list.first", "list.1.type.x.y", "number.x"])
def test_an_override_through_nothing_is_an_error_with_its_path(path: str) -> None:
    with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
        override({"list": [{"b": 2, "c": [1]}, 7], "number": 3}, {path: 1})


def test_an_override_opens_what_is_null() -> None:
    for source in ({}, {"block": None, "layers": None}):
        assert (
            load_config(source, **{"block.mixer.phases": 8, "block.mixer.type": "holographic"}).block.mixer.phases == 8
        )


def test_a_whole_block_stands_instead_of_layers_and_the_other_way_round() -> None:
    """A config that was read back has the one written out that its model has."""
    two, one = load_config({"block": "hybrid"}), load_config({"block": "dense"})
    assert load_config(two, block="dense") == one
    assert load_config(one, layers=["hybrid"]) == two
    assert load_config({"type": "classifier", "encoder": "encoder"}, **{"encoder.layers": ["dense"]}).encoder.layers
    with pytest.raises(ConfigError, match=r"not both; set one to null"):
        load_config(two, **{"block.mixer.type": "holographic"})  # nobody said what is to become of the layers
    gate = {"block": {"mixer": {"type": "spectral_gating"}, "feedforward": "mlp"}}
    assert load_config(gate, **{"block.mixer.block": 16}).block.mixer.block == 16


class _Dense(LanguageModelConfig):
    block: BlockConfig | None = BlockConfig(norm="layer_norm")


class _Plain(LanguageModelConfig):
    block: BlockConfig = BlockConfig()


class _Twice(TextEncoderConfig):
    layers: Blocks | None = (BlockConfig(), BlockConfig(norm="layer_norm"))


@pytest.mark.parametrize(("variant", "blocks"), [(_Dense, 1), (_Plain, 1), (_Twice, 2)])
def test_a_default_of_a_plugin_s_variant_is_kept(variant: type[StackConfig], blocks: int) -> None:
    made = variant()
    assert len(made.blocks) == blocks
    assert made.blocks == (made.layers or (variant.model_fields["block"].default,))
    assert variant.parse(made.model_dump()) == made


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("block.mixer.filter.modes=8", "block.mixer.filter.modes", 8),
        ("fft=torch", "fft", "torch"),
        ("tie_embeddings=false", "tie_embeddings", False),
        ("layers=[{mixer: holographic}]", "layers", [{"mixer": "holographic"}]),
        ("max_seq_len=", "max_seq_len", None),
        (" a = b=c ", "a", "b=c"),
        ("separator=|", "separator", "|"),
        ("separator=,", "separator", ","),
    ],
)
def test_assignments_are_read_as_yaml(text: str, path: str, value: object) -> None:
    assert parse_assignment(text) == (path, value)


@pytest.mark.parametrize("text", ["hidden_dim", "=3", "", "a=[1", "a={b"])
def test_what_assigns_nothing_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot set"):
        parse_assignment(text)


def test_a_variant_must_say_how_it_is_built() -> None:
    class Unfinished(ModelConfig):
        type: str = "acme/unfinished"

    with pytest.raises(NotImplementedError, match="Unfinished must define build"):
        Unfinished().build()


def test_parts_of_a_config_come_with_their_paths() -> None:
    config = load_config({"layers": [{"mixer": {"type": "spectral_gating", "gates": ["band", "magnitude"]}}]})
    found = [(path, part.type) for path, part in parts_of(config)]
    assert found == [
        ("fft", "auto"),
        ("position", "none"),
        ("layers.0.mixer", "spectral_gating"),
        ("layers.0.mixer.gates.0", "band"),
        ("layers.0.mixer.gates.1", "magnitude"),
        ("layers.0.feedforward", "swiglu"),
    ]
