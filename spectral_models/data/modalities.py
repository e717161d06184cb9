"""Rows of several modalities with a label: texts, images, audio."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field

from spectral_core.config import Length
from spectral_core.errors import suggestion
from spectral_models.data.labelled import LabelledConfig
from spectral_models.data.readers import File
from spectral_models.data.source import Table
from spectral_models.data.tables import read_columns
from spectral_models.data.tokenizers import BytesConfig, TokenizerConfig
from spectral_models.errors import DataError


class ModalitiesConfig(LabelledConfig):
    """Rows with a column for each modality, and a label.

    source: a table with a row for each example (.csv and .tsv with a header, .jsonl, .parquet), or
    ``datasets:NAME[:CONFIG]``. A modality's cells are texts, paths of images or audio relative to the table's folder,
    or a dataset's images or audio. An empty cell says that the row lacks the modality; no row lacks all.
    Roles: the modalities, by name, and ``label``.
    """

    type: Literal["modalities"] = "modalities"

    columns: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    """The column of each modality; one that is not mentioned here is read from the column of its own name."""

    tokenizer: TokenizerConfig = BytesConfig()
    """What a token of texts is: ``bytes``, ``bpe``, learned from the texts to train on, or ``{type: file, path:
    PATH}``."""

    max_length: Length = 512
    """Tokens of a text that are read; what goes beyond is not."""

    def of(self, modalities: Collection[str]) -> ModalitiesConfig:
        """The config with a column for each of a model's modalities. Raises DataError for columns of others."""
        for name in self.columns:
            if name not in modalities:
                raise DataError(
                    f"data.columns: the model has no modality {name!r}.{suggestion(name, list(modalities))} Its "
                    f"modalities: {', '.join(modalities)}."
                )
        return self.model_copy(update={"columns": {name: self.columns.get(name, name) for name in modalities}})

    def table(self, source: str, split: str = "train") -> Table:
        """Missing modalities are None. Raises DataError, with the place, for a row without any, and for other cells."""
        if not self.columns:
            raise DataError("data.columns names no modality. Give the column of each: columns: {image: picture}.")
        if "label" in self.columns:
            raise DataError("data.columns: 'label' cannot name a modality, it is the labels' name. Choose another.")
        modalities = tuple(self.columns)
        columns = {**self.columns, "label": self.label}
        table = read_columns(source, columns, settings="data.columns and data.label", inputs=modalities, split=split)
        for role in modalities:
            table.columns[role][:] = [
                None if isinstance(cell, str) and not cell.strip() else cell for cell in table.columns[role]
            ]
        for index in range(len(table)):
            cells = {role: table.columns[role][index] for role in modalities}
            if all(cell is None for cell in cells.values()):
                raise DataError(
                    f"{table.source}, {table.places[index]}: has none of the modalities {', '.join(modalities)}. "
                    "Remove it."
                )
            for role, cell in cells.items():
                if not (cell is None or isinstance(cell, str | File)):
                    raise table.error(
                        index, role, f"holds {type(cell).__name__}; a modality is a text or the path of a file."
                    )
        return self.separated(table)
