"""Examples in rows: tables of columns by role, divided into what is trained on and what is held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from spectral_models.data.config import AnyDataConfig
from spectral_models.data.corpus import split_documents
from spectral_models.data.documents import DATASETS, Document
from spectral_models.data.readers import File
from spectral_models.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows of a source, as columns by role (``input``, ``label``, ``tokens`` ...), cells as they were read.

    source: for errors. places: of the rows, for errors: ``row 3``, ``line 7``, a path.
    inputs: the roles that a model reads; rows that are equal in all of them are copies of each other.
    titles: the columns' own names, by role. names: by role, the class names that a dataset declares for a column, else
    None. folder: of a table in a file, which paths in its cells are relative to.
    whole: in the tables that :func:`load` returns, all rows of the source that is trained on. Names of labels are
    learned from it, so that both tables number labels alike.
    """

    source: str
    columns: dict[str, list[Any]]
    places: list[str]
    inputs: tuple[str, ...] = ("input",)
    titles: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    folder: Path | None = None
    whole: Table | None = None

    def __len__(self) -> int:
        return len(self.places)

    def key(self, index: int) -> str:
        """What copies of a row have in common: its text or the SHA-256 of its file; of several cells, all of these."""
        keys = [_key(self.columns[role][index]) for role in self.inputs]
        return keys[0] if len(keys) == 1 else json.dumps(keys)

    def part(self, indices: Sequence[int]) -> Table:
        """The rows at these indices."""
        columns = {role: [cells[i] for i in indices] for role, cells in self.columns.items()}
        return replace(self, columns=columns, places=[self.places[i] for i in indices])

    def error(self, index: int, role: str, message: str) -> DataError:
        """The error of a cell: its place, its column, and the message."""
        column = self.titles.get(role, role)
        return DataError(f"{self.source}, {self.places[index]}: column {column!r} {message}")

    def texts(self, role: str) -> list[str]:
        """The column as texts. Raises DataError, with the place, for an empty cell and for what is no text."""
        for index, cell in enumerate(self.columns[role]):
            if (problem := _problem(cell)) is not None:
                raise self.error(index, role, f"{problem}; a row needs a text. Remove it.")
        return self.columns[role]

    def files(self, role: str) -> list[Any]:
        """The column as a :class:`File` for each path, relative to the table's folder; files stay as they are.

        None where a row of several inputs lacks this one. Raises DataError, with the place, for other cells that are no
        path, and for a file that does not exist.
        """
        found: list[File | None] = []
        for index, cell in enumerate(self.columns[role]):
            if isinstance(cell, File) or (cell is None and len(self.inputs) > 1):
                found.append(cell)
                continue
            if (problem := _problem(cell)) is not None:
                raise self.error(index, role, f"{problem}; a row needs the path of a file. Remove it.")
            path = (self.folder or Path()) / Path(cell).expanduser()
            if not path.is_file():
                raise self.error(
                    index,
                    role,
                    f"names {cell!r}, and there is no such file ({path.absolute()}). Paths are relative to the folder "
                    "of the table.",
                )
            found.append(File.at(path))
        return found


class SourceConfig(AnyDataConfig):
    """Base of the configs of examples in rows: where they come from, and which are held out."""

    source: Annotated[str, Field(min_length=1)]
    """Where the rows come from; of ``datasets:NAME[:CONFIG]`` the split ``train`` is read."""

    validation: Annotated[str, Field(min_length=1)] | None = None
    """Another source to be judged on, or the name of the dataset's split; null holds out a share of the source."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the different items that is held out, on average, where ``validation`` is null."""

    seed: int = Field(default=0, ge=-(1 << 63), lt=1 << 63)
    """Chooses which are held out."""

    def table(self, source: str, split: str = "train") -> Table:
        """The rows of a source like the config's. split: of a dataset.

        Raises DataError, with the place, for rows that are not what the config describes.
        """
        raise NotImplementedError(f"{type(self).__name__} must define table(source, split)")


def load(config: SourceConfig, files: Collection[str] = ()) -> tuple[Table, Table]:
    """The rows to train on, and the held-out ones: those of ``validation``, or a share of the source.

    A share is drawn as documents are: by a hash of each row's key and the seed. Copies of a row are on the same side.
    files: the roles whose cells are paths of files; their copies are found by content, not by path.
    Raises DataError as ``config.table`` does, and for a source with fewer than two different rows to divide.
    """

    def table(source: str, split: str = "train") -> Table:
        read = config.table(source, split)
        return replace(read, columns={**read.columns, **{role: read.files(role) for role in files}})

    whole = table(config.source)
    if config.validation is None:
        train, held_out = _divided(whole, config)
    elif config.source.startswith(DATASETS):
        train, held_out = whole, table(config.source, config.validation)
    else:
        train, held_out = whole, table(config.validation)
    return replace(train, whole=whole), replace(held_out, whole=whole)


def _divided(table: Table, config: SourceConfig) -> tuple[Table, Table]:
    keys = [table.key(index) for index in range(len(table))]
    distinct = [Document(key, key.encode(errors="replace")) for key in dict.fromkeys(keys)]
    if len(distinct) < 2:
        raise DataError(
            f"{table.source}: {len(table)} row(s), of which {len(distinct)} differ: too few to train on one and "
            "hold out another. Give at least two different rows, or another source as data.validation."
        )
    _, held_out = split_documents(distinct, fraction=config.validation_fraction, seed=config.seed)
    chosen = {document.name for document in held_out}
    train, validation = ([i for i, key in enumerate(keys) if (key in chosen) == held] for held in (False, True))
    return table.part(train), table.part(validation)


def _key(cell: Any) -> str:
    if isinstance(cell, File):
        return hashlib.sha256(cell.read("file")).hexdigest()
    return cell if isinstance(cell, str) else json.dumps(cell)


def _problem(cell: Any) -> str | None:
    """Why a cell is no text, if it is none."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return "is empty"
    if not isinstance(cell, str):
        return f"holds {type(cell).__name__}"
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        return f"is not text: character {error.start} is half of a surrogate pair"
    return None
