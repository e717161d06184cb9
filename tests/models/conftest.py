"""The command, run in this process."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from spectral_models.cli.app import main


class Ended(NamedTuple):
    """What a command left: its exit status and what it printed."""

    code: int
    out: str
    err: str

    def refused(self, message: str) -> None:
        """Assert that it ended with one error that matches, and no traceback."""
        assert self.code == 1, self
        assert re.search(message, self.err), self.err
        assert self.err.startswith("error: ")
        assert self.err.count("error: ") == 1
        assert "Traceback" not in self.err + self.out


@pytest.fixture
def spectral(monkeypatch, capsys) -> Callable[..., Ended]:
    """Runs the command as the console script does: ``spectral("config", "show", "tiny")``."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["spectral", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *capsys.readouterr())

    return run
