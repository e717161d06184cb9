"""Configs of a run's tokenizer: ``bytes``, ``bpe`` or ``file``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, SerializeAsAny

from spectral_core.config import Config, Length, refusal
from spectral_core.errors import shown, suggestion
from spectral_models.data.subwords import learn_bpe, read_tokenizer
from spectral_models.data.tokenizer import ByteTokenizer, Tokenizer


class BytesConfig(Config):
    """Token b is byte b: a vocabulary of 256."""

    type: Literal["bytes"] = "bytes"

    def build(self, texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
        return ByteTokenizer()


class BpeConfig(Config):
    """A byte-level byte-pair encoding, learned from the training documents."""

    type: Literal["bpe"] = "bpe"
    vocab_size: Annotated[Length, Field(ge=257)] | None = None
    """Largest vocabulary: 256 bytes, the end of a document, and merges. Null takes the model's vocab_size."""

    def build(self, texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
        return learn_bpe(texts, self.vocab_size or vocab_size)


class FileConfig(Config):
    """A Hugging Face tokenizer from a file."""

    type: Literal["file"] = "file"
    path: Annotated[str, Field(min_length=1)]
    """A tokenizer.json or its directory."""
    eos: str | None = None
    """The token that ends a document. Null takes the one in tokenizer_config.json beside the file."""

    def build(self, texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
        return read_tokenizer(Path(self.path).expanduser(), self.eos)


_Config = BytesConfig | BpeConfig | FileConfig
_KINDS: dict[str, type[_Config]] = {"bytes": BytesConfig, "bpe": BpeConfig, "file": FileConfig}


def _chosen(value: Any) -> _Config:
    """The config of a mapping with ``type``, or of a bare name, with its defaults."""
    if isinstance(value, _Config):
        return value
    data = {"type": value} if isinstance(value, str) else value
    name = data.get("type") if isinstance(data, Mapping) else None
    if not isinstance(name, str) or name not in _KINDS:
        hint = suggestion(name, _KINDS) if isinstance(name, str) else ""
        raise refusal(
            f"no tokenizer is called {shown(name)}.{hint} Tokenizers: {', '.join(_KINDS)}, by name or as a mapping "
            "with 'type'; {type: file, path: PATH} reads a tokenizer.json."
        )
    return _KINDS[name].model_validate(data)


TokenizerConfig = Annotated[
    _Config,
    PlainValidator(_chosen, json_schema_input_type=Literal["bytes", "bpe"] | _Config),
    SerializeAsAny(),
]
"""``bytes``, ``bpe``, ``{type: bpe, vocab_size: 4096}`` or ``{type: file, path: tokenizer.json}``."""
