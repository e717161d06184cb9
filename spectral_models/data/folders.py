"""Images or audio with labels: a folder with one folder for each label, a table of paths, or a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from spectral_models.data.config import NonEmpty
from spectral_models.data.documents import DATASETS, load_split, visible_files
from spectral_models.data.labelled import LabelledConfig
from spectral_models.data.readers import File
from spectral_models.data.source import Table
from spectral_models.data.tables import SUFFIXES, dataset_columns, is_media, read_columns
from spectral_models.errors import DataError

_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})


class LabelledFilesConfig(LabelledConfig):
    """Images or WAV files with a label each.

    source: a folder with one folder for each label, named after it, with files at any depth; a table (.csv, .tsv,
    .jsonl, .parquet) with a column of paths, relative to the table's folder, and one of labels; or
    ``datasets:NAME[:CONFIG]``, with one column of images or audio.
    Roles: ``input``, a :class:`File` for each row, and ``label``.
    """

    type: Literal["labelled_files"] = "labelled_files"

    file: NonEmpty = "file"
    """The column of paths in a table."""

    def table(self, source: str, split: str = "train") -> Table:
        """Raises DataError, with the place, for paths without a file, and as :func:`read_folder` does."""
        if source.startswith(DATASETS):
            table = _dataset(source, self.label, split)
        elif Path(source).suffix.lower() in SUFFIXES and not Path(source).expanduser().is_dir():
            columns = {"input": self.file, "label": self.label}
            table = read_columns(source, columns, settings="data.file and data.label")
        else:
            table = read_folder(source)
        return self.separated(replace(table, columns={**table.columns, "input": table.files("input")}))


def read_folder(source: str) -> Table:
    """The files in a folder of label folders, ordered by path, without hidden files and folders.

    Raises DataError, with the path, for label folders without files and for files outside of label folders.
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
            f"source {source!r}: holds no folders. Give each label a folder of its own, named after it, for its files."
        )
    if loose:
        raise DataError(
            f"{loose[0]} lies in no label's folder ({len(loose)} such file(s)). Move it into its label's, or away."
        )
    if {folder.name.lower() for folder in folders} <= _SPLITS:
        raise DataError(
            f"source {source!r}: its folders ({', '.join(folder.name for folder in folders)}) are parts of a dataset, "
            f"not labels. Give one as data.source, as in {folders[-1]}, and another as data.validation."
        )
    columns: dict[str, list[Any]] = {"input": [], "label": []}
    places: list[str] = []
    for folder in folders:
        files = sorted(visible_files(folder))
        if not files:
            raise DataError(f"{folder} holds no files, and a label needs examples. Put some there, or remove it.")
        columns["input"] += [File.at(path) for path, _ in files]
        columns["label"] += [folder.name] * len(files)
        places += [f"{folder.name}/{name}" for _, name in files]
    return Table(source, columns, places)


def _dataset(source: str, label: str, split: str) -> Table:
    where, dataset = load_split(source, split)
    media = [name for name, feature in dataset.features.items() if is_media(feature)]
    if len(media) != 1:
        raise DataError(
            f"{where}: has {len(media)} columns of images or audio, and one is needed. Its columns: "
            f"{', '.join(f'{name} ({type(feature).__name__})' for name, feature in dataset.features.items())}."
        )
    return dataset_columns(where, dataset, {"input": media[0], "label": label}, settings="data.label")
