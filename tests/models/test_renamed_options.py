"""Options that were renamed are read under their earlier names, in whatever way a config arrives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml
from pydantic import Field

from spectral_core import ConfigError, hookimpl
from spectral_core.config import Config, OneOf
from spectral_core.plugins import HOST
from spectral_core.renamed import Renamed
from spectral_layers import GATES, GateConfig, MixerConfig
from spectral_models import MODELS, load_config
from spectral_models.overrides import parse_assignment
from spectral_models.record import config_of, make_record
from spectral_models.training.config import load_run
from spectral_models.variants.language_model import LanguageModelConfig

RENAMED = {"steep": Renamed("slope", {True: "steep", False: "flat"}), "broad": Renamed("width")}


class Gate(GateConfig):
    type: Literal["renamed/gate"] = "renamed/gate"
    earlier_options = RENAMED
    slope: Literal["flat", "steep"] = "flat"
    width: int = 1


class Mixer(MixerConfig):
    type: Literal["renamed/mixer"] = "renamed/mixer"
    earlier_options: ClassVar = {"door": Renamed("gate"), "doors": Renamed("gates")}
    gate: Annotated[GateConfig, OneOf(GATES)] = Gate()
    gates: tuple[Annotated[GateConfig, OneOf(GATES)], ...] = ()


class Model(LanguageModelConfig):
    type: Literal["renamed/model"] = "renamed/model"  # type: ignore[assignment]
    earlier_options = RENAMED
    slope: Literal["flat", "steep"] = "flat"
    width: int = 1
    by_name: dict[str, Annotated[GateConfig, OneOf(GATES)]] = Field(default_factory=dict)


class Plugin:
    SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_layers(self, register: Any) -> None:
        register("gate", "renamed/gate", Gate, summary="Has other options now.")
        register("mixer", "renamed/mixer", Mixer, summary="Has other options now.")

    @hookimpl
    def spectral_register_models(self, register: Any) -> None:
        register("model", "renamed/model", Model, summary="Has other options now.")


@pytest.fixture(autouse=True)
def plugin() -> Iterator[None]:
    HOST.register(Plugin(), namespace="renamed")
    yield
    HOST.unregister("renamed")


def written(**gate: Any) -> dict[str, Any]:
    """A config of the plugin's variant with the same options at each place where one may stand."""
    part = {"type": "renamed/gate", **gate}
    mixer = {"type": "renamed/mixer", "gate": part, "gates": [part]}
    return {
        "type": "renamed/model",
        "hidden_dim": 16,
        "num_layers": 1,
        "layers": [{"mixer": mixer}],
        "by_name": {"a": part},
        **gate,
    }


NOW, EARLIER = {"slope": "steep", "width": 3}, {"steep": True, "broad": 3}
PLACES = ("", "layers.0.mixer.gate.", "layers.0.mixer.gates.0.", "by_name.a.")


def in_yaml(data: dict[str, Any], folder: Path) -> Any:
    (folder / "config.yaml").write_text(yaml.safe_dump(data))
    return load_config(folder / "config.yaml")


def in_json(data: dict[str, Any], folder: Path) -> Any:
    (folder / "config.json").write_text(json.dumps(data))
    return load_config(folder / "config.json")


def in_a_run(data: dict[str, Any], folder: Path) -> Any:
    return load_run({"model": data}).model


def in_a_checkpoint(data: dict[str, Any], folder: Path) -> Any:
    record = make_record(load_config(written()))
    return config_of({**record, "spectral": data}, "a checkpoint")


def as_changes(data: dict[str, Any], folder: Path) -> Any:
    """Each option by its path, in front of what has it already under its current name."""
    options = {key: data[key] for key in data if key in {*NOW, *EARLIER}}
    return load_config(
        written(slope="flat", width=7), **{f"{place}{key}": options[key] for place in PLACES for key in options}
    )


WAYS = {
    "mapping": lambda data, folder: load_config(data),
    "class": lambda data, folder: MODELS.get(data["type"]).load()(**data),
    "yaml": in_yaml,
    "json": in_json,
    "run": in_a_run,
    "checkpoint": in_a_checkpoint,
    "changes": as_changes,
}


