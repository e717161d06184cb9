"""Evaluates the checkpoint argv[1] on the tasks in the folder argv[2] by lm_eval, and prints what it finds as JSON."""

import json
import sys

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

checkpoint, folder = sys.argv[1:]
found = simple_evaluate(
    model="hf",
    model_args={"pretrained": checkpoint, "max_length": 64, "trust_remote_code": True},
    tasks=["local_text", "local_choice", "local_answer"],
    task_manager=TaskManager(include_path=folder, include_defaults=False),
    device="cpu",
    batch_size=2,
    bootstrap_iters=0,
)
answers = [sample["resps"] for sample in found["samples"]["local_answer"]]
sys.stdout.write(json.dumps({"results": found["results"], "answers": answers}) + "\n")
