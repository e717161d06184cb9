"""Training begins from a checkpoint: what is taken, what begins new, what is refused, and that nothing is silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spectral_core import ConfigError
from spectral_models import build_model, load_checkpoint, load_config, save_checkpoint
from spectral_models.checkpoint import read_checkpoint
from spectral_models.data import DataConfig
from spectral_models.data.subwords import learn_bpe
from spectral_models.errors import CheckpointError, DataError
from spectral_models.model import SpectralModel
from spectral_models.quantization import quantize
from spectral_models.training import load_run
from spectral_models.training.lora import LoraConfig, add_adapters
from spectral_models.training.run import train
from spectral_models.transfer import check_tokenizer, completed, first_tokenizer, transfer_weights
from spectral_models.variants.language_model import LanguageModel, LanguageModelConfig

SIZE = {"hidden_dim": 32, "num_layers": 2}
LM = {"type": "language_model", **SIZE}
ENCODER = {"type": "encoder", **SIZE}


def filled(config: dict[str, Any], seed: int = 1) -> SpectralModel:
    """A model of which no weight has the value it begins with."""
    torch.manual_seed(seed)
    model = build_model(config)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.02)
    return model.eval()


def saved(config: dict[str, Any], path: Path) -> tuple[SpectralModel, Path]:
    model = filled(config)
    return model, save_checkpoint(model, path / "source")


def labelled(encoder: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"type": "classifier", "encoder": encoder, **options}


@pytest.mark.parametrize(
    ("source", "target", "body"),
    [
        pytest.param(LM, labelled({**ENCODER, "causal": True}), "encoder.", id="language model to classifier"),
        pytest.param(
            {**LM, "tie_embeddings": False},
            labelled({**ENCODER, "causal": True}),
            "encoder.",
            id="untied to classifier",
        ),
        pytest.param({**ENCODER, "masked_lm": True}, labelled(ENCODER), "encoder.", id="masked to classifier"),
        pytest.param(
            {**ENCODER, "masked_lm": True},
            labelled(ENCODER, num_labels=1, problem_type="regression"),
            "encoder.",
            id="masked to regressor",
        ),
        pytest.param(
            {**ENCODER, "masked_lm": True},
            {"type": "token_classifier", "encoder": ENCODER},
            "encoder.",
            id="masked to tagger",
        ),
        pytest.param(
            ENCODER, labelled({**ENCODER, "pooling": "cls"}), "encoder.", id="to a classifier with another pooling"
        ),
    ],
)
def test_a_body_is_taken_whole_and_all_else_begins_new(tmp_path, source, target, body):
    before, path = saved(source, tmp_path)
    model = filled(target, seed=2)
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    transfer = transfer_weights(model, path)
    weights = before.state_dict()
    for name, tensor in model.state_dict().items():
        fresh = name.removeprefix(body).partition(".")[0] in ("head", "cls")
        assert torch.equal(tensor, initial[name] if fresh else weights[name.removeprefix(body)]), name
        assert (name in transfer.new) == fresh
    assert set(transfer.left) == {name for name in weights if name.startswith("head")}


def test_features_are_the_checkpoints_and_causal(tmp_path):
    before, path = saved(LM, tmp_path)
    model = filled(completed({"type": "classifier"}, before.config, None), seed=2)
    transfer_weights(model, path)
    encoder: Any = model.get_submodule("encoder")
    tokens = torch.randint(256, (2, 24), generator=torch.Generator().manual_seed(0))
    found = encoder(tokens)
    head: Any = before
    assert torch.equal(encoder.frontend.logits(found.hidden), head(tokens).logits)
    assert torch.equal(found.pooled, found.hidden[:, -1])
    other = tokens.clone()
    other[:, 17:] = 0
    torch.testing.assert_close(encoder(other).hidden[:, :17], found.hidden[:, :17], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", [LM, {**LM, "tie_embeddings": False}, {**ENCODER, "masked_lm": True}])
def test_a_vocabulary_that_grew_keeps_its_rows(tmp_path, variant):
    before, path = saved(variant, tmp_path)
    model = filled({**variant, "vocab_size": 300}, seed=2)
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    transfer = transfer_weights(model, path)
    assert "frontend.embedding.weight" in transfer.grown
    assert not transfer.new
    for name in before.state_dict():
        tensor, now, begun = (
            torch.atleast_1d(each[name]) for each in (before.state_dict(), model.state_dict(), initial)
        )
        assert torch.equal(now[: len(tensor)], tensor), name
        assert torch.equal(now[len(tensor) :], begun[len(tensor) :]), name


def test_a_head_of_the_same_labels_is_taken_and_of_others_begins_new(tmp_path):
    _, path = saved(labelled(ENCODER, labels=("bad", "good")), tmp_path)
    same = filled(labelled(ENCODER, labels=("bad", "good")), seed=2)
    assert not transfer_weights(same, path).new
    others = filled(labelled(ENCODER, labels=("cat", "dog")), seed=2)
    assert transfer_weights(others, path).new == ("head.weight", "head.bias")


REFUSED = {
    "another variant": ({"type": "vision_encoder", **SIZE}, "fit"),
    "another width": ({**LM, "hidden_dim": 64}, "no weight .* hidden_dim: 32 -> 64"),
    "more layers": ({**LM, "num_layers": 3}, "tensors .* fit .* missing .* num_layers: 2 -> 3"),
    "fewer layers": ({**LM, "num_layers": 1}, "tensors .* fit .* unknown .* num_layers: 2 -> 1"),
    "fewer tokens": ({**LM, "vocab_size": 200}, "of another shape .* may only grow"),
    "other blocks": ({**LM, "block": {"mixer": {"type": "gated_convolution", "filter": "implicit"}}}, "fit"),
    "both ways": (labelled(ENCODER | {"block": "dense"}), "fit|causal"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_that_does_not_fit_is_an_error_and_changes_nothing(tmp_path, case):
    config, message = REFUSED[case]
    _, path = saved(LM, tmp_path)
    model = filled(config, seed=2)
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"does not fit: .*({message})"):
        transfer_weights(model, path)
    assert all(torch.equal(tensor, initial[name]) for name, tensor in model.state_dict().items())
    assert model.origin is None


def test_a_causal_body_is_no_bidirectional_one(tmp_path):
    block = {"mixer": {"type": "gated_convolution"}}
    _, path = saved({**LM, "block": block}, tmp_path)
    model = filled({**ENCODER, "position": "none", "block": block}, seed=2)
    with pytest.raises(CheckpointError, match="is causal, the model's encoder is not"):
        transfer_weights(model, path)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"masked_lm": True}, "both sides"), ({"pooling": "cls"}, "in front"), ({"block": "dense_both"}, "block")],
)
def test_a_causal_encoder_refuses_what_needs_the_whole_row(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config({**ENCODER, "causal": True, **options})


def test_the_checkpoint_says_what_the_config_leaves_out(tmp_path):
    model, _ = saved({**LM, "embed_scale": 2.0}, tmp_path)
    data = completed({"type": "classifier", "dropout": 0.25, "encoder": {"pooling": "mean"}}, model.config, None)
    config: Any = load_config(data)
    assert (config.dropout, config.encoder.pooling, config.encoder.embed_scale) == (0.25, "mean", 2.0)
    assert config.encoder.causal
    assert config.encoder.blocks == model.config.blocks
    assert completed(None, model.config, None)["type"] == "language_model"
    assert completed(None, model.config, "token_classification")["type"] == "token_classifier"
    assert completed("tiny", model.config, None) == "tiny"
    other = completed({"layers": ["dense"]}, model.config, None)
    assert (other["block"], other["layers"]) == (None, ["dense"])


def test_a_bidirectional_language_model_of_labels_is_no_language_model(tmp_path):
    encoder, _ = saved(labelled(ENCODER, num_labels=5), tmp_path)
    assert completed(None, encoder.config, None)["num_labels"] == 5
    assert "num_labels" not in completed(None, encoder.config, "token_classification")
    assert completed(None, encoder.config, "masked_lm")["masked_lm"] is True


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "table.csv"
    rows = [f"{'good' if i % 2 else 'bad'} text {i},{'pos' if i % 2 else 'neg'}" for i in range(40)]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path


def fine_tuned(table: Path, out: Path, source: Path, **changes: Any) -> Any:
    data = {"source": str(table), "max_length": 24}
    training = {"steps": 4, "batch_size": 4, "save_every": 2, "eval_every": 4, "warmup": 0.0, "learning_rate": 1e-9}
    run = load_run({"task": "classification", "data": data, "training": training, "init_from": str(source)}, changes)
    return train(run, out)


def test_a_run_begins_from_a_checkpoint_says_so_and_records_it(tmp_path, table, capsys):
    before, path = saved(LM, tmp_path)
    result = fine_tuned(table, tmp_path / "run", path)
    assert "tensors taken" in (printed := capsys.readouterr().err)
    assert "2 begin new: head.weight, head.bias" in printed
    model = load_checkpoint(tmp_path / "run")
    weights = before.state_dict()
    for name, tensor in model.get_submodule("encoder").state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-5, atol=1e-6)
    assert model.origin == result.model.origin
    assert model.origin is not None
    assert model.origin["checkpoint"] == str(path)
    assert model.origin["new"] == ["head.weight", "head.bias"]
    save_checkpoint(model, tmp_path / "again")
    assert load_checkpoint(tmp_path / "again").origin == model.origin


def test_a_resumed_run_needs_its_source_no_more_and_remembers_it(tmp_path, table):
    _, path = saved(LM, tmp_path)
    whole = fine_tuned(table, tmp_path / "whole", path)
    data = {"source": str(table), "max_length": 24}
    run = load_run(tmp_path / "whole" / "run.yaml")
    assert run.init_from == str(path)
    for name in ("model", "checkpoints/checkpoint-4"):
        for file in (tmp_path / "whole" / name).iterdir():
            file.unlink()
        (tmp_path / "whole" / name).rmdir()
    assert data["source"] == run.data.source
    again = train(run, tmp_path / "whole", resume=True)
    assert again.model.origin == whole.model.origin
    for (name, tensor), other in zip(whole.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model.encoder.hidden_dim": 64}, CheckpointError, "does not fit"),
        (
            {"data.tokenizer": {"type": "file", "path": "TOKENIZER"}, "model.encoder.vocab_size": 300},
            DataError,
            "tokens",
        ),
        ({"init_from": "nowhere"}, CheckpointError, "no checkpoint"),
    ],
)
def test_what_cannot_begin_leaves_no_directory(tmp_path, table, changes, error, message):
    _, path = saved(LM, tmp_path)
    if "data.tokenizer" in changes:
        for name, content in learn_bpe(["good bad text"], 300).files().items():
            (tmp_path / name).write_text(content, encoding="utf-8")
        changes = {**changes, "data.tokenizer": {"type": "file", "path": str(tmp_path)}}
    with pytest.raises(error, match=message):
        fine_tuned(table, tmp_path / "run", path, **changes)
    assert not (tmp_path / "run").exists()


def test_a_learned_tokenizer_is_the_checkpoints(tmp_path, table):
    tokenizer = learn_bpe(["good bad text"] * 3, 280)
    model = filled({**LM, "vocab_size": 280})
    path = save_checkpoint(model, tmp_path / "source", tokenizer=tokenizer)
    result = fine_tuned(table, tmp_path / "run", path, **{"data.tokenizer": "bpe"})
    assert result.task.tokenizer.spellings() == tokenizer.spellings()
    with pytest.raises(DataError, match="differ"):
        check_tokenizer(learn_bpe(["other words"], 280), path)


def test_int8_weights_are_refused(tmp_path):
    model = filled(LM)
    quantize(model)
    save_checkpoint(model, tmp_path / "int8")
    with pytest.raises(CheckpointError, match="cannot be trained"):
        read_checkpoint(tmp_path / "int8")


class HeaderedConfig(LanguageModelConfig):
    """A language model with a weight whose name begins as a head's does, and is none."""

    def build(self) -> LanguageModel:
        model = super().build()
        model.header = nn.Linear(self.hidden_dim, self.hidden_dim)
        return model


def test_a_weight_whose_name_only_begins_as_a_head_is_of_the_body(tmp_path):
    _, path = saved(LM, tmp_path)
    model = HeaderedConfig.model_validate(LM).build()
    with pytest.raises(CheckpointError, match=r"2 missing \(header\.weight"):
        transfer_weights(model, path)


def test_a_checkpoint_that_reads_no_tokens_says_nothing_of_the_tokenizer(tmp_path):
    images = {"type": "vision_encoder", **SIZE, "frontend": {"type": "patches", "size": 4, "channels": 1}}
    _, path = saved(images, tmp_path)
    assert first_tokenizer(DataConfig(tokenizer="bpe"), path) is None
    check_tokenizer(learn_bpe(["any words"], 280), path)


def test_rows_that_begin_new_are_recorded_so_that_adapters_train_them(tmp_path):
    _, path = saved(LM, tmp_path)
    model = filled({**LM, "vocab_size": 300}, seed=2)
    transfer_weights(model, path)
    assert model.origin is not None
    assert model.origin["new"] == ["frontend.embedding.weight"]
    add_adapters(model, LoraConfig(), model.origin["new"])
    assert model.get_parameter("frontend.embedding.weight").requires_grad
