"""lm_eval takes a checkpoint as it is: a text, a choice and an answer, held against the same by our own hands."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spectral_models.data import ByteTokenizer
from spectral_models.integrations.huggingface import SpectralForCausalLM, byte_tokenizer

LIMIT, NEW = 64, 6
TASKS = {
    "local_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
""",
    "local_choice": """
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
target_delimiter: ""
metric_list: [{metric: acc}]
""",
    "local_answer": """
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "x"
generation_kwargs: {until: ["\\n"], max_gen_toks: 6}
metric_list: [{metric: exact_match}]
""",
}
ROWS = [
    {"text": "Zürich is a town", "choices": [" in", " of", "!"], "label": 0},
    {"text": "a text of more than sixty-four bytes, which is read in windows, each behind a byte of the last.",
     "choices": ["x", "yy"], "label": 1},
    {"text": "b", "choices": ["!", "?"], "label": 0},
]  # fmt: skip


def log_likelihood(model, context: list[int], continuation: list[int]) -> float:
    tokens = torch.tensor([context + continuation])
    with torch.no_grad():
        steps = model(tokens[:, :-1]).logits.double().log_softmax(-1)[0]
    return sum(steps[at - 1, tokens[0, at]].item() for at in range(len(context), tokens.shape[1]))


def test_lm_eval_finds_what_the_model_says(language_model, tmp_path):
    SpectralForCausalLM.wrap(language_model).save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (tmp_path / "tasks").mkdir()
    for name, body in TASKS.items():
        source = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        (tmp_path / "tasks" / f"{name}.yaml").write_text(f"task: {name}\n{source}test_split: test{body}")
    script = Path(__file__).with_name("evaluated.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "model"), str(tmp_path / "tasks")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    encode = ByteTokenizer().encode
    nats = size = 0.0
    for row in ROWS:
        tokens = encode(row["text"])
        size += len(tokens)
        for start in range(0, len(tokens), LIMIT):  # windows of max_length, as lm_eval cuts them
            window = tokens[start : start + LIMIT]
            before = [0] if start == 0 else tokens[: start + len(window)][-LIMIT - 1 : -len(window)]
            nats -= log_likelihood(language_model, before, window)
    bits = found["results"]["local_text"]["bits_per_byte,none"]
    assert bits == pytest.approx(nats / size / math.log(2), rel=1e-4)

    right = 0
    for row in ROWS:
        context = encode(row["text"])
        scores = [
            log_likelihood(language_model, context[-(LIMIT + 1 - len(choice)) :], choice)
            for choice in map(encode, row["choices"])
        ]
        right += scores.index(max(scores)) == row["label"]
    assert found["results"]["local_choice"]["acc,none"] == pytest.approx(right / len(ROWS))

    for row, answer in zip(ROWS, found["answers"], strict=True):
        prompt = torch.tensor([encode(row["text"])[-(LIMIT - NEW) :]])
        ours = language_model.generate(prompt, max_new_tokens=NEW, stop_tokens=[0])[0, prompt.shape[1] :]
        assert answer == [[ByteTokenizer().decode(token for token in ours.tolist() if token).split("\n")[0]]]
