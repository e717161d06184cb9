"""What users do wrong ends in one error that says what came in and what to do, and not in a traceback."""

from __future__ import annotations

import json
import re
from typing import Literal

import pytest
import torch
import yaml
from torch import nn

from spectral_core import ConfigError, PluginError, UnsupportedInputError, hookimpl
from spectral_core.plugins import HOST
from spectral_layers import Gate, GateConfig, GateContext
from spectral_models import CheckpointError, build_model, load_checkpoint, load_config, save_checkpoint

SMALL = {"hidden_dim": 16, "num_layers": 1, "block": {"mixer": {"type": "holographic", "head_dim": 8, "phases": 4}}}
READER = {"type": "encoder", "hidden_dim": 16, "num_layers": 1}
RUN = {
    "model": {**SMALL, "block": {**SMALL["block"], "feedforward": "mlp"}},
    "data": {"context": 16, "validation_bytes": 500},
    "training": {"steps": 4, "batch_size": 2, "eval_every": 4, "save_every": 2},
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("mistakes") / "text.txt"
    path.write_text("".join(f"line {i} fox {i * i % 97}\n" for i in range(300)))
    return path


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(SMALL).eval()


# Configs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": "dense"}, r"^layers: Input should be a list, also for a single entry: \[entry\] \(got 'dense'\)$"),
        ({"block": 3}, r"^block: Input should be a mapping of keys to values \(got 3\)$"),
        ({"HIDDEN_DIM": 3}, r"Did you mean 'hidden_dim'\?"),
        (
            {"block.mixer": {"type": "spectral_gating", "gates": []}},
            r"gates: The list should have at least 1 item",
        ),
    ],
)
def test_config_errors_speak_of_lists_and_mappings(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_config({}, **changes)


def test_an_entry_that_is_wrong_is_not_also_said_to_be_missing():
    with pytest.raises(ConfigError) as raised:
        load_config({"block": {"mixer": {"type": "spectral_gating", "gates": ["magnitud"]}}})
    assert "Did you mean 'magnitude'?" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("assignment", [".hidden_dim=3", "layers..0=dense", "hidden_dim.=3"])
def test_a_path_with_an_empty_step_is_refused(spectral, assignment):
    spectral("config", "show", "tiny", "--set", assignment).refused(r"write PATH=VALUE")


@pytest.mark.parametrize("width", [1 << 16, 1 << 20])
def test_a_model_beyond_memory_is_refused(width):
    with pytest.raises(ConfigError, match=r"no memory for the model: .*Lower hidden_dim"):
        build_model(SMALL, hidden_dim=width, vocab_size=1 << 32)


# Models called with something else


def test_text_in_place_of_tokens_is_told_how_to_become_them(model):
    with pytest.raises(UnsupportedInputError, match=r"got str\. Make a text a tensor.*tokenizer\.encode"):
        model("def ")
    with pytest.raises(UnsupportedInputError, match=r"a prompt is \(B, L\) integers .*got list\..*load_tokenizer"):
        model.generate([1, 2])


def test_a_negative_number_of_logits_is_refused(model):
    with pytest.raises(UnsupportedInputError, match=r"logits_to_keep is a number of tokens, 0 for all; got -1"):
        model(torch.tensor([[1, 2]]), logits_to_keep=-1)


def test_the_least_temperature_draws_the_likeliest(model):
    prompt = torch.tensor([[1, 2, 3]])
    greedy = model.generate(prompt, max_new_tokens=4, temperature=0)
    assert model.generate(prompt, max_new_tokens=4, temperature=1e-300).equal(greedy)


# Checkpoints


def test_only_a_model_itself_is_saved(model, tmp_path):
    """The weights of a wrapped one have other names, and nothing would read them."""
    for wrapped in (torch.compile(model, backend="eager"), nn.DataParallel(model), "runs/first"):
        with pytest.raises(CheckpointError, match=rf"got {type(wrapped).__name__}.*_orig_mod"):
            save_checkpoint(wrapped, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_weights_that_do_not_fit_are_summed_up(model, tmp_path):
    save_checkpoint(model, tmp_path / "model")
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(tmp_path / "model", hidden_dim=32)
    assert r"frontend.embedding.weight is (256, 16) and should be (256, 32), ...)" in str(raised.value)
    with pytest.raises(CheckpointError, match=r"does not fit its config: 1 missing \(head\.weight\)\. Leave out"):
        load_checkpoint(tmp_path / "model", tie_embeddings=False)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("layers", [3, None])
def test_a_damaged_list_of_int8_layers_is_refused(model, tmp_path, layers):
    from spectral_models.checkpoint import CONFIG, MARKER, WEIGHTS, write_marker

    path = save_checkpoint(model, tmp_path / "model")
    record = json.loads((path / CONFIG).read_text())
    record["quantization"] = {"scheme": "int8_weight_only", "layers": layers}
    (path / CONFIG).write_text(json.dumps(record))
    write_marker(path, MARKER, [CONFIG, WEIGHTS])
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        load_checkpoint(path)


def test_a_run_that_is_not_finished_says_how_to_go_on(model, spectral, tmp_path):
    run = tmp_path / "run"
    save_checkpoint(model, run / "checkpoints" / "checkpoint-2")
    (run / "run.yaml").write_text(yaml.safe_dump(RUN))
    unfinished = spectral("generate", run, "--max-new-tokens", "1")
    unfinished.refused(r"the run in .*run has not finished.*--resume.*saved on the way is in .*checkpoints")
    assert spectral("generate", run / "checkpoints" / "checkpoint-2", "--max-new-tokens", "1").code == 0


# Weights that are not numbers


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """Checkpoints whose weights are NaN."""
    folder = tmp_path_factory.mktemp("diverged")
    for name, config in (
        ("language", SMALL),
        ("encoder", READER),
        ("classifier", {"type": "classifier", "num_labels": 2, "encoder": READER}),
    ):
        made = build_model(config)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.fill_(torch.nan)
        save_checkpoint(made, folder / name)
    return folder


@pytest.mark.parametrize(
    ("command", "of", "options"),
    [
        ("generate", "language", []),
        ("evaluate", "language", ["--data", "TEXT"]),
        ("evaluate", "classifier", ["--data", "TABLE"]),
        ("classify", "classifier", ["a text"]),
        ("embed", "encoder", ["a text", "--out", "OUT.npy"]),
        ("export", "language", ["OUT.pt2"]),
        ("quantize", "language", ["OUT", "--data", "TEXT"]),
        ("quantize", "encoder", ["OUT", "--data", "TEXT"]),
    ],
)
def test_a_diverged_model_has_no_results(spectral, diverged, text, tmp_path, command, of, options):
    if command == "quantize":
        pytest.importorskip("torchao")
    (tmp_path / "table.csv").write_text("text,label\na,0\nb,1\n")
    places = {"TEXT": text, "TABLE": tmp_path / "table.csv", "OUT": tmp_path / "out"}
    places |= {name: tmp_path / name for name in ("OUT.npy", "OUT.pt2")}
    ended = spectral(command, diverged / of, *(places.get(option, option) for option in options))
    assert ended.code == 1
    assert "are not numbers: its weights are NaN or infinite, as after training that diverged" in ended.err
    assert ended.out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv"}


def test_training_that_diverges_ends(spectral, text, tmp_path):
    diverging = {"learning_rate": 1e30, "warmup": 0.0, "clip": 1e9}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**RUN, "training": {**RUN["training"], **diverging}}))
    ended = spectral("train", tmp_path / "run.yaml", "--data", text, "--out", tmp_path / "run")
    assert ended.code == 1
    assert "not numbers" in ended.err
    assert "training.learning_rate" in ended.err
    assert not (tmp_path / "run" / "model").exists()


