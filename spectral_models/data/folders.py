"""Images or audio with labels: a folder with one folder for each label, or a dataset of Hugging Face."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, Literal

from spectral_models.data.documents import DATASETS, missing_field
from spectral_models.data.labelled import LabelledConfig, Table, class_names, dataset_split, written_labels
from spectral_models.data.readers import File
from spectral_models.errors import DataError

_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})


class LabelledFilesConfig(LabelledConfig):
    """Images or WAV files with a label each: where they come from, and which are held out.

    source: a folder that holds one folder for each label, named after it, with files in it at any depth; or
    ``datasets:NAME[:CONFIG]``, with a column of images or audio.
    """

    type: Literal["labelled_files"] = "labelled_files"

    def table(self, source: str, split: str = "train") -> Table[File]:
        return _dataset(source, self.label, split) if source.startswith(DATASETS) else read_folder(source)


def read_folder(source: str) -> Table[File]:
    """The files of a folder of folders, in the order of their paths; what is hidden is passed over.

    Raises DataError, with the path, for folders without files and for files that are in none.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        raise DataError(
            f"source {source!r}: no such folder ({root.absolute()}). Allowed: a folder with one folder for each label, "
            f"or {DATASETS}NAME[:CONFIG]."
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
    files, labels, places = [], [], []
    for folder in folders:
        found = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(root)))
        if not found:
            raise DataError(f"{folder} holds no files, and a label needs examples. Put some there, or remove it.")
        files += [File.at(path) for path in found]
        labels += [folder.name] * len(found)
        places += [path.relative_to(root).as_posix() for path in found]
    return Table(source, files, labels, places, key=_digest)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _digest(file: File) -> str:
    return hashlib.sha256(file.read("file")).hexdigest()


def _dataset(source: str, label: str, split: str) -> Table[File]:
    """A dataset's files as they are: what would decode them is not asked to."""
    where, table = dataset_split(source, split)
    media = {name: feature for name, feature in table.features.items() if type(feature).__name__ in ("Image", "Audio")}
    if len(media) != 1:
        raise DataError(
            f"{where}: has {len(media)} columns of images or audio, and one is needed. Its columns: "
            f"{', '.join(f'{name} ({type(feature).__name__})' for name, feature in table.features.items())}."
        )
    if label not in table.column_names:
        raise missing_field(where, label, table.column_names, setting="data.label")
    ((column, feature),) = media.items()
    encoded = table.cast_column(column, type(feature)(decode=False)).select_columns(column)
    files = [File(f"{where}, row {row + 1}", partial(_content, encoded, row)) for row in range(len(encoded))]
    if not files:
        raise DataError(f"{where}: no rows. Choose another split.")
    places = [f"row {row + 1}" for row in range(len(files))]
    labels = written_labels(where, label, list(table[label]), class_names(table, label))
    return Table(where, files, labels, places, key=_digest)


def _content(encoded: Any, row: int) -> bytes:
    (found,) = encoded[row].values()
    if found is None:
        raise FileNotFoundError(0, "the row holds none")
    content: bytes | None = found["bytes"]
    return Path(found["path"]).read_bytes() if content is None else content
