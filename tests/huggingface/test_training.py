"""Trainer, auxiliary losses, recomputation and LoRA, on every class."""

from __future__ import annotations

import re

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional as F

from spectral_core import ConfigError, UnsupportedInputError
from spectral_models import build_model, load_checkpoint
from spectral_models.integrations.huggingface import SpectralForCausalLM

IMPLICIT = {"mixer": {"type": "gated_convolution", "filter": "implicit"}}
# Of peft 0.21 under transformers 5.23.
UPSTREAM = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def entropy(logits: torch.Tensor, labels: torch.Tensor, *, shifted: bool) -> float:
    if shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten()).item()


def test_trainer_trains_evaluates_saves_and_resumes(kind, trainer, tmp_path):
    model, batch = kind.model(), kind.batch(8)
    training = trainer(model, tmp_path / "run", batch, save_strategy="steps", save_steps=5)
    before = training.evaluate()["eval_loss"]
    training.train()
    losses = [row["loss"] for row in training.state.log_history if "loss" in row]
    after = training.evaluate()
    assert len(losses) == 6
    assert after["eval_loss"] < before
    predicted = training.predict(training.eval_dataset).predictions
    logits = torch.as_tensor(predicted[0] if isinstance(predicted, tuple) else predicted)
    assert after["eval_loss"] == pytest.approx(
        entropy(logits, batch["labels"], shifted=kind.cls is SpectralForCausalLM), rel=1e-4
    )
    saved = load_checkpoint(tmp_path / "run" / "checkpoint-6")
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, model.model.state_dict()[name]), name
    torch.manual_seed(7)
    resumed = kind.cls.wrap(build_model(kind.config))  # other random weights, as a new process begins with
    trainer(resumed, tmp_path / "again", batch).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5"))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_auxiliary_losses_are_in_training_only(kind):
    model, batch = kind.model(), kind.batch()
    shifted = kind.cls is SpectralForCausalLM
    output = model(**batch)
    assert output.losses
    assert output.loss.item() == pytest.approx(entropy(output.logits, batch["labels"], shifted=shifted), rel=1e-5)
    output = model.train()(**batch)
    expected = entropy(output.logits, batch["labels"], shifted=shifted) + sum(output.losses.values()).item()
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["causal", "masked"])
def test_a_step_is_the_same_however_it_is_divided(name, kinds, trainer, tmp_path):
    """Rows with few labels weigh less: the loss is the mean over a step's labels, not over its batches."""
    kind = kinds[name]
    batch = kind.batch(8)
    batch["labels"] = batch["labels"].masked_fill(torch.arange(12) < 1 + torch.arange(8)[:, None], -100)
    weights = []
    for size, parts in ((8, 1), (2, 4)):
        model = kind.model()
        for layer in model.model.blocks:
            part = layer.feedforward  # its losses are means over a batch
            part.config = part.config.model_copy(update={"balance_weight": 0.0, "z_weight": 0.0})
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts, "learning_rate": 0.1}
        trainer(
            model, tmp_path, batch, max_steps=2, optim="sgd", train_sampling_strategy="sequential", **options
        ).train()
        weights.append(model.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_recomputing_blocks_changes_no_gradient(kind):
    gradients = []
    for again in (False, True):
        model = kind.model().train()
        if again:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        model(**kind.batch()).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@UPSTREAM
def test_lora_trains_merges_and_is_saved(kind, trainer, tmp_path):
    """On the projections of mixers and feed-forwards, by their names; all else stays as it was."""
    base, batch = kind.model(), kind.batch()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    config = LoraConfig(r=4, target_modules=["in_proj", "out_proj"], init_lora_weights=False)
    torch.manual_seed(1)
    adapted = get_peft_model(base, config)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    training = trainer(adapted, tmp_path, batch, learning_rate=2e-2, max_steps=12)
    start = training.evaluate()["eval_loss"]
    training.train()
    assert training.evaluate()["eval_loss"] < start
    expected = kind.logits(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(kind.model(), tmp_path / "adapter").eval()
    torch.testing.assert_close(kind.logits(again), expected)
    merged = adapted.merge_and_unload()
    assert type(merged) is kind.cls
    changed = {key for key, tensor in merged.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {key for key in before if re.search(r"(in|out)_proj\.weight$", key)}
    merged.save_pretrained(tmp_path / "merged")
    found = kind.logits(load_checkpoint(tmp_path / "merged"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@UPSTREAM
def test_lora_goes_on_generating(language_model):
    """Through the wrapper that PEFT has for language models."""
    config = LoraConfig(r=2, target_modules="all-linear", task_type=peft.TaskType.CAUSAL_LM, init_lora_weights=False)
    adapted = get_peft_model(SpectralForCausalLM.wrap(language_model), config).eval()
    prompt = torch.arange(1, 6)[None]
    found = adapted.generate(input_ids=prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
    merged = adapted.merge_and_unload()
    assert torch.equal(found, merged.model.generate(prompt, max_new_tokens=8))


@UPSTREAM
def test_an_adapter_on_all_linear_layers_can_be_switched_off():
    """Nothing that evaluation keeps was made with it: without the adapter the model is the one it was."""
    model = build_model({"vocab_size": 16, "hidden_dim": 16, "num_layers": 1, "block": IMPLICIT}).eval()
    ids = torch.arange(16)[None]
    with torch.no_grad():
        before = model(ids).logits
        config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        adapted = get_peft_model(SpectralForCausalLM.wrap(model), config).eval()
        assert not torch.equal(adapted(input_ids=ids).logits, before)
        with adapted.disable_adapter():
            assert torch.equal(adapted(input_ids=ids).logits, before)


def test_what_these_models_have_not_is_refused(text, language_model):
    model = SpectralForCausalLM.wrap(language_model)
    with pytest.raises(UnsupportedInputError, match="output_attentions: these models neither take nor give it"):
        model(torch.tensor([[1]]), output_attentions=True)
    model = text.model()
    model.config.problem_type = "multi_label_classification"
    with pytest.raises(ConfigError, match=r"problem_type was set to 'multi_label_classification' in"):
        model(**text.batch())


@pytest.mark.parametrize("training", [True, False])
def test_labels_out_of_range_are_refused(kind, training):
    """Of seq2seq already as what its decoder is fed."""
    batch = kind.batch()
    batch["labels"] = batch["labels"] + 50
    with pytest.raises(
        UnsupportedInputError, match=r"^(labels|token ids) run from 0 to .* a larger (num_labels|vocab_)"
    ):
        kind.model().train(training)(**batch)


def test_a_tuple_is_given_where_it_is_asked_for(kind):
    model, batch = kind.model(), kind.batch()
    loss, logits, *_ = model(**batch, return_dict=False)
    output = model(**batch)
    assert torch.equal(loss, output.loss)
    assert torch.equal(logits, output.logits)
