"""``spectral generate --interactive``: a user's lines, each answered by the model."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from spectral_core import SpectralError
from spectral_models.cli.console import errors, show, show_error
from spectral_models.cli.turns import Turns

_HELP = "Lines and answers are one text. /reset forgets it; Ctrl-C stops an answer; /quit or Ctrl-D ends."


def converse(begin: Callable[[], Turns], prompt: str, max_new_tokens: int) -> bool:
    """Answer each line of the standard input, continuing the text so far. begin: returns turns without any yet.

    A line has its line end, unless it ends in a backslash. A pipe gets the answers only. Returns False if the input is
    a pipe and an answer failed.
    """
    terminal = sys.stdin.isatty()
    if terminal:
        errors.print(_HELP, style="dim")
    turns = begin()
    lines = _typed() if terminal else (line.rstrip("\n") for line in sys.stdin)
    answered = not prompt or _answered(turns, prompt, max_new_tokens)
    for line in lines:
        command = line.strip()
        if command == "/quit":
            break
        if command == "/reset":
            turns = begin()
            continue
        text = line[:-1] if line.endswith("\\") else f"{line}\n"
        answered = _answered(turns, text, max_new_tokens) and answered
    return answered or terminal


def _typed() -> Iterator[str]:
    """The lines of a terminal, until its end. Ctrl-C discards the current line."""
    with suppress(ImportError):  # Windows has none
        import readline  # noqa: F401  # input() then edits lines and keeps a history
    while (line := _ask()) is not None:
        yield line


def _ask() -> str | None:
    """A line; None at the end of the input. Asks again after Ctrl-C."""
    try:
        return input("> ")
    except KeyboardInterrupt:
        show("\n")
        return _ask()
    except EOFError:
        show("\n")
        return None


def answer(turns: Turns, text: str, max_new_tokens: int) -> None:
    """Ask, and print what the model answers."""
    tokenizer, answered, ended = turns.tokenizer, "", False
    stream = tokenizer.stream()
    turns.ask(text)
    with _interruptible() as stopped:
        for _ in range(max_new_tokens):
            token = turns.session.draw()
            ended = token == tokenizer.eos_token_id
            if ended:
                break
            piece = stream.push(token)
            show(piece)
            answered += piece
            if stopped():
                break
    rest = stream.finish()
    answered += rest
    show(rest if answered.endswith("\n") else f"{rest}\n")
    turns.answered(answered, ended=ended)


def _answered(turns: Turns, text: str, max_new_tokens: int) -> bool:
    """The same, but an error is printed. Returns whether there was none."""
    try:
        answer(turns, text, max_new_tokens)
    except SpectralError as error:
        show_error(f"{error} /reset begins a new text.")
        return False
    return True


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether Ctrl-C was pressed: it does not interrupt a call of the model, whose state
    would be lost. A second press does.
    """
    pressed = False

    def press(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
