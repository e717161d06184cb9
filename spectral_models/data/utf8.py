"""Reads UTF-8 text files in pieces; refuses other files, with their encoding if it is known."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from spectral_core.plain_data import unique_keys
from spectral_models.errors import DataError

_PIECE = 1 << 20
_HEAD = 1 << 12
_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def pieces(path: Path) -> Iterator[bytes]:
    """A file's bytes, about a megabyte at a time, cut at whole characters, without byte-order mark.

    Raises DataError, with the path and the offset, for files that cannot be read, are not UTF-8, or contain NUL.
    """
    try:
        with path.open("rb") as file:
            yield from checked(iter(partial(file.read, _PIECE), b""), str(path))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}. Give a file you may read, or move it away."
        ) from error


def lines(contents: Iterable[bytes]) -> Iterator[str]:
    """The lines of a text in pieces, without line feeds; the last is empty if the text ends in a line feed."""
    rest: list[bytes] = []
    for piece in contents:
        *whole, last = piece.split(b"\n")
        if whole:
            yield b"".join([*rest, whole[0]]).decode()
            yield from map(bytes.decode, whole[1:])
            rest = []
        rest.append(last)
    yield b"".join(rest).decode()


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers, without blank lines.

    Raises DataError, with the line, for invalid JSON, values that are not objects, and repeated keys.
    """
    for number, line in enumerate(lines(pieces(path)), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line, object_pairs_hook=unique_keys)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: not JSON: {error.msg} at column {error.colno}. A JSONL file holds one object per line."
            ) from None
        except (ValueError, RecursionError) as error:  # too many digits, or too deep nesting
            raise DataError(f"{where}: cannot be read: {str(error).rstrip('.')}. Repair or remove the line.") from None
        if not isinstance(record, dict):
            raise DataError(f"{where}: holds {type(record).__name__}; a line is an object, as {{'text': '...'}}.")
        yield number, record


def checked(contents: Iterable[bytes], where: str) -> Iterator[bytes]:
    """The parts of a text, cut again at whole characters. where: the text's name in errors.

    Raises DataError for text that is not UTF-8 or contains NUL.
    """
    head, rest, offset = b"", b"", 0
    for content in contents:
        head = head or content[:_HEAD]
        found = rest + content
        try:
            _, whole = codecs.utf_8_decode(found, "strict", False)
        except UnicodeDecodeError as error:
            raise _not_utf8(head, where, offset + error.start, found[error.start]) from None
        refuse_nul(found, where, offset, head)
        rest = found[whole:]
        yield found[:whole].removeprefix(codecs.BOM_UTF8) if offset == 0 else found[:whole]
        offset += whole
    if rest:
        raise _not_utf8(head, where, offset, rest[0])


def refuse_nul(content: bytes, where: str, before: int = 0, head: bytes = b"") -> None:
    """Raise DataError for a NUL. before: the content's offset in its text. head: the first bytes of the text."""
    place = content.find(0)
    if place < 0:
        return
    if encoding := _encoding(head):
        raise _in_encoding(where, encoding)
    raise DataError(
        f"{where}: NUL byte at offset {before + place}: a binary file, or text in UTF-16? NUL separates documents, so "
        "texts cannot contain it. Remove it, or leave this out."
    )


def _not_utf8(head: bytes, where: str, offset: int, byte: int) -> DataError:
    if encoding := _encoding(head):
        return _in_encoding(where, encoding)
    return DataError(
        f"{where}: not UTF-8 text: byte {byte:#04x} at offset {offset}. "
        "Convert the file to UTF-8 (iconv -f latin1 -t utf-8, say); if it holds no text, move it away."
    )


def _in_encoding(where: str, encoding: str) -> DataError:
    return DataError(
        f"{where}: {encoding} text, and only UTF-8 is read. Convert it: iconv -f {encoding} -t UTF-8 IN > OUT."
    )


def _encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by the byte-order mark or the NULs that Latin text has in these encodings; else None."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    for width, name in ((4, "UTF-32"), (2, "UTF-16")):
        units = head[: len(head) // width * width]
        for order, high in (("LE", units[width - 1 :: width]), ("BE", units[::width])):
            if len(high) > 1 and high.count(0) > 0.6 * len(high) and units.count(0) > (width - 1) * 0.6 * len(high):
                decoder = codecs.getincrementaldecoder(f"{name}-{order}")()  # accepts an incomplete last character
                try:
                    decoder.decode(units)
                except UnicodeDecodeError:
                    continue
                return f"{name}{order}"
    return None
