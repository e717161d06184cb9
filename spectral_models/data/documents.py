"""Documents: named pieces of UTF-8 text from files, from Python's standard library or from a dataset.

A document's name is its place in the source, independent of the source's path, so that the same documents are held out
on every machine. All documents are read into one buffer.
"""

from __future__ import annotations

import sysconfig
import warnings
from array import array
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

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
_TABLES = ("encodings/*", "pydoc_data/*", "_sysconfigdata*", "html/entities.py", "stringprep.py", "re/_casefix.py")
_BLOCK_BYTES = (1 << 10, 1 << 16)


_Parts = tuple[str, Iterable[bytes]]
"""A document's name and the parts of its content."""


class Documents:
    """The documents of a source in one buffer, each followed by a NUL. Memory: about one byte per byte of text.

    text: the buffer. names: the documents' names, in order.
    """

    def __init__(self) -> None:
        self.text = bytearray()
        self.names: list[str] = []
        self._ends = array("q")  # indices of the NULs

    def __len__(self) -> int:
        return len(self.names)

    def span(self, index: int) -> tuple[int, int]:
        """The indices of a document's first byte and of its NUL in the buffer."""
        return (self._ends[index - 1] + 1 if index else 0), self._ends[index]

    def views(self) -> Iterator[tuple[str, memoryview]]:
        """Each document's name and content, without a copy; a view is valid until the next one."""
        with memoryview(self.text) as text:
            for index, name in enumerate(self.names):
                start, end = self.span(index)
                with text[start:end] as content:
                    yield name, content

    def add(self, name: str, contents: Iterable[bytes]) -> None:
        """Append a document, unless it is only whitespace."""
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

        A block is 1/32 of the document, but 1 to 64 KiB, and ends at the end of a line if it holds one.
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
        # Every block but the last needs a NUL: make room in front, then move the blocks left one by one.
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
    """The documents of a source, in a fixed order, without blank ones.

    A directory gives one document per file (hidden files and folders are ignored), a JSONL file (``.jsonl``,
    ``.ndjson``) one per line, a dataset one per row of its ``train`` split, the standard library one per source file.

    A source with a single document, such as a book, is split into blocks.

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
    """The Python files below ``root``, by relative path, without installed packages, tests and tables.

    Tests hold fixtures, bad syntax and odd encodings. Tables are long, repetitive and unlike code: ``encodings``
    (character maps), ``pydoc_data`` (the manual as one dictionary), ``_sysconfigdata*`` (this machine's build),
    ``html/entities.py``, ``stringprep.py`` and ``re/_casefix.py`` (Unicode and entity tables).
    """
    for path, name in _named(root, root.rglob("*.py")):
        table = any(fnmatch(name, pattern) for pattern in _TABLES)
        if not table and _NOT_LIBRARY.isdisjoint(name.split("/")):
            yield name, pieces(path)


def _files(source: str, text_field: str) -> Iterator[_Parts]:
    root = Path(source).expanduser()
    if root.is_file():
        paths = [(root, root.name)]
    elif root.is_dir():
        paths = visible_files(root)
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


def visible_files(root: Path) -> list[tuple[Path, str]]:
    """The files below ``root`` with their relative names, ordered by name, without hidden files and folders."""
    return [
        (path, name)
        for path, name in _named(root, root.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in name.split("/"))
    ]


def _named(root: Path, paths: Iterable[Path]) -> list[tuple[Path, str]]:
    """Paths with their names relative to ``root``, ordered by name."""
    return sorted(((path, path.relative_to(root).as_posix()) for path in paths), key=lambda pair: pair[1])


def load_split(source: str, split: str) -> tuple[str, Any]:
    """A split of ``datasets:NAME[:CONFIG]``: its name for errors, and the split.

    Raises DataError if the dataset cannot be loaded or has no such split.
    """
    name, _, subset = source.removeprefix(DATASETS).partition(":")
    if not name:
        raise DataError(f"source {source!r} names no dataset. {_SOURCES}.")
    with needs_extra(f"source {source!r} needs", "train", DataError):
        import datasets
        from rich.console import Console
        from rich.text import Text
    try:
        with without_bars(), Console(stderr=True).status(Text(f"loading {name}")):
            splits = _loaded(name, subset or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise DataError(
            f"source {source!r}: datasets could not load {name!r}{f' with config {subset!r}' if subset else ''}: "
            f"{type(cause).__name__}: {cause}. "
            "Give a name from huggingface.co/datasets (with its config, if it has several) or a local dataset folder."
        ) from error
    if split not in splits:
        raise DataError(f"source {source!r}: has no split {split!r}, only {', '.join(splits)}.")
    return f"{source}, split {split!r}", splits[split]


def _loaded(name: str, subset: str | None) -> Any:
    import datasets

    builder = datasets.load_dataset_builder(name, subset)
    with warnings.catch_warnings():
        if builder.name == "csv":
            # If rows are longer than the header, pandas reads the first column as row names. With index_col=False it
            # drops fields and warns instead.
            builder = datasets.load_dataset_builder(name, subset, index_col=False)
            warnings.filterwarnings("error", "Length of header or names does not match")
        builder.download_and_prepare()
    return builder.as_dataset()


def _dataset(source: str, text_field: str) -> Iterator[_Parts]:
    where, train = load_split(source, "train")
    if text_field not in train.column_names:
        raise missing_field(where, text_field, train.column_names)
    for row, text in enumerate(train[text_field]):
        yield f"train:{row}", [_content(text, f"{where}, row {row + 1}", text_field)]


def missing_field(where: str, field: str, present: Iterable[str], *, setting: str = "text_field") -> DataError:
    """The error of a record without a field. setting: the option that names it."""
    fields = list(present)
    listed = f"Its fields: {', '.join(fields) or 'none'}"
    return DataError(
        f"{where}: no field {field!r}.{suggestion(field, fields)} {listed}. Name the right one: {setting}."
    )


def _content(value: object, where: str, text_field: str) -> bytes:
    """A record's text as UTF-8; null is an empty text."""
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
            f"{where}: field {text_field!r} is not text: half a surrogate pair at character {error.start}. Repair it."
        ) from None
    refuse_nul(content, f"{where}, field {text_field!r}")
    return content


def character_start(content: bytes | bytearray, index: int) -> int:
    """The start of the UTF-8 character that byte ``index`` belongs to."""
    while content[index] & 0xC0 == 0x80:
        index -= 1
    return index
