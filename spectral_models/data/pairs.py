"""Pairs of a source and a target text, for sequence-to-sequence models."""

from __future__ import annotations

from typing import Literal

from spectral_core.config import Length
from spectral_models.data.config import NonEmpty
from spectral_models.data.readers import File
from spectral_models.data.source import Table, TextRowsConfig
from spectral_models.data.tables import read_columns


class PairsConfig(TextRowsConfig):
    """Sources with their target texts: translations, summaries, captions, transcripts.

    source: a table with a row for each pair (.csv and .tsv with a header, .jsonl, .parquet), or
    ``datasets:NAME[:CONFIG]``. Roles: ``source``, texts, paths of images or audio relative to the table's folder, or a
    dataset's images or audio; and ``target``, texts. Pairs of the same source are on the same side of the split.
    """

    type: Literal["pairs"] = "pairs"

    input: NonEmpty = "source"
    """The column of sources."""

    target: NonEmpty = "target"
    """The column of target texts."""

    max_target_length: Length = 512
    """Tokens of a target, its end token included; the rest is cut off."""

    def table(self, source: str, split: str = "train") -> Table:
        """Raises DataError, with the place, for empty cells and cells of other types."""
        columns = {"source": self.input, "target": self.target}
        table = read_columns(source, columns, settings="data.input and data.target", inputs=("source",), split=split)
        if not isinstance(table.columns["source"][0], File):
            table.texts("source")
        table.texts("target")
        return table
