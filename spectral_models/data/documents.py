"""Documents: named pieces of UTF-8 text, read from files, from the standard library or from a dataset.

The name of a document is its place in the source and does not depend on where the source lies, so that what is held
out on one machine is held out on every other. Everything is read into memory.
"""

from __future__ import annotations

import codecs
import json
import sysconfig
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from spectral_core.errors import suggestion
from spectral_models.data.config import DataConfig
from spectral_models.errors import DataError

_SOURCES = (
    "Allowed: a path to a UTF-8 text file, a .jsonl file or a directory of them; 'stdlib'; 'datasets:NAME[:CONFIG]'"
)
DATASETS = "datasets:"
_JSON_LINES = (".jsonl", ".ndjson")
_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
_GENERATED = (
    "encodings/*",
    "pydoc_data/*",
    "_sysconfigdata*",
    "html/entities.py",
    "stringprep.py",
    "re/_casefix.py",
)
_BLOCK_BYTES = (1 << 10, 1 << 16)


class Document(NamedTuple):
    """A piece of text: its place in the source, and its UTF-8 bytes, free of NUL."""

    name: str
    content: bytes


def load_documents(config: DataConfig) -> list[Document]:
    """The documents of a source, in a fixed order, those of only whitespace left out.

    A directory gives one document per file (hidden files and folders are passed over), a JSONL file (``.jsonl``,
    ``.ndjson``) one per line, a dataset one per row of its ``train`` split, the standard library one per source file.

    A source of only one document, a book say, has no boundaries to split at and is cut into blocks of a thirty-second
    of its size, at least 1 KiB and at most 64 KiB, each ending at a line's end where it has one.

    Raises DataError, with the file and the place in it, for whatever cannot be read as text.
    """
    if config.source == "stdlib":
        found = _standard_library(Path(sysconfig.get_path("stdlib")))
    elif config.source.startswith(DATASETS):
        found = _dataset(config.source, config.text_field)
    else:
        found = _files(config.source, config.text_field)
    documents = [document for document in found if document.content.strip()]
    if not documents:
        raise DataError(
            f"source {config.source!r}: no text found: it is empty or holds only whitespace. "
            "Give a source with at least two documents, or one longer text."
        )
    return _blocks(documents[0]) if len(documents) == 1 else documents


def _standard_library(root: Path) -> Iterator[Document]:
    """The Python files below ``root``, by relative path, as far as people wrote them for use.

    Left out: installed packages, test directories (``test``, ``tests``, ``idle_test``: fixtures, bad syntax, odd
    encodings) and generated tables, which are long, repetitive and unlike code: ``encodings`` (character maps),
    ``pydoc_data`` (the manual as one dictionary), ``_sysconfigdata*`` (this machine's build), ``html/entities.py``,
    ``stringprep.py`` and ``re/_casefix.py`` (Unicode and entity tables).
    """
    for path, name in _below(root, root.rglob("*.py")):
        generated = any(fnmatch(name, pattern) for pattern in _GENERATED)
        if not generated and _NOT_LIBRARY.isdisjoint(name.split("/")):
            yield Document(name, _read(path))


def _files(source: str, text_field: str) -> Iterator[Document]:
    root = Path(source).expanduser()
    if root.is_file():
        paths = [(root, root.name)]
    elif root.is_dir():
        paths = [
            (path, name)
            for path, name in _below(root, root.rglob("*"))
            if path.is_file() and not any(part.startswith(".") for part in name.split("/"))
        ]
    else:
        hint = suggestion(source, ["stdlib"])
        raise DataError(f"source {source!r}: no such file or directory ({root.absolute()}).{hint} {_SOURCES}.")
    for path, name in paths:
        content = _read(path)
        if path.suffix.lower() in _JSON_LINES:
            yield from _json_lines(path, name, content, text_field)
        else:
            yield Document(name, content)


def _below(root: Path, paths: Iterable[Path]) -> list[tuple[Path, str]]:
    """Paths with their names relative to ``root``, ordered by name."""
    return sorted(((path, path.relative_to(root).as_posix()) for path in paths), key=lambda pair: pair[1])


