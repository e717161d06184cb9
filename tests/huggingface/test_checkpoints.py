"""One checkpoint format: what either side writes, the other reads; and what is pushed is what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import hub

from spectral_core import ConfigError, PluginError
from spectral_models import CheckpointError, build_model, load_checkpoint, load_config, save_checkpoint
from spectral_models.checkpoint import WEIGHTS
from spectral_models.integrations.huggingface import (
    SpectralForCausalLM,
    SpectralForSeq2SeqLM,
    SpectralForSequenceClassification,
    SpectralHFConfig,
    pretrained,
)
from spectral_models.quantization import quantize
from spectral_models.record import CONFIG
from spectral_models.seal import MARKER, write_marker

FILES = {"complete.json", "config.json", "model.safetensors", "modeling_spectral_networks.py"}


def test_what_either_side_writes_the_other_reads(kind, tmp_path):
    model = kind.model()
    expected = kind.logits(model)
    model.save_pretrained(tmp_path / "theirs")
    save_checkpoint(model.model, tmp_path / "ours")
    read = {"preprocessor_config.json"} if "frontend" in str(kind.config) else set()
    for place in ("ours", "theirs"):
        names = {path.name for path in (tmp_path / place).iterdir()}
        assert names - {"generation_config.json"} == FILES | read
    stored, plain = load_file(tmp_path / "theirs" / WEIGHTS), load_file(tmp_path / "ours" / WEIGHTS)
    assert list(stored) == list(plain) == sorted(model.model.state_dict())
    for directory in (tmp_path / "theirs", tmp_path / "ours"):
        assert torch.equal(kind.logits(load_checkpoint(directory)), expected)
        found = kind.auto.from_pretrained(directory)
        assert type(found) is kind.cls
        assert not found.training
        assert found.model.config == model.model.config
        assert torch.equal(kind.logits(found), expected)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_stored_once_and_stay_tied(tied, tmp_path):
    model = SpectralForCausalLM.wrap(build_model({"hidden_dim": 8, "num_layers": 1, "tie_embeddings": tied}))
    model.save_pretrained(tmp_path)
    of_vocabulary = [name for name, tensor in load_file(tmp_path / WEIGHTS).items() if 256 in tensor.shape]
    assert of_vocabulary == ["frontend.embedding.weight", *([] if tied else ["head.weight"])]
    found = SpectralForCausalLM.from_pretrained(tmp_path)
    assert found.config.tie_word_embeddings is tied
    with torch.no_grad():
        found.get_input_embeddings().weight[5] = 0
        assert bool((found(torch.tensor([[1, 2]])).logits[..., 5] == 0).all()) is tied


def test_what_a_part_computes_and_no_file_holds_is_there(language_model, tmp_path):
    """Hugging Face builds models without memory and fills in what the file has; a filter's fixed basis is not in it."""
    SpectralForCausalLM.wrap(language_model).save_pretrained(tmp_path)
    found = SpectralForCausalLM.from_pretrained(tmp_path)
    assert any(getattr(part, "basis", None) is not None for part in language_model.modules())
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(found.eval().model(ids).logits, language_model.eval()(ids).logits)


