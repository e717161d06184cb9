"""Open unions resolved through a registry, errors that carry the full path, and the JSON Schema."""

from __future__ import annotations

import json
import types
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, PositiveFloat, PositiveInt, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from spectral_core.config import Config, OneOf, PartConfig, problem
from spectral_core.errors import ConfigError, PluginError
from spectral_core.plugins import PluginHost, Registrar, hookimpl, hookspec


class GateConfig(PartConfig):
    """Base of the gates."""


class MixerConfig(PartConfig):
    """Base of the mixers."""


class Parts:
    @staticmethod
    @hookspec
    def spectral_register_parts(register: Registrar) -> None:
        """Register parts."""

    @staticmethod
    @hookimpl(specname="spectral_register_parts")
    def ours(register: Registrar) -> None:
        register("gate", "plain", PlainGate, summary="Plain.")
        register("gate", "strict", StrictGate, summary="Checks.")
        register("mixer", "gated", GatedMixer, summary="Has a gate.")
        register("mixer", "several", SeveralMixers, summary="Has mixers.")

    @staticmethod
    @hookimpl(specname="spectral_register_parts")
    def theirs(register: Registrar) -> None:
        register("gate", "acme/notch", NotchGate, summary="Theirs.")


def module(name: str, **members: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(members)
    return made


HOST = PluginHost(list)
_FAMILY = HOST.family(
    "spectral_register_parts",
    specs=module("specs", spectral_register_parts=Parts.spectral_register_parts),
    builtin=module("ours", spectral_register_parts=Parts.ours),
    version="1.0",
)
GATES = _FAMILY.registry("gate", GateConfig)
MIXERS = _FAMILY.registry("mixer", MixerConfig)
AnyGate = Annotated[GateConfig, OneOf(GATES)]
AnyMixer = Annotated[MixerConfig, OneOf(MIXERS)]


class PlainGate(GateConfig):
    type: Literal["plain"] = "plain"
    heads: PositiveInt = 4
    """How many heads share a gate."""


class StrictGate(GateConfig):
    type: Literal["strict"] = "strict"
    low: float = 0.0
    high: float = 1.0

    @field_validator("low")
    @classmethod
    def _even(cls, low: float) -> float:
        if low % 1:
            raise PydanticCustomError("not_whole", "{low} is {{not}} whole", {"low": low})
        return low

    @model_validator(mode="after")
    def _ordered(self) -> StrictGate:
        if self.low > self.high:
            raise problem(("high",), f"must be at least low = {self.low}", self.high)
        return self


class Options(BaseModel):
    bands: int = 2


class NotchGate(GateConfig):
    type: Literal["acme/notch"] = "acme/notch"
    width: PositiveFloat = 0.25
    options: Options = Options()


class GatedMixer(MixerConfig):
    type: Literal["gated"] = "gated"
    gate: AnyGate = "plain"  # type: ignore[assignment]


class SeveralMixers(MixerConfig):
    type: Literal["several"] = "several"
    mixers: tuple[AnyMixer, ...] = ()


class Block(Config):
    mixer: AnyMixer
    width: PositiveInt = 8


class Model(Config):
    block: Block
    scale: float = 1.0


HOST.register(
    module("acme", SPECTRAL_PLUGIN_API=1, spectral_register_parts=Parts.theirs), namespace="acme", distribution="acme"
)


def gate_of(given: object) -> GateConfig:
    return GatedMixer.parse({"gate": given}).gate


@pytest.mark.parametrize("given", ["plain", {"type": "plain"}, PlainGate()])
def test_three_ways_to_name_a_part(given: object) -> None:
    assert gate_of(given) == PlainGate(heads=4)


def test_the_default_is_validated_too() -> None:
    assert GatedMixer().gate == PlainGate()


def test_a_part_keeps_its_own_fields_through_a_round_trip() -> None:
    gate = {"type": "acme/notch", "width": 0.5, "options": {"bands": 3}}
    model = Model.parse({"block": {"mixer": {"type": "gated", "gate": gate}}})
    assert type(model.block.mixer.gate) is NotchGate
    dumped = model.model_dump()
    assert dumped["block"]["mixer"]["gate"] == gate
    assert Model.parse(dumped) == model
    assert Model.parse(json.loads(model.model_dump_json())) == model
    assert Model.parse({"block": model.block}) == model, "validated parts are taken as they are"


def test_parts_nest_in_parts() -> None:
    inner = {"type": "several", "mixers": ["gated", {"type": "gated", "gate": "acme/notch"}]}
    model = Model.parse({"block": {"mixer": {"type": "several", "mixers": [inner]}}})
    assert isinstance(model.block.mixer, SeveralMixers)
    assert Model.parse(model.model_dump()) == model


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("plane", "gate: no gate is called 'plane'. Did you mean 'plain'? Known: acme/notch, plain, strict."),
        ({"heads": 2}, "gate: a gate needs a 'type': one of acme/notch, plain, strict"),
        ({"type": 3}, "gate: the 'type' of a gate is a name; got 3"),
        ({"type": "plain", "haeds": 2}, "gate.haeds: unknown key. Did you mean 'heads'? Known: heads."),
        ({"type": "plain", "heads": 0}, "gate.heads: Input should be greater than 0 (got 0)"),
        ({"type": "acme/notch", "options": {"bands": "x"}}, "gate.options.bands: Input should be a valid integer"),
        (GatedMixer(), "gate: expected a gate: a name, a mapping with 'type', or a registered GateConfig"),
        (GateConfig(type="plain"), "gate: expected a gate"),
        (PlainGate, "gate: expected a gate"),
        (None, "gate: expected a gate"),
        (7, "got int"),
    ],
)
def test_errors_carry_the_path_and_a_suggestion(given: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GatedMixer.parse({"gate": given})
    assert message in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        Model.parse({"block": {"mixer": {"type": "several", "mixers": ["gated", {"type": "gated", "gate": given}]}}})
    nested = str(caught.value)
    assert nested.startswith("block.mixer.mixers.1.gate"), nested
    assert message.removeprefix("gate") in nested


def test_a_subclass_nobody_registered_is_refused() -> None:
    class Other(PlainGate):
        secret: int = 1

    with pytest.raises(ConfigError, match="got Other"):
        gate_of(Other())


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Model.parse(
            {
                "block": {"mixer": {"type": "gated", "gate": {"type": "plain", "heads": "x", "hads": 1}}, "width": -1},
                "scael": 2,
            }
        )
    lines = str(caught.value).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [
        "block.mixer.gate.hads",
        "block.mixer.gate.heads",
        "block.width",
        "scael",
    ]
    assert "scael: unknown key. Did you mean 'scale'? Known: block, scale." in lines


def test_a_key_of_another_level_has_no_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"^zzz: unknown key. Known: mixer, width.$"):
        Block.parse({"mixer": "gated", "zzz": 1})


