"""The config of a text corpus."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spectral_core.config import Config, Length
from spectral_models.data.tokenizers import BytesConfig, TokenizerConfig


class AnyDataConfig(Config):
    """Base of the configs of data that tasks read."""

    type: str

    source: Annotated[str, Field(min_length=1)]
    """Where the data come from."""


class DataConfig(AnyDataConfig):
    """A corpus: where its documents come from, which of them are held out, and what its tokens are."""

    type: Literal["text"] = "text"

    source: Annotated[str, Field(min_length=1)] = "stdlib"
    """A path to a UTF-8 text file, a JSONL file or a directory of them; ``stdlib``, the Python source files of the
    running interpreter; or ``datasets:NAME[:CONFIG]``, a Hugging Face dataset or a local dataset folder. A file that is
    called ``stdlib`` is ``./stdlib``."""

    text_field: Annotated[str, Field(min_length=1)] = "text"
    """The field that holds a document's text, in JSONL files and datasets."""

    tokenizer: TokenizerConfig = BytesConfig()
    """What a token is: ``bytes``, ``bpe``, learned from the documents to train on, or ``{type: file, path: PATH}``."""

    context: Length = 256
    """Tokens a window feeds to the model."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the documents that is held out, on average: each document is drawn by itself."""

    seed: int = Field(default=0, ge=-(1 << 63), lt=1 << 63)
    """Chooses which documents are held out."""

    validation_bytes: Annotated[int, Field(ge=8, le=1 << 40)] | None = 262144
    """At most so many held-out bytes are used for evaluation, whole characters; null for all of them."""
