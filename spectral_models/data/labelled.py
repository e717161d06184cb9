"""Texts with labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from spectral_core.config import Length
from spectral_models.data.source import SourceConfig, Table
from spectral_models.data.tables import read_columns
from spectral_models.data.tokenizers import BytesConfig, TokenizerConfig


class LabelledConfig(SourceConfig):
    """Base of the configs of rows with a label: a name or a number, or, for tasks of several labels, a list of them."""

    label: Annotated[str, Field(min_length=1)] = "label"
    """The column with the labels, of a table or dataset: names, numbers from 0, or for regression any numbers."""

    separator: Annotated[str, Field(min_length=1)] | None = None
    """What divides the labels of a row that are written as one text, ``|`` say; an empty cell has none. Null takes each
    text as one label."""

    def separated(self, table: Table) -> Table:
        """The table, with texts of several labels as lists."""
        if self.separator is None:
            return table
        labels = [
            [label.strip() for label in cell.split(self.separator) if label.strip()] if isinstance(cell, str) else cell
            for cell in table.columns["label"]
        ]
        return replace(table, columns={**table.columns, "label": labels})


class LabelledTextsConfig(LabelledConfig):
    """Texts with a label each: where they come from, which are held out, and what their tokens are.

    source: a table with a row for each text (.csv and .tsv with a header, .jsonl, .parquet), or
    ``datasets:NAME[:CONFIG]``. A .tsv has no quotes: a line break or tab is never part of a text.
    Roles: ``input``, the texts, and ``label``.
    """

    type: Literal["labelled"] = "labelled"

    text: Annotated[str, Field(min_length=1)] = "text"
    """The column with the texts."""

    tokenizer: TokenizerConfig = BytesConfig()
    """What a token is: ``bytes``, ``bpe``, learned from the texts to train on, or ``{type: file, path: PATH}``."""

    max_length: Length = 512
    """Tokens of a text that are read, in training and whenever the commands use the model; what goes beyond is not."""

    def table(self, source: str, split: str = "train") -> Table:
        columns = {"input": self.text, "label": self.label}
        table = read_columns(source, columns, settings="data.text and data.label", split=split)
        table.texts("input")
        return self.separated(table)
