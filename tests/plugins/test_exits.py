"""A third party's part that ends the process ends no command silently."""

from __future__ import annotations

import sys

import pytest

from spectral_models.cli import app as command


@pytest.mark.parametrize("code", [0, None, 3, "bye"])
def test_a_part_that_exits_ends_no_command_silently(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: object
) -> None:
    theirs = {"__name__": "acme.mixers", "code": code}
    exec(compile("import sys\ndef forward(): sys.exit(code)", "acme/mixers.py", "exec"), theirs)  # noqa: S102
    monkeypatch.setattr("spectral_models.cli.commands.app", lambda **_: theirs["forward"]())
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 70
    assert capsys.readouterr().err == f"error: acme/mixers.py:2 called sys.exit({code!r}).\n"


def test_our_own_exits_keep_their_status(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, code in (["--help"], 0), (["no-such-command"], 2):
        monkeypatch.setattr(sys, "argv", ["spectral", *arguments])
        with pytest.raises(SystemExit) as caught:
            command.main()
        assert caught.value.code == code
