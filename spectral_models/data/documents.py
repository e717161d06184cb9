"""Documents: named pieces of UTF-8 text, read from files, from the standard library or from a dataset.

The name of a document is its place in the source, independent of the source's path, so that the same documents are held
out on every machine. All documents are read into one buffer.
"""

from __future__ import annotations

import sysconfig
import warnings
from array import array
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from spectral_core.errors import suggestion
from spectral_models.data.config import DataConfig
from spectral_models.data.utf8 import pieces, records, refuse_nul
from spectral_models.errors import DataError, needs_extra
from spectral_models.quiet import without_bars

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


_Parts = tuple[str, Iterable[bytes]]
"""A document's name, and its content in parts."""


class Documents:
    """The documents of a source in one buffer, each followed by a NUL: about one byte of memory per byte of text.

    text: the buffer. names: of the documents, in their order.
    """

    def __init__(self) -> None:
        self.text = bytearray()
        self.names: list[str] = []
        self._ends = array("q")  # where their NULs are

    def __len__(self) -> int:
        return len(self.names)

    def span(self, index: int) -> tuple[int, int]:
        """The start of a document in the buffer, and the place of its NUL."""
        return (self._ends[index - 1] + 1 if index else 0), self._ends[index]

    def __iter__(self) -> Iterator[Document]:
        for name, content in self.views():
            yield Document(name, bytes(content))

    def views(self) -> Iterator[tuple[str, memoryview]]:
        """Names and uncopied contents; each view is valid until the next."""
        with memoryview(self.text) as text:
            for index, name in enumerate(self.names):
                start, end = self.span(index)
                with text[start:end] as content:
                    yield name, content

    def add(self, name: str, contents: Iterable[bytes]) -> None:
        """Add a document by its parts, unless it is only whitespace."""
        start, blank = len(self.text), True
        for content in contents:
            self.text += content
            blank = blank and not content.strip()
        if blank:
            del self.text[start:]
            return
        self._ends.append(len(self.text))
        self.text.append(0)
        self.names.append(name)

    def only(self, indices: Iterable[int]) -> bytearray:
        """The buffer with only the documents at these ascending indices, compacted in place. Consumes the object."""
        filled = 0
        with memoryview(self.text) as text:
            for index in indices:
                start, end = self.span(index)
                size = end + 1 - start
                text[filled : filled + size] = text[start : end + 1]
                filled += size
        del self.text[filled:]
        return self.text

    def in_blocks(self) -> Documents:
        """The single document split into blocks.

        Each is a thirty-second of it, from 1 to 64 KiB, and ends at a line's end if there is one.
        """
        (name,), text = self.names, self.text
        (least, most), last = _BLOCK_BYTES, len(text) - 1
        size = min(most, max(least, last // 32))
        ends, start = array("q"), 0
        while start < last:
            end = min(start + size, last)
            if end < last:
                end = text.rfind(b"\n", start, end) + 1 or character_start(text, end)
            ends.append(end)
            start = end
        # Makes room for a NUL after each block but the last, which has one; blocks then move to the left in turn.
        text[:0] = bytes(more := len(ends) - 1)
        blocks, start = Documents(), 0
        with memoryview(text) as view:
            for number, end in enumerate(ends):
                view[start + number : end + number] = view[start + more : end + more]
                view[end + number] = 0
                blocks._ends.append(end + number)
                blocks.names.append(f"{name}#{number}")
                start = end
        blocks.text = text
        return blocks


def read_documents(config: DataConfig) -> Documents:
    """The documents of a source, in a fixed order, without those of only whitespace.

    A directory gives one document per file (hidden files and folders are passed over), a JSONL file (``.jsonl``,
    ``.ndjson``) one per line, a dataset one per row of its ``train`` split, the standard library one per source file.

    A source with a single document, such as a book, is cut into blocks.

    Raises DataError, with the file and the place in it, for anything that cannot be read as text.
    """
    if config.source == "stdlib":
        found = _standard_library(Path(sysconfig.get_path("stdlib")))
    elif config.source.startswith(DATASETS):
        found = _dataset(config.source, config.text_field)
    else:
        found = _files(config.source, config.text_field)
    documents = Documents()
    for name, contents in found:
        documents.add(name, contents)
    if not len(documents):
        raise DataError(
            f"source {config.source!r}: no text found: it is empty or holds only whitespace. "
            "Give a source with at least two documents, or one longer text."
        )
    return documents.in_blocks() if len(documents) == 1 else documents


def _standard_library(root: Path) -> Iterator[_Parts]:
    """The Python files below ``root`` that people wrote for use, by relative path.

    Left out: installed packages, test directories (``test``, ``tests``, ``idle_test``: fixtures, bad syntax, odd
    encodings) and generated tables, which are long, repetitive and unlike code: ``encodings`` (character maps),
    ``pydoc_data`` (the manual as one dictionary), ``_sysconfigdata*`` (this machine's build), ``html/entities.py``,
    ``stringprep.py`` and ``re/_casefix.py`` (Unicode and entity tables).
    """
    for path, name in _below(root, root.rglob("*.py")):
        generated = any(fnmatch(name, pattern) for pattern in _GENERATED)
        if not generated and _NOT_LIBRARY.isdisjoint(name.split("/")):
            yield name, pieces(path)


def _files(source: str, text_field: str) -> Iterator[_Parts]:
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
        if path.suffix.lower() in _JSON_LINES:
            for number, record in records(path):
                where = f"{path}, line {number}"
                if text_field not in record:
                    raise missing_field(where, text_field, record)
                yield f"{name}:{number}", [_content(record[text_field], where, text_field)]
        else:
            yield name, pieces(path)


def _below(root: Path, paths: Iterable[Path]) -> list[tuple[Path, str]]:
    """Paths with their names relative to ``root``, ordered by name."""
    return sorted(((path, path.relative_to(root).as_posix()) for path in paths), key=lambda pair: pair[1])


def load_splits(source: str) -> Any:
    """The splits of a dataset by name: ``datasets:NAME[:CONFIG]``. Raises DataError when it cannot be loaded."""
    name, _, subset = source.removeprefix(DATASETS).partition(":")
    if not name:
        raise DataError(f"source {source!r} names no dataset. {_SOURCES}.")
    with needs_extra(f"source {source!r} needs", "train", DataError):
        import datasets
        from rich.console import Console
        from rich.text import Text
    try:
        with without_bars(), Console(stderr=True).status(Text(f"loading {name}")):
            return _loaded(name, subset or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise DataError(
            f"source {source!r}: datasets could not load {name!r}{f' with config {subset!r}' if subset else ''}: "
            f"{type(cause).__name__}: {cause}. "
            "Give a name from huggingface.co/datasets (with its config, if it has several) or a local dataset folder."
        ) from error


def _loaded(name: str, subset: str | None) -> Any:
    import datasets

    builder = datasets.load_dataset_builder(name, subset)
    with warnings.catch_warnings():
        if builder.name == "csv":
            # If rows have more fields than the header, pandas takes the first column for row names. With
            # index_col=False it warns instead, and drops fields.
            builder = datasets.load_dataset_builder(name, subset, index_col=False)
            warnings.filterwarnings("error", "Length of header or names does not match")
        builder.download_and_prepare()
    return builder.as_dataset()


def _dataset(source: str, text_field: str) -> Iterator[_Parts]:
    splits = load_splits(source)
    if "train" not in splits:
        raise DataError(f"source {source!r}: has no 'train' split, only {', '.join(splits)}. Save its text as JSONL.")
    train = splits["train"]
    if text_field not in train.column_names:
        raise missing_field(f"source {source!r}", text_field, train.column_names)
    for row, text in enumerate(train[text_field]):
        yield f"train:{row}", [_content(text, f"source {source!r}, row {row}", text_field)]


def missing_field(where: str, field: str, present: Iterable[str], *, setting: str = "text_field") -> DataError:
    """The error of a record without that field. setting: the config field to change."""
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
    refuse_nul(content, f"{where}, field {text_field!r}")
    return content


def character_start(content: bytes | bytearray, index: int) -> int:
    """The start of the UTF-8 character that byte ``index`` belongs to."""
    while content[index] & 0xC0 == 0x80:
        index -= 1
    return index
