"""Examples in rows: tables of columns by role, split into training and held-out rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spectral_core.config import Length
from spectral_models.data.config import AnyDataConfig, Fraction, NonEmpty, Seed
from spectral_models.data.corpus import split_documents
from spectral_models.data.documents import DATASETS
from spectral_models.data.readers import File
from spectral_models.data.tokenizers import BytesConfig, TokenizerConfig
from spectral_models.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows of a source, as columns by role (``input``, ``label``, ``tokens`` ...), with unconverted cells.

    source: name of the source, for errors. places: position of each row, for errors: ``row 3``, ``line 7``, a path.
    inputs: the roles that a model reads; rows that are equal in all of them are copies of each other.
    titles: the columns' names in the source, by role. folder: base of relative paths in cells.
    whole: in the tables that :func:`load` returns, all rows of the training source. Label names are learned from it, so
    that both tables number labels alike.
    """

    source: str
    columns: dict[str, list[Any]]
    places: list[str]
    inputs: tuple[str, ...] = ("input",)
    titles: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    whole: Table | None = None

    def __len__(self) -> int:
        return len(self.places)

    def key(self, index: int) -> str:
        """Equal for copies of a row: its text, or the SHA-256 of its file; for several inputs, a JSON list of these."""
        keys = [_key(self.columns[role][index]) for role in self.inputs]
        return keys[0] if len(keys) == 1 else json.dumps(keys)

    def part(self, indices: Sequence[int]) -> Table:
        """The rows at these indices."""
        columns = {role: [cells[i] for i in indices] for role, cells in self.columns.items()}
        return replace(self, columns=columns, places=[self.places[i] for i in indices])

    def error(self, index: int, role: str, message: str) -> DataError:
        """A DataError about one cell, which names the row's place and the column."""
        column = self.titles.get(role, role)
        return DataError(f"{self.source}, {self.places[index]}: column {column!r} {message}")

    def texts(self, role: str) -> list[str]:
        """The column as texts. Raises DataError, with the place, for empty cells and cells of other types."""
        for index, cell in enumerate(self.columns[role]):
            if (problem := _problem(cell)) is not None:
                raise self.error(index, role, f"{problem}; a row needs a text. Remove it.")
        return self.columns[role]

    def files(self, role: str) -> list[Any]:
        """The column as :class:`File` objects; paths are relative to the table's folder.

        In tables with several inputs, a missing one is None. Raises DataError, with the place, for other cells that are
        no path, and for files that do not exist.
        """
        files: list[File | None] = []
        for index, cell in enumerate(self.columns[role]):
            if isinstance(cell, File) or (cell is None and len(self.inputs) > 1):
                files.append(cell)
                continue
            if (problem := _problem(cell)) is not None:
                raise self.error(index, role, f"{problem}; a row needs the path of a file. Remove it.")
            path = (self.folder or Path()) / Path(cell).expanduser()
            if not path.is_file():
                missing = f"names {cell!r}, and there is no such file ({path.absolute()})"
                raise self.error(index, role, f"{missing}. Paths are relative to the table's folder.")
            files.append(File.at(path))
        return files


class SourceConfig(AnyDataConfig):
    """Base of configs of examples in rows: their source, and the share held out."""

    source: NonEmpty
    """Source of the rows; for ``datasets:NAME[:CONFIG]``, its split ``train``."""

    validation: NonEmpty | None = None
    """Another source to validate on, or the name of a split of the dataset; null holds out a share of the source."""

    validation_fraction: Fraction = 0.1
    """Expected share of the distinct rows that is held out if ``validation`` is null."""

    seed: Seed = 0
    """Seed of the draw of held-out rows."""

    def table(self, source: str, split: str = "train") -> Table:
        """The rows of ``source``, read by this config's options. split: of a dataset.

        Raises DataError, with the place, for rows that do not fit the options.
        """
        raise NotImplementedError(f"{type(self).__name__} must define table(source, split)")


class TextRowsConfig(SourceConfig):
    """Base of configs of rows that hold texts."""

    tokenizer: TokenizerConfig = BytesConfig()
    """``bytes``; ``bpe``, learned from the training texts; or ``{type: file, path: PATH}``."""

    max_length: Length = 512
    """Tokens of a text that the model reads, in training and in every command; the rest is cut off."""


def load(config: SourceConfig, files: Collection[str] = ()) -> tuple[Table, Table]:
    """The training rows and the held-out ones: those of ``validation``, or a share of the source.

    The share is drawn by :func:`split_documents` on the keys of rows. Copies of a row are on the same side.
    files: roles whose cells are paths; files with equal contents count as copies.
    Raises DataError as ``config.table`` does, and for a source with fewer than two distinct rows to split.
    """

    def table(source: str, split: str = "train") -> Table:
        read = config.table(source, split)
        return replace(read, columns={**read.columns, **{role: read.files(role) for role in files}})

    whole = table(config.source)
    if config.validation is None:
        train, held_out = _split(whole, config)
    elif config.source.startswith(DATASETS):
        train, held_out = whole, table(config.source, config.validation)
    else:
        train, held_out = whole, table(config.validation)
    return replace(train, whole=whole), replace(held_out, whole=whole)


def _split(table: Table, config: SourceConfig) -> tuple[Table, Table]:
    keys = [table.key(index) for index in range(len(table))]
    distinct = list(dict.fromkeys(keys))
    if len(distinct) < 2:
        raise DataError(
            f"{table.source}: {len(table)} row(s), of which {len(distinct)} differ: too few to train on one and "
            "hold out another. Give at least two different rows, or another source as data.validation."
        )
    texts = ((key, key.encode(errors="replace")) for key in distinct)
    _, drawn = split_documents(texts, fraction=config.validation_fraction, seed=config.seed)
    held_out = {distinct[index] for index in drawn}
    train, validation = ([i for i, key in enumerate(keys) if (key in held_out) == held] for held in (False, True))
    return table.part(train), table.part(validation)


def _key(cell: Any) -> str:
    if isinstance(cell, File):
        return hashlib.sha256(cell.read("file")).hexdigest()
    return cell if isinstance(cell, str) else json.dumps(cell)


def _problem(cell: Any) -> str | None:
    """Why a cell is not a text; None if it is one."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return "is empty"
    if not isinstance(cell, str):
        return f"holds {type(cell).__name__}"
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        return f"is not text: character {error.start} is half of a surrogate pair"
    return None
