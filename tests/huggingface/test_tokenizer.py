"""The byte tokenizer as one of Hugging Face's: the same tokens, the same texts, saved beside a model."""

from __future__ import annotations

import random

import torch
from transformers import AutoTokenizer, pipeline

from spectral_models import build_model, load_tokenizer, save_checkpoint
from spectral_models.data import ByteTokenizer
from spectral_models.integrations.huggingface import SpectralForSequenceClassification, byte_tokenizer

TEXTS = ["", "hello\n  wörld 😀", "Ā Ġ", "\u0100\u0122", "a\r\n\tb  ", "\x01\x7f", "line\u2028end", "e\u0301 é"]


def test_texts_have_our_tokens():
    ours, theirs = ByteTokenizer(), byte_tokenizer()
    for text in (*TEXTS, "a\0b", "\0"):
        assert theirs.encode(text) == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    assert len(theirs) == ours.vocab_size
    assert theirs.eos_token_id == theirs.pad_token_id == ours.eos_token_id
    assert theirs.decode([104, 105, 0, 0], skip_special_tokens=True) == "hi"


def test_tokens_have_our_texts():
    """Bytes that are no text included: cut characters and stray ones become U+FFFD as ours have it."""
    ours, theirs = ByteTokenizer(), byte_tokenizer()
    draw = random.Random(0)  # noqa: S311
    pieces = [[byte] for byte in range(256)] + [list(part) for part in ("€".encode()[:2], "😀".encode(), b"\xf0\x9f")]
    for _ in range(1000):
        ids = [byte for piece in draw.choices(pieces, k=draw.randrange(12)) for byte in piece]
        assert theirs.decode(ids) == ours.decode(ids), ids


def test_it_is_saved_and_pads_where_generate_wants_it(tmp_path):
    save_checkpoint(build_model({"hidden_dim": 8, "num_layers": 1}), tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    found, ours = AutoTokenizer.from_pretrained(tmp_path / "model"), load_tokenizer(tmp_path / "model")
    for text in TEXTS:
        assert found.encode(text) == ours.encode(text) == ByteTokenizer().encode(text)
        assert ours.decode(ours.encode(text)) == text
    batch = found(["a", "bcd"], padding=True)
    assert batch["input_ids"] == [[0, 0, 97], [98, 99, 100]]
    assert batch["attention_mask"] == [[0, 0, 1], [1, 1, 1]]


def test_a_pipeline_classifies_texts_from_a_directory(tmp_path):
    encoder = {"type": "encoder", "hidden_dim": 16, "num_layers": 1, "block": "moe"}
    torch.manual_seed(0)
    model = build_model({"type": "classifier", "num_labels": 3, "encoder": encoder}).eval()
    names = {0: "bad", 1: "so so", 2: "good"}
    SpectralForSequenceClassification.wrap(model, id2label=names).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path))
    texts = ["a fine film", "no"]
    for text, found in zip(texts, classify(texts, batch_size=2), strict=True):
        with torch.no_grad():
            alone = model(torch.tensor([ByteTokenizer().encode(text)])).logits[0]
        assert found["label"] == names[int(alone.argmax())]
        assert abs(found["score"] - alone.softmax(0).max().item()) < 1e-5
