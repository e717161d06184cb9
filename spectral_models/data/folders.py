"""Images or audio with labels: a folder with one folder for each label, a table of paths, or a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from spectral_models.data.documents import DATASETS
from spectral_models.data.labelled import LabelledConfig
from spectral_models.data.readers import File
from spectral_models.data.source import Table
from spectral_models.data.tables import SUFFIXES, dataset_columns, dataset_split, is_media, read_columns
from spectral_models.errors import DataError

_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})


class LabelledFilesConfig(LabelledConfig):
    """Images or WAV files with a label each: where they come from, and which are held out.

    source: a folder that holds one folder for each label, named after it, with files in it at any depth; a table
    (.csv, .tsv, .jsonl, .parquet) with a column of paths, relative to its own folder, and one of labels; or
    ``datasets:NAME[:CONFIG]``, with a column of images or audio.
    Roles: ``input``, a :class:`File` for each row, and ``label``.
    """

    type: Literal["labelled_files"] = "labelled_files"

    file: Annotated[str, Field(min_length=1)] = "file"
    """The column with the paths, of a table."""

    def table(self, source: str, split: str = "train") -> Table:
        """Raises DataError, with the place, for a path without a file, and as :func:`read_folder`."""
        if source.startswith(DATASETS):
            table = _dataset(source, self.label, split)
        elif Path(source).suffix.lower() in SUFFIXES and not Path(source).expanduser().is_dir():
            columns = {"input": self.file, "label": self.label}
            table = read_columns(source, columns, settings="data.file and data.label")
        else:
            return self.separated(read_folder(source))
        return self.separated(replace(table, columns={**table.columns, "input": table.files("input")}))


def read_folder(source: str) -> Table:
    """The files of a folder of folders, in the order of their paths; what is hidden is passed over.

    Raises DataError, with the path, for folders without files and for files that are in none.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        raise DataError(
            f"source {source!r}: no such folder ({root.absolute()}). Allowed: a folder with one folder for each label, "
            f"a table ({', '.join(SUFFIXES)}), or {DATASETS}NAME[:CONFIG]."
        )
    inside = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    folders = [path for path in inside if path.is_dir()]
    loose = [path for path in inside if not path.is_dir()]
    if not folders:
        raise DataError(
            f"source {source!r}: holds no folders. Give each label a folder of its own, named after it, and put its "
            "files there."
        )
    if loose:
        raise DataError(
            f"{loose[0]} lies in no label's folder ({len(loose)} such file(s)). Move it into the folder of its label, "
            "or away."
        )
    if {folder.name.lower() for folder in folders} <= _SPLITS:
        raise DataError(
            f"source {source!r}: its folders ({', '.join(folder.name for folder in folders)}) are parts of a dataset, "
            f"not labels. Give one as data.source, as in {folders[-1]}, and another as data.validation."
        )
    columns: dict[str, list[Any]] = {"input": [], "label": []}
    places: list[str] = []
    for folder in folders:
        found = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(root)))
        if not found:
            raise DataError(f"{folder} holds no files, and a label needs examples. Put some there, or remove it.")
        columns["input"] += [File.at(path) for path in found]
        columns["label"] += [folder.name] * len(found)
        places += [path.relative_to(root).as_posix() for path in found]
    return Table(source, columns, places)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _dataset(source: str, label: str, split: str) -> Table:
    where, dataset = dataset_split(source, split)
    media = [name for name, feature in dataset.features.items() if is_media(feature)]
    if len(media) != 1:
        raise DataError(
            f"{where}: has {len(media)} columns of images or audio, and one is needed. Its columns: "
            f"{', '.join(f'{name} ({type(feature).__name__})' for name, feature in dataset.features.items())}."
        )
    return dataset_columns(where, dataset, {"input": media[0], "label": label}, settings="data.label")
