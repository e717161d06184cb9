"""A variant or a task that breaks one promise is caught by the check of that promise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from spectral_core import PluginError, fft_backend, hookimpl
from spectral_core.plugins import HOST
from spectral_layers import LayerContext, Report, Rows
from spectral_models import ModelConfig, build_model, load_config
from spectral_models.export.exporting import ExportError
from spectral_models.inputs import TokenInput
from spectral_models.labels import LabelSet
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel
from spectral_models.registries import TASKS
from spectral_models.tasks.classification import Classification, ClassificationConfig
from spectral_models.testing import MODEL_CHECKS, TASK_CHECKS, ModelCase, TaskCase

NAMED = {check.__name__.removeprefix("check_"): check for check in (*MODEL_CHECKS, *TASK_CHECKS)}
_count = 0


class Broken(SpectralModel):
    """A sound classifier of tokens, but for what a subclass breaks."""

    streams: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(32, 16)
        self.mixer = load_mixer(self.backend(config))
        self.head = nn.Linear(16, 3)

    def backend(self, config: Any) -> Any:
        return config.build_fft()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        x = self.embedding(input_ids) * mask[..., None]
        pooled = self.pool(self.mixer(x, rows=Rows(mask.sum(1))).y * mask[..., None], mask)
        return SimpleNamespace(logits=self.head(pooled), pooled=pooled, losses={}, metrics={})

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.sum(1) / mask.sum(1, keepdim=True)

    def loss(self, inputs: Tensor, labels: Tensor, attention_mask: Any = None, **options: Any) -> StepLoss:
        return StepLoss.of_logits(self(inputs, attention_mask).logits, labels, {}, {}, **options)

    def input_specs(self) -> tuple[TokenInput, ...]:
        return (TokenInput("input_ids", masked=True, vocab_size=32),)

    def outputs(self) -> tuple[str, ...]:
        return ("logits", "pooled")


def load_mixer(fft: Any) -> Any:
    config = load_config({"type": "encoder", "hidden_dim": 16, "num_layers": 1, "vocab_size": 32}).blocks[0].mixer
    return config.build(LayerContext(16, causal=False, fft=fft))


class OnCPU(Broken):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.kept = nn.Parameter(torch.zeros(2, device="cpu"))


class Undeclared(Broken):
    def outputs(self) -> tuple[str, ...]:
        return ()


class NotFinite(Broken):
    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().pool(x, mask) / 0


class Zero(Broken):
    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().pool(x, mask) * 0


class MixesRows(Broken):
    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().pool(x, mask) - super().pool(x, mask).mean(0)


class CountsPadding(Broken):
    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.mean(1)


class Forgets(Broken):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.kept = torch.randn(16)

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().pool(x, mask) * self.kept


class OwnBackend(Broken):
    def backend(self, config: Any) -> Any:
        return fft_backend("torch")


class OwnTransform(Broken):
    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().pool(torch.fft.irfft(torch.fft.rfft(x), n=x.shape[-1]), mask)


class RecomputesOtherwise(Broken):
    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().pool(x, mask) * (2 if self.gradient_checkpointing else 1)


class OneLabelTooFew(Broken):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.head = nn.Linear(16, 2)


class DependsOnValues(Broken):
    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().pool(x, mask) * (1.0 if float(x.sum()) > 0 else -1.0)


class Ascends(Broken):
    def loss(self, *inputs: Any, **options: Any) -> StepLoss:
        found = super().loss(*inputs, **options)
        found.loss = 2 * found.loss.detach() - found.loss  # the gradient goes the wrong way
        return found


class SeesTheFuture(Broken):
    """A decoder whose mixer is bidirectional."""

    def forward(self, input_ids: Tensor, attention_mask: Any = None, state: Any = None, **_: Any) -> Any:
        x = self.mix(self.embedding(input_ids))
        return SimpleNamespace(logits=x @ self.embedding.weight.T, state=None, losses={}, metrics={})

    def mix(self, x: Tensor) -> Tensor:
        return self.mixer(x).y

    def outputs(self) -> tuple[str, ...]:
        return ("logits",)


class Restarts(SeesTheFuture):
    """A causal decoder that forgets its state."""

    streams: ClassVar[bool] = True

    def mix(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


def case(kind: type[Broken], **declared: Any) -> ModelCase:
    """A case of a registered variant that builds this model."""
    name = f"broken/{kind.__name__.lower()}"
    body = {
        "__annotations__": {"type": Literal[name]},
        "__module__": __name__,
        "type": name,
        "build": lambda self: kind(self),
        "label_set": property(lambda self: None if declared.get("decoder") else LabelSet(3, ("a", "b", "c"))),
        "tasks": property(lambda self: () if declared.get("decoder") else ("classification",)),
        **{key: value for key, value in declared.items() if key == "decoder"},
    }
    if "decoder" in declared:
        body["__annotations__"]["decoder"] = ClassVar[bool]
    config = type("Config", (ModelConfig,), body)

    class Plugin:
        SPECTRAL_PLUGIN_API = 1

        @hookimpl
        def spectral_register_models(self, register: Any) -> None:
            register("model", name, config, summary="Broken.")

    HOST.register(Plugin(), namespace="broken")
    return ModelCase(config())


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    yield
    if "broken" in {provider.namespace for provider in HOST.discover().values()}:
        HOST.unregister("broken")


@pytest.mark.parametrize(
    ("kind", "check", "message"),
    [
        (OnCPU, "it_builds_on_meta", "built on the meta device"),
        (Undeclared, "its_inputs_and_outputs_are_declared", "declare nothing"),
        (NotFinite, "its_inputs_and_outputs_are_declared", "must be a finite tensor"),
        (MixesRows, "rows_do_not_mix", "alone and in a batch"),
        (CountsPadding, "padding_changes_nothing", "with padding"),
        (Forgets, "a_saved_model_is_the_same", "of a checkpoint"),
        (OwnBackend, "its_backend_reaches_every_operator", "has the backend 'torch'"),
        (OwnTransform, "its_backend_reaches_every_operator", "calls _fft_"),
        (RecomputesOtherwise, "gradient_checkpointing_changes_no_gradient", "with gradient_checkpointing"),
        (OneLabelTooFew, "labels_and_pooled_are_as_declared", "declares 3 labels"),
        (DependsOnValues, "it_exports", "cannot be traced"),
        (Zero, "its_inputs_and_outputs_are_declared", "is 0 everywhere"),
        (Ascends, "a_step_lowers_the_loss", "must lower the loss"),
    ],
)
def test_variants(kind: type[Broken], check: str, message: str) -> None:
    NAMED[check](case(Broken))
    HOST.unregister("broken")
    with pytest.raises((AssertionError, ExportError), match=message):
        NAMED[check](case(kind))


@pytest.mark.parametrize(
    ("kind", "check", "message"),
    [
        (SeesTheFuture, "no_logit_sees_a_later_token", "not causal"),
        (Restarts, "chunks_equal_one_pass", "in chunks of 1, 3 and the rest"),
    ],
)
def test_decoders(kind: type[Broken], check: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = case(kind, decoder=True)
    if kind is Restarts:  # whose stream the check that every build runs would refuse already
        monkeypatch.setattr("spectral_models.assembly._third_parties", lambda config: [])
    with pytest.raises((AssertionError, PluginError), match=message):
        NAMED[check](broken)


class OverAStack(Broken):
    """A classifier over an encoder, whose report it passes on."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.encoder = build_model({"type": "encoder", "hidden_dim": 16, "num_layers": 2, "vocab_size": 32})

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        encoded = self.encoder(input_ids, attention_mask)
        report = self.report(encoded)
        return SimpleNamespace(logits=self.head(encoded.pooled), pooled=encoded.pooled, **vars(report))

    def report(self, encoded: Report) -> Report:
        return Report() + encoded


