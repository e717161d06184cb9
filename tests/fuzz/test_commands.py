"""Command lines from the tree of commands itself, with values as people and scripts get them wrong."""
# ruff: noqa: SIM905 - a list of words is read more easily as a line of them

from __future__ import annotations

import io
import random
import re
import sys
import typing
from collections.abc import Callable, Iterator
from enum import EnumMeta
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
import yaml

from spectral_models import build_model, save_checkpoint
from spectral_models.cli.app import main
from spectral_models.cli.commands import app

TINY = {"hidden_dim": 8, "num_layers": 1}
ENCODER = {**TINY, "type": "encoder", "layers": [{"mixer": "fourier", "feedforward": "mlp"}]}
NUMBERS = [
    *"0 1 2 3 -1 1.5 1e-50 1e400 nan inf -inf 0x10 1_0 one 2, 0-1 -5- input_ids=4 \u0663 100000000".split(),
    *("100000000000", "0-99999999999", "9" * 30, "9" * 5000, "", " "),
]
TEXTS = [
    *"x - -- ~ . * a=b = /dev/null /proc/self/mem [bold]x[/] %s%n{0} layers.0.mixer=1 null true datasets:".split(),
    *(
        "",
        " ",
        "a" * 300,
        "a/" * 3000,
        "\x1b[31mred\x1b[0m\x07",
        "caf\u00e9 \u2192 \udcff",
        "'\"`$(x)",
        "x: [",
        "\n\r\n",
    ),
]
SETTINGS = [
    *"hidden_dim=16 num_layers=0 num_layers=99999999999 layers=[1 training.steps=1 training.batch_size=0".split(),
    *"fft=fast data.context=8 model.hidden_dim=1e308 seed=2024-13-45 block.mixer.filter.modes=-1".split(),
    *("vocab_size=" + "9" * 5000, "a" * 3000 + "=1", "type=!!int x", "layers.0.mixer=fourier"),
]
SECONDS = {"export": 30.0, "inspect": 30.0, "quantize": 30.0, "train": 30.0, "config list": 10.0}
"""CPU time of commands that trace, draw, compress or train by libraries of others, or build every preset; else 2 s."""
OUTPUTS = ("output", "out_dir", "directory")
"""Parameters that name what is written: in the test's own directory, whatever they are given."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> dict[str, list[str]]:
    """Paths that are what commands read, and that are not."""
    folder = tmp_path_factory.mktemp("commands")
    torch.manual_seed(0)
    models = {"language": TINY, "encoder": ENCODER, "classifier": {"type": "classifier", "encoder": ENCODER}}
    checkpoints = [str(save_checkpoint(build_model(config), folder / name)) for name, config in models.items()]
    (folder / "text.txt").write_text("a line of text\n" * 200, encoding="utf-8")
    (folder / "table.csv").write_text("text,label\n" + "good,1\nbad,0\n" * 20, encoding="utf-8")
    (folder / "bytes.bin").write_bytes(bytes(range(256)) * 4)
    (folder / "empty").touch()
    run = {"model": TINY, "data": {"source": str(folder / "text.txt"), "context": 16}, "training": {"steps": 1}}
    (folder / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    (folder / "model.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    files = [str(folder / name) for name in ("text.txt", "table.csv", "bytes.bin", "empty", "run.yaml", "model.yaml")]
    return {"checkpoints": checkpoints, "files": [*files, str(folder)]}


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with its words."""
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, (*path, name))
    if not hasattr(command, "commands") or path == ("plugins",):
        yield path, command


COMMANDS = dict(leaves(typer.main.get_command(app)))


