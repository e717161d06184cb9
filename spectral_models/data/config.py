"""Configs of data: their base, and a text corpus."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spectral_core.config import Config, Length
from spectral_models.data.tokenizers import BytesConfig, TokenizerConfig

NonEmpty = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]


class AnyDataConfig(Config):
    """Base of the configs of data that tasks read."""

    type: str

    source: NonEmpty
    """Where the data come from."""


class DataConfig(AnyDataConfig):
    """A text corpus: the source of its documents, the share held out, and the tokenizer."""

    type: Literal["text"] = "text"

    source: NonEmpty = "stdlib"
    """A path to a UTF-8 text file, a JSONL file or a directory of them; ``stdlib``, the Python source files of the
    running interpreter; or ``datasets:NAME[:CONFIG]``, a Hugging Face dataset or a local dataset folder. Write
    ``./stdlib`` for a file called ``stdlib``."""

    text_field: NonEmpty = "text"
    """The field that holds a document's text, in JSONL files and datasets."""

    tokenizer: TokenizerConfig = BytesConfig()
    """``bytes``; ``bpe``, learned from the training documents; or ``{type: file, path: PATH}``."""

    context: Length = 256
    """Tokens in a window."""

    validation_fraction: Fraction = 0.05
    """Expected share of held-out documents: each document is drawn independently."""

    seed: Seed = 0
    """Seed of the draw of held-out documents."""

    validation_bytes: Annotated[int, Field(ge=8, le=1 << 40)] | None = 262144
    """Limit on the held-out bytes used for evaluation, cut at a whole character; null for no limit."""
