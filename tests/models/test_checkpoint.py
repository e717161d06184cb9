"""Checkpoints: the same model back, or an error that says why not; and what was there before survives everything."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import spectral_models.checkpoint
from spectral_core import ConfigError, FFTBackendConfig, PluginError, SpectralError, __version__, hookimpl
from spectral_core.backends.torch_fft import TorchFFT
from spectral_core.plugins import HOST, Registrar
from spectral_models import CheckpointError, build_model, load_checkpoint, load_config, save_checkpoint
from spectral_models.checkpoint import WEIGHTS, load_tokenizer, write_files
from spectral_models.data.byte_files import byte_files
from spectral_models.data.subwords import learn_bpe
from spectral_models.data.tokenizer import ByteTokenizer
from spectral_models.model import SpectralModel
from spectral_models.record import CONFIG
from spectral_models.seal import MARKER, verify, write_marker
from spectral_models.shim import SHIM, TEXT
from spectral_models.variants.language_model import LanguageModelConfig

SMALL = {
    "vocab_size": 13,
    "hidden_dim": 16,
    "num_layers": 2,
    "layers": [
        {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}}, "feedforward": "mlp"},
        {"mixer": {"type": "holographic", "head_dim": 8, "phases": 8}},
    ],
}
FILES = {CONFIG, WEIGHTS, MARKER, SHIM}
IDS = torch.arange(12)[None]


def made(seed: int = 0, **overrides: Any) -> SpectralModel:
    torch.manual_seed(seed)
    return build_model(SMALL, **overrides).eval()


def logits(model: SpectralModel) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


def names(directory: Path) -> set[str]:
    return {item.name for item in directory.iterdir()}


def refusal(path: Path, **overrides: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **overrides)
    return str(caught.value)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_checkpoint(made(), tmp_path / "model")


# What comes back


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, tied: bool, dtype: torch.dtype) -> None:
    model = made(tie_embeddings=tied).to(dtype)
    path = save_checkpoint(model, tmp_path / "deep" / "er" / "model")
    assert path == tmp_path / "deep" / "er" / "model"
    again = load_checkpoint(path)
    assert again.config == model.config
    assert not again.training
    before, after = model.state_dict(), again.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert torch.equal(logits(again), logits(model))
    assert ("head.weight" in after) is not tied


def test_a_loaded_model_trains_and_owns_its_weights(saved: Path) -> None:
    """The file may be replaced while the model lives."""
    model = load_checkpoint(saved)
    expected = logits(model)
    save_checkpoint(made(1), saved)
    assert torch.equal(logits(model), expected)
    model.train()(IDS).logits.sum().backward()
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in model.parameters())
    assert not torch.equal(logits(load_checkpoint(saved)), expected)


def test_a_weight_under_two_names_is_saved(tmp_path: Path) -> None:
    model = made()
    first, second = (model.blocks[index].mixer_norm for index in (0, 1))
    torch.nn.init.uniform_(first.weight)
    second.weight = first.weight
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "model"))
    for block in loaded.blocks[:2]:
        assert torch.equal(block.mixer_norm.weight, first.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_from_before_front_ends_and_positions_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    """It calls the embedding otherwise and says nothing of the rest; its dtype is kept too."""
    model = made().to(dtype)
    path = save_checkpoint(model, tmp_path / "model")
    weights = {name.removeprefix("frontend."): tensor for name, tensor in model.state_dict().items()}
    assert "embedding.weight" in weights
    save_file(weights, path / WEIGHTS)
    record = json.loads((path / CONFIG).read_text())
    for key in ("position", "embed_dim"):
        del record["spectral"][key]
    record["components"] = [part for part in record["components"] if part["kind"] != "position"]
    (path / CONFIG).write_text(json.dumps(record))
    write_marker(path, MARKER, [CONFIG, WEIGHTS])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_checkpoint(path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert torch.equal(logits(loaded), logits(model))


def test_the_files_say_what_they_hold(saved: Path) -> None:
    assert names(saved) == FILES
    record = json.loads((saved / CONFIG).read_text())
    assert (record["model_type"], record["schema_version"]) == ("spectral", 4)
    assert record["framework_version"] == __version__
    assert record["spectral"] == made().config.model_dump(mode="json")
    assert [(part["kind"], part["name"]) for part in record["components"]] == [
        ("feedforward", "mlp"),
        ("feedforward", "swiglu"),
        ("fft", "auto"),
        ("filter", "resonant"),
        ("mixer", "gated_convolution"),
        ("mixer", "holographic"),
        ("model", "language_model"),
        ("position", "none"),
    ]
    assert all(
        (part["provider"], part["version"]) == ("spectral-networks", __version__) for part in record["components"]
    )
    assert list(load_file(saved / WEIGHTS)) == sorted(made().state_dict())
    assert set(json.loads((saved / MARKER).read_text())) == {CONFIG, WEIGHTS}


def test_another_backend_reads_the_same_weights(saved: Path) -> None:
    model, other = load_checkpoint(saved), load_checkpoint(saved, fft="torch")
    assert (model.config.fft.type, other.config.fft.type) == ("auto", "torch")
    torch.testing.assert_close(logits(other), logits(model), rtol=1e-5, atol=1e-6)


def test_overrides_the_weights_do_not_fit_are_refused(saved: Path) -> None:
    assert "does not fit its config" in refusal(saved, hidden_dim=32)
    assert "does not fit its config" in refusal(saved, tie_embeddings=False)
    with pytest.raises(ConfigError, match=r"^hidden_dims: unknown key"):
        load_checkpoint(saved, hidden_dims=32)
    with pytest.raises(ConfigError, match=r"^vocab_size\.x: nothing can be set"):
        load_checkpoint(saved, **{"vocab_size.x": 32})


@pytest.mark.parametrize("path", [".", "../model", ""])
def test_relative_paths_mean_what_they_say(saved: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(saved)
    assert torch.equal(logits(load_checkpoint(path)), logits(made()))
    save_checkpoint(made(1), path)
    assert torch.equal(logits(load_checkpoint(saved)), logits(made(1)))


def test_a_runs_directory_stands_for_its_model(saved: Path) -> None:
    run = saved.parent
    assert torch.equal(logits(load_checkpoint(run)), logits(made()))
    saved.rename(run / ".model.previous")  # a save of the model was interrupted
    assert torch.equal(logits(load_checkpoint(run)), logits(made()))


# What is refused


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda at: os.truncate(at / WEIGHTS, 100), r"model\.safetensors is truncated or changed: 100 bytes"),
    "empty": (lambda at: os.truncate(at / WEIGHTS, 0), "truncated or changed: 0 bytes"),
    "flipped": (lambda at: flip(at / WEIGHTS), r"model\.safetensors was changed after it was saved"),
    "edited": (
        lambda at: (at / CONFIG).write_text((at / CONFIG).read_text().replace('"phases": 8', '"phases": 9')),
        r"config\.json was changed after it was saved",
    ),
    "no marker": (lambda at: (at / MARKER).unlink(), r"complete\.json is missing.*interrupted"),
    "no weights": (lambda at: (at / WEIGHTS).unlink(), r"model\.safetensors is missing"),
    "no config": (lambda at: (at / CONFIG).unlink(), r"config\.json is missing"),
    "marker half": (lambda at: os.truncate(at / MARKER, 40), r"complete\.json is damaged"),
    "marker of nothing": (lambda at: (at / MARKER).write_text("{}"), r"complete\.json is damaged"),
    "marker of one": (
        lambda at: edit(at / MARKER, lambda marker: {CONFIG: marker[CONFIG]}),
        r"complete\.json is damaged",
    ),
    "marker a list": (lambda at: (at / MARKER).write_text("[1]"), r"complete\.json is damaged"),
    "marker no entries": (lambda at: (at / MARKER).write_text(f'{{"{CONFIG}": 1}}'), r"complete\.json is damaged"),
    "marker binary": (lambda at: (at / MARKER).write_bytes(b"\xff\x00"), r"complete\.json is damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(saved: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    damage(saved)
    assert re.search(message, refusal(saved))


def rewritten(directory: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A checkpoint whose config was changed by someone who also renewed the marker."""
    record = json.loads((directory / CONFIG).read_text())
    change(record)
    (directory / CONFIG).write_text(json.dumps(record))
    write_marker(directory, MARKER, [CONFIG, WEIGHTS])
    return directory