class DropsTheReport(OverAStack):
    def report(self, encoded: Report) -> Report:
        return Report()


def test_a_report_that_is_dropped() -> None:
    NAMED["hidden_states_are_reported"](case(OverAStack))
    HOST.unregister("broken")
    with pytest.raises(AssertionError, match=r"its stacks have \[3\] hidden states, and its output reports \{\}"):
        NAMED["hidden_states_are_reported"](case(DropsTheReport))


def test_a_config_that_loses_an_option() -> None:
    class Loses(ModelConfig):
        type: Literal["broken/loses"] = "broken/loses"
        width: int = 4

        def model_dump(self, **options: Any) -> dict[str, Any]:
            return {"type": self.type}

        def build(self) -> Broken:
            return Broken(self)

    class Plugin:
        SPECTRAL_PLUGIN_API = 1

        @hookimpl
        def spectral_register_models(self, register: Any) -> None:
            register("model", "broken/loses", Loses, summary="Broken.")

    HOST.register(Plugin(), namespace="broken")
    with pytest.raises(AssertionError, match="dumped and read again"):
        NAMED["its_config_comes_back"](ModelCase(Loses(width=5)))


def test_a_class_of_hugging_face_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClassificationConfig, "architecture", lambda self, model: "SpectralForNothing")
    with pytest.raises(AssertionError, match="has no class SpectralForNothing"):
        NAMED["hugging_faces_class_holds_it"](case(Broken))


