"""The promises of a variant and of a task, by the framework's public checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spectral_models import load_config
from spectral_models.data.labelled import LabelledTextsConfig
from spectral_models.registries import TASKS
from spectral_models.testing import MODEL_CHECKS, TASK_CHECKS, ModelCase, TaskCase

SMALL = {"type": "dna/strand", "hidden_dim": 32, "num_layers": 1, "motif": 5}


@pytest.mark.parametrize("objective", ["classes", "counts"])
@pytest.mark.parametrize("check", MODEL_CHECKS, ids=str)
def test_the_variant(check: Any, objective: str) -> None:
    case = ModelCase(load_config(SMALL, objective=objective))
    if not check.applies(case):
        pytest.skip("not promised")
    check(case)


@pytest.mark.parametrize("check", TASK_CHECKS, ids=str)
def test_the_task(check: Any, tmp_path: Path) -> None:
    rows = [{"text": "ACGT" * (row % 5 + 1) + "G" * (row % 7), "label": row % 5} for row in range(35)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = LabelledTextsConfig(source=str(tmp_path / "rows.jsonl"), validation_fraction=0.3)
    task = TASKS.get("dna/counts").load()
    check(TaskCase(task.parse({"type": "dna/counts"}), load_config(SMALL, num_labels=1), data))