# What is sealed, and what is others' to change


def reordered(record: dict[str, Any]) -> dict[str, Any]:
    return {name: reordered(value) if isinstance(value, dict) else value for name, value in reversed(record.items())}


def plainly(value: Any) -> Any:
    """As JavaScript writes numbers: 1.0 as 1."""
    if isinstance(value, dict):
        return {name: plainly(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plainly(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@pytest.mark.parametrize(
    "change",
    [
        lambda record: (
            record | {"pad_token_id": 3, "id2label": {"0": "good"}, "architectures": ["SpectralForCausalLM"]}
        ),
        lambda record: record | {"torch_dtype": "float16", "auto_map": {"AutoModel": "x.Y"}, "_commit_hash": None},
        lambda record: record | {"framework_version": "0.0"},
        reordered,
        plainly,
    ],
    ids=["tokens and labels", "dtype and code", "version", "order", "numbers"],
)
def test_fields_of_other_programs_may_be_changed(saved: Path, change: Callable[[Any], Any]) -> None:
    """As people edit config.json on a hub, and as its tools write it."""
    assert 0.0 in made().config.model_dump()["layers"][0].values(), "a number that is written in two ways"
    edit(saved / CONFIG, change)
    (saved / "README.md").write_text("a model")
    assert torch.equal(logits(load_checkpoint(saved)), logits(made()))


def test_fields_of_ours_may_not(saved: Path) -> None:
    record = json.loads((saved / CONFIG).read_text())
    components = record["components"]
    for changed in (
        {"schema_version": 2},
        {"spectral": record["spectral"] | {"tie_embeddings": False}},
        {"components": [*components[1:], components[0] | {"version": "9"}]},
        {"quantization": {"scheme": "int8_weight_only", "layers": []}},
    ):
        (saved / CONFIG).write_text(json.dumps(record | changed))
        assert re.search(r"config\.json was changed after it was saved .*undo the change", refusal(saved)), changed
    (saved / CONFIG).write_text(json.dumps(record))
    load_checkpoint(saved)


def test_a_tokenizer_is_sealed_and_its_settings_as_far_as_they_are_ours(tmp_path: Path) -> None:
    path = save_checkpoint(made(vocab_size=300), tmp_path / "model", tokenizer=learn_bpe(["some words " * 9], 280))
    ids = load_tokenizer(path).encode("some words")
    edit(path / "tokenizer_config.json", lambda settings: settings | {"chat_template": "{{ x }}", "pad_token": "a"})
    assert load_tokenizer(path).encode("some words") == ids
    whole = (path / "tokenizer_config.json").read_bytes()
    for name, change in (
        ("tokenizer_config.json", lambda at: edit(at, lambda settings: settings | {"eos_token": "w"})),
        ("tokenizer.json", flip),
        ("tokenizer.json", lambda at: os.truncate(at, 0)),
        ("tokenizer.json", Path.unlink),
    ):
        change(path / name)
        with pytest.raises(CheckpointError, match=name):
            load_tokenizer(path)
        load_checkpoint(path)  # whose weights are whole
        (path / "tokenizer_config.json").write_bytes(whole)


def sealed_whole(directory: Path, *more: str) -> Path:
    """A marker as earlier releases wrote it."""
    contents = {name: (directory / name).read_bytes() for name in (CONFIG, WEIGHTS, *more)}
    entries = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    (directory / MARKER).write_text(json.dumps(entries))
    return directory


def test_checkpoints_of_earlier_releases_are_sealed_whole(saved: Path) -> None:
    assert torch.equal(logits(load_checkpoint(sealed_whole(saved))), logits(made()))
    edit(saved / CONFIG, lambda record: record | {"pad_token_id": 3})
    assert re.search(
        r"config\.json is truncated or changed: .* undo the change; in checkpoints that this", refusal(saved)
    )


def test_a_file_is_hashed_once_until_it_changes(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    plain = hashlib.sha256

    def counted(*content: bytes) -> Any:
        hashed.append(len(content))  # without content: a file's
        return plain(*content)

    monkeypatch.setattr("spectral_models.seal.hashlib.sha256", counted)
    for young, passes in ((1 << 62, [1, 1]), (0, [1, 0])):  # what is younger than its times tell is hashed again
        monkeypatch.setattr("spectral_models.seal._RECENT_NS", young)
        for expected in passes:
            hashed.clear()
            load_checkpoint(saved)
            assert hashed.count(0) == expected
    flip(saved / WEIGHTS)
    assert "was changed after it was saved" in refusal(saved)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_all_files_have_the_mode_of_a_new_one(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        path = save_checkpoint(made(), tmp_path / "model")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o666 & ~mask}


# Checkpoints that someone made who means harm, and signed


def hostile_weights(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(directory / WEIGHTS)
    change(weights)
    save_file(weights, directory / WEIGHTS)


def as_int8(directory: Path, integers: Tensor, scale: Tensor) -> None:
    layer = "blocks.0.mixer.out_proj"
    hostile_weights(
        directory,
        lambda weights: (
            weights.pop(f"{layer}.weight"),
            weights.update({f"{layer}.weight.qdata": integers, f"{layer}.weight.scale": scale}),
        ),
    )
    edit(
        directory / CONFIG, lambda record: record | {"quantization": {"scheme": "int8_weight_only", "layers": [layer]}}
    )


def with_spectral(**values: Any) -> Callable[[Path], object]:
    return lambda at: edit(at / CONFIG, lambda record: record | {"spectral": record["spectral"] | values})


def int8(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int8)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "deep config": lambda at: (at / CONFIG).write_text('{"schema_version": 3, "a": ' + "[" * 200_000),
    "deep and whole": lambda at: (at / CONFIG).write_text('{"a":' * 3000 + "1" + "}" * 3000),
    "long number": lambda at: (at / CONFIG).write_text('{"schema_version": ' + "3" * 100_000 + "}"),
    "large config": lambda at: (at / CONFIG).write_text('{"schema_version": 3, "a": "' + " " * (17 << 20) + '"}'),
    "many layers": with_spectral(num_layers=10**9),
    "wide": with_spectral(hidden_dim=10**6),
    "large vocabulary": with_spectral(vocab_size=10**12),
    "larger than a number": with_spectral(hidden_dim=10**30),
    "a type with a NUL": with_spectral(type="a\0b"),
    "int8 of another shape": lambda at: as_int8(at, int8(16, 3), torch.ones(16, 1)),
    "int8 of one axis": lambda at: as_int8(at, int8(16), torch.ones(16, 1)),
    "int8 of no axis": lambda at: as_int8(at, int8(), torch.ones(())),
    "int8 of floats": lambda at: as_int8(at, torch.zeros(16, 16), torch.ones(16, 1)),
    "int8 of other scales": lambda at: as_int8(at, int8(16, 16), torch.ones(2, 2)),
    "int8 of scales in integers": lambda at: as_int8(at, int8(16, 16), int8(16, 1)),
    "weights of another dtype": lambda at: hostile_weights(at, lambda w: w.update({"norm.weight": int8(16)})),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_that_is_signed_is_refused_in_one_line(saved: Path, name: str) -> None:
    HOSTILE[name](saved)
    with pytest.raises(SpectralError) as caught:
        load_checkpoint(sealed_whole(saved))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", [MARKER, CONFIG, WEIGHTS])
@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "loop"])
def test_what_is_no_file_is_not_read(saved: Path, name: str, kind: str) -> None:
    """A reader of a pipe would wait, and one of a device would never end."""
    (saved / name).unlink()
    make: dict[str, Callable[[Path], object]] = {
        "fifo": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "directory": Path.mkdir,
        "loop": lambda path: path.symlink_to(path),
    }
    make[kind](saved / name)
    assert re.search(rf"not a complete checkpoint: {name} is (no file|unreadable|missing)", refusal(saved))


@pytest.mark.parametrize("name", ["/dev/zero", "../model/config.json", "a\0b", "", "..", "."])
def test_a_marker_names_files_of_its_directory_only(saved: Path, name: str) -> None:
    edit(saved / MARKER, lambda entries: entries | {name: {"bytes": 0, "sha256": ""}})
    with pytest.raises(CheckpointError, match=r"complete\.json is damaged|not a complete checkpoint"):
        verify(saved)


def tokenizer_with(**changes: Any) -> str:
    (content,) = (text for name, text in learn_bpe(["aaa"], 260).files().items() if name == "tokenizer.json")
    found: dict[str, Any] = json.loads(content)
    return json.dumps(found | changes)


def test_a_hostile_tokenizer_that_is_signed_is_refused(saved: Path) -> None:
    nothing = {"type": "BPE", "vocab": {}, "merges": []}
    tenfold = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    laughs = {"type": "Sequence", "normalizers": [tenfold, {"type": "Sequence", "normalizers": [tenfold] * 8}]}
    exploding = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    for content in (
        "[" * 100_000,
        "{}",
        tokenizer_with(model=nothing, added_tokens=[]),
        tokenizer_with(model={"type": "BPE", "vocab": {"a": 2**40}, "merges": []}),
        tokenizer_with(model={"type": "BPE", "vocab": {"a": 0}, "merges": [["x", "y"]]}),
        tokenizer_with(pre_tokenizer=exploding),
        tokenizer_with(normalizer=laughs),
    ):
        (saved / "tokenizer.json").write_text(content)
        sealed_whole(saved, "tokenizer.json")
        with pytest.raises(SpectralError) as caught:
            load_tokenizer(saved).encode("a" * 40 + "b")
        assert "\n" not in str(caught.value)


def test_a_newer_schema_names_the_release_that_reads_it(saved: Path) -> None:
    rewritten(saved, lambda record: record.update(schema_version=5, framework_version="9.9"))
    message = refusal(saved)
    assert "has schema version 5; this release" in message
    assert "Install release 9.9" in message


@pytest.mark.parametrize(
    ("schema", "blocks", "mixers"),
    [
        (1, {"block": {}}, ["gated_convolution"]),
        (2, {"layers": ["dense", {"mixer": "holographic"}]}, ["gated_convolution", "holographic"]),
    ],
)
@pytest.mark.parametrize(
    "variant", [{}, {"type": "seq2seq", "encoder": {"type": "encoder", "hidden_dim": 32}}], ids=["lm", "seq2seq"]
)
def test_a_default_block_of_earlier_schemas_stays_what_it_was(
    variant: dict[str, Any], schema: int, blocks: dict[str, Any], mixers: list[str], tmp_path: Path
) -> None:
    """Its config names no block; the weights are of the default of then, whatever the default is today, and so is the
    scale of embeddings, an encoder's too."""
    model = build_model({**variant, "hidden_dim": 32, "num_layers": 2, **blocks})
    path = save_checkpoint(model, tmp_path / "model")

    def before(record: dict[str, Any]) -> None:
        record["schema_version"] = schema
        record["spectral"].update(block=None, layers=None)
        for config in (record["spectral"], record["spectral"].get("encoder", {})):
            config.pop("embed_scale", None)

    loaded = load_checkpoint(rewritten(path, before), fft="torch")
    assert loaded.config.embed_scale == 1.0
    if "encoder" in variant:
        assert loaded.config.encoder.embed_scale == 1.0
    assert [block.mixer.type for block in loaded.config.blocks] == mixers
    assert load_checkpoint(save_checkpoint(loaded, tmp_path / "again")).config == loaded.config


class MineConfig(LanguageModelConfig):
    type: Literal["mine/lm"] = "mine/lm"


class MinePlugin:
    SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_models(self, register: Registrar) -> None:
        register("model", "mine/lm", MineConfig, summary="A third party's.")


def test_what_an_earlier_schema_took_for_granted_holds_for_a_plugin_s_variant(tmp_path: Path) -> None:
    HOST.register(MinePlugin(), namespace="mine", distribution="mine-spectral")
    try:
        config = {
            "type": "mine/lm",
            "hidden_dim": 32,
            "num_layers": 2,
            "block": {},
            "max_seq_len": 16,
            "embed_scale": 1.0,
        }
        model = build_model(config)
        path = save_checkpoint(model, tmp_path / "model")

        def before(record: dict[str, Any]) -> None:
            record["schema_version"] = 1
            record["spectral"].update(block=None, layers=None)
            del record["spectral"]["embed_scale"]

        loaded = load_checkpoint(rewritten(path, before))
        ids = torch.arange(9)[None]
        torch.testing.assert_close(loaded(ids).logits, model.eval()(ids).logits, rtol=1e-5, atol=1e-5)
    finally:
        HOST.unregister("mine")


@pytest.mark.parametrize("variant", ["language_model", "encoder"])
def test_a_checkpoint_has_its_default_blocks_written_out(variant: str, tmp_path: Path) -> None:
    """What the default becomes later is no matter of checkpoints."""
    path = save_checkpoint(build_model({"type": variant, "hidden_dim": 32, "num_layers": 2}), tmp_path / "model")
    written = json.loads((path / CONFIG).read_text())["spectral"]
    named = load_config({"type": variant, "block": "hybrid" if variant == "language_model" else "dense"})
    found = written["layers"] or [written["block"]]
    assert found == [block.model_dump(mode="json") for block in named.blocks]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("schema_version"), "is not a checkpoint's config"),
        (lambda record: record.pop("spectral"), "is damaged"),
        (lambda record: record.pop("components"), "is damaged"),
        (lambda record: record.update(components=[{"kind": "mixer"}]), "is damaged"),
        (lambda record: record["spectral"].update(hidden_dim=-1), "no longer validates: hidden_dim"),
        (lambda record: record["spectral"].update(type="os.system"), "no longer validates: no model is called"),
        (lambda record: record["spectral"].update(vocab_size=14), "does not fit its config"),
    ],
)
def test_a_config_that_cannot_be_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    assert message in refusal(rewritten(saved, change))


