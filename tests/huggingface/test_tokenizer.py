"""The byte tokenizer as one of Hugging Face's: the same tokens, the same texts, saved beside a model."""

from __future__ import annotations

import random

import torch
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, pipeline

from spectral_models import build_model, load_tokenizer, save_checkpoint
from spectral_models.data import ByteTokenizer
from spectral_models.data.subwords import read_tokenizer
from spectral_models.integrations.huggingface import (
    SpectralForMaskedLM,
    SpectralForSequenceClassification,
    byte_tokenizer,
)

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


def test_the_mask_is_a_byte_that_no_text_has():
    """All 256 tokens stay bytes; a text has the mask where ``tokenizer.mask_token`` was written into it."""
    tokenizer = byte_tokenizer()
    assert tokenizer.mask_token_id == 255
    assert len(tokenizer) == 256
    assert not any(255 in text.encode() for text in ("ÿ", "\U0010ffff", "<mask>", "[MASK]"))
    for text in ("ÿ", "\U0010ffff", "<mask>", "[MASK]", "<mask>\0"):
        assert tokenizer.encode(text) == list(text.encode())
    assert tokenizer.encode(f"é{tokenizer.mask_token}b") == [*"é".encode(), 255, 98]


def test_the_collator_of_masked_models_takes_it():
    torch.manual_seed(0)
    model = build_model({"type": "encoder", "hidden_dim": 16, "num_layers": 1, "masked_lm": True})
    collate = DataCollatorForLanguageModeling(byte_tokenizer(), mlm=True, mlm_probability=0.5)
    batch = collate([byte_tokenizer()("a text"), byte_tokenizer()("another one\0")])
    masked = batch["labels"] != -100
    assert (batch["input_ids"][masked] == 255).float().mean() > 0.5
    assert not masked[batch["attention_mask"] == 0].any()
    assert not (batch["labels"] == 0).any(), "what ends a text is not masked"
    SpectralForMaskedLM.wrap(model)(**batch).loss.backward()


def test_a_checkpoint_of_bytes_has_it_and_is_ours_to_read_as_bytes(tmp_path):
    """Whoever saved it: our own loader gives ByteTokenizer, for bytes that are no text too."""
    model = build_model({"hidden_dim": 16, "num_layers": 1})
    save_checkpoint(model, tmp_path / "ours", tokenizer=ByteTokenizer())
    AutoTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    save_checkpoint(model, tmp_path / "plain")
    for place in ("ours", "theirs"):
        theirs = AutoTokenizer.from_pretrained(tmp_path / place)
        for text in TEXTS:
            assert theirs.encode(text) == ByteTokenizer().encode(text)
        assert (theirs.eos_token_id, theirs.pad_token_id, theirs.mask_token_id, theirs.padding_side) == (
            0,
            0,
            255,
            "left",
        )
    assert not (tmp_path / "plain" / "tokenizer.json").exists(), "what is not given is not made up"
    for source in (tmp_path / "ours", tmp_path / "plain"):
        found = load_tokenizer(source)
        assert type(found) is ByteTokenizer
        assert found.decode(found.encode(b"\xff\xfe\x00a"), errors="surrogateescape") == "\udcff\udcfe\x00a"
    assert type(read_tokenizer(tmp_path / "theirs")) is ByteTokenizer
    theirs.add_tokens(["<|user|>"])
    theirs.save_pretrained(tmp_path / "more")
    assert read_tokenizer(tmp_path / "more").vocab_size == 257, "with more tokens it is another tokenizer"


def test_a_checkpoint_of_bytes_writes_from_a_pipeline(tmp_path):
    """From the directory alone: the tokenizer, what ends a text and what pads."""
    torch.manual_seed(0)
    model = build_model({"hidden_dim": 16, "num_layers": 1}).eval()
    save_checkpoint(model, tmp_path, tokenizer=ByteTokenizer())
    write = pipeline("text-generation", model=str(tmp_path))
    assert write.model.generation_config.eos_token_id == write.model.generation_config.pad_token_id == 0
    found = write("Zürich", max_new_tokens=8, do_sample=False)[0]["generated_text"]
    ours = model.generate(torch.tensor([list("Zürich".encode())]), max_new_tokens=8, stop_tokens=[0])[0]
    assert found == ByteTokenizer().decode(token for token in ours.tolist() if token not in (0, 255))
    fill = pipeline("fill-mask", model=SpectralForMaskedLM.wrap(_masked()), tokenizer=write.tokenizer)
    assert fill(f"a{fill.tokenizer.mask_token}c", top_k=1)[0]["token"] == _likeliest([97, 255, 99], 1)


def _masked():
    torch.manual_seed(0)
    return build_model({"type": "encoder", "hidden_dim": 16, "num_layers": 1, "masked_lm": True}).eval()


def _likeliest(ids: list[int], place: int) -> int:
    with torch.no_grad():
        return int(_masked()(torch.tensor([ids])).logits[0, place].argmax())


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
