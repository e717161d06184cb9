"""docs/huggingface.md runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "huggingface.md"


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")  # Trainer's default, on a CPU
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21
def test_the_examples_run(tmp_path, monkeypatch):
    """All Python blocks in order, in one namespace."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    torch.manual_seed(0)
    names: dict = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), names)  # noqa: S102
    longer = names["again"].generate(
        names["prompts"]["input_ids"], names["prompts"]["attention_mask"], max_new_tokens=8
    )
    assert torch.equal(names["more"], longer)
    assert type(names["merged"]) is names["SpectralForCausalLM"]
    assert (tmp_path / "runs" / "merged" / "complete.json").exists()
