"""The runs of examples/: each trains on small data of its kind, is judged again, and answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from spectral_models.training import load_run

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDS = ("fine", "poor", "long", "dull", "warm")
SHORT = {"training.steps": 2, "training.batch_size": 4, "training.eval_every": 2, "training.save_every": 2}


def corpus(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("def one():\n    return 1\n\n" * 60, encoding="utf-8")
    return path


def reviews(label: Callable[[int], object], columns: str) -> Callable[[Path], Path]:
    """A table of texts with a label for each row number."""

    def write(folder: Path) -> Path:
        path = folder / "table.csv"
        lines = [columns, *(f"a {WORDS[row % 5]} film of {row} hours,{label(row)}" for row in range(40))]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def picture(path: Path, size: int, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size), dtype=np.uint8)).save(path)
    return path


def digits(folder: Path) -> Path:
    for row in range(40):
        picture(folder / "digits" / str(row % 10) / f"{row}.png", 8, row)
    return folder / "digits"


def sentences(folder: Path) -> Path:
    """Nine tags, of as many words."""
    path = folder / "train.conll"
    lines = ["\n".join(f"word{(row + i) % 9} TAG{(row + i) % 9}" for i in range(3 + row % 4)) for row in range(40)]
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


def posts(folder: Path) -> Path:
    """Rows with a text, an image, or both."""
    path = folder / "posts.csv"
    lines = ["caption,photo,label"]
    for row in range(40):
        photo = picture(folder / f"{row}.png", 8, row).name if row % 3 else ""
        caption = f"a {WORDS[row % 5]} day {row}" if row % 3 != 1 else ""
        lines.append(f"{caption},{photo},{('yes', 'no')[row % 2]}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


CASES: dict[str, tuple[Callable[[Path], Path], dict[str, object], list[str]]] = {
    # The data that an example reads, what is set smaller, and a command that uses the model: see `test_it_runs`.
    "demo": (corpus, {"data.context": 32}, ["generate", "--prompt", "def", "--max-new-tokens", "4"]),
    "classifier": (reviews(lambda row: ("good", "bad")[row % 2], "text,label"), {}, ["classify", "a fine film"]),
    "images": (digits, {}, ["classify", "digits/3/3.png"]),
    "regression": (reviews(lambda row: row / 8, "text,stars"), {}, ["classify", "a fine film"]),
    "multi_label": (
        reviews(lambda row: "|".join(WORDS[row % 5 : row % 7]), "text,topics"),
        {},
        ["classify", "a fine film"],
    ),
    "masked_lm": (corpus, {"data.context": 32}, ["embed", "def one"]),
    "seq2seq": (
        reviews(lambda row: WORDS[row % 5].upper(), "source,target"),
        {"task.generated": 3, "data.max_target_length": 8},
        ["generate", "--prompt", "a fine film", "--max-new-tokens", "4"],
    ),
    "token_classification": (sentences, {}, ["classify", "word1 word2"]),
    "multimodal": (posts, {}, ["classify", '{"text": "a warm day", "image": "5.png"}', '{"image": "1.png"}']),
}


def test_every_example_is_run() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.yaml")) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_it_runs(name: str, spectral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, changes, (command, *given) = CASES[name]
    monkeypatch.chdir(tmp_path)
    example, source = EXAMPLES / f"{name}.yaml", data(tmp_path)
    options = [part for path, value in {**SHORT, **changes}.items() for part in ("--set", f"{path}={value}")]
    trained = spectral("train", example, "--data", source, *options, "--out", "run")
    assert trained.code == 0, trained.err
    metrics = json.loads(Path("run/metrics.json").read_text(encoding="utf-8"))
    run = load_run(Path("run/run.yaml"))
    assert run.data.source == str(source)
    assert run.model.type == yaml.safe_load(example.read_text(encoding="utf-8"))["model"]["type"]
    again = spectral("evaluate", "run")
    assert again.code == 0, again.err
    printed = dict(line.split("  ", 1) for line in again.out.splitlines())
    for label, value in ((label, value.split()[0]) for label, value in printed.items() if label != "measured on"):
        assert f"{metrics[label.strip().replace(' ', '_')]:.{len(value.partition('.')[2])}f}" == value, label
    used = spectral(command, "run", *given)
    assert used.code == 0, used.err
    assert used.out.strip()
