"""The spectral command, as its users meet it: what it prints where, and how it fails."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from spectral_core.plugins import HOST, PluginFailure
from spectral_models import build_model, list_blocks, list_models, load_checkpoint, load_config, save_checkpoint
from spectral_models.cli.commands import app
from spectral_models.data.subwords import learn_bpe
from spectral_models.registries import MODELS
from spectral_models.training import load_run

RUN = {
    "model": {
        "hidden_dim": 32,
        "num_layers": 2,
        "layers": [
            {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}}, "feedforward": "mlp"},
            {"mixer": {"type": "holographic", "phases": 8}, "feedforward": "mlp"},
        ],
    },
    "data": {"context": 64, "validation_bytes": 2000},
    "training": {"steps": 500, "batch_size": 4, "eval_every": 100, "save_every": 5, "log_every": 5},
}


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A text and a run config that does not name it."""
    folder = tmp_path_factory.mktemp("cli")
    lines = "".join(f"line {i}: the quick brown fox {i * i % 97} \u00e9t\u00e9\n" for i in range(1200))
    (folder / "text.txt").write_text(lines, encoding="utf-8")
    (folder / "run.yaml").write_text(yaml.safe_dump(RUN), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    """The directory of a short run, begun from the command line."""
    arguments = ["train", str(folder / "run.yaml"), "--data", str(folder / "text.txt"), "--out", str(folder / "out")]
    ended = CliRunner().invoke(app, [*arguments, "--set", "training.steps=30", "--set", "training.learning_rate=0.01"])
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.startswith("held-out bits per byte")
    assert f"{folder}/out/model\n" in ended.stdout, "paths are whole, however long"
    assert "step 30/30" in ended.stderr
    assert "step" not in ended.stdout
    return folder / "out"


def assert_error(ended: Ended, message: str, code: int = 1) -> None:
    assert ended.code == code, ended
    assert re.search(message, ended.err), ended.err
    assert "Traceback" not in ended.err + ended.out
    if code == 1:
        assert ended.err.startswith("error: ")
        assert ended.err.count("error: ") == 1


# components and doctor


def test_components_are_listed_as_json_with_every_part_of_every_kind(spectral):
    ended = spectral("components", "--json")
    assert ended.code == 0
    found = {(part["kind"], part["name"]) for part in json.loads(ended.out)}
    assert found == {(kind, entry.name) for kind, registry in HOST.registries.items() for entry in registry}
    assert {"kind", "name", "summary", "provider", "version"} == set(json.loads(ended.out)[0])


def test_components_of_one_kind(spectral):
    kinds = {part["kind"] for part in json.loads(spectral("components", "filter", "--json").out)}
    assert kinds == {"filter"}
    lines = spectral("components", "filter").out.splitlines()
    assert len(lines) == len(HOST.registries["filter"]), "a pipe gets one line for each part"
    assert all(line.startswith("filter ") for line in lines)


def test_an_unknown_kind_is_refused_with_the_nearest(spectral):
    assert_error(spectral("components", "mixr"), r"no kind of component is called 'mixr'\. Did you mean 'mixer'\?")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_groups_that_fit_it(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    from rich.console import Console

    import spectral_models.cli.components as module

    console = Console()
    monkeypatch.setattr(module, "out", console)
    with console.capture() as captured:
        module.components(kind=None, as_json=False)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in captured.get().splitlines()]
    assert max(map(len, lines)) <= columns
    assert {"fft", "mixer", "filter", "gate", "sparsity", "feedforward", "position", "frontend", "model"} <= set(
        lines
    ), "kinds stand by themselves"
    assert any(line.startswith("  resonant ") for line in lines)


def test_a_third_partys_part_names_its_package(spectral, monkeypatch):
    entry = next(iter(HOST.registries["filter"]))
    foreign = type(entry)("filter", "acme/comb", "Every other tap.", entry.target, "acme-filters", "1.2", entry.base)
    monkeypatch.setitem(HOST.registries["filter"]._entries, "acme/comb", foreign)
    assert "acme/comb           Every other tap. (acme-filters 1.2)" in spectral("components", "filter").out


def test_doctor_reports_versions_and_what_auto_would_choose(spectral, monkeypatch):
    monkeypatch.setattr(HOST, "_failures", [])
    ended = spectral("doctor")
    assert ended.code == 0, ended
    assert re.search(rf"^torch +{re.escape(version('torch'))}$", ended.out, re.MULTILINE)
    assert re.search(r"^spectral-networks +\d", ended.out, re.MULTILINE)
    assert len(re.findall(r"^fft: auto +\d+ tokens: auto → \w+", ended.out, re.MULTILINE)) == 3
    assert re.search(r"^plugins +no failures$", ended.out, re.MULTILINE)


def test_doctor_fails_when_a_plugin_did(spectral, monkeypatch):
    failure = PluginFailure("acme", "acme-gates", "import", "ModuleNotFoundError: No module named 'left_out'")
    monkeypatch.setattr(HOST, "_failures", [failure])
    ended = spectral("doctor")
    assert ended.code == 1
    assert str(failure) in ended.out, "whole, in one line"
    assert "no failures" not in ended.out
    assert str(failure) in spectral("components").out


# config


def test_what_show_prints_is_the_same_config(spectral, tmp_path):
    shown = spectral("config", "show", "tiny", "--set", "layers.0.mixer.filter.modes=3")
    assert shown.code == 0
    (tmp_path / "shown.yaml").write_text(shown.out, encoding="utf-8")
    assert load_config(tmp_path / "shown.yaml") == load_config("tiny", **{"layers.0.mixer.filter.modes": 3})
    assert spectral("config", "validate", tmp_path / "shown.yaml").code == 0


def test_a_run_is_shown_whole_even_where_its_lines_are_long(spectral, folder, tmp_path):
    source = "/".join(["a directory with a long name"] * 10)
    shown = spectral("config", "show", folder / "run.yaml", "--set", f"data.source={source}")
    (tmp_path / "shown.yaml").write_text(shown.out, encoding="utf-8")
    run = load_run(tmp_path / "shown.yaml")
    assert run == load_run(folder / "run.yaml", {"data.source": source})


def test_validate_builds_the_model(spectral, folder):
    ended = spectral("config", "validate", folder / "run.yaml")
    assert ended.code == 0
    # A long path may break the line anywhere.
    assert re.fullmatch(r".*run\.yaml:valid,language_modelwith[\d,]+parameters", "".join(ended.out.split()))
    refused = spectral("config", "validate", "tiny", "--set", "layers.1.mixer.head_dim=13")
    assert_error(refused, r"layers\.1\.mixer: head_dim 13 does not divide hidden_dim")


def test_list_prints_presets_by_size(spectral):
    ended = spectral("config", "list", "s[lm]*")
    assert ended.code == 0
    names = [line.split()[0] for line in ended.out.splitlines()]
    assert names == ["small", "slm-100m", "slm-200m", "slm-500m", "slm-1b", "slm-3b", "slm-7b", "slm-13b", "slm-30b",
                     "slm-70b", "slm-100b"]  # fmt: skip
    assert re.fullmatch(r"small +language_model +15,041,088", ended.out.splitlines()[0])
    assert_error(spectral("config", "list", "tinny"), r"no preset matches 'tinny'\. Presets: .*tiny")


def test_a_model_too_large_for_any_machine_is_valid(spectral):
    ended = spectral("config", "validate", "slm-100b")
    assert ended.code == 0
    assert re.search(r"with 100,519,769,088 parameters", ended.out)


@pytest.mark.parametrize("variant", ["run", "language_model"])
def test_the_schema_describes_every_part_a_model_may_have(spectral, variant):
    ended = spectral("config", "schema", variant)
    assert ended.code == 0
    definitions = json.loads(ended.out)["$defs"]
    for kind in ("fft", "mixer", "filter", "gate", "sparsity", "feedforward", "position"):
        for entry in HOST.registries[kind]:
            assert f"{kind}.{entry.name}".replace("/", ".") in definitions
    assert ("model.language_model" in definitions) == (variant == "run")


def test_the_schema_of_an_unknown_variant(spectral):
    assert_error(spectral("config", "schema", "langage_model"), r"is called 'langage_model'\. Did you mean")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "tniy"], r"no preset is called 'tniy'\. Did you mean 'tiny'\?"),
        (["show", "missing.yaml"], r"cannot read the config missing\.yaml: No such file"),
        (["show", "tiny", "--set", "hidden_dim"], r"cannot set 'hidden_dim': write PATH=VALUE"),
        (["show", "tiny", "--set", "=3"], r"cannot set '=3': write PATH=VALUE"),
        (["show", "tiny", "--set", "layers=[1"], r"cannot set layers: '\[1' is not YAML"),
        (["show", "tiny", "--set", "hiden_dim=3"], r"hiden_dim: unknown key\. Did you mean 'hidden_dim'\?"),
        (["show", "tiny", "--set", "layers.0.mixer.filter.mods=3"], r"layers\.0\.mixer\.filter\.mods: .*'modes'"),
        (["validate", "tiny", "--set", "fft=fast"], r"fft: .* is called 'fast'\. Known: auto"),
        (["validate", "tiny", "--set", "hidden_dim=many"], r"hidden_dim: .*\(got 'many'\)"),
    ],
)
def test_a_wrong_config_is_one_message_with_the_path(spectral, arguments, message):
    assert_error(spectral("config", *arguments), message)


