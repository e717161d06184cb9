"""A class belongs to a task: it holds any variant that declares the task, and labels are what the model says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, pipeline

from spectral_core import ConfigError, UnsupportedInputError, hookimpl
from spectral_core.plugins import HOST
from spectral_core.trees import tree
from spectral_layers import Report
from spectral_models import ModelConfig, build_model, load_checkpoint, save_checkpoint
from spectral_models.data import ByteTokenizer
from spectral_models.inputs import TokenInput
from spectral_models.integrations import huggingface as hf
from spectral_models.labels import LabelSet
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel
from spectral_models.tasks.config import TaskConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*standin:UserWarning")


@tree
@dataclass
class Read(Report):
    logits: Tensor


class Table(SpectralModel):
    """Logits of each token, by the token alone: of labels, or of the next token. It keeps no state."""

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(256, config.label_set.size if config.label_set else 256)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Read:
        return Read(self.table(input_ids))

    def loss(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None, **options: Any) -> StepLoss:
        return StepLoss.of_logits(self(input_ids).logits, labels, {}, {}, **options)

    def input_specs(self) -> tuple[TokenInput, ...]:
        return (TokenInput("input_ids", masked=True, vocab_size=256),)

    def outputs(self) -> tuple[str, ...]:
        return ("logits",)


class TableConfig(ModelConfig):
    def build(self) -> Table:
        return Table(self)


class TaggerConfig(TableConfig):
    """Labels of tokens."""

    type: Literal["standin/tagger"] = "standin/tagger"
    kinds: tuple[str, ...] = ("vowel", "other", "space")

    @property
    def label_set(self) -> LabelSet:
        return LabelSet(len(self.kinds), self.kinds)

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("standin/tags",)


class Weighed(Table):
    """Its loss counts the first label ten times, and hands on no logits."""

    def loss(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None, **options: Any) -> StepLoss:
        logits = self(input_ids).logits.flatten(0, 1)
        nats = F.cross_entropy(logits, labels.flatten(), torch.tensor([10.0, 1.0, 1.0]), reduction="sum")
        return StepLoss.of(nats, (labels != -100).sum(), {"more": nats.new_ones(())}, {}, **options)


class WeighedConfig(TaggerConfig):
    """Labels of tokens, by a loss of its own."""

    type: Literal["standin/weighed"] = "standin/weighed"

    def build(self) -> Weighed:
        return Weighed(self)


class BigramConfig(TableConfig):
    """Next tokens."""

    decoder: ClassVar[bool] = True

    type: Literal["standin/bigram"] = "standin/bigram"
    vocab_size: int = 256

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("causal_lm",)


class LonelyConfig(TaggerConfig):
    """Labels for a task that has no class."""

    type: Literal["standin/lonely"] = "standin/lonely"

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("standin/alone",)


class TagsConfig(TaskConfig):
    """Labels of tokens."""

    type: Literal["standin/tags"] = "standin/tags"

    def architecture(self, model: ModelConfig) -> str:
        return "SpectralForTokenClassification"


class AloneConfig(TaskConfig):
    """Without a class."""

    type: Literal["standin/alone"] = "standin/alone"


class Plugin:
    SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_models(self, register: Any) -> None:
        for config in (TaggerConfig, WeighedConfig, BigramConfig, LonelyConfig):
            register("model", config.model_fields["type"].default, config, summary="A stand-in.")
        for task in (TagsConfig, AloneConfig):
            register("task", task.model_fields["type"].default, task, summary="A stand-in.")


@pytest.fixture
def standin() -> Iterator[None]:
    HOST.register(Plugin(), namespace="standin")
    yield
    HOST.unregister("standin")


@pytest.fixture
def tagger(standin: None) -> Any:
    return hf.SpectralForTokenClassification.wrap(build_model({"type": "standin/tagger"}))


def test_tokens_get_labels(tagger, trainer, tmp_path):
    """By the class of a task that a plugin has, through Trainer, the Auto class and a pipeline."""
    ids = torch.tensor([list(b"a bee is")] * 4)
    labels = torch.where(ids == 32, 2, torch.where(torch.isin(ids, torch.tensor(list(b"aei"))), 0, 1))
    labels[:, -1] = -100
    output = tagger.eval()(ids, labels=labels)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits.flatten(0, 1), labels.flatten()))
    torch.testing.assert_close(
        tagger.loss_function(logits=output.logits, labels=labels, config=tagger.config), output.loss
    )
    halves = [tagger(ids[i : i + 2], labels=labels[i : i + 2], num_items_in_batch=28).loss for i in (0, 2)]
    torch.testing.assert_close(sum(halves), output.loss)
    batch = {"input_ids": ids, "labels": labels}
    trainer(tagger, tmp_path, batch, max_steps=60, learning_rate=0.1).train()
    tagger.save_pretrained(tmp_path / "saved")
    again = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved")
    assert again.config.id2label == {0: "vowel", 1: "other", 2: "space"}
    pipe = pipeline("token-classification", model=again, tokenizer=hf.byte_tokenizer(), ignore_labels=["other"])
    assert [(found["entity"], found["start"]) for found in pipe("be i")] == [("vowel", 1), ("space", 2), ("vowel", 3)]


def test_a_pipeline_labels_the_tokens_of_a_token_classifier(kinds, tmp_path):
    config = kinds["tokens"].config
    encoder = {**config["encoder"], "vocab_size": 256}
    torch.manual_seed(0)
    model = build_model({**config, "encoder": encoder, "labels": ["one", "two", "three"]})
    save_checkpoint(model, tmp_path / "saved", tokenizer=ByteTokenizer())
    with torch.no_grad():
        expected = model.eval()(torch.tensor([list(b"a text")])).logits[0].argmax(-1).tolist()
    found = pipeline("token-classification", model=str(tmp_path / "saved"), ignore_labels=[])("a text")
    assert [one["entity"] for one in found] == [("one", "two", "three")[label] for label in expected]


def test_a_loss_of_the_models_own_is_the_one_that_is_trained(standin, trainer, tmp_path):
    """With its auxiliary losses in training alone; predictions have logits, whether or not the loss hands them on."""
    model = hf.SpectralForTokenClassification.wrap(build_model({"type": "standin/weighed"})).train()
    ids = torch.tensor([list(b"a bee is")] * 4)
    labels = torch.where(ids == 32, 2, 0)
    own = model.model.loss(ids, labels)
    torch.testing.assert_close(model(ids, labels=labels).loss, own.loss)
    output = model.eval()(ids, labels=labels)
    torch.testing.assert_close(output.loss, own.nats / own.count)
    torch.testing.assert_close(output.logits, model(ids).logits)
    training = trainer(model, tmp_path, {"input_ids": ids, "labels": labels})
    result = training.predict(training.eval_dataset)
    assert result.metrics["test_loss"] == pytest.approx((own.nats / own.count).item(), rel=1e-4)
    torch.testing.assert_close(torch.as_tensor(result.predictions), output.logits)
    with pytest.raises(UnsupportedInputError, match="reports no hidden states"):
        model(ids, output_hidden_states=True)


def test_a_model_without_a_loss_trains_by_its_labels(standin, monkeypatch):
    """The loss of its label set's problem."""
    monkeypatch.delattr(Table, "loss")
    model = hf.SpectralForTokenClassification.wrap(build_model({"type": "standin/tagger"}))
    ids, labels = torch.arange(8).view(2, 4), torch.arange(8).view(2, 4) % 3
    for training in (True, False):
        output = model.train(training)(ids, labels=labels)
        torch.testing.assert_close(output.loss, F.cross_entropy(output.logits.flatten(0, 1), labels.flatten()))