def value(parameter: Any, draw: random.Random, inputs: dict[str, list[str]], out: Path) -> str:
    """For an option or an argument: often of its kind, else anything."""
    name, kind = parameter.name, parameter.type_descriptor.annotation
    likely: list[str] = []
    if name in OUTPUTS:
        likely = [str(out / each) for each in ("made", "made.npy", "made.pt2", "a/b", "")] + inputs["checkpoints"]
    elif name in ("checkpoint", "source"):
        likely = (
            inputs["checkpoints"] if name == "checkpoint" else [*inputs["checkpoints"], *inputs["files"][-3:], "tiny"]
        )
    elif name in ("config", "data", "file", "text", "items"):
        likely = [*inputs["files"], "tiny"]
    elif name == "changes":
        likely = SETTINGS
    elif kind in (int, float) or name in ("layers", "length", "lengths", "size"):
        likely = draw.choice([["1", "2", "8"], NUMBERS])
    elif typing.get_origin(kind) is typing.Literal or isinstance(kind, EnumMeta):
        likely = [str(getattr(each, "value", each)) for each in typing.get_args(kind) or kind]
    if name in OUTPUTS:
        return draw.choice(likely + [text for text in TEXTS if not text.startswith("/")])
    pool = likely if likely and draw.random() < 0.85 else [*NUMBERS, *TEXTS, *inputs["checkpoints"], *inputs["files"]]
    return draw.choice(pool)


def line(draw: random.Random, inputs: dict[str, list[str]], out: Path) -> list[str]:
    """A command line, mostly with what is required."""
    path = draw.choice(list(COMMANDS))
    words = list(path)
    for parameter in COMMANDS[path].params:
        if parameter.name == "memory":  # measures in processes that load torch, one after another
            continue
        options = getattr(parameter, "opts", [])
        flag = bool(getattr(parameter, "is_flag", False))
        wanted = draw.random() < (0.95 if parameter.required else 0.3)
        if parameter.param_type_name == "argument":
            count = (draw.randint(0, 2) if parameter.nargs == -1 else parameter.nargs) if wanted else 0
            words += [value(parameter, draw, inputs, out) for _ in range(count)]
        elif wanted:
            words.append(options[0])
            words += [] if flag else [value(parameter, draw, inputs, out) for _ in range(parameter.nargs)]
    if draw.random() < 0.1:
        words.insert(
            draw.randint(0, len(words)), draw.choice(["--help", "-v", "--nope", "-", "--", "", "x=1", "\x1b[2J"])
        )
    return limited(path, words)


def limited(path: tuple[str, ...], words: list[str]) -> list[str]:
    """What works is small: one step of training, few tokens, one round of few numbers."""
    few = {
        ("train",): ["--set", "training.steps=1", "--set", "training.batch_size=2"],
        ("generate",): ["--max-new-tokens", "3"],
        ("bench", "fft"): ["--rounds", "1", "--length", "8", "--channels", "4", "--backend", "torch", "--batch", "1"],
    }
    again = {"inspect": ["--length", "64"], "export": ["--length", "8"]}
    return words + few.get(path, again.get(path[0], []) if len(words) % 2 else [])


def test_command_lines_end_with_a_status_and_no_traceback(
    inputs, tmp_path, monkeypatch, capfd, rounds, bounded: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    draw = random.Random(1)  # noqa: S311
    found: list[str] = []
    for number in range(rounds(300)):
        words = line(draw, inputs, tmp_path / str(number))
        monkeypatch.setattr(sys, "argv", ["spectral", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(draw.choice(["", "a line\n", "/reset\nx\\\n\udcff\n"])))
        status: Any = None
        try:
            with bounded(seconds=SECONDS.get(words[0], SECONDS.get(" ".join(words[:2]), 2.0))):
                try:
                    main()
                except SystemExit as end:
                    status = end.code
        except BaseException as error:
            found.append(f"{words!r}: {type(error).__name__}: {error}")
        _, err = capfd.readouterr()
        right = status in (0, 1, 2) and "Traceback" not in err and not CONTROL.search(err) and len(err) < 20_000
        if not right or err.count("error: ") > 1:
            found.append(f"{words!r}: status {status}: {err[:2000]}")
    assert not found, "\n".join(found)