def test_what_is_no_checkpoint_is_told_apart(tmp_path: Path) -> None:
    assert f"there is no checkpoint directory at {tmp_path / 'nowhere'}" in refusal(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "there is no checkpoint directory" in refusal(tmp_path / "file")
    assert "is not a complete checkpoint: complete.json is missing" in refusal(tmp_path)


# Providers


def test_another_version_of_a_part_is_a_warning(saved: Path) -> None:
    rewritten(saved, lambda record: record["components"][3].update(version="0.0.1"))
    with pytest.warns(
        UserWarning, match=r"saved with spectral-networks 0\.0\.1; filter 'resonant' now comes"
    ) as caught:
        model = load_checkpoint(saved)
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]  # points at the caller
    assert torch.equal(logits(model), logits(made()))


class AcmeFFTConfig(FFTBackendConfig):
    type: Literal["acme/fft"] = "acme/fft"

    def build(self) -> TorchFFT:
        return TorchFFT()


class AcmePlugin:
    SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_fft_backends(self, register: Registrar) -> None:
        register("fft", "acme/fft", AcmeFFTConfig, summary="A third party's.")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A checkpoint that names a part of a package that is no longer installed."""
    HOST.register(AcmePlugin(), namespace="acme", distribution="acme-spectral")
    try:
        ours = made(fft="torch")
        model = load_config(ours.config, fft="acme/fft").build()  # without the check of third parties
        model.load_state_dict(ours.state_dict())
        return save_checkpoint(model, tmp_path / "model")
    finally:
        HOST.unregister("acme")


def test_a_missing_provider_is_named_with_its_install_command(foreign: Path) -> None:
    with pytest.raises(PluginError) as caught:
        load_checkpoint(foreign)
    assert "uses the fft 'acme/fft' of the package acme-spectral 0, which is not installed here" in str(caught.value)
    assert str(caught.value).endswith("Run: pip install 'acme-spectral==0'")


def test_a_part_that_is_overridden_needs_no_provider(foreign: Path) -> None:
    """Trained with a plugin's backend, loaded where that is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(logits(load_checkpoint(foreign, fft="torch")), logits(made(fft="torch")))