def test_a_decoder_without_a_state_generates(standin):
    model = hf.SpectralForCausalLM.wrap(build_model({"type": "standin/bigram"})).eval()
    ids = torch.tensor([[5, 9], [7, 1]])
    made = model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    for column in range(1, 5):
        assert torch.equal(made[:, column + 1], model.model.table.weight[made[:, column]].argmax(-1))
    output = model(ids, labels=ids, use_cache=True)
    assert output.past_key_values is None
    torch.testing.assert_close(model.train()(ids, labels=ids).loss, output.loss)


def test_a_task_without_a_class_says_so(standin):
    for cls in (hf.SpectralForTokenClassification, hf.SpectralForCausalLM):
        with pytest.raises(
            ConfigError, match="Its task standin/alone has no Hugging Face class; load it with AutoModel"
        ):
            cls.wrap(build_model({"type": "standin/lonely"}))


NUMBERS = {
    "regression": (2, torch.tensor([[0.5, -3.0], [1.0, 2.0], [0.0, 0.0], [7.0, 1.0]]), F.mse_loss),
    "multi_label_classification": (
        3,
        torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]),
        F.binary_cross_entropy_with_logits,
    ),
}


@pytest.mark.parametrize("problem", NUMBERS)
@pytest.mark.parametrize("name", ["text", "pictures", "sound"])
def test_labels_are_what_the_model_says(name, problem, kinds, trainer, tmp_path):
    size, labels, measure = NUMBERS[problem]
    kind = kinds[name]
    model = kind.cls.wrap(build_model({**kind.config, "problem_type": problem, "num_labels": size})).eval()
    assert (model.config.problem_type, model.config.num_labels) == (problem, size)
    batch = {**kind.batch(), "labels": labels}
    output = model(**batch)
    torch.testing.assert_close(output.loss, measure(output.logits, labels))
    theirs = model.loss_function(labels=labels, pooled_logits=output.logits, config=model.config)
    torch.testing.assert_close(theirs, output.loss)
    model.train()
    torch.testing.assert_close(model(**batch).loss, model.model.loss(batch[kind.cls.main_input_name], labels).loss)
    training = trainer(model, tmp_path, batch)
    before = training.evaluate()["eval_loss"]
    training.train()
    assert training.evaluate()["eval_loss"] < before
    model.save_pretrained(tmp_path / "saved")
    again = kind.auto.from_pretrained(tmp_path / "saved")
    assert again.model.config == model.model.config
    with pytest.raises(UnsupportedInputError, match="labels are numbers in floating point"):
        again(**kind.batch())


