"""Two processes share a step's batch and give the numbers of one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import torch
import yaml

from spectral_models import load_checkpoint
from spectral_models.training import load_run
from spectral_models.training.run import train

RUN = {
    "model": {
        "hidden_dim": 32,
        "num_layers": 2,
        "layers": [
            {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}}, "feedforward": "mlp"},
            {"mixer": {"type": "holographic", "phases": 8}, "feedforward": "mlp"},
        ],
    },
    # 23 windows to be judged on, the last one short: an odd number, so that the processes' shares differ.
    "data": {"context": 64, "validation_bytes": 22 * 64 + 11},
    "training": {
        "steps": 6,
        "batch_size": 8,
        "accumulation": 2,
        "eval_every": 3,
        "save_every": 3,
        "log_every": 1,
    },
}


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo")
def test_two_processes_give_the_losses_weights_and_bits_of_one(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {i}: the quick brown fox {i * i % 97}\n" for i in range(1200)), encoding="utf-8")
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({**RUN, "data": {**RUN["data"], "source": str(text)}}), encoding="utf-8")

    launched = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "spectral_models.cli.app", "train", str(file), "--out", str(tmp_path / "two")),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count("held-out bits per byte") == 1, "one process reports"
    assert launched.stderr.count("step 6/6  loss") == 1

    one = train(load_run(file), tmp_path / "one")

    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text(encoding="utf-8"))
    for name in ("loss", "eval_bits_per_byte"):
        alone = [(row["step"], row[name]) for row in one.history if name in row]
        together = [(row["step"], row[name]) for row in metrics["history"] if name in row]
        assert [step for step, _ in together] == [step for step, _ in alone]
        assert [value for _, value in together] == pytest.approx([value for _, value in alone], abs=1e-5), name
    assert metrics["bits_per_byte"] == pytest.approx(one.bits_per_byte, abs=1e-5)
    assert math.isfinite(metrics["bits_per_byte"])

    weights = load_checkpoint(tmp_path / "two").state_dict()
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5, msg=name)
    kept = {path.name for path in (tmp_path / "two" / "checkpoints" / "checkpoint-6").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth", "training-complete.json"} <= kept
    marked = json.loads((tmp_path / "two" / "checkpoints" / "checkpoint-6" / "training-complete.json").read_text())
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= marked.keys(), "the marker was written after both"