def test_a_dtype_may_be_asked_for_or_is_the_files(language_model, tmp_path):
    SpectralForCausalLM.wrap(language_model).save_pretrained(tmp_path / "full")
    half = SpectralForCausalLM.from_pretrained(tmp_path / "full", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    half.save_pretrained(tmp_path / "half")
    assert SpectralForCausalLM.from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    assert next(load_checkpoint(tmp_path / "half").parameters()).dtype == torch.bfloat16


def test_names_of_earlier_checkpoints_are_read(tmp_path):
    model = build_model({"hidden_dim": 8, "num_layers": 1})
    save_checkpoint(model, tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / WEIGHTS)
    weights["embedding.weight"] = weights.pop("frontend.embedding.weight")
    save_file(weights, tmp_path / "saved" / WEIGHTS, metadata={"format": "pt"})
    write_marker(tmp_path / "saved", MARKER, [CONFIG, WEIGHTS])
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(found.get_input_embeddings().weight, model.frontend.embedding.weight)
    found.save_pretrained(tmp_path / "again")
    assert sorted(load_file(tmp_path / "again" / WEIGHTS)) == sorted(model.state_dict())


@pytest.mark.parametrize(("change", "message"), [("lacks", "missing: model.norm.weight"), ("has", "unexpected: more")])
def test_weights_that_do_not_fit_are_an_error(change, message, tmp_path):
    save_checkpoint(build_model({"hidden_dim": 8, "num_layers": 1}), tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / WEIGHTS)
    if change == "lacks":
        del weights["norm.weight"]
    else:
        weights["more"] = torch.zeros(1)
    save_file(weights, tmp_path / "saved" / WEIGHTS, metadata={"format": "pt"})
    write_marker(tmp_path / "saved", MARKER, [CONFIG, WEIGHTS])
    with pytest.raises(CheckpointError, match=f"do not fit their config; {message}"):
        SpectralForCausalLM.from_pretrained(tmp_path / "saved")


def flipped(file: Path, index: int) -> None:
    content = bytearray(file.read_bytes())
    content[index] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_flipped_bit_of_the_weights_is_refused(share, kind, tmp_path):
    """In every class, through its Auto class and its own."""
    kind.model().save_pretrained(tmp_path)
    weights = tmp_path / WEIGHTS
    flipped(weights, int(share * weights.stat().st_size))
    for cls in (kind.auto, kind.cls):
        with pytest.raises(CheckpointError, match="was changed after it was saved"):
            cls.from_pretrained(tmp_path)


def test_a_model_whose_weights_or_config_were_cut_or_edited_is_refused(tmp_path):
    """Like :func:`load_checkpoint`; and fields that are Hugging Face's may be edited, as on a hub."""
    saved = save_checkpoint(build_model({"hidden_dim": 8, "num_layers": 1}), tmp_path / "saved")
    record = json.loads((saved / CONFIG).read_text())
    theirs = {"pad_token_id": 3, "torch_dtype": "float32", "auto_map": {}, "architectures": ["X"], "_more": [1.5]}
    (saved / CONFIG).write_text(json.dumps({**theirs, **record}))
    assert AutoModelForCausalLM.from_pretrained(saved).config.pad_token_id == 3
    (saved / CONFIG).write_text(json.dumps({**record, "spectral": {**record["spectral"], "norm": "layer_norm"}}))
    with pytest.raises((CheckpointError, ConfigError)):
        AutoModelForCausalLM.from_pretrained(saved)
    (saved / CONFIG).write_text(json.dumps({**record, "schema_version": 2}))
    with pytest.raises(CheckpointError, match=r"config\.json was changed after it was saved"):
        AutoModelForCausalLM.from_pretrained(saved)
    (saved / CONFIG).write_text(json.dumps(record))
    (saved / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="are damaged"):
        AutoModelForCausalLM.from_pretrained(saved)


def test_weights_without_a_marker_are_loaded_with_a_warning(tmp_path):
    saved = save_checkpoint(build_model({"hidden_dim": 8, "num_layers": 1}), tmp_path / "saved")
    (saved / MARKER).unlink()
    with pytest.warns(UserWarning, match=r"model\.safetensors was not checked for damage: no complete\.json"):
        AutoModelForCausalLM.from_pretrained(saved)


def test_a_hub_s_cache_is_checked_too(tmp_path, monkeypatch):
    """There a snapshot links to files that lie elsewhere, and holds only what was asked for: so the marker is."""
    saved = save_checkpoint(build_model({"hidden_dim": 8, "num_layers": 1}), tmp_path / "saved")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in saved.iterdir():
        (snapshot / file.name).symlink_to(file)
    asked = []
    monkeypatch.setattr(pretrained, "cached_file", lambda path, name, **options: asked.append((path, name, options)))
    plain = PreTrainedModel.from_pretrained.__func__
    monkeypatch.setattr(
        PreTrainedModel, "from_pretrained", classmethod(lambda cls, path, **kwargs: plain(cls, snapshot, **kwargs))
    )
    SpectralForCausalLM.from_pretrained("some/model", revision="v1")
    assert [(path, name, options["revision"]) for path, name, options in asked] == [("some/model", MARKER, "v1")]
    flipped(saved / WEIGHTS, -5)
    with pytest.raises(CheckpointError, match="was changed after it was saved"):
        SpectralForCausalLM.from_pretrained("some/model")


def test_a_class_takes_its_own_kind_only(kind, text, tmp_path):
    save_checkpoint(kind.model().model, tmp_path / "saved")
    other = AutoModelForCausalLM if kind.cls is SpectralForSequenceClassification else text.auto
    with pytest.raises(ConfigError, match=rf"holds .*; got a model of type '\w+'\. Use {kind.cls.__name__}\."):
        other.from_pretrained(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"of type 'encoder'\. It is for no task as it is, .*load_checkpoint"):
        SpectralForCausalLM(SpectralHFConfig.of(load_config({"type": "encoder"})))


def test_labels_and_what_ends_a_text_are_kept(text, tmp_path):
    names = {0: "bad", 1: "so so", 2: "good"}
    model = SpectralForSequenceClassification.wrap(
        text.model().model, id2label=names, label2id={name: index for index, name in names.items()}
    )
    model.save_pretrained(tmp_path / "first")
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "first")
    found.save_pretrained(tmp_path / "second")
    assert AutoConfig.from_pretrained(tmp_path / "second").id2label == names
    assert json.loads((tmp_path / "second" / CONFIG).read_text())["architectures"] == [type(model).__name__]