# Saving over, and saves that fail


def test_saving_replaces_the_checkpoint_whole(saved: Path) -> None:
    save_checkpoint(made(1, tie_embeddings=False), saved)
    assert torch.equal(logits(load_checkpoint(saved)), logits(made(1, tie_embeddings=False)))
    assert names(saved) == FILES
    assert names(saved.parent) == {"model"}


def test_a_damaged_checkpoint_may_be_replaced(saved: Path) -> None:
    (saved / MARKER).unlink()
    os.truncate(saved / WEIGHTS, 10)
    save_checkpoint(made(1), saved)
    assert torch.equal(logits(load_checkpoint(saved)), logits(made(1)))


def test_an_empty_directory_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert load_checkpoint(save_checkpoint(made(), tmp_path / "model")).config == made().config


@pytest.mark.parametrize(
    "content",
    [
        {"thesis.tex": "years"},
        {CONFIG: '{"port": 8080}'},  # another program's config.json
        {CONFIG: "not even JSON"},
        {CONFIG: '{"schema_version": 1}', "notes.txt": "mine"},
    ],
)
def test_a_directory_that_is_no_checkpoint_is_never_replaced(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=r"not a checkpoint.*nothing was overwritten"):
        save_checkpoint(made(), tmp_path)
    assert {item.name: item.read_text() for item in tmp_path.iterdir()} == content


