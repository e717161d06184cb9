"""Every variant and task of ours keeps the promises that third parties' are held to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spectral_models import MODELS, load_config
from spectral_models.registries import TASKS
from spectral_models.testing import MODEL_CHECKS, TASK_CHECKS, ModelCase, TaskCase, pairs

TEXT = {"type": "encoder", "hidden_dim": 32, "num_layers": 1, "vocab_size": 256}
IMAGES = {"type": "vision_encoder", "hidden_dim": 32, "num_layers": 1, "image_size": [8, 8],
          "frontend": {"type": "patches", "size": 4}}  # fmt: skip
AUDIO = {"type": "audio_encoder", "hidden_dim": 32, "num_layers": 2}
SMALL: dict[str, dict[str, Any]] = {
    "language_model": {"hidden_dim": 32, "num_layers": 1, "vocab_size": 256},
    "encoder": {**TEXT, "masked_lm": True},
    "vision_encoder": IMAGES,
    "audio_encoder": AUDIO,
    "classifier": {"encoder": TEXT, "num_labels": 3},
    "multimodal": {"hidden_dim": 32, "encoders": {"text": TEXT, "image": IMAGES},
                   "fusion": {"type": "cross_modal", "head_dim": 8}},
    "token_classifier": {"encoder": TEXT, "num_labels": 3},
    "seq2seq": {"hidden_dim": 32, "num_layers": 1, "vocab_size": 256, "encoder": TEXT,
                "fusion": {"type": "source_product", "head_dim": 8}},
}  # fmt: skip
CASES = [ModelCase(load_config({"type": name, **config})) for name, config in SMALL.items()]


def test_every_variant_is_checked() -> None:
    assert set(SMALL) == set(MODELS.names())


@pytest.mark.parametrize(("check", "case"), pairs(MODEL_CHECKS, CASES), ids=str)
def test_variants(check: Any, case: ModelCase) -> None:
    check(case)


WORDS = [f"{colour} {thing} {row}" for row in range(10) for colour in ("red", "blue") for thing in ("cat", "dog")]
ROWS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "seq2seq_lm": (SMALL["seq2seq"] | {"type": "seq2seq"}, [{"source": w, "target": w[:3]} for w in WORDS]),
    "classification": (SMALL["classifier"] | {"type": "classifier", "num_labels": 2},
                       [{"text": w, "label": w.split()[0]} for w in WORDS]),
    "token_classification": (TEXT, [{"tokens": [*w.split()[:2], str(row)], "tags": ["COLOUR", "THING", "THING"]}
                                    for row, w in enumerate(WORDS)]),
    "multimodal_classification": ({**SMALL["multimodal"], "type": "multimodal", "encoders": {"one": TEXT, "two": TEXT}},
                                  [{"one": w, "two": w[::-1] if row % 3 else None, "label": w.split()[0]}
                                   for row, w in enumerate(WORDS)]),
    "regression": (TEXT, [{"text": w, "label": len(w) / 10} for w in WORDS]),
}  # fmt: skip


@pytest.fixture(scope="module")
def task_cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskCase]:
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "text.txt").write_text("\n".join(WORDS * 4))
    for name, (_, rows) in ROWS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = {}
    for name, task in TASKS.configs().items():
        model = ROWS[name][0] if name in ROWS else {"causal_lm": SMALL["language_model"], "masked_lm": TEXT}[name]
        config = load_config(model).for_task(name)
        source: dict[str, Any] = {"source": str(folder / f"{name}.jsonl"), "validation_fraction": 0.3}
        if name not in ROWS:
            source = {"source": str(folder / "text.txt"), "context": 16, "validation_fraction": 0.3}
        kind = task.parse({"type": name}).data_kinds(config)[0]
        made[name] = TaskCase(task.parse({"type": name}), config, kind.parse(source))
    return made


@pytest.mark.parametrize("name", TASKS.names())
@pytest.mark.parametrize("check", TASK_CHECKS, ids=str)
def test_tasks(check: Any, name: str, task_cases: dict[str, TaskCase]) -> None:
    check(task_cases[name])
