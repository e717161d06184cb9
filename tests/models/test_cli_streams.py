"""The command's standard streams, Ctrl-C, and what no command raises on purpose: one status, at most one line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spectral_models.cli import doctor

# Commands are run in forks of one process that has loaded torch: each has streams as the interpreter makes them at its
# start (None for closed descriptors), and ends as any process does.
SERVER = """
import gc, io, json, os, signal, sys
from spectral_models.cli import app, commands  # noqa

cases, folder = json.loads(sys.argv[1]), sys.argv[2]
gc.freeze()  # a fork that collects garbage copies the memory
for number, case in enumerate(cases):
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        with open(f"{folder}/{number}.status", "w") as file:
            file.write(str(os.waitstatus_to_exitcode(status)))
        continue
    for fd, where in enumerate((case.get("stdin", "/dev/null"), case.get("stdout"), case.get("stderr"))):
        if where == "closed":
            os.close(fd)
            continue
        if where == "no reader":
            reader, writer = os.pipe()
            os.close(reader)
        else:
            writer = os.open(where or f"{folder}/{number}.{fd}", os.O_RDONLY if fd == 0 else os.O_WRONLY | os.O_CREAT)
        os.dup2(writer, fd)
        os.close(writer)
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            setattr(sys, name, None)
            continue
        encoding = case.get("encoding", "utf-8")
        errors = "backslashreplace" if fd == 2 else "strict"
        buffered = not case.get("unbuffered") or fd == 0
        raw = open(fd, "rb" if fd == 0 else "wb", -1 if buffered else 0, closefd=False)
        setattr(sys, name, io.TextIOWrapper(raw, encoding=encoding, errors=errors, write_through=not buffered))
    sys.argv = ["spectral", *case["command"]]
    app.main()
"""


class Streams:
    """Runs cases of the module at once: a process loads torch in two seconds, and a fork has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases: list[dict[str, Any]] = []

    def run(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", SERVER, json.dumps(self.cases), str(self.folder)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""

    def ended(self, number: int) -> tuple[int, str, str]:
        """Exit status, output and errors of a case."""
        texts = []
        for fd in (1, 2):
            path = self.folder / f"{number}.{fd}"
            texts.append(
                path.read_text("latin-1" if self.cases[number].get("encoding") else "utf-8") if path.exists() else ""
            )
        return int((self.folder / f"{number}.status").read_text()), *texts


PRINTS = [["components", "filter"], ["doctor"], ["--help"]]  # by typer's echo, by rich, by typer's rich
FULL = "error: cannot write to the standard output: No space left on device.\n"
CLOSED = "error: cannot write to the standard output: Bad file descriptor.\n"
OUTPUTS = {"/dev/full": (1, FULL), "closed": (1, CLOSED), "no reader": (141, "")}
CASES = [
    *({"command": PRINTS[0], "stdout": where} for where in OUTPUTS),
    {"command": PRINTS[0], "stdout": "/dev/full", "unbuffered": True},
    {"command": ["doctor"], "stdout": "/dev/full"},
    *({"command": ["--help"], "stdout": where} for where in ("closed", "no reader")),
    *({"command": ["doctor"], "encoding": name} for name in ("ascii", "latin-1")),
    {"command": ["config", "show", "nope"], "stderr": "closed"},
    {"command": ["config", "show", "nope"], "stderr": "no reader"},
    {"command": ["classify", "nope", "--file", "-"], "stdin": "closed"},
    {"command": ["config", "show", "n\u00f6\u2192\x1b[31m"], "encoding": "ascii"},
]


@pytest.fixture(scope="module")
def streams(tmp_path_factory) -> Streams:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    made = Streams(tmp_path_factory.mktemp("streams"))
    made.cases = CASES
    made.run()
    return made


@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=lambda number: "-".join(map(str, CASES[number].values()))[:60]
)
def test_streams_that_cannot_be_used_end_in_a_status_and_at_most_one_line(streams, number):
    case, (status, out, err) = CASES[number], streams.ended(number)
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    if "stdout" in case:
        assert (status, err) == OUTPUTS[case["stdout"]]
    elif "stderr" in case:
        assert (status, out) == (1, "")
    elif "stdin" in case:
        assert (status, err) == (1, "error: cannot read -: Bad file descriptor.\n")
    elif case["command"][-1].startswith("n"):
        assert status == 1
        assert err.startswith("error: no preset is called 'n\\xf6\\u2192\\x1b[31m'")
    else:
        assert (status, err) == (0, "")
        assert len(out) > 100