# Commands


def test_embeddings_are_written_where_they_are_asked_for(spectral, tmp_path):
    path = save_checkpoint(build_model(READER), tmp_path / "encoder")
    spectral("embed", path, "a", "--out", "").refused(r"call it embeddings\.npy")
    ended = spectral("embed", path, "a", "--out", tmp_path / "new" / "made.npy")
    assert ended.code == 0
    assert (tmp_path / "new" / "made.npy").is_file()


def test_a_models_config_in_place_of_a_runs(spectral, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SMALL))
    ended = spectral("train", tmp_path / "mine.yaml", "--out", tmp_path / "run")
    ended.refused(r"mine\.yaml has no model, data or training.*put it under 'model:'")
    assert not (tmp_path / "run").exists()


def test_the_options_of_a_part_are_shown_with_their_defaults(spectral):
    lines = spectral("components", "filter", "resonant").out.splitlines()
    assert lines[0].startswith("resonant  Damped complex modes")
    assert lines[1] == "  modes       16             Complex modes per channel."
    assert "[2.0, 1024.0]" in lines[2]
    assert spectral("components", "position", "none").out.splitlines()[1] == "  no options"
    spectral("components", "filter", "resonnt").refused(r"Did you mean 'resonant'\?")


def test_every_option_of_every_part_says_what_it_is():
    for kind, registry in HOST.registries.items():
        for name, config in registry.configs().items():
            fields = {option: field.description for option, field in config.model_fields.items() if option != "type"}
            assert all(fields.values()), (kind, name, fields)


def test_every_command_shows_an_example(spectral):
    groups = {"plugins": ["new"], "config": ["list", "show", "validate", "schema"], "bench": ["fft"]}
    alone = ["components", "train", "generate", "evaluate", "classify", "embed", "export", "quantize", "inspect"]
    for command in [*alone, *(f"{group} {name}" for group, names in groups.items() for name in names)]:
        assert re.search(rf"^ +spectral {command}\b", spectral(*command.split(), "--help").out, re.MULTILINE), command


# Plugins


class _UnbuiltConfig(GateConfig):
    type: Literal["broken/gate"] = "broken/gate"


class _Unbuilt(Gate[_UnbuiltConfig]):
    def setup(self, config: _UnbuiltConfig, context: GateContext) -> None:
        raise KeyError("taps")


class _Plugin:
    SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_layers(self, register):
        register("gate", "broken/gate", _UnbuiltConfig, summary="Cannot be built.")


@pytest.mark.parametrize("variant", ["language_model", "encoder"])
def test_a_part_of_a_plugin_that_cannot_be_built_is_named(variant):
    HOST.register(_Plugin(), namespace="broken", distribution="spectral-broken")
    try:
        with pytest.raises(PluginError, match=r"KeyError: 'taps'.*gate 'broken/gate' of spectral-broken"):
            build_model({"type": variant, "block": {"mixer": {"type": "spectral_gating", "gates": ["broken/gate"]}}})
    finally:
        HOST.unregister("broken")