# train and generate


def test_training_leaves_a_run_that_generate_reads(trained, folder):
    assert load_run(trained / "run.yaml") == load_run(
        folder / "run.yaml",
        {"data.source": str(folder / "text.txt"), "training.steps": 30, "training.learning_rate": 0.01},
    )
    load_checkpoint(trained)
    assert (trained / "curve.png").exists()


def test_generation_continues_the_prompt_and_repeats_with_its_seed(trained, spectral):
    arguments = ["generate", trained, "--prompt", "line 7: \u00e9", "--max-new-tokens", "40"]
    first, again, other = (spectral(*arguments, "--seed", seed) for seed in (1, 1, 2))
    assert first.code == 0
    assert first.out.startswith("line 7: \u00e9")
    assert len(first.out.encode()) > len("line 7: \u00e9".encode()) + 10
    assert first.out.endswith("\n")
    assert first.out == again.out != other.out
    assert first.err == ""


def test_greedy_generation_does_not_depend_on_the_seed_or_the_backend(trained, spectral):
    arguments = ["generate", trained, "--prompt", "line", "--max-new-tokens", "20", "--temperature", "0"]
    assert spectral(*arguments).out == spectral(*arguments, "--seed", "5", "--fft", "torch").out


def test_drafts_change_nothing_that_is_printed(trained, spectral, tmp_path):
    arguments = ["generate", trained, "--prompt", "line line", "--max-new-tokens", "30"]
    plain = spectral(*arguments)
    assert spectral(*arguments, "--prompt-lookup-num-tokens", "6") == plain
    assert spectral(*arguments, "--assistant", trained) == plain
    both = spectral(*arguments, "--prompt-lookup-num-tokens", "6", "--assistant", trained)
    assert_error(both, "give one of them")
    learned = learn_bpe(["some text"], 257)
    small = {"hidden_dim": 8, "num_layers": 1}
    save_checkpoint(build_model(small, vocab_size=257), tmp_path / "learned", tokenizer=learned)
    assert_error(spectral(*arguments, "--assistant", tmp_path / "learned"), "has another tokenizer")
    save_checkpoint(build_model(small, type="encoder", block="dense"), tmp_path / "encoder")
    assert_error(spectral(*arguments, "--assistant", tmp_path / "encoder"), "language model that keeps a state")