def test_what_no_save_wrote_is_kept(saved: Path) -> None:
    """A card, settings of other programs, folders and links; by a save of ours after one of Hugging Face's too."""
    (saved / "README.md").write_text("# Mine")
    (saved / "generation_config.json").write_text("{}")
    (saved / "logs" / "first").mkdir(parents=True)
    (saved / "logs" / "first" / "events").write_text("seen")
    (saved / "latest").symlink_to("logs/first")
    for seed in (1, 2):
        save_checkpoint(made(seed), saved)
        assert names(saved) == {*FILES, "README.md", "generation_config.json", "logs", "latest"}
        assert (saved / "README.md").read_text() == "# Mine"
        assert (saved / "latest" / "events").read_text() == "seen"
        assert (saved / "latest").is_symlink()
        assert torch.equal(logits(load_checkpoint(saved)), logits(made(seed)))
    assert names(saved.parent) == {"model"}


def test_a_tokenizer_that_a_save_wrote_is_not_kept(tmp_path: Path) -> None:
    """One that was put there later is."""
    saved = save_checkpoint(made(), tmp_path / "model", tokenizer=ByteTokenizer())
    save_checkpoint(made(1), saved)
    assert names(saved) == FILES
    for name, text in byte_files().items():
        (saved / name).write_text(text)
    save_checkpoint(made(2), saved)
    assert names(saved) == {*FILES, *byte_files()}


