"""Rows of several modalities with a label: texts, images, audio."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from spectral_core.errors import suggestion
from spectral_models.data.config import NonEmpty
from spectral_models.data.labelled import LabelledConfig
from spectral_models.data.readers import File
from spectral_models.data.source import Table, TextRowsConfig
from spectral_models.data.tables import read_columns
from spectral_models.errors import DataError


class ModalitiesConfig(LabelledConfig, TextRowsConfig):
    """Rows with a column for each modality, and a label.

    source: a table with a row for each example (.csv and .tsv with a header, .jsonl, .parquet), or
    ``datasets:NAME[:CONFIG]``. A modality's cells are texts, paths of images or audio relative to the table's folder,
    or a dataset's images or audio. An empty cell is a missing modality; a row has at least one.
    Roles: the modalities, by name, and ``label``.
    """

    type: Literal["modalities"] = "modalities"

    columns: dict[str, NonEmpty] = Field(default_factory=dict)
    """Columns by modality; the default is the column with the modality's name."""

    def of(self, modalities: Collection[str]) -> ModalitiesConfig:
        """The config with a column for each of a model's modalities. Raises DataError for columns of others."""
        for name in self.columns:
            if name not in modalities:
                unknown = f"the model has no modality {name!r}.{suggestion(name, list(modalities))}"
                raise DataError(f"data.columns: {unknown} Its modalities: {', '.join(modalities)}.")
        return self.model_copy(update={"columns": {name: self.columns.get(name, name) for name in modalities}})

    def table(self, source: str, split: str = "train") -> Table:
        """Missing modalities are None. Raises DataError, with the place, for rows without any and for other cells."""
        if not self.columns:
            raise DataError("data.columns names no modality. Give the column of each: columns: {image: picture}.")
        if "label" in self.columns:
            raise DataError("data.columns: 'label' cannot name a modality: it is the name of labels. Choose another.")
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
                place = f"{table.source}, {table.places[index]}"
                raise DataError(f"{place}: has none of the modalities {', '.join(modalities)}. Remove it.")
            for role, cell in cells.items():
                if not isinstance(cell, str | File | None):
                    found = f"holds {type(cell).__name__}"
                    raise table.error(index, role, f"{found}; a modality is a text or the path of a file.")
        return self.separated(table)