def test_an_empty_prompt_begins_a_document(trained, spectral):
    ended = spectral("generate", trained, "--max-new-tokens", "10")
    assert ended.code == 0
    assert len(ended.out) > 3


def test_generated_text_is_printed_as_it_is(trained, spectral):
    """Tabs, markup and bytes that are not text: nothing is expanded, styled or fatal."""
    ended = spectral("generate", trained, "--prompt", "\t[bold]x[/] \udcff", "--max-new-tokens", "5")
    assert ended.code == 0
    assert ended.out.startswith("\t[bold]x[/] \ufffd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "warm"], "temperature"),
        (["--top-k", "0"], "top-k"),
        (["--max-new-tokens", "0"], "max-new-tokens"),
        (["--colour", "red"], "colour"),
    ],
)
def test_options_out_of_range_are_wrong_usage(trained, spectral, options, message):
    assert_error(spectral("generate", trained, *options), message, code=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-p", "2"], r"top_p must be above 0 and at most 1; got 2"),
        (["--repetition-penalty", "0"], r"repetition_penalty must be above 0"),
        (["--fft", "fast"], r"is called 'fast'\. Known: auto"),
    ],
)
def test_options_the_model_refuses_are_one_message(trained, spectral, options, message):
    assert_error(spectral("generate", trained, *options), message)