def test_missing_key_and_wrong_top_level() -> None:
    with pytest.raises(ConfigError, match=r"^block: Field required$"):
        Model.parse({})
    with pytest.raises(ConfigError, match=r"^config: Input should be a mapping of keys to values"):
        Model.parse([1])


class BrokenGate(GateConfig):
    type: Literal["acme/broken"] = "acme/broken"
    width: int = 1

    @field_validator("width")
    @classmethod
    def _even(cls, width: int) -> int:
        raise [RecursionError, TypeError, OverflowError, KeyError][width]("\x1b[2Jwidth")


@pytest.mark.parametrize("width", range(4))
def test_a_validator_of_a_plugin_that_raises_is_named(width: int) -> None:
    with pytest.raises(PluginError, match=r"BrokenGate failed to check its values: \w+Error") as caught:
        BrokenGate.parse({"width": width})
    assert str(caught.value).isprintable()


def test_a_long_list_of_problems_is_cut_and_counted_wherever_it_lies() -> None:
    many = {f"heds{number}\n\x1b": "x" * 10_000 for number in range(500)}
    inside = {"block": {"mixer": {"type": "gated", **many}, **many}}
    for data, problems in (({**many, "block": {"mixer": "gated"}}, 500), (inside, 1000)):
        with pytest.raises(ConfigError) as caught:
            Model.parse(data)
        lines = str(caught.value).splitlines()
        assert len(lines) == 21
        assert all(line.isprintable() and len(line) < 300 for line in lines)
        assert lines[-1] == f"... and {problems - 20} more problems."


