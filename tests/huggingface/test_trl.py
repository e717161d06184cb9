"""TRL's SFTTrainer and DPOTrainer, which take hidden states and multiply them by the head themselves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from spectral_core import UnsupportedInputError
from spectral_models import build_model
from spectral_models.integrations.huggingface import SpectralForCausalLM, byte_tokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft 0.21
    # Of TRL 1.16, whose trainers recompute blocks by default.
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing.*` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
]

SMALL: dict[str, Any] = {"hidden_dim": 16, "num_layers": 1, "block": "dense"}
HEADS = {"tied": {}, "tied and factorised": {"embed_dim": 8}, "of its own": {"tie_embeddings": False}}
TEXTS = Dataset.from_dict({"text": [f"a text, number {'x' * i}" for i in range(8)]})
PAIRS = Dataset.from_dict({"prompt": [f"say {i}" for i in range(8)], "chosen": [" yes"] * 8, "rejected": [" no!"] * 8})


def language_model(head: str = "tied") -> SpectralForCausalLM:
    torch.manual_seed(0)
    model = SpectralForCausalLM.wrap(build_model({**SMALL, **HEADS[head]}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def arguments(cls: Any, directory: Any, **options: Any) -> Any:
    quiet = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "bf16": False, "logging_steps": 1}
    size = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "max_length": 32}
    return cls(str(directory), **{**quiet, **size, "save_strategy": "no", **options})


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("head", HEADS)
def test_its_loss_and_gradients_are_ours(head, tmp_path):
    """Right padding, labels of some tokens only; a head that shares the embedding has the gradient of both."""
    ours, theirs = language_model(head), language_model(head)
    trainer = SFTTrainer(theirs, arguments(SFTConfig, tmp_path), train_dataset=TEXTS, processing_class=byte_tokenizer())
    batch = next(iter(trainer.get_train_dataloader()))
    batch["labels"][:, :3] = -100
    assert (batch["attention_mask"] == 0).any()
    expected = ours.train()(**batch).loss
    expected.backward()
    found = trainer.compute_loss(theirs.train(), dict(batch))
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert len(theirs.state_dict()) == len(ours.state_dict()), "its base is no submodule"


@pytest.mark.parametrize("options", [{}, {"peft_config": LoraConfig(r=2, target_modules="all-linear")}])
def test_it_fine_tunes_and_saves(options, tmp_path):
    model = language_model("of its own")
    head = model.model.head.weight.detach().clone()
    run = arguments(SFTConfig, tmp_path, packing=not options, packing_strategy="wrapped", max_length=24)
    trainer = SFTTrainer(model, run, train_dataset=TEXTS, processing_class=byte_tokenizer(), **options)
    found = losses(trainer)
    assert found[-1] < found[0]
    assert torch.equal(model.model.head.weight, head) is bool(options), (
        "LoRA of all linear layers leaves the head alone"
    )
    trainer.save_model(str(tmp_path / "saved"))
    if not options:
        again = SpectralForCausalLM.from_pretrained(tmp_path / "saved")
        assert all(torch.equal(x, y) for x, y in zip(again.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("options", [{"packing": True}, {"padding_free": True, "max_length": None}])
def test_packed_batches_are_refused(options, tmp_path):
    model = language_model()
    before = copy.deepcopy(model.state_dict())
    run = arguments(SFTConfig, tmp_path, **options)
    trainer = SFTTrainer(model, run, train_dataset=TEXTS, processing_class=byte_tokenizer())
    with pytest.raises(UnsupportedInputError, match=r"position_ids.*several documents in a row.* Use packing=False"):
        trainer.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("way", ["a model", "its path", "LoRA"])
def test_preferences_are_learned(way, tmp_path):
    """The reference is a second model, the checkpoint that the model came from, or the model without its adapter."""
    model, options = language_model(), {}
    if way == "a model":
        options["ref_model"] = language_model()
    elif way == "its path":
        model.save_pretrained(tmp_path / "first")
        model = SpectralForCausalLM.from_pretrained(tmp_path / "first")
    else:
        options["peft_config"] = LoraConfig(r=4, target_modules=["in_proj", "out_proj", "up", "down"])
    run = arguments(DPOConfig, tmp_path, learning_rate=3e-2 if options.get("peft_config") else 1e-2)
    found = losses(DPOTrainer(model, args=run, train_dataset=PAIRS, processing_class=byte_tokenizer(), **options))
    assert found[0] == pytest.approx(0.6931, abs=1e-3), "at first the model is its reference"
    assert found[-1] < found[0] - 0.01
