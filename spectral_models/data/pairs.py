"""Pairs of a source and a target text: for sequence-to-sequence models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spectral_core.config import Length
from spectral_models.data.readers import File
from spectral_models.data.source import SourceConfig, Table
from spectral_models.data.tables import read_columns
from spectral_models.data.tokenizers import BytesConfig, TokenizerConfig


class PairsConfig(SourceConfig):
    """Sources with the text that each becomes: translations, summaries, captions, transcripts.

    source: a table with a row for each pair (.csv and .tsv with a header, .jsonl, .parquet), or
    ``datasets:NAME[:CONFIG]``. Roles: ``source``, texts, paths of images or audio relative to the table's folder, or a
    dataset's images or audio; and ``target``, texts. Pairs of the same source are on the same side of the division.
    """

    type: Literal["pairs"] = "pairs"

    input: Annotated[str, Field(min_length=1)] = "source"
    """The column with what the model reads."""

    target: Annotated[str, Field(min_length=1)] = "target"
    """The column with the texts it is to write."""

    tokenizer: TokenizerConfig = BytesConfig()
    """What a token is, on both sides: ``bytes``, ``bpe``, learned from the texts to train on, or ``{type: file, path:
    PATH}``."""

    max_length: Length = 512
    """Tokens of a source text that are read; what goes beyond is not."""

    max_target_length: Length = 512
    """Tokens of a target, its end included; what goes beyond is not learned."""

    def table(self, source: str, split: str = "train") -> Table:
        """Raises DataError, with the place, for empty cells and what is no text."""
        columns = {"source": self.input, "target": self.target}
        table = read_columns(source, columns, settings="data.input and data.target", inputs=("source",), split=split)
        if not isinstance(table.columns["source"][0], File):
            table.texts("source")
        table.texts("target")
        return table
