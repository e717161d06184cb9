"""Weights that accelerate keeps on the disk or in main memory, for every class: the same logits, or one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from peft import LoraConfig, get_peft_model
from transformers.utils import logging

from spectral_core import UnsupportedInputError
from spectral_models import CheckpointError, save_checkpoint

CPU = torch.device("cpu")
GREEDY: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}


def in_memory(kind: Any, directory: Path) -> Any:
    return cpu_offload(kind.model(), execution_device=CPU)


def on_disk(kind: Any, directory: Path) -> Any:
    return disk_offload(kind.model(), str(directory / "offloaded"), execution_device=CPU)


def loaded(kind: Any, directory: Path, **options: Any) -> Any:
    kind.model().save_pretrained(directory / "saved")
    return kind.auto.from_pretrained(directory / "saved", offload_folder=directory / "offloaded", **options)


def loaded_on_disk(kind: Any, directory: Path) -> Any:
    return loaded(kind, directory, device_map={"": "disk"})


def loaded_in_parts(kind: Any, directory: Path) -> Any:
    names = [name for name, _ in kind.model().model.named_children()]
    places = {f"model.{name}": ("disk", "cpu")[index % 2] for index, name in enumerate(names)}
    return loaded(kind, directory, device_map=places)


def loaded_as_it_fits(kind: Any, directory: Path) -> Any:
    return loaded(kind, directory, device_map="auto", max_memory={"cpu": 30_000})


WAYS = [in_memory, on_disk, loaded_on_disk, loaded_in_parts, loaded_as_it_fits]
KINDS = ("causal", "masked", "text", "tokens", "pictures", "sound", "seq2seq")
OTHERS = [way for way in WAYS if way is not loaded_in_parts]
CASES = [*((name, loaded_in_parts) for name in KINDS), *(("seq2seq", way) for way in OTHERS)]


@pytest.fixture(autouse=True)
def quiet() -> None:
    """transformers logs which weights are on the meta device."""
    logging.set_verbosity_error()


@pytest.mark.parametrize(("name", "way"), CASES, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules:UserWarning")
def test_offloaded_weights_give_the_same_logits(name, way, kinds, tmp_path):
    kind = kinds[name]
    expected = kind.logits(kind.model())
    model = way(kind, tmp_path)
    assert any(parameter.is_meta for parameter in model.parameters())
    for _ in range(2):
        torch.testing.assert_close(kind.logits(model), expected)
    torch.testing.assert_close(model(**kind.batch()).loss, kind.model()(**kind.batch()).loss)
    if hasattr(model, "generate"):
        ids = kind.batch()["input_ids"]
        assert torch.equal(model.generate(ids, **GREEDY), kind.model().generate(ids, **GREEDY))
    model.save_pretrained(tmp_path / "again")
    torch.testing.assert_close(kind.logits(kind.auto.from_pretrained(tmp_path / "again")), expected)
    with pytest.raises(CheckpointError, match="holds no values here: it is offloaded"):
        save_checkpoint(model.model, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    with pytest.raises(UnsupportedInputError, match="offloaded weights get no gradients"):
        model.train()(**kind.batch())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21
def test_adapters_of_offloaded_weights_are_refused(kinds, tmp_path):
    """PEFT creates them on the meta device."""
    config = LoraConfig(r=2, target_modules=["in_proj"])
    adapted = get_peft_model(loaded_on_disk(kinds["text"], tmp_path), config).train()
    with pytest.raises(UnsupportedInputError, match="Train the model without offloading"):
        adapted(**kinds["text"].batch())


def test_weights_that_never_were_are_not_saved(kinds, tmp_path):
    model = kinds["causal"].model().to("meta")
    with pytest.raises(CheckpointError, match="holds no values here"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