def _read(path: Path) -> bytes:
    """A file's bytes without a byte-order mark, proved to be UTF-8 text."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}. Give a file you may read, or move it away."
        ) from error
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text: byte {content[error.start]:#04x} at offset {error.start}. "
            "Convert the file to UTF-8 (iconv -f latin1 -t utf-8, say); if it holds no text, move it away."
        ) from None
    _refuse_nul(content, str(path))
    return content.removeprefix(codecs.BOM_UTF8)


def _json_lines(path: Path, name: str, content: bytes, text_field: str) -> Iterator[Document]:
    for number, line in enumerate(content.decode().split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: not JSON: {error.msg} at column {error.colno}. A JSONL file holds one object per line."
            ) from None
        except (ValueError, RecursionError):
            raise DataError(f"{where}: holds an integer too long, or nesting too deep, to be read.") from None
        if not isinstance(record, dict):
            raise DataError(
                f"{where}: holds {type(record).__name__}; a line is an object with the text in field {text_field!r}."
            )
        if text_field not in record:
            raise missing_field(where, text_field, record)
        yield Document(f"{name}:{number}", _content(record[text_field], where, text_field))


def load_splits(source: str) -> Any:
    """The splits of a dataset by name: ``datasets:NAME[:CONFIG]``. Raises DataError when it cannot be loaded."""
    name, _, subset = source.removeprefix(DATASETS).partition(":")
    if not name:
        raise DataError(f"source {source!r} names no dataset. {_SOURCES}.")
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"source {source!r} needs the datasets library ({error}): pip install 'spectral-networks[train]'."
        ) from error
    try:
        return datasets.load_dataset(name, subset or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"source {source!r}: datasets could not load {name!r}{f' with config {subset!r}' if subset else ''}: "
            f"{type(error).__name__}: {error}. "
            "Give a name from huggingface.co/datasets (with its config, if it has several) or a local dataset folder."
        ) from error


def _dataset(source: str, text_field: str) -> Iterator[Document]:
    splits = load_splits(source)
    if "train" not in splits:
        raise DataError(f"source {source!r}: has no 'train' split, only {', '.join(splits)}. Save its text as JSONL.")
    train = splits["train"]
    if text_field not in train.column_names:
        raise missing_field(f"source {source!r}", text_field, train.column_names)
    for row, text in enumerate(train[text_field]):
        yield Document(f"train:{row}", _content(text, f"source {source!r}, row {row}", text_field))


def missing_field(where: str, field: str, present: Iterable[str], *, setting: str = "text_field") -> DataError:
    """The error of a record without that field. setting: of the config, to be changed."""
    fields = list(present)
    return DataError(
        f"{where}: no field {field!r}.{suggestion(field, fields)} "
        f"Its fields: {', '.join(fields) or 'none'}. Name the right one: {setting}."
    )


def _content(value: object, where: str, text_field: str) -> bytes:
    """A record's text as bytes; null is a record without text."""
    if value is None:
        return b""
    if not isinstance(value, str):
        raise DataError(
            f"{where}: field {text_field!r} holds {type(value).__name__}; a document's text is a string. "
            "Name the field with the text: text_field."
        )
    try:
        content = value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: field {text_field!r} is not text: character {error.start} is half of a surrogate pair. "
            "Repair or remove the record."
        ) from None
    _refuse_nul(content, f"{where}, field {text_field!r}")
    return content


def _refuse_nul(content: bytes, where: str) -> None:
    if (offset := content.find(0)) >= 0:
        raise DataError(
            f"{where}: NUL byte at offset {offset}: a binary file? NUL separates documents and is never part "
            "of a text. Remove it, or leave this out."
        )


def _blocks(document: Document) -> list[Document]:
    """The document in consecutive pieces: joined, they are its content."""
    content, (least, most) = document.content, _BLOCK_BYTES
    size = min(most, max(least, len(content) // 32))
    blocks: list[Document] = []
    start = 0
    while start < len(content):
        end = min(start + size, len(content))
        if end < len(content):
            end = content.rfind(b"\n", start, end) + 1 or character_start(content, end)
        blocks.append(Document(f"{document.name}#{len(blocks)}", content[start:end]))
        start = end
    return blocks


def character_start(content: bytes, index: int) -> int:
    """The start of the UTF-8 character that byte ``index`` belongs to."""
    while content[index] & 0xC0 == 0x80:
        index -= 1
    return index