def test_our_own_files_name_the_class(kind, tmp_path):
    """Without importing transformers: the config of a variant says it; and a user's subclass names itself."""
    save_checkpoint(kind.model().model, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / CONFIG).read_text())["architectures"] == [kind.cls.__name__]
    assert AutoConfig.from_pretrained(tmp_path / "ours").architectures == [kind.cls.__name__]
    mine = type("Mine" + kind.cls.__name__, (kind.cls,), {})
    mine.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs" / CONFIG).read_text())["architectures"] == [mine.__name__]
    assert torch.equal(kind.logits(load_checkpoint(tmp_path / "theirs")), kind.logits(kind.model()))


def test_tools_find_the_tokens_that_begin_end_and_pad(kind):
    """None where a model knows none; generate() has them from the config."""
    config = SpectralHFConfig.of(load_config(kind.config))
    found = [getattr(config, f"{name}_token_id") for name in ("bos", "eos", "pad")]
    if kind.cls is SpectralForSeq2SeqLM:
        assert found == [None, 1, 0]
        assert config.decoder_start_token_id == 0
        generation = kind.model().generation_config
        assert (generation.decoder_start_token_id, generation.eos_token_id, generation.pad_token_id) == (0, 1, 0)
    else:
        assert found == [None, None, None]
    assert SpectralHFConfig.of(load_config(kind.config), pad_token_id=3).pad_token_id == 3


def test_another_number_of_labels_begins_a_head_anew(text, tmp_path):
    """As everywhere in Hugging Face: asked for by name, and only with ``ignore_mismatched_sizes``."""
    model = text.model()
    model.save_pretrained(tmp_path / "saved")
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        text.auto.from_pretrained(tmp_path / "saved", num_labels=5)
    found = text.auto.from_pretrained(tmp_path / "saved", num_labels=5, ignore_mismatched_sizes=True)
    assert found.model.config.num_labels == found.config.num_labels == 5
    assert found.model.head.weight.shape == (5, 16)
    assert found.model.head.weight.std() > 0
    assert torch.equal(found.model.encoder.norm.weight, model.model.encoder.norm.weight)
    found.save_pretrained(tmp_path / "again")
    assert load_checkpoint(tmp_path / "again").config.num_labels == 5
    with pytest.raises(ConfigError, match="with as many labels as it has"):
        SpectralForSequenceClassification.wrap(model.model, id2label={0: "a", 1: "b"})


def test_a_config_goes_there_and_back(kind, tmp_path):
    config = SpectralHFConfig.of(load_config(kind.config))
    config.save_pretrained(tmp_path)
    found = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(found, SpectralHFConfig)
    assert found.spectral == config.spectral == SpectralHFConfig.from_dict(config.to_dict()).spectral
    assert found.model_config() == load_config(kind.config)
    assert (found.hidden_size, found.num_hidden_layers) == (16, 2)
    assert getattr(found, "vocab_size", None) == (40 if kind.cls.main_input_name == "input_ids" else None)
    assert found.is_encoder_decoder is (kind.config["type"] == "seq2seq")
    assert type(kind.auto.from_config(found)) is kind.cls