def test_a_card_and_the_shim_may_be_edited(saved: Path) -> None:
    """They are not sealed, whoever writes the marker."""
    (saved / "README.md").write_text("# Mine")
    write_marker(saved, MARKER, [CONFIG, WEIGHTS, SHIM, "README.md"])
    assert set(json.loads((saved / MARKER).read_text())) == {CONFIG, WEIGHTS}
    for name in (SHIM, "README.md"):
        (saved / name).write_text("# changed")
    verify(saved)
    assert torch.equal(logits(load_checkpoint(saved)), logits(made()))
    save_checkpoint(made(1), saved)
    assert (saved / "README.md").read_text() == "# changed"
    assert (saved / SHIM).read_text() == TEXT


def test_a_file_in_the_way_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        save_checkpoint(made(), tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"could not save to .*inside: File exists\. Choose another path;"):
        save_checkpoint(made(), tmp_path / "model" / "inside")
    assert (tmp_path / "model").read_text() == "mine"


def test_a_link_keeps_its_target(saved: Path) -> None:
    """``runs/best`` may point to another disk: twice, for the first save must leave nothing that breaks the second."""
    link = saved.parent / "best"
    link.symlink_to(saved)
    for seed in (1, 2):
        save_checkpoint(made(seed), link)
        assert link.is_symlink()
        assert torch.equal(logits(load_checkpoint(saved)), logits(made(seed)))
    assert names(saved.parent) == {"model", "best"}


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["os.fsync", "spectral_models.checkpoint.save_file"])
def test_a_full_disk_leaves_what_was_there(saved: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(call, full)
        with pytest.raises(CheckpointError, match=r"No space left on device.*Free space"):
            save_checkpoint(made(1), saved)
    assert torch.equal(logits(load_checkpoint(saved)), logits(made()))
    assert names(saved.parent) == {"model"}


def test_weights_that_do_not_fit_on_the_disk_leave_what_was_there(saved: Path) -> None:
    """A real refusal to write, by a limit on the size of files: it comes out of the serialiser, not as an OSError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
        with pytest.raises(CheckpointError, match=r"could not save to .*File too large\. Raise the limit on the size"):
            save_checkpoint(made(1), saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert torch.equal(logits(load_checkpoint(saved)), logits(made()))
    assert names(saved.parent) == {"model"}


def test_an_interrupted_save_cleans_up(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("spectral_models.checkpoint.save_file", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(made(1), saved)
    assert names(saved.parent) == {"model"}
    assert torch.equal(logits(load_checkpoint(saved)), logits(made()))


class Killed(BaseException):
    """Stands for a process that ends on the spot."""


def killed_at_rename(number: int, patch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the given rename (and all after it) fail."""
    real, count = Path.rename, iter(range(100))

    def rename(self: Path, target: Path) -> Path:
        if next(count) >= number:
            raise error
        return real(self, target)

    patch.setattr(Path, "rename", rename)


def test_a_kill_between_the_two_renames_recovers(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old checkpoint loads, also when the next save is killed as well; then a save sets things right."""
    for _ in range(2):
        with monkeypatch.context() as patch:
            killed_at_rename(0 if not saved.exists() else 1, patch, Killed())
            with pytest.raises(Killed):
                save_checkpoint(made(1), saved)
        assert not saved.exists()
        assert torch.equal(logits(load_checkpoint(saved)), logits(made()))
    save_checkpoint(made(2), saved)
    assert torch.equal(logits(load_checkpoint(saved)), logits(made(2)))
    assert names(saved.parent) == {"model"}


def test_a_rename_that_fails_is_undone(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if ".writing-" in self.name:
            full()
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(CheckpointError, match="untouched"):
            save_checkpoint(made(1), saved)
    assert names(saved.parent) == {"model"}
    assert torch.equal(logits(load_checkpoint(saved)), logits(made()))


def test_reading_changes_nothing(saved: Path) -> None:
    """A reader between the two renames of a live save must not put the old checkpoint in its way."""
    saved.rename(saved.parent / ".model.previous")
    load_checkpoint(saved)
    assert names(saved.parent) == {".model.previous"}


def test_what_killed_saves_left_is_removed_and_live_ones_are_not(saved: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    abandoned = saved.with_name(f".model.writing-{gone.pid}")
    live = saved.with_name(f".model.writing-{os.getppid()}")
    other = saved.with_name(f".model2.writing-{gone.pid}")
    for path in (abandoned, live, other):
        path.mkdir()
    save_checkpoint(made(1), saved)
    assert names(saved.parent) == {"model", live.name, other.name}


# A reader beside a writer


@pytest.mark.parametrize("moment", ["verify", "read_record", "read_weights"])
def test_a_reader_reads_again_when_the_checkpoint_was_replaced(
    saved: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another process saves between what it reads: it gets one checkpoint or the other, and never a mixture."""
    seeds = iter(range(1, 4))
    plain = getattr(spectral_models.checkpoint, moment)

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        if (seed := next(seeds, None)) is not None:
            save_checkpoint(made(seed), saved)
        return plain(*arguments, **options)

    monkeypatch.setattr(spectral_models.checkpoint, moment, meanwhile)
    assert torch.equal(logits(load_checkpoint(saved)), logits(made(3)))


def test_a_reader_gives_up_on_a_checkpoint_that_never_rests(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = spectral_models.checkpoint.read_record

    def meanwhile(directory: Path) -> Any:
        save_checkpoint(made(1), saved)
        return plain(directory)

    monkeypatch.setattr(spectral_models.checkpoint, "read_record", meanwhile)
    assert "was replaced 10 times while it was read. Try again" in refusal(saved)


SAVER = """
import sys, torch
from spectral_models import load_checkpoint, save_checkpoint
torch.set_num_threads(1)
path = sys.argv[1]
model = load_checkpoint(path)
number = 0
while True:
    number += 1
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(number)
    save_checkpoint(model, path)
    print(number, flush=True)
"""


def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(saved: Path) -> None:
    """It saves in a loop, all weights being the number of the save; SIGKILL comes at any point of that."""
    with subprocess.Popen([sys.executable, "-c", SAVER, str(saved)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline().strip(), "the saving process died"
        for _ in range(20):
            values = {
                value for parameter in load_checkpoint(saved).parameters() for value in parameter.unique().tolist()
            }
            assert len(values) == 1, "a reader got weights of different saves"
        time.sleep(0.0123)  # anywhere in a save
        process.kill()
        finished = [int(line) for line in process.stdout.read().split()]
    model = load_checkpoint(saved)
    values = {value for parameter in model.parameters() for value in parameter.unique().tolist()}
    assert len(values) == 1, "weights of different saves"
    assert values.pop() >= max(finished, default=5)
    save_checkpoint(made(1), saved)
    assert names(saved.parent) == {"model"}
    assert torch.equal(logits(load_checkpoint(saved)), logits(made(1)))


def test_files_may_be_written_into_a_directory_that_holds_others(tmp_path: Path) -> None:
    """As training does, beside the optimizer's state; such a directory is read like any other."""
    (tmp_path / "optimizer.pt").write_text("state")
    write_files(made(), tmp_path)
    assert names(tmp_path) == {*FILES, "optimizer.pt"}
    assert torch.equal(logits(load_checkpoint(tmp_path)), logits(made()))
