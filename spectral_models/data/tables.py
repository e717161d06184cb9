"""Columns of tables: .csv, .tsv, .jsonl, .parquet, and datasets of Hugging Face."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spectral_models.data.documents import DATASETS, load_split, missing_field
from spectral_models.data.readers import File
from spectral_models.data.source import Table
from spectral_models.data.utf8 import lines, pieces, records
from spectral_models.errors import DataError, needs_extra

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def read_columns(
    source: str, columns: Mapping[str, str], *, settings: str, inputs: Sequence[str] = ("input",), split: str = "train"
) -> Table:
    """Columns of a table, or of a split of a dataset, by role.

    columns: column names by role. settings: the config's options that name columns, for errors. inputs: the roles that
    a model reads.
    Cells of .csv and .tsv are strings, as written; a .tsv has no quotes, so its cells hold no tabs or line breaks.
    Other cells may be numbers and lists. Class numbers of a dataset become class names; its images and audio become
    undecoded :class:`File` objects.
    Raises DataError, with the place, for unreadable files, columns that are missing or ambiguous, rows that are longer
    or shorter than the header, and tables without rows.
    """
    if source.startswith(DATASETS):
        return dataset_columns(*load_split(source, split), columns, settings=settings, inputs=inputs)
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or not path.is_file():
        what = "no such file" if suffix in SUFFIXES else "not a table"
        raise DataError(
            f"source {str(path)!r}: {what}. Allowed: a file ({', '.join(SUFFIXES)}) or {DATASETS}NAME[:CONFIG]."
        )
    if suffix == ".parquet":
        return dataset_columns(source, _parquet(path), columns, settings=settings, inputs=inputs, folder=path.parent)
    read = _separated if suffix in (".csv", ".tsv") else _objects
    rows = list(read(path, list(columns.values()), settings))
    cells = {role: [row[number] for row in rows] for number, role in enumerate(columns)}
    return _table(source, cells, columns, inputs, path.parent)


def dataset_columns(
    where: str,
    dataset: Any,
    columns: Mapping[str, str],
    *,
    settings: str,
    inputs: Sequence[str] = ("input",),
    folder: Path | None = None,
) -> Table:
    """:func:`read_columns` of a loaded dataset. where: its name in errors."""
    cells, names = {}, {}
    for role, column in columns.items():
        if column not in dataset.column_names:
            raise missing_field(where, column, dataset.column_names, setting=settings)
        feature = dataset.features[column]
        names[role] = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        if is_media(feature):
            encoded = dataset.cast_column(column, type(feature)(decode=False)).select_columns(column)
            empty = encoded.with_format("arrow")[:].column(0).is_null().to_pylist()
            cells[role] = [
                None if none else File(f"{where}, row {row + 1}", partial(_content, encoded, row))
                for row, none in enumerate(empty)
            ]
            continue
        try:
            cells[role] = list(dataset[column])
        except Exception as error:  # pyarrow and datasets raise all kinds
            raise DataError(f"{where}: its rows cannot be read: {error}. Write the table again.") from error
    table = _table(where, cells, columns, inputs, folder)
    for role, classes in names.items():
        if classes is not None:
            cells[role][:] = [_named(table, index, role, cell, classes) for index, cell in enumerate(cells[role])]
    return table


def is_media(feature: Any) -> bool:
    """Whether a dataset's feature is a column of images or audio."""
    return type(feature).__name__ in ("Image", "Audio")


def _table(
    where: str, cells: dict[str, list[Any]], titles: Mapping[str, str], inputs: Sequence[str], folder: Path | None
) -> Table:
    count = len(next(iter(cells.values())))
    if not count:
        raise DataError(f"{where}: no rows. Give a table with rows, or another split.")
    return Table(where, cells, [f"row {number}" for number in range(1, count + 1)], tuple(inputs), titles, folder)


def _named(table: Table, index: int, role: str, cell: Any, names: Sequence[str]) -> Any:
    """The name of a class number; of a list of them, the list of names."""
    if isinstance(cell, list):
        return [_named(table, index, role, number, names) for number in cell]
    if cell is not None and not 0 <= int(cell) < len(names):  # datasets write -1 for no label
        remedy = "Leave rows without a label out, or choose another split."
        raise table.error(index, role, f"holds {cell}, which is none of the {len(names)} labels. {remedy}")
    return None if cell is None else names[int(cell)]


def _content(encoded: Any, row: int) -> bytes:
    (file,) = encoded[row].values()
    content: bytes | None = file["bytes"]
    return Path(file["path"]).read_bytes() if content is None else content


def _separated(path: Path, columns: Sequence[str], settings: str) -> Iterator[list[str]]:
    """Columns of a .csv or .tsv as strings. Rows that are longer or shorter than the header are errors."""
    tabs = path.suffix.lower() == ".tsv"
    # strict refuses an unclosed quote, which would otherwise make the rest of the file one field.
    options: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True}
    reader = csv.reader((f"{line}\n" for line in lines(pieces(path))), **options)
    begins = 1  # first line of a row: a quoted field may hold line breaks
    limit = csv.field_size_limit(max(csv.field_size_limit(), path.stat().st_size))  # default: 128 KiB
    try:
        header = next(reader, [])
        for column in columns:
            if column not in header:
                raise missing_field(str(path), column, header, setting=settings)
            if header.count(column) > 1:
                raise DataError(f"{path}: {header.count(column)} columns are called {column!r}. Rename all but one.")
        places = [header.index(column) for column in columns]
        begins = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(header):
                raise _not_as_many(f"{path}, line {begins}", row, header, tabs)
            if row:
                yield [row[place] for place in places]
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {begins}: cannot be read as {path.suffix}: {error}. Repair the row.") from None
    finally:
        csv.field_size_limit(limit)  # the limit is global


def _not_as_many(where: str, row: list[str], header: list[str], tabs: bool) -> DataError:
    hint = "A field cannot hold a tab: remove it" if tabs else 'Put a field that holds a comma in quotes: "one, two"'
    if len(row) < len(header):
        hint = "Fill it up, or remove it"
    return DataError(f"{where}: a row of {len(row)} fields, where the header has {len(header)}. {hint}.")


def _objects(path: Path, columns: Sequence[str], settings: str) -> Iterator[list[Any]]:
    """Fields of each object of a JSONL file."""
    for number, record in records(path):
        for field in columns:
            if field not in record:
                raise missing_field(f"{path}, line {number}", field, record, setting=settings)
        yield [record[field] for field in columns]


def _parquet(path: Path) -> Any:
    """The file as a Dataset, which keeps the class names of its labels."""
    with needs_extra(".parquet needs", "train", DataError):
        import datasets
        import pyarrow.parquet
    try:
        return datasets.Dataset(pyarrow.parquet.ParquetFile(path).read())
    except Exception as error:  # pyarrow and datasets raise all kinds
        raise DataError(f"{path}: cannot be read as .parquet: {error.__cause__ or error}. Repair the file.") from error