def test_generating_from_what_is_no_checkpoint(trained, spectral, tmp_path):
    assert_error(spectral("generate", tmp_path / "none"), r"there is no checkpoint directory at .*none")
    assert_error(spectral("generate", tmp_path), r"is not a complete checkpoint")
    spoilt = tmp_path / "spoilt"
    shutil.copytree(trained / "model", spoilt)
    weights = bytearray((spoilt / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (spoilt / "model.safetensors").write_bytes(weights)
    assert_error(spectral("generate", spoilt), r"model\.safetensors was changed after it was saved")


def test_a_second_run_in_the_same_directory_must_be_resumed(trained, folder, spectral):
    arguments = ["train", folder / "run.yaml", "--data", folder / "text.txt", "--out", trained]
    arguments += ["--set", "training.learning_rate=0.01"]
    assert_error(spectral(*arguments, "--set", "training.steps=30"), r"already holds a run\. Continue it with --resume")
    changed = spectral(*arguments, "--set", "training.steps=31", "--resume")
    assert_error(changed, r"--resume cannot raise training\.steps of the run in .* cosine schedule depends")
    finished = spectral(*arguments, "--set", "training.steps=30", "--resume")
    assert finished.code == 0
    assert "held-out bits per byte" in finished.out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"no text found: it is empty"),
        (b"caf\xe9 " * 500, r"not UTF-8 text: byte 0xe9 at offset 3"),
        (b"short", r"source .*: 1 document\(s\)"),
        (None, r"no such file or directory"),
    ],
    ids=["empty", "latin-1", "short", "missing"],
)
def test_data_that_cannot_be_trained_on(folder, spectral, tmp_path, content, message):
    if content is not None:
        (tmp_path / "data.txt").write_bytes(content)
    ended = spectral("train", folder / "run.yaml", "--data", tmp_path / "data.txt", "--out", tmp_path / "out")
    assert_error(ended, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.yaml"], r"cannot read the config missing\.yaml"),
        (["tinny"], r"'tinny' is neither a run config .* nor a preset: .*tiny"),
        (["tiny", "--set", "training.stepz=3"], r"training\.stepz: unknown key\. Did you mean 'steps'\?"),
        (["tiny", "--set", "training.steps"], r"cannot set 'training\.steps': write PATH=VALUE"),
        (["tiny", "--set", "model.layers.0.mixer=fourier"], r"model\.layers\.0\.mixer: .*may not see the future"),
        (
            ["tiny", "--set", "training.batch_size=3", "--set", "training.accumulation=2"],
            r"training\.batch_size 3 must",
        ),
    ],
)
def test_a_wrong_run_is_one_message_and_leaves_nothing(spectral, tmp_path, arguments, message):
    assert_error(spectral("train", *arguments, "--out", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


# The whole command


def test_help_names_every_option_of_every_command(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    options = {
        "": ["--verbose", "components", "doctor", "plugins", "config", "train", "generate", "classify", "embed"],
        " ": ["export", "quantize"],
        "components": ["KIND", "--json"],
        "doctor": ["Exits with 1"],
        "plugins": ["new"],
        "plugins new": ["NAME", "--kind", "gate", "filter", "mixer", "backend", "--directory"],
        "config": ["show", "validate", "schema", *list_models(), *list_blocks()],
        "config show": ["SOURCE", "--set", "PATH=VALUE", *list_models()],
        "config validate": ["SOURCE", "--set", "PATH=VALUE"],
        "config schema": ["VARIANT"],
        "train": ["CONFIG", "--data", "--set", "PATH=VALUE", "--out", "--resume", "torchrun"],
        "generate": ["CHECKPOINT", "--prompt", "--max-new-tokens", "--temperature", "--top-k", "--top-p", "--seed"],
        "generate ": ["--repetition-penalty", "--fft", "--interactive", "/reset", "Ctrl-C", "--assistant"],
        "classify": ["CHECKPOINT", "TEXT", "--file", "--json", "spectral classify runs/digits seven.png"],
        "embed": ["CHECKPOINT", "TEXT", "--file", "--out", "--normalize", "embeddings.npy"],
        "export": ["CHECKPOINT", "OUT", "--format", "--length", "--size", "--full-rows", "sentiment.onnx"],
        "quantize": ["CHECKPOINT", "OUT", "--data", "the extra quantize"],
    }
    for command, names in options.items():
        ended = CliRunner().invoke(app, [*command.split(), "--help"])
        assert ended.exit_code == 0
        shown = re.sub(r"\x1b\[[0-9;]*m", "", ended.output)
        for name in names:
            assert name.lower() in shown.lower(), (command, name)


def test_no_command_shows_the_help(spectral):
    ended = spectral()
    assert ended.code == 2
    assert "Commands" in ended.out + ended.err


BLOCKED = """
import contextlib, io, json, sys

ABSENT = {"transformers", "accelerate", "tensorboard", "matplotlib", "datasets"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from spectral_models.cli.app import main

ended = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["spectral", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    ended.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(ended))
"""


def test_without_the_training_libraries_only_training_is_missing(trained):
    commands = [
        ["components", "--json"],
        ["doctor"],
        ["config", "show", "tiny"],
        ["config", "schema"],
        ["generate", str(trained), "--max-new-tokens", "3"],
        ["train", "tiny"],
    ]
    process = subprocess.run(
        [sys.executable, "-c", BLOCKED, json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "SPECTRAL_DISABLE_PLUGINS": "1"},
    )
    assert process.returncode == 0, process.stderr
    *light, train = [Ended(*each) for each in json.loads(process.stdout)]
    for command, ended in zip(commands, light, strict=False):
        assert ended.code == 0, (command, ended)
        assert ended.out, command
    assert_error(train, r"needs a library that is not installed: \w+\. Run: pip install 'spectral-networks\[train\]'")


def test_the_module_runs_as_the_command_does():
    process = subprocess.run(
        [sys.executable, "-m", "spectral_models.cli.app", "components", "model", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert {part["name"] for part in json.loads(process.stdout)} == set(MODELS.names())


def test_ctrl_c_while_training_says_how_to_go_on(folder, tmp_path):
    """The command it prints is complete: what was set and the data are in it."""
    arguments = [
        "train",
        str(folder / "run.yaml"),
        "--data",
        str(folder / "text.txt"),
        "--out",
        str(tmp_path / "my run"),
    ]
    arguments += ["--set", "training.steps=1000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "spectral_models.cli.app", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs inherit it ignored
    )
    try:
        marker = tmp_path / "my run" / "checkpoints" / "checkpoint-5" / "training-complete.json"
        deadline = time.monotonic() + 120
        while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    said, command = err.splitlines()[-2:]
    assert re.fullmatch(r"interrupted; .*checkpoints/checkpoint-\d+ is complete\. Continue with:", said)
    assert sorted(shlex.split(command)) == sorted(["spectral", *arguments, "--resume"])