@pytest.mark.parametrize(
    "name", ["x" * 10_000, ["x"] * 10_000, [10**5000], "\x1b[2J"], ids=["long", "list", "number", "escape"]
)
def test_names_of_any_kind_are_shown_short(name: object) -> None:
    with pytest.raises(ConfigError) as caught:
        gate_of({"type": name})
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_what_holds_itself_is_refused() -> None:
    gate: dict[str, Any] = {"type": "plain"}
    gate["heads"] = gate
    with pytest.raises(ConfigError, match="config: is nested more than 64 levels deep, or holds itself"):
        gate_of(gate)


def test_checks_across_fields_point_below_themselves() -> None:
    with pytest.raises(ConfigError, match=r"^gate.high: must be at least low = 2.0$"):
        gate_of({"type": "strict", "low": 2, "high": 1})


def test_a_parts_own_kind_of_error_comes_through() -> None:
    # A validator may raise an error kind of its own, braces included; pydantic's path and network types do.
    with pytest.raises(ConfigError, match=r"^gate.low: 0.5 is .*not.* whole"):
        gate_of({"type": "strict", "low": 0.5})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan"])
def test_no_nan(value: object) -> None:
    with pytest.raises(ConfigError, match=r"scale: Input should be a finite number"):
        Model.parse({"block": {"mixer": "gated"}, "scale": value})


def test_frozen_and_hashable() -> None:
    gate = PlainGate()
    with pytest.raises(ValidationError, match="frozen"):
        gate.heads = 2
    assert hash(gate) == hash(PlainGate())


def test_a_config_names_no_python_path() -> None:
    with pytest.raises(ConfigError, match="no gate is called 'os:system'"):
        gate_of("os:system")


@pytest.fixture
def schema(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("spectral_core.plugins.HOST", HOST)
    return Model.model_json_schema()


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        here = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return here.union(*(references(child) for child in node.values()))
    if isinstance(node, list):
        return set().union(*(references(child) for child in node))
    return set()


def test_schema_holds_every_part_by_kind_and_name(schema: dict[str, Any]) -> None:
    definitions = schema["$defs"]
    assert {"gate", "mixer", "gate.plain", "gate.acme.notch", "mixer.several"} <= set(definitions)
    names, *parts = definitions["gate"]["anyOf"]
    assert names == {"enum": ["acme/notch", "plain", "strict"]}, "a bare name is short for a part"
    assert {"$ref": "#/$defs/gate.acme.notch"} in parts
    assert definitions["gate.acme.notch"]["properties"]["width"]["exclusiveMinimum"] == 0
    assert definitions["gate.plain"]["properties"]["heads"]["description"] == "How many heads share a gate."
    assert definitions["gate.plain"]["additionalProperties"] is False


def test_schema_is_recursive_and_closed(schema: dict[str, Any]) -> None:
    definitions = schema["$defs"]
    assert definitions["mixer.several"]["properties"]["mixers"]["items"]["$ref"] == "#/$defs/mixer"
    assert {ref.removeprefix("#/$defs/") for ref in references(schema)} <= set(definitions), "no reference dangles"
    assert "x-spectral-kind" not in json.dumps(schema)


def test_schema_is_json_and_the_same_twice(schema: dict[str, Any]) -> None:
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema
    assert Model.model_json_schema() == schema


def test_parts_with_helper_models_of_one_name_keep_them_apart(
    schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class OtherConfig(GateConfig):
        type: Literal["other/gate"] = "other/gate"
        options: _TheirOptions.Options

    @hookimpl
    def spectral_register_parts(register: Registrar) -> None:
        register("gate", "other/gate", OtherConfig, summary="Has an Options of its own.")

    OtherConfig.model_rebuild()
    plugin = module("other", SPECTRAL_PLUGIN_API=1, spectral_register_parts=spectral_register_parts)
    HOST.register(plugin, namespace="other")
    try:
        definitions = Model.model_json_schema()["$defs"]
    finally:
        HOST.unregister("other")

    def options_of(part: str) -> set[str]:
        field = definitions[part]["properties"]["options"]
        return set(definitions[field["$ref"].removeprefix("#/$defs/")]["properties"])

    assert options_of("gate.acme.notch") == {"bands"}
    assert options_of("gate.other.gate") == {"taps"}


class _TheirOptions:
    class Options(BaseModel):
        taps: int = 3
