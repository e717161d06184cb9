"""The byte tokenizer as files of the ``tokenizers`` library, for transformers' AutoTokenizer."""

from __future__ import annotations

import json
from typing import Any

from spectral_models.data.chat import TEMPLATE

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
END, MASK = "\0", "\0<mask>\0"
"""Tokens that cannot occur in a text, since no document contains NUL."""
_END_BYTE, _MASK_BYTE = 0, 255


def byte_files(chat_template: str = TEMPLATE) -> dict[str, str]:
    """The byte tokenizer, token b for byte b, as a byte-pair encoding without merges.

    The NUL byte ends a document and is the padding token, on the left as ``generate`` requires. Byte 255, which UTF-8
    never contains, is the mask token of masked language models.
    """
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocabulary = {**_alphabet(), _END_BYTE: END, _MASK_BYTE: MASK}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": byte, "content": vocabulary[byte], **special} for byte in (_END_BYTE, _MASK_BYTE)],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        # A kept mask token decodes as byte 255, which is no character.
        "decoder": {
            "type": "Sequence",
            "decoders": [{"type": "Replace", "pattern": {"String": MASK}, "content": _alphabet()[_MASK_BYTE]}, level],
        },
        "model": {"type": "BPE", "vocab": {token: byte for byte, token in vocabulary.items()}, "merges": []},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "mask_token": MASK,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": chat_template,
    }
    return {
        TOKENIZER: json.dumps(tokenizer, indent=2) + "\n",
        SETTINGS: json.dumps(settings, indent=2) + "\n",
    }


def says_bytes(tokenizer: str) -> bool:
    """Whether a ``tokenizer.json`` holds the byte tokenizer, as this or an earlier release or any library saves it."""
    try:
        content: Any = json.loads(tokenizer)
        vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
        added = {token["id"] for token in content["added_tokens"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    if merges or not isinstance(vocabulary, dict) or len(vocabulary) != 256 or not added <= {_END_BYTE, _MASK_BYTE}:
        return False
    return all(
        vocabulary.get(token) == byte for byte, token in _alphabet().items() if byte not in (_END_BYTE, _MASK_BYTE)
    )


def _alphabet() -> dict[int, str]:
    """The printable character for each byte in byte-level encodings: itself, or the next from U+0100 on.

    Radford et al., "Language models are unsupervised multitask learners", 2019 (their code).
    """
    itself = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in itself]
    return {byte: chr(byte if byte in itself else 0x100 + others.index(byte)) for byte in range(256)}
