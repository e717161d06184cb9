"""Texts with labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from spectral_models.data.config import NonEmpty
from spectral_models.data.source import SourceConfig, Table, TextRowsConfig
from spectral_models.data.tables import read_columns


class LabelledConfig(SourceConfig):
    """Base of configs of labelled rows. A label is a name or a number, or a list of these for multi-label tasks."""

    label: NonEmpty = "label"
    """The column of labels in a table or dataset: names, numbers from 0, or for regression any numbers."""

    separator: NonEmpty | None = None
    """Separator of several labels that are written as one text, such as ``|``; an empty cell has no label. Null reads
    each text as one label."""

    def separated(self, table: Table) -> Table:
        """The table with labels split at the separator into lists, if there is one."""
        if self.separator is None:
            return table
        labels = [
            [label.strip() for label in cell.split(self.separator) if label.strip()] if isinstance(cell, str) else cell
            for cell in table.columns["label"]
        ]
        return replace(table, columns={**table.columns, "label": labels})


class LabelledTextsConfig(LabelledConfig, TextRowsConfig):
    """Texts with a label each.

    source: a table with a row for each text (.csv and .tsv with a header, .jsonl, .parquet), or
    ``datasets:NAME[:CONFIG]``. A .tsv has no quotes, so its texts hold no line breaks or tabs.
    Roles: ``input``, the texts, and ``label``.
    """

    type: Literal["labelled"] = "labelled"

    text: NonEmpty = "text"
    """The column of texts."""

    def table(self, source: str, split: str = "train") -> Table:
        columns = {"input": self.text, "label": self.label}
        table = read_columns(source, columns, settings="data.text and data.label", split=split)
        table.texts("input")
        return self.separated(table)