def test_a_config_is_validated_and_raises_our_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"^block\.mixr: unknown key\. Did you mean 'mixer'"):
        SpectralHFConfig({"block": {"mixr": "holographic"}})
    with pytest.raises(ConfigError, match="vocab_size cannot be set to 300: it is the model's vocab_size"):
        SpectralHFConfig.of(load_config({})).vocab_size = 300
    save_checkpoint(build_model({"hidden_dim": 8, "num_layers": 1}), tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"hidden_size cannot be set to 9: it is the model's hidden_dim"):
        AutoConfig.from_pretrained(tmp_path / "saved", hidden_size=9)
    record = json.loads((tmp_path / "saved" / CONFIG).read_text())
    for changed, error, message in (
        ({"schema_version": 5}, CheckpointError, "this checkpoint has schema version 5; this release"),
        ({"spectral": {"hidden_dim": -1}}, CheckpointError, "no longer validates: hidden_dim"),
        (
            {
                "spectral": {"block": {"mixer": "acme/wave"}},
                "components": [{"kind": "mixer", "name": "acme/wave", "provider": "acme", "version": "1.0"}],
            },
            PluginError,
            r"this checkpoint uses the mixer 'acme/wave' .* Run: pip install 'acme==1\.0'",
        ),
    ):
        (tmp_path / "saved" / CONFIG).write_text(json.dumps({**record, **changed}))
        with pytest.raises(error, match=message):
            AutoModelForCausalLM.from_pretrained(tmp_path / "saved")


def test_int8_weights_are_ours_to_keep(language_model, tmp_path):
    quantize(language_model)
    model = SpectralForCausalLM.wrap(language_model)
    with pytest.raises(ConfigError, match=r"int8 weights are kept by spectral_models\.save_checkpoint"):
        model.save_pretrained(tmp_path / "theirs")
    save_checkpoint(language_model, tmp_path / "ours")
    with pytest.raises(CheckpointError, match=r"has int8 weights, .* Use wrap\(load_checkpoint\(path\)\)"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    again = SpectralForCausalLM.wrap(load_checkpoint(tmp_path / "ours"))
    prompt = torch.arange(1, 6)[None]
    found = again.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert torch.equal(found, language_model.generate(prompt, max_new_tokens=4))


@pytest.fixture
def pushed(monkeypatch) -> dict[str, bytes]:
    """What would be uploaded to me/first."""
    pushed: dict[str, bytes] = {}

    def create_commit(*, repo_id: str, operations: list[Any], **_: Any) -> None:
        assert repo_id == "me/first"
        pushed.update({each.path_in_repo: Path(each.path_or_fileobj).read_bytes() for each in operations})

    service = SimpleNamespace(create_repo=lambda name, **_: SimpleNamespace(repo_id=name), create_commit=create_commit)
    monkeypatch.setattr(hub, "hf_api", lambda: service)
    monkeypatch.setattr(hub.ModelCard, "load", lambda *_, **__: hub.ModelCard("a card"))
    return pushed


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_pushed_is_a_checkpoint(language_model, tmp_path, pushed, at_once):
    """The calls that would upload are caught; what they were given is loaded."""
    model = SpectralForCausalLM.wrap(language_model)
    if at_once:
        model.save_pretrained(tmp_path / "first", push_to_hub=True, repo_id="me/first")
    else:
        model.push_to_hub("me/first")
    assert set(pushed) == {*FILES, "generation_config.json", "README.md"}
    assert pushed["README.md"].endswith(b"a card")
    (tmp_path / "pulled").mkdir()
    for name, content in pushed.items():
        (tmp_path / "pulled" / name).write_bytes(content)
    tokens = torch.arange(9)[None]
    with torch.no_grad():
        for found in (load_checkpoint(tmp_path / "pulled"), AutoModelForCausalLM.from_pretrained(tmp_path / "pulled")):
            held = getattr(found, "model", found).state_dict()
            assert held.keys() == language_model.state_dict().keys()
            assert all(torch.equal(held[name], tensor) for name, tensor in language_model.state_dict().items())
            # The same weights at other addresses may be added up in another order.
            torch.testing.assert_close(found(tokens).logits, language_model(tokens).logits, rtol=1.3e-6, atol=1e-5)


def test_a_card_is_pushed_with_the_weights_that_it_describes(language_model, tmp_path, pushed):
    """And not with others, which were trained further."""
    saved = save_checkpoint(language_model, tmp_path / "saved")
    (saved / "README.md").write_text("a run's card")
    (saved / "curve.png").write_bytes(b"a curve")
    model = SpectralForCausalLM.from_pretrained(saved)
    model.push_to_hub("me/first")
    assert (pushed["README.md"], pushed["curve.png"]) == (b"a run's card", b"a curve")
    pushed.clear()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    model.push_to_hub("me/first")
    assert b"a run's card" not in pushed["README.md"]
    assert "curve.png" not in pushed
