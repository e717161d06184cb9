"""Sentences whose words have a tag each, for token classification."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from spectral_models.data.config import NonEmpty
from spectral_models.data.documents import DATASETS
from spectral_models.data.source import Table, TextRowsConfig
from spectral_models.data.tables import read_columns
from spectral_models.data.utf8 import lines, pieces
from spectral_models.errors import DataError

_CONLL = (".conll", ".txt", ".bio", ".iob")
_ROLES = ("tokens", "tags")


class TaggedConfig(TextRowsConfig):
    """Sentences whose words have a tag each: named entities, parts of speech.

    source: a table with a row for each sentence (.jsonl, .parquet) or ``datasets:NAME[:CONFIG]``, with a list of words
    and one of as many tags; or a file (.conll, .txt, .bio, .iob) with a word and its tag on each line, the first and
    the last of its columns, and a blank line between sentences (Tjong Kim Sang & De Meulder, 2003). Lines that begin
    with ``-DOCSTART-`` are ignored.
    Roles: ``tokens``, a list of words for each row, and ``tags``, a list of names or numbers from 0.
    """

    type: Literal["tagged"] = "tagged"

    tokens: NonEmpty = "tokens"
    """The column of lists of words."""

    tags: NonEmpty = "tags"
    """The column of lists of tags."""

    def table(self, source: str, split: str = "train") -> Table:
        """Raises DataError, with the place, for cells that are not lists and for rows without one tag for each word."""
        path = Path(source).expanduser()
        if path.suffix.lower() in _CONLL and not source.startswith(DATASETS):
            table = _sentences(source, path)
        else:
            columns = {"tokens": self.tokens, "tags": self.tags}
            settings = "data.tokens and data.tags"
            table = read_columns(source, columns, settings=settings, inputs=("tokens",), split=split)
        for index in range(len(table)):
            for role in _ROLES:
                _check_list(table, index, role)
            words, tags = (table.columns[role][index] for role in _ROLES)
            if len(words) != len(tags):
                raise table.error(index, "tags", f"holds {len(tags)} tags for {len(words)} words. Give each word one.")
        return table


def _check_list(table: Table, index: int, role: str) -> None:
    cell: Any = table.columns[role][index]
    if not isinstance(cell, list) or not cell:
        found = "an empty list" if cell == [] else type(cell).__name__
        raise table.error(index, role, f"holds {found}; a row needs a list of {role}. Write one, or remove the row.")
    if role == "tokens" and (wrong := [word for word in cell if not isinstance(word, str) or not word.strip()]):
        raise table.error(index, role, f"holds {wrong[0]!r} as a word; words are texts that are not empty.")


def _sentences(source: str, path: Path) -> Table:
    columns: dict[str, list[Any]] = {"tokens": [], "tags": []}
    places: list[str] = []
    inside = False
    for number, line in enumerate(lines(pieces(path)), start=1):
        fields = line.rstrip("\r").split("\t") if "\t" in line else line.split()
        if not line.strip() or line.startswith("-DOCSTART-"):
            inside = False
            continue
        if len(fields) < 2:
            alone = f"{source}, line {number}: holds {line.strip()!r} alone"
            raise DataError(f"{alone}; a line is a word and its tag, with a tab or space between them, or blank.")
        if not inside:
            inside = True
            places.append(f"line {number}")
            for role in _ROLES:
                columns[role].append([])
        columns["tokens"][-1].append(fields[0])
        columns["tags"][-1].append(fields[-1].strip())
    if not places:
        raise DataError(f"{source}: no rows. Give a file with a word and its tag on each line.")
    return Table(source, columns, places, inputs=("tokens",))
