"""The process's standard streams: closed, full, without a reader, or in an encoding that lacks a character."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class UnwrittenError(OSError):
    """A failure to write to a standard stream. no_reader: the other end of the pipe is closed."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror)  # no errno: libraries exit by themselves on EPIPE
        self.no_reader = isinstance(cause, BrokenPipeError)


def prepare() -> None:
    """Make the standard streams safe to use; failures to write then raise UnwrittenError.

    Characters that the output's encoding lacks become question marks; undecodable input is kept by ``surrogateescape``,
    as in arguments. Closed streams get a descriptor, so that no file that is opened later takes its place. Reading a
    closed input and writing to a closed output fail; a closed stderr discards errors.
    """
    sys.stdin = sys.stdin or _null_stream(os.O_WRONLY, "r")
    sys.stdout = sys.stdout or _null_stream(os.O_RDONLY, "w")
    sys.stderr = sys.stderr or _null_stream(os.O_WRONLY, "w")
    if isinstance(sys.stdin, io.TextIOWrapper) and sys.stdin.errors == "strict":
        sys.stdin.reconfigure(errors="surrogateescape")
    sys.stdout = _rebuilt(sys.stdout, errors="replace")
    sys.stderr = _rebuilt(sys.stderr, errors="backslashreplace")


def finish() -> None:
    """Flush the streams. Raises UnwrittenError.

    A failed stream is redirected to the null device, because the interpreter flushes again at exit.
    """
    failure = None
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except UnwrittenError as error:
            failure = error
        raw = _raw(stream)
        if isinstance(raw, _StandardStream) and raw.failed:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, raw.fileno())
            os.close(nowhere)
    if failure is not None:
        raise failure


class _StandardStream(io.FileIO):
    """A standard stream that raises UnwrittenError, so that its failures differ from those of files."""

    failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failed = True
            raise UnwrittenError(error) from None


def _null_stream(flags: int, mode: Literal["r", "w"]) -> TextIO:
    """A stream on the null device, at the lowest free descriptor: that of the first stream that is closed."""
    return open(os.open(os.devnull, flags), mode, closefd=False)


def _rebuilt(stream: TextIO, *, errors: str) -> TextIO:
    """The stream on a :class:`_StandardStream`; unchanged unless it is a plain file (a test's capture, a console)."""
    if not isinstance(stream, io.TextIOWrapper) or type(_raw(stream)) is not io.FileIO:
        return stream
    raw = _StandardStream(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if isinstance(stream.buffer, io.BufferedWriter) else raw,
        encoding=stream.encoding,
        errors=errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _raw(stream: TextIO) -> object:
    """The raw file of a stream, also without a buffer (PYTHONUNBUFFERED)."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)
