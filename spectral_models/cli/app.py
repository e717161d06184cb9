"""Entry point of the ``spectral`` command: always ends with an exit status and at most one error on stderr.

Imports nothing heavy before :func:`main` runs, so that Ctrl-C works while torch is loaded.

===  ===========================================================================
0    done
1    errors that users can fix: a config, a file, an option, a full disk
2    wrong usage
70   an internal error, of us or of a plugin; ``spectral -v`` shows the traceback
130  Ctrl-C
141  the output is a closed pipe, as in ``spectral components | head -1``
===  ===========================================================================
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from spectral_models.cli import streams

_log = logging.getLogger(__name__)
_INTERNAL, _INTERRUPTED, _NO_READER = 70, 130, 141
_NO_MEMORY = ("can't allocate memory", "out of memory")  # in torch's RuntimeErrors, of a CPU and of a GPU


def main() -> None:
    """Run the command line of this process, and exit."""
    try:
        streams.prepare()
        status = _run()
    except KeyboardInterrupt:  # outside of commands, which handle it themselves
        status = _INTERRUPTED
    with _leaving_on_ctrl_c(quiet=True):
        try:
            streams.finish()
        except streams.UnwrittenError as error:
            status = status or _unwritten(error)
    atexit.register(_leave_on_ctrl_c, quiet=True)  # libraries may take long to exit and print tracebacks
    sys.exit(status)


def _run() -> int:
    """The exit status of the command line; its error, if any, is printed."""
    with _leaving_on_ctrl_c(quiet=False):
        from spectral_core import SpectralError
        from spectral_models.cli.commands import app
        from spectral_models.cli.console import UsageError
    try:
        ended = app(standalone_mode=False)
    except SpectralError as error:
        return _failed(str(error))
    except UsageError as error:
        return _usage_error(error)
    except streams.UnwrittenError as error:
        return _unwritten(error)
    except BaseException as error:
        return _unexpected(error)
    return ended if isinstance(ended, int) else 0


def _usage_error(error: Any) -> int:
    """Report a usage error; one without a message has already shown the help."""
    if message := error.format_message().rstrip("."):
        command = error.ctx.command_path if getattr(error, "ctx", None) else "spectral"
        _failed(f"{message}. See {command} --help.")
    return int(error.exit_code)


def _unwritten(error: streams.UnwrittenError) -> int:
    """Report a failure to write output, unless its reader has closed the pipe."""
    return _NO_READER if error.no_reader else _failed(f"cannot write to the standard output: {error}.")


def _unexpected(error: BaseException) -> int:
    """Report an exception that no command raises on purpose."""
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    ):
        return _failed("not enough memory. Ask for less: shorter inputs, fewer of them at a time, a smaller model.")
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return _failed(f"{where}{error.strerror or error}.")
    _log.info("internal error", exc_info=error)
    *_, frame = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SystemExit):  # of a part or a plugin: commands return their status
        return _failed(f"{frame.filename}:{frame.lineno} called sys.exit({error.code!r}).", _INTERNAL)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return _failed(
        f"internal: {what} ({frame.filename}, line {frame.lineno}). This is a fault of that file's package, not of "
        "yours; please report it there, with what spectral -v prints for the same command.",
        _INTERNAL,
    )


def _failed(message: str, status: int = 1) -> int:
    from spectral_models.cli.console import show_error

    show_error(message)
    return status


def _leave_on_ctrl_c(*, quiet: bool) -> None:
    """Let Ctrl-C end the process at once from now on. quiet: do not print "interrupted".

    Has no effect in background jobs, which ignore the signal, or outside of the main thread.
    """

    def leave(*_: object) -> None:
        with suppress(OSError):
            os.write(2, b"" if quiet else b"interrupted\n")
        os._exit(_INTERRUPTED)

    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


@contextmanager
def _leaving_on_ctrl_c(*, quiet: bool) -> Iterator[None]:
    """Let Ctrl-C end the process at once inside the block, where nothing can be lost."""
    before = signal.getsignal(signal.SIGINT)
    _leave_on_ctrl_c(quiet=quiet)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
