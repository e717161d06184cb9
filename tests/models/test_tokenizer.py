"""Bytes as tokens, and text as it arrives."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from spectral_core.errors import SpectralError
from spectral_models import build_model, load_tokenizer, save_checkpoint
from spectral_models.data import ByteTokenizer, DataError
from spectral_models.data.byte_files import says_bytes
from spectral_models.data.subwords import learn_bpe

TEXT = "héllo – 世界 🙂\n"
INVALID = bytes([0xE4, 0xB8, 0x41, 0xFF, 0x42, 0xF0, 0x9F])  # a cut character, a stray byte, an unfinished character


def test_tokens_are_the_utf8_bytes():
    tokenizer = ByteTokenizer()
    assert tokenizer.encode(TEXT) == list(TEXT.encode())
    assert tokenizer.encode(INVALID) == list(INVALID)
    assert max(tokenizer.encode(bytes(range(256)))) == tokenizer.vocab_size - 1
    assert bytes([tokenizer.eos_token_id]) == b"\0"


def test_decode_inverts_encode_and_takes_tensors():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert tokenizer.decode(torch.tensor(tokenizer.encode(TEXT))) == TEXT, "generate() returns tensors"


def test_decode_replaces_what_is_not_text_unless_told_to_refuse_it():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(INVALID) == INVALID.decode(errors="replace")
    with pytest.raises(UnicodeDecodeError):
        tokenizer.decode(INVALID, errors="strict")


@pytest.mark.parametrize("token", [-1, 256, 50000])
def test_a_token_that_is_no_byte_is_named(token):
    """A model with a larger vocabulary emits such tokens; the error says what to change."""
    with pytest.raises(DataError, match=rf"token {token} is not a byte.*vocab_size: 256") as caught:
        ByteTokenizer().decode([65, token])
    assert isinstance(caught.value, SpectralError)
    with pytest.raises(DataError, match=f"token {token} "):
        ByteTokenizer().stream().push(token)


def test_a_stream_never_splits_a_character():
    stream = ByteTokenizer().stream()
    pieces = [stream.push(token) for token in "é🙂a".encode()]
    assert pieces == ["", "é", "", "", "", "🙂", "a"]
    assert stream.finish() == ""


@pytest.mark.parametrize("data", [TEXT.encode(), INVALID, b""])
def test_streamed_pieces_join_to_what_decode_gives(data):
    """Also for bytes that are not text: an untrained model emits little else."""
    tokenizer = ByteTokenizer()
    stream = tokenizer.stream()
    assert "".join([stream.push(token) for token in data] + [stream.finish()]) == tokenizer.decode(data)


def test_a_finished_stream_starts_afresh():
    stream = ByteTokenizer().stream()
    stream.push(0xE4)
    assert stream.finish() == "\ufffd"
    assert stream.push(ord("a")) == "a"


def test_its_files_are_known_again_as_bytes():
    """Changed in anything that matters, they are another tokenizer's."""
    text = ByteTokenizer().files()["tokenizer.json"]
    assert says_bytes(text)
    changes = {
        "a merge": lambda data: data["model"]["merges"].append(["a", "b"]),
        "two bytes in each other's place": lambda data: data["model"]["vocab"].update(a=98, b=97),
        "one token more": lambda data: data["model"]["vocab"].update(ab=256),
        "one less": lambda data: data["model"]["vocab"].pop("a"),
        "an added token": lambda data: data["added_tokens"].append({"id": 256, "content": "<|user|>"}),
        "another kind": lambda data: data.update(model={"type": "WordLevel", "vocab": {"a": 0}}),
    }
    for change in changes.values():
        data = json.loads(text)
        change(data)
        assert not says_bytes(json.dumps(data))
    for broken in ("", "[]", "{", "[" * 5000, '{"model": 1}', text[:-40], learned_files()):
        assert not says_bytes(broken)


def learned_files() -> str:
    return learn_bpe(["some text"], 260).files()["tokenizer.json"]


def test_a_checkpoint_of_bytes_needs_no_library(monkeypatch, tmp_path):
    """The files are written, and read as bytes, where neither tokenizers nor transformers is installed."""
    for library in ("tokenizers", "transformers"):
        monkeypatch.setitem(sys.modules, library, None)
    save_checkpoint(build_model({"hidden_dim": 8, "num_layers": 1}), tmp_path / "model", tokenizer=ByteTokenizer())
    assert (tmp_path / "model" / "tokenizer.json").exists()
    assert type(load_tokenizer(tmp_path / "model")) is ByteTokenizer
    record = json.loads((tmp_path / "model" / "config.json").read_text())
    assert record["architectures"] == ["SpectralForCausalLM"]
    assert record["eos_token_id"] == record["pad_token_id"] == 0
