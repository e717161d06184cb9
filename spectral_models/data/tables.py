"""Texts with labels, from tables: .csv, .tsv, .jsonl, .parquet, and datasets of Hugging Face."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from spectral_core.config import Length
from spectral_models.data.documents import DATASETS, missing_field
from spectral_models.data.labelled import LabelledConfig, Table, class_names, dataset_split, written_labels
from spectral_models.data.tokenizers import BytesConfig, TokenizerConfig
from spectral_models.data.utf8 import lines, pieces, records
from spectral_models.errors import DataError

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_SETTING = "data.text and data.label"

Columns = tuple[Sequence[Any], Sequence[Any], Sequence[str] | None]
"""Texts, labels, and the names of the labels where they are numbers of names."""


class LabelledTextsConfig(LabelledConfig):
    """Texts with a label each: where they come from, which are held out, and what their tokens are.

    source: a table with a row for each text (.csv and .tsv with a header, .jsonl, .parquet), or
    ``datasets:NAME[:CONFIG]``. A .tsv has no quotes: a line break or tab is never part of a text.
    """

    type: Literal["labelled"] = "labelled"

    text: Annotated[str, Field(min_length=1)] = "text"
    """The column with the texts."""

    tokenizer: TokenizerConfig = BytesConfig()
    """What a token is: ``bytes``, ``bpe``, learned from the texts to train on, or ``{type: file, path: PATH}``."""

    max_length: Length = 512
    """Tokens of a text that are read, in training and whenever the commands use the model; what goes beyond is not."""

    def table(self, source: str, split: str = "train") -> Table[str]:
        return read_table(source, self.text, self.label, split=split)


def read_table(source: str, text: str, label: str, *, split: str = "train") -> Table[str]:
    """The rows of a table, or of a split of a dataset. Raises DataError for what is not a text with a label."""
    if source.startswith(DATASETS):
        where, dataset = dataset_split(source, split)
        texts, labels, names = _columns(where, dataset, text, label)
    else:
        where = source
        texts, labels, names = _file(Path(source).expanduser(), text, label)
    if not texts:
        raise DataError(f"{where}: no rows. Give a table with texts and labels.")
    for number, content in enumerate(texts, start=1):
        if (problem := _problem(content)) is not None:
            raise DataError(f"{where}, row {number}: column {text!r} {problem}; a row needs a text. Remove it.")
    rows = [f"row {number}" for number in range(1, len(texts) + 1)]
    return Table(where, list(texts), written_labels(where, label, labels, names), rows, key=str)


def _problem(content: Any) -> str | None:
    """What is wrong with a text, if anything."""
    if content is None or (isinstance(content, str) and not content.strip()):
        return "is empty"
    if not isinstance(content, str):
        return f"holds {type(content).__name__}"
    try:
        content.encode()
    except UnicodeEncodeError as error:
        return f"is not text: character {error.start} is half of a surrogate pair"
    return None


def _file(path: Path, text: str, label: str) -> Columns:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES or not path.is_file():
        what = "no such file" if suffix in _SUFFIXES else "not a table this reads"
        raise DataError(
            f"source {str(path)!r}: {what}. Allowed: a file ({', '.join(_SUFFIXES)}) or {DATASETS}NAME[:CONFIG]."
        )
    if suffix == ".parquet":
        return _columns(str(path), _parquet(path), text, label)
    rows = _separated(path, text, label) if suffix in (".csv", ".tsv") else _objects(path, text, label)
    return [row[0] for row in rows], [row[1] for row in rows], None


def _separated(path: Path, text: str, label: str) -> list[tuple[str, str]]:
    """Two columns of a .csv or .tsv: all is text, as written. Every row has as many fields as the header names."""
    tabs = path.suffix.lower() == ".tsv"
    # strict: a quote that nothing closes is an error; otherwise the rest of the file would be one field.
    options: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True}
    reader = csv.reader((f"{line}\n" for line in lines(pieces(path))), **options)
    rows: list[tuple[str, str]] = []
    begins = 1  # the line on which a row does: a quoted field may hold line breaks
    limit = csv.field_size_limit(max(csv.field_size_limit(), path.stat().st_size))  # 128 KiB otherwise
    try:
        header = next(reader, [])
        for column in (text, label):
            if column not in header:
                raise missing_field(str(path), column, header, setting=_SETTING)
            if header.count(column) > 1:
                raise DataError(f"{path}: {header.count(column)} columns are called {column!r}. Rename all but one.")
        places = header.index(text), header.index(label)
        begins = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(header):
                raise _not_as_many(f"{path}, line {begins}", row, header, tabs)
            if row:
                rows.append((row[places[0]], row[places[1]]))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {begins}: cannot be read as {path.suffix}: {error}. Repair the row.") from None
    finally:
        csv.field_size_limit(limit)  # it is the module's, for all readers
    return rows


def _not_as_many(where: str, row: list[str], header: list[str], tabs: bool) -> DataError:
    if len(row) < len(header):
        hint = "Fill it up, or remove it"
    else:
        hint = (
            "A field cannot hold a tab: remove it" if tabs else 'Put a field that holds a comma in quotes: "one, two"'
        )
    return DataError(f"{where}: a row of {len(row)} fields, where the header has {len(header)}. {hint}.")


def _objects(path: Path, text: str, label: str) -> list[tuple[Any, Any]]:
    """Two fields of each object of a JSONL file."""
    rows = []
    for number, record in records(path):
        for field in (text, label):
            if field not in record:
                raise missing_field(f"{path}, line {number}", field, record, setting=_SETTING)
        rows.append((record[text], record[label]))
    return rows


def _parquet(path: Path) -> Any:
    """A table of the datasets library, which knows the names of its labels."""
    try:
        import datasets
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f".parquet needs the datasets library ({error}): pip install 'spectral-networks[train]'."
        ) from error
    try:
        return datasets.Dataset(pyarrow.parquet.ParquetFile(path).read())
    except Exception as error:  # pyarrow and datasets raise all kinds
        raise DataError(f"{path}: cannot be read as .parquet: {error.__cause__ or error}. Repair the file.") from error


def _columns(where: str, dataset: Any, text: str, label: str) -> Columns:
    for column in (text, label):
        if column not in dataset.column_names:
            raise missing_field(where, column, dataset.column_names, setting=_SETTING)
    try:
        return list(dataset[text]), list(dataset[label]), class_names(dataset, label)
    except Exception as error:  # pyarrow and datasets raise all kinds
        raise DataError(f"{where}: its rows cannot be read: {error}. Write the table again.") from error