@pytest.mark.parametrize("way", WAYS)
def test_earlier_names_are_read(way: str, tmp_path: Path) -> None:
    found = WAYS[way](written(**EARLIER), tmp_path)
    assert found == load_config(written(**NOW)) != load_config(written())
    assert json.dumps(found.model_dump(mode="json")).count("broad") == 0


@pytest.mark.parametrize("place", PLACES)
def test_a_change_replaces_what_the_config_has_under_either_name(place: str) -> None:
    for before in ({"slope": "steep"}, {"steep": True}, {}):
        for change in ({"slope": "flat"}, {"steep": False}, {"steep": "false"}):
            path, value = f"{place}{next(iter(change))}", next(iter(change.values()))
            expected = load_config(written(slope="steep"), **{f"{place}slope": "flat"})
            made = load_config(written(slope="steep") if not before else written(**before), **{path: value})
            assert made == expected


@pytest.mark.parametrize(
    "change", [{"model.layers.0.mixer.door.broad": 9}, {"model.layers.0.mixer.doors.0.steep": True}]
)
def test_a_path_through_a_renamed_option(change: dict[str, Any]) -> None:
    model = load_run(
        {
            "model": written(
                **NOW,
            )
        },
        change,
    ).model
    mixer = model.layers[0].mixer
    assert (mixer.gate.width, mixer.gates[0].slope) == (9 if "broad" in str(change) else 3, "steep")


def test_both_names_may_agree() -> None:
    assert load_config(written(**NOW, **EARLIER)) == load_config(written(**NOW))


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (
            {"slope": "flat", "steep": True},
            {},
            "by_name.a.steep: is slope: 'steep' now, and slope is 'flat' here. Write",
        ),
        ({"steep": "very"}, {}, "steep: is slope now, one of steep (was True), flat (was False); got 'very'"),
        ({}, {"layers.0.mixer.gate.steep": [1]}, "layers.0.mixer.gate.steep: is slope now, one of steep (was True), "),
        (
            {},
            {"by_name.a.steep": True, "by_name.a.slope": "flat"},
            "by_name.a.steep and by_name.a.slope are names of one option, with different values. Give it once.",
        ),
        ({"slop": "flat"}, {}, "slop: unknown key. Did you mean 'slope'? Known: "),
    ],
)
def test_what_does_not_fit_is_refused_by_name(data: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(**data), **changes)
    assert message in str(caught.value)


def test_the_schema_has_current_names_alone() -> None:
    text = json.dumps(MODELS.get("renamed/model").load().model_json_schema())
    assert '"slope"' in text
    assert not any(f'"{name}"' in text for name in ("broad", "door", "earlier_options"))


@pytest.mark.parametrize("names", [{"slope": Renamed("width")}, {"steep": Renamed("nothing")}])
def test_a_class_whose_names_do_not_fit_is_refused(names: dict[str, Renamed]) -> None:
    with pytest.raises(TypeError, match=r"Wrong.earlier_options: '\w+' must be no field, and '\w+' must be one"):

        class Wrong(Config):
            earlier_options = names
            slope: int = 1
            width: int = 1


def test_a_subclass_inherits_them() -> None:
    class Further(Gate):
        earlier_options: ClassVar = {"far": Renamed("reach")}
        reach: int = 0

    assert Further.parse({"far": 2, "broad": 4}).model_dump() == {**Gate(width=4).model_dump(), "reach": 2}


def test_the_options_of_holographic() -> None:
    path, value = parse_assignment("layers.1.mixer.correcting=false")
    changed = load_config("tiny", **{path: value, "layers.1.mixer.forgetting": False})
    assert (changed.layers[1].mixer.decay, changed.layers[1].mixer.update) == ("constant", "additive")
    written = {"mixer": {"type": "holographic", "forgetting": True, "correcting": True}}
    assert load_config({"layers": ["dense", written]}) == load_config({"block": "hybrid", "layers": None})
    assert (
        load_config({"layers": [written]}, **{"layers.0.mixer.decay": "constant"}).layers[0].mixer.decay == "constant"
    )


def test_the_tokens_of_seq2seq() -> None:
    data = {"type": "seq2seq", "hidden_dim": 32, "num_layers": 1, "vocab_size": 16}
    now = load_config(data, decoder_start_token_id=3, eos_token_id=4)
    assert load_config({**data, "start_token_id": 3, "end_token_id": 4}) == now
    assert load_config(load_config(data), start_token_id=3, end_token_id=4) == now
