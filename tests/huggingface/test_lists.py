"""What transformers decides by a class's name or by a list of names is right for every class of ours."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments, modelcard
from transformers.models.auto import modeling_auto
from transformers.pipelines import Pipeline
from transformers.trainer_pt_utils import LabelSmoother
from transformers.utils.generic import find_labels

from spectral_models import build_model
from spectral_models.integrations import huggingface as hf

TASKS = {
    "causal": "text-generation",
    "masked": "fill-mask",
    "seq2seq": "text2text-generation",
    "text": "text-classification",
    "tokens": "token-classification",
    "pictures": "image-classification",
    "sound": "audio-classification",
}


@pytest.fixture(params=TASKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def derived(cls):
    """A user's subclass, whose name does not say what it is."""
    return type(cls.__name__.swapcase(), (cls,), {})


def inputs(kind) -> dict[str, torch.Tensor]:
    """With the target that collators make for a model which they are given."""
    batch = kind.batch()
    if kind.cls is hf.SpectralForSeq2SeqLM:
        batch["decoder_input_ids"] = F.pad(batch["labels"][:, :-1], (1, 0))
    return batch


@pytest.mark.parametrize("mine", [False, True])
def test_a_class_is_in_the_list_of_its_task_alone(name, kinds, mine):
    cls = derived(kinds[name].cls) if mine else kinds[name].cls
    found = [task for task, names in modelcard.TASK_MAPPING.items() if cls.__name__ in names.values()]
    assert found == [TASKS[name]]
    assert find_labels(cls) == ["labels"]
    for listed in vars(modeling_auto).values():
        assert not (isinstance(listed, dict) and "spectral" in listed), "lm_eval would take every model for that kind"


@pytest.mark.parametrize("mine", [False, True])
def test_the_loss_that_transformers_names_is_the_models(name, kinds, mine):
    kind = kinds[name]
    model = kind.model()
    if mine:
        model = derived(kind.cls)(model.config, model.model).eval()
    batch = kind.batch()
    output = model(**batch)
    if "num_labels" in kind.config:
        given = "logits" if name == "tokens" else "pooled_logits"
        found = model.loss_function(labels=batch["labels"], config=model.config, **{given: output.logits})
    else:
        found = model.loss_function(logits=output.logits, labels=batch["labels"], vocab_size=40)
    torch.testing.assert_close(found, output.loss)


@pytest.mark.parametrize("mine", [False, True])
def test_smoothed_labels_are_transformers_own(name, kinds, mine, tmp_path):
    """Shifted for the class that predicts the next token, and for no other."""
    kind = kinds[name]
    model = kind.model()
    if mine:
        model = derived(kind.cls)(model.config, model.model).eval()
    arguments = TrainingArguments(str(tmp_path), label_smoothing_factor=0.2, report_to=[], use_cpu=True)
    batch = inputs(kind)
    logits, labels = kind.logits(model), batch["labels"]
    if kind.cls is hf.SpectralForCausalLM:
        logits, labels = logits[:, :-1], labels[:, 1:]
    expected = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=0.2)
    torch.testing.assert_close(LabelSmoother(0.2)({"logits": logits}, labels), expected)
    for training in (False, True):
        found = Trainer(model.train(training), arguments).compute_loss(model, dict(batch))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_smoothed_labels_train_no_copier(trainer, tmp_path):
    """Rows that count upwards: after a token comes the next number, never the token itself."""
    torch.manual_seed(0)
    model = hf.SpectralForCausalLM.wrap(build_model({"hidden_dim": 32, "num_layers": 1, "vocab_size": 16}))
    tokens = (torch.arange(8)[:, None] + torch.arange(12)) % 16
    options = {"max_steps": 30, "per_device_train_batch_size": 8, "learning_rate": 3e-2}
    trainer(model, tmp_path, {"input_ids": tokens, "labels": tokens}, label_smoothing_factor=0.1, **options).train()
    with torch.no_grad():
        predicted = model.eval()(tokens).logits.argmax(-1)
    assert (predicted[:, :-1] == tokens[:, 1:]).float().mean() > 0.95
    assert (predicted == tokens).float().mean() < 0.05


def test_predictions_are_logits(kind, trainer, tmp_path):
    """What else an output has is for those who call the model."""
    training = trainer(kind.model(), tmp_path, kind.batch())
    predicted = torch.as_tensor(training.predict(training.eval_dataset).predictions)
    torch.testing.assert_close(predicted, kind.logits(kind.model()), rtol=1e-4, atol=1e-5)


def test_pipelines_know_the_classes(name, kinds, caplog, monkeypatch):
    """They log an error for a class that their task's list has not."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    pipe = SimpleNamespace(model=kinds[name].model(), task=TASKS[name])
    Pipeline.check_model_type(pipe, modelcard.TASK_MAPPING[TASKS[name]])
    assert not caplog.records
    Pipeline.check_model_type(pipe, modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES)
    assert f"'{kinds[name].cls.__name__}' is not supported" in caplog.text