def test_from_pretrained_changes_what_labels_mean(text, tmp_path):
    """The body is kept; a head of another size begins anew, and names of labels of another number go."""
    model = text.cls.wrap(build_model({**text.config, "labels": ["bad", "so so", "good"]}))
    model.save_pretrained(tmp_path / "first")
    several = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "first", problem_type="multi_label_classification"
    )
    assert several.model.config.label_set == LabelSet(3, ("bad", "so so", "good"), "multi_label_classification")
    assert torch.equal(several.model.head.weight, model.model.head.weight)
    number = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "first", problem_type="regression", num_labels=1, ignore_mismatched_sizes=True
    )
    assert number.model.config.label_set == LabelSet(1, None, "regression")
    number.save_pretrained(tmp_path / "second")
    assert load_checkpoint(tmp_path / "second").config == number.model.config
    with pytest.raises(ConfigError, match="num_labels"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "first", num_labels=1)


def test_pipelines_give_numbers_and_probabilities(text, tmp_path):
    for problem, size in (("regression", 1), ("multi_label_classification", 3)):
        encoder = {**text.config["encoder"], "vocab_size": 256}
        config = {"type": "classifier", "encoder": encoder, "problem_type": problem, "num_labels": size}
        model = text.cls.wrap(build_model(config)).eval()
        with torch.no_grad():
            model.model.head.bias.fill_(2.0)
            logits = model(torch.tensor([list(b"a text")])).logits[0]
        pipe = pipeline("text-classification", model=model, tokenizer=hf.byte_tokenizer(), top_k=None)
        expected = logits if problem == "regression" else logits.sigmoid()
        found = torch.tensor(sorted(one["score"] for one in pipe(["a text"])[0]))
        torch.testing.assert_close(found, expected.sort().values, rtol=1e-4, atol=1e-5)