class Faulty(Classification):
    fault: ClassVar[str] = ""

    def examples(self, *given: Any) -> Any:
        found = super().examples(*given)
        if self.fault == "examples_depend_on_their_index_alone":
            return _Drifting(found)
        return found

    def loss(self, model: Any, batch: Any, step_count: Any = None, **options: Any) -> StepLoss:
        divided = None if self.fault == "the_loss_divides_into_batches" else step_count
        found = super().loss(model, batch, divided, **options)
        if self.fault == "training_lowers_the_loss":
            found.loss = 2 * found.loss.detach() - found.loss  # the gradient goes the wrong way
        return found

    def measures(self, arrays: Any) -> dict[str, float]:
        global _count
        _count += 1
        other = {
            "its_numbers_do_not_depend_on_the_batch_size": {"loss": float("nan")},
            "a_run_is_resumed_and_judged_alike": {"loss": float(_count)},
        }
        return {**super().measures(arrays), **other.get(self.fault, {})}


class _Drifting:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getitem__(self, index: int) -> Any:
        global _count
        _count += 1
        return self.inner[(index + _count) % 12]


class FaultyConfig(ClassificationConfig):
    def load(self, *given: Any, tokenizer: Any = None, split: Any = None) -> Any:
        return Faulty(*given, tokenizer, split)


class TakesAll(ClassificationConfig):
    def unsupported_reasons(self, model: Any, data: Any) -> list[str]:
        return []


@pytest.mark.parametrize("fault", [check.__name__.removeprefix("check_") for check in TASK_CHECKS])
def test_tasks(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"{word} {row}", "label": word} for row in range(20) for word in ("cat", "dog")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    encoder = {"type": "encoder", "hidden_dim": 32, "num_layers": 1, "vocab_size": 256}
    model = load_config({"type": "classifier", "encoder": encoder})
    sound = TASKS.get("classification").load()
    data = sound().data_kinds(model)[0].parse({"source": str(tmp_path / "rows.jsonl"), "validation_fraction": 0.3})
    monkeypatch.setattr(Faulty, "fault", fault)
    NAMED[fault](TaskCase(sound(), model, data))
    kind = TakesAll if fault == "it_says_what_it_does_not_support" else FaultyConfig
    with pytest.raises(AssertionError):
        NAMED[fault](TaskCase(kind(), model, data))