def test_characters_that_a_terminal_lacks_are_replaced(streams):
    number = CASES.index({"command": ["doctor"], "encoding": "ascii"})
    assert re.search(r"256 tokens: auto \? \w+", streams.ended(number)[1])


# Ctrl-C

INTERRUPTED = """
import signal, sys
from spectral_models.cli.app import main  # before it, nothing may load torch

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)
            print("went on", flush=True)

assert not {"torch", "numpy", "typer"} & set(sys.modules)
sys.meta_path.insert(0, Press())
press, sys.argv[2:] = sys.argv[1], ["components"]
main()
"""


def answer_ctrl_c() -> None:
    """In a child: background jobs, as tests may be, inherit that it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("module", ["torch", "spectral_models.cli.train"])
def test_ctrl_c_while_libraries_are_loaded_is_one_line(module):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=answer_ctrl_c,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def raising(monkeypatch, error: Any) -> None:
    """``spectral doctor`` raises this."""

    def raises() -> None:
        raise error

    monkeypatch.setattr(doctor, "_xla_devices", raises)


def test_ctrl_c_in_a_command_is_one_line(spectral, monkeypatch):
    raising(monkeypatch, KeyboardInterrupt)
    ended = spectral("doctor")
    assert (ended.code, ended.err) == (130, "interrupted\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_while_training_says_what_it_kept_ends_it(spectral, monkeypatch, tmp_path):
    pytest.importorskip("transformers")

    def press(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("spectral_models.training.run.train", press)
    ended = spectral("train", "tiny", "--out", tmp_path / "out")
    assert ended.code == 130
    assert ended.err.startswith("interrupted; no checkpoint was saved yet. Continue with:\n  spectral train tiny")
    monkeypatch.setattr("spectral_models.training.checkpoints.newest_complete", press)
    ended = spectral("train", "tiny", "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (130, "interrupted\n")


ENDING = """
import atexit, signal, sys
from spectral_models.cli import app

atexit.register(signal.raise_signal, signal.SIGINT)  # runs after what main() registers
app._run = lambda: 0
app.main()
"""


def test_ctrl_c_while_the_process_ends_has_no_traceback():
    done = subprocess.run(
        [sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=120, preexec_fn=answer_ctrl_c
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


# What no command raises on purpose


class Odd(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyError("x\x1b[31m\ny"), 70, r"internal: KeyError: .*test_cli_streams\.py, line \d+\)\. .* report it"),
        (SystemExit(0), 70, r".*test_cli_streams\.py:\d+ called sys\.exit\(0\)\."),
        (SystemExit("bye"), 70, r".*test_cli_streams\.py:\d+ called sys\.exit\('bye'\)\."),
        (Odd("strange"), 70, r"internal: Odd: strange "),
        (GeneratorExit(), 70, r"internal: GeneratorExit"),
        (RecursionError("too deep"), 70, r"internal: RecursionError"),
        (MemoryError(), 1, r"not enough memory\. Ask for less"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, r"not enough memory"),
        (OSError(28, "No space left on device"), 1, r"No space left on device\."),
        (PermissionError(13, "Permission denied", "a/file"), 1, r"a/file: Permission denied\."),
        (ConnectionResetError(104, "Connection reset by peer"), 1, r"Connection reset by peer\."),
    ],
    ids=repr,
)
def test_what_nobody_expected_is_one_line_and_a_status(spectral, monkeypatch, error, status, said):
    raising(monkeypatch, error)
    ended = spectral("doctor")
    assert ended.code == status
    assert re.match(f"error: {said}", ended.err), ended.err
    assert len(ended.err.splitlines()) == 1
    assert "Traceback" not in ended.err
    assert "\x1b" not in ended.err


def test_the_traceback_of_a_fault_is_logged_for_verbose(spectral, monkeypatch, caplog):
    raising(monkeypatch, KeyError("x"))
    with caplog.at_level("INFO"):
        assert spectral("-v", "doctor").code == 70
    assert "Traceback" in caplog.text


def test_an_endless_message_is_cut(spectral):
    ended = spectral("config", "show", "y" * 100_000 + "/x.yaml")
    assert ended.code == 1
    assert len(ended.err) < 5000


@pytest.mark.parametrize("arguments", [["generat"], ["generate", "x", "--temperature", "warm"], ["doctor", "\x1b[2J"]])
def test_wrong_usage_is_one_line_that_says_where_help_is(spectral, arguments):
    ended = spectral(*arguments)
    assert ended.code == 2
    assert re.fullmatch(r"error: .*\. See .*spectral.* --help\.\n", ended.err), ended.err
    assert "\x1b" not in ended.err
