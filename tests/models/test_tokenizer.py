"""Bytes as tokens, and text as it arrives."""

from __future__ import annotations

import pytest
import torch

from spectral_core.errors import SpectralError
from spectral_models.data import ByteTokenizer, DataError

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
