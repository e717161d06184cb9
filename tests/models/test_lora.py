"""Training low-rank adapters of a checkpoint: what moves, what is merged, what is kept, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from spectral_core import ConfigError
from spectral_models import build_model, load_checkpoint, save_checkpoint
from spectral_models.adapters import load_adapter
from spectral_models.errors import CheckpointError
from spectral_models.integrations.huggingface import SpectralForCausalLM
from spectral_models.training import load_run
from spectral_models.training.result import TrainingResult
from spectral_models.training.run import train

LM = {"type": "language_model", "hidden_dim": 32, "num_layers": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A base checkpoint, another of the same shapes, a text and a table."""
    path = tmp_path_factory.mktemp("lora")
    for name, seed in (("base", 1), ("other", 2)):
        torch.manual_seed(seed)
        save_checkpoint(build_model(LM), path / name)
    (path / "text.txt").write_text("".join(f"line {i}: a quick fox {i * i % 97}\n" for i in range(300)))
    rows = [f"{'good' if i % 2 else 'bad'} text {i},{'pos' if i % 2 else 'neg'}" for i in range(40)]
    (path / "table.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path


def tuned(folder: Path, out: Path, lora: dict[str, Any], resume: bool = False, **training: Any) -> TrainingResult:
    steps = {"steps": 6, "batch_size": 2, "save_every": 3, "eval_every": 6, "learning_rate": 1e-2, **training}
    data = {"source": str(folder / "text.txt"), "context": 32, "validation_bytes": 500}
    run = {"data": data, "training": {**steps, "lora": lora}, "init_from": str(folder / "base")}
    return train(load_run(run), out, resume=resume)


@pytest.fixture(scope="module")
def kept(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "kept"
    tuned(folder, out, {"rank": 4, "targets": ["*.feedforward.*"], "keep": True})
    return out


def test_only_the_targets_move_and_by_a_low_rank(folder, kept):
    before, after = load_checkpoint(folder / "base").state_dict(), load_checkpoint(kept).state_dict()
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if ".feedforward." in name and name.endswith("weight")}
    for name in moved:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 4


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21
def test_a_kept_adapter_gives_the_merged_model_by_our_loader_and_by_peft(folder, kept):
    merged = load_checkpoint(kept)
    tokens = torch.randint(256, (2, 20), generator=torch.Generator().manual_seed(0))
    wanted = merged(tokens).logits
    torch.testing.assert_close(load_adapter(kept / "adapter")(tokens).logits, wanted, rtol=1e-4, atol=1e-4)
    base = SpectralForCausalLM.from_pretrained(folder / "base")
    adapted = PeftModel.from_pretrained(base, kept / "adapter").eval()
    torch.testing.assert_close(adapted(tokens).logits, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(load_checkpoint(folder / "base")(tokens).logits, wanted, rtol=1e-2, atol=1e-2)


def test_an_adapter_of_other_weights_or_of_another_model_is_one_error(folder, kept, tmp_path):
    with pytest.raises(CheckpointError, match="trained on other weights"):
        load_adapter(kept / "adapter", base=folder / "other")
    save_checkpoint(build_model({**LM, "hidden_dim": 64}), tmp_path / "wider")
    with pytest.raises(CheckpointError, match=r"of another model .* 0 of its 4 layers fit"):
        load_adapter(kept / "adapter", base=tmp_path / "wider")
    with pytest.raises(CheckpointError, match="holds an adapter"):
        load_checkpoint(kept / "adapter")
    with pytest.raises(CheckpointError, match="there is no adapter"):
        load_adapter(kept / "model")


@pytest.mark.parametrize("option", ["use_rslora", "use_dora"])
def test_an_adapter_with_another_formula_is_refused(kept, tmp_path, option):
    shutil.copytree(kept / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), option: True}))
    with pytest.raises(CheckpointError, match=option):
        load_adapter(tmp_path / "adapter")


def test_a_resumed_run_of_adapters_ends_as_one_that_was_never_interrupted(folder, kept, tmp_path):
    lora = {"rank": 4, "targets": ["*.feedforward.*"], "keep": True}
    out = tmp_path / "run"
    tuned(folder, out, lora)
    for directory in ("model", "adapter", "checkpoints/checkpoint-6"):
        for file in (out / directory).iterdir():
            file.unlink()
        (out / directory).rmdir()
    tuned(folder, out, lora, resume=True)
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        whole, resumed = load_file(kept / name), load_file(out / name)
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole), name
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["r"] == 4


def test_a_head_that_begins_new_is_trained_beside_the_adapters(folder, tmp_path):
    run = load_run(
        {
            "task": "classification",
            "data": {"source": str(folder / "table.csv"), "max_length": 24},
            "training": {"steps": 3, "batch_size": 4, "lora": {"rank": 2}, "ema": 0.5},
            "init_from": str(folder / "base"),
        }
    )
    model = train(run, tmp_path / "run").model
    assert model.get_parameter("head.bias").abs().sum() > 0
    base = load_checkpoint(folder / "base").state_dict()
    embedding = "frontend.embedding.weight"
    assert torch.equal(model.get_submodule("encoder").state_dict()[embedding], base[embedding])
    assert load_checkpoint(tmp_path / "run").state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("lora", "changes", "message"),
    [
        ({"targets": ["nothing.*"]}, {}, r"matches no linear layer: blocks\.0"),
        ({"rank": 0}, {}, "rank"),
        ({}, {"init_from": None, "model": LM}, "name the checkpoint"),
        ({}, {"training.optimizer": "muon"}, "use adamw"),
        ({"keep": True}, {"task": "classification", "data": {"source": "TABLE", "max_length": 24}}, "begin new"),
    ],
)
def test_what_cannot_be_adapted_is_one_error_and_leaves_nothing(folder, tmp_path, lora, changes, message):
    run = {
        "data": {"source": str(folder / "text.txt"), "context": 32, "validation_bytes": 500},
        "training": {"steps": 2, "batch_size": 2, "lora": lora},
        "init_from": str(folder / "base"),
    }
    if "data" in changes:
        changes = {**changes, "data": {**changes["data"], "source": str(folder / "table.csv")}}
    with pytest.raises(ConfigError, match=message):
        train(
            load_run(
                {**run, **{k: v for k, v in changes.items() if "." not in k}},
                {k: v for k, v in changes.items() if "." in k},
            ),
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()
