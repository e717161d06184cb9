"""Tasks, models and data that do not fit each other: one error each, and nothing is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SMALL = {"hidden_dim": 8, "num_layers": 1, "layers": [{"mixer": "fourier", "feedforward": "mlp"}]}
TEXT = {"type": "encoder", "vocab_size": 256, **SMALL}
IMAGE = {"type": "vision_encoder", "frontend": {"type": "patches", "size": 4, "channels": 1}, **SMALL}
ONE = {"type": "classifier", "encoder": TEXT}
SEVERAL = {**ONE, "problem_type": "multi_label_classification"}
TAGS = {"type": "token_classifier", "encoder": TEXT}
BOTH = {
    "type": "multimodal",
    "hidden_dim": 8,
    "encoders": {"a": TEXT, "b": TEXT},
    "fusion": {"type": "cross_modal", "head_dim": 8},
}
ROWS: list[dict[str, Any]] = [{"text": f"text {row}", "label": "yn"[row % 2]} for row in range(8)]
PAIRS: list[dict[str, Any]] = [{"a": f"text {row}", "b": "", "label": "yn"[row % 2]} for row in range(8)]
TAGGED: list[dict[str, Any]] = [{"tokens": ["a", f"b{row}"], "tags": ["x", "y"]} for row in range(8)]


def changed(rows: list[dict[str, Any]], **cells: Any) -> list[dict[str, Any]]:
    """The rows with other cells in row 3."""
    return [{**row, **cells} if number == 2 else row for number, row in enumerate(rows)]


def without(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    return [{name: cell for name, cell in row.items() if name != column} for row in rows]


# The run beside its data, the rows of its table, the kind of table, and the message.
CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], str, str]] = {
    "a column that is missing": (
        {"model": ONE},
        without(ROWS, "label"),
        "csv",
        r"no field 'label'\. Its fields: text\.",
    ),
    "a missing column of tags": ({"model": TAGS}, without(TAGGED, "tags"), "jsonl", "no field 'tags'"),
    "a missing modality": ({"model": BOTH}, without(PAIRS, "b"), "csv", "no field 'b'"),
    "a fraction for a class": (
        {"model": ONE},
        changed(ROWS, label=0.5),
        "jsonl",
        "row 3.*holds 0.5; a label is",
    ),
    "fractions for classes": (
        {"model": ONE},
        [{**row, "label": f"{number}.5"} for number, row in enumerate(ROWS)],
        "csv",
        "holds 0.5; a label is a name or an integer from 0; for numbers use task: regression",
    ),
    "a word for a number": (
        {"model": ONE, "task": "regression"},
        changed([{**row, "label": "1.5"} for row in ROWS], label="much"),
        "csv",
        "row 3: column 'label' holds 'much'; for regression a label is a finite number",
    ),
    "infinity for a number": (
        {"model": ONE, "task": "regression"},
        changed([{**row, "label": "1.5"} for row in ROWS], label="inf"),
        "csv",
        "holds 'inf'; for regression",
    ),
    "more numbers than the model has": (
        {"model": {**ONE, "num_labels": 3}, "task": "regression"},
        [{**row, "label": [1.0, 2.0]} for row in ROWS],
        "jsonl",
        "has 2 numbers in a row, and the model's num_labels is 3. Set num_labels: 2",
    ),
    "rows of unlike many numbers": (
        {"model": {**ONE, "num_labels": 2}, "task": "regression"},
        changed([{**row, "label": [1.0, 2.0]} for row in ROWS], label=[1.0]),
        "jsonl",
        "holds 1 numbers, and row 1 has 2",
    ),
    "one label for a set": ({"model": SEVERAL}, ROWS, "csv", "several labels are a list, or a text that"),
    "another number of labels": (
        {"model": {**ONE, "num_labels": 4}},
        ROWS,
        "csv",
        r"has 2 different labels \(n, y\), and the model's num_labels is 4",
    ),
    "tags of another number than words": (
        {"model": TAGS},
        changed(TAGGED, tags=["x"]),
        "jsonl",
        "row 3: column 'tags' holds 1 tags for 2 words",
    ),
    "a fraction for a tag": (
        {"model": TAGS},
        changed(TAGGED, tags=["x", 0.5]),
        "jsonl",
        "row 3.*holds 0.5; a label is",
    ),
    "tags that are no list": ({"model": TAGS}, changed(TAGGED, tags="x y"), "jsonl", "needs a list of tags"),
    "a row without any modality": (
        {"model": BOTH},
        changed(PAIRS, a=""),
        "csv",
        "row 3: has none of the modalities a, b",
    ),
    "a column of no modality": (
        {"model": BOTH, "data": {"columns": {"c": "text"}}},
        PAIRS,
        "csv",
        "the model has no modality 'c'.* Its modalities: a, b",
    ),
    "a file that is not there": (
        {"model": {**BOTH, "encoders": {"a": TEXT, "b": IMAGE}}},
        changed(PAIRS, b="none.png"),
        "csv",
        "row 3: column 'b' names 'none.png', and there is no such file",
    ),
    "a task for other models": (
        {"model": ONE, "task": "token_classification"},
        TAGGED,
        "jsonl",
        "a model of type 'classifier' cannot be trained for token_classification, only for classification, regression",
    ),
    "tags by an encoder of images": (
        {"model": IMAGE, "task": "token_classification"},
        TAGGED,
        "jsonl",
        "'vision_encoder' cannot be trained for token_classification",
    ),
    "regression of several modalities": (
        {"model": {**BOTH, "problem_type": "regression"}, "task": "multimodal_classification"},
        PAIRS,
        "csv",
        "cannot be trained for multimodal_classification, for no task",
    ),
    "data of another task": (
        {"model": TAGS, "data": {"type": "labelled"}},
        ROWS,
        "csv",
        "token_classification of a token_classifier over 'encoder' reads data of type 'tagged'; got 'labelled'",
    ),
    "a vocabulary that is too small": (
        {"model": {**TAGS, "encoder": {**TEXT, "vocab_size": 100}}},
        TAGGED,
        "jsonl",
        "the tokenizer 'bytes' needs a vocab_size of at least 256; the model's is 100",
    ),
    "two lengths of texts": (
        {"model": {**BOTH, "encoders": {"a": {**TEXT, "max_length": 9}, "b": TEXT}}},
        PAIRS,
        "csv",
        "data.max_length is 512, and the model's max_length 9",
    ),
    "smoothing of numbers": (
        {"model": ONE, "task": "regression", "training": {"label_smoothing": 0.1}},
        ROWS,
        "csv",
        "label_smoothing is for classification, not regression",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_one_error_and_nothing_is_written(name: str, spectral: Callable[..., Any], tmp_path: Path) -> None:
    run, rows, kind, message = CASES[name]
    table = tmp_path / f"table.{kind}"
    with table.open("w", newline="", encoding="utf-8") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)
    config = tmp_path / "run.yaml"
    data = {"source": str(table), **run.get("data", {})}
    config.write_text(yaml.safe_dump({**run, "data": data}), encoding="utf-8")
    spectral("train", config, "--out", tmp_path / "run").refused(f"(?s){message}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.yaml", table.name]
