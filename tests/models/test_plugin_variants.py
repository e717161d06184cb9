"""Two variants of a plugin, with front ends of their own, go through commands and export as ours do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from spectral_core import ConfigError, PluginError, UnsupportedInputError, hookimpl
from spectral_core.config import OneOf, part
from spectral_core.plugins import HOST
from spectral_layers import MIXERS, LayerContext, MixerConfig, Rows
from spectral_models import ModelConfig, build_model, load_checkpoint, save_checkpoint
from spectral_models.block import Block
from spectral_models.config import BlockConfig
from spectral_models.data import ByteTokenizer
from spectral_models.evaluation.change import measure_change
from spectral_models.export import export_model
from spectral_models.inputs import FeatureInput, TokenInput
from spectral_models.labels import LabelSet
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel

pytestmark = pytest.mark.filterwarnings("ignore:.*series:UserWarning")


@dataclass
class Read:
    logits: Tensor
    pooled: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Strand(SpectralModel):
    """Which kind of DNA a strand is. Its front end knows the four bases, in either case, and nothing else."""

    def __init__(self, config: StrandConfig) -> None:
        super().__init__(config)
        self.config: StrandConfig
        base = torch.full((256,), 4)
        for index, letters in enumerate(("Aa", "Cc", "Gg", "Tt")):
            base[list(letters.encode())] = index
        self.register_buffer("base", base, persistent=False)
        self.embedding = nn.Embedding(5, config.width)
        context = LayerContext(config.width, causal=False, fft=config.build_fft())
        self.block = Block(BlockConfig(mixer=config.mixer), context, path="block")
        self.head = nn.Linear(config.width, len(config.labels))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Read:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        x = self.block(self.embedding(self.base[input_ids]), Rows(mask.sum(1))).x * mask[..., None]
        pooled = x.sum(1) / mask.sum(1, keepdim=True)
        return Read(self.head(pooled), pooled)

    def loss(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None, **options: Any) -> StepLoss:
        return StepLoss.of_logits(self(input_ids, attention_mask).logits, labels, {}, {}, **options)

    def input_specs(self) -> tuple[TokenInput, ...]:
        return (TokenInput("input_ids", masked=True, vocab_size=256),)

    def outputs(self) -> tuple[str, ...]:
        return "logits", "pooled"


class StrandConfig(ModelConfig):
    """Kinds of DNA."""

    pools: ClassVar[bool] = True

    type: Literal["series/strand"] = "series/strand"
    width: int = 16
    mixer: Annotated[MixerConfig, OneOf(MIXERS)] = part("gated_convolution")
    labels: tuple[str, ...] = ("coding", "junk", "promoter")

    @property
    def label_set(self) -> LabelSet:
        return LabelSet(len(self.labels), self.labels)

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("classification",)

    def build(self) -> Strand:
        return Strand(self)


class Forecaster(SpectralModel):
    """The next values of several series, each from all earlier ones."""

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__(config)
        self.lift = nn.Linear(config.channels, 16)
        self.mixer = config.mixer.build(LayerContext(16, causal=True, fft=config.build_fft()))
        self.lower = nn.Linear(16, config.channels)

    def forward(self, series: Tensor) -> Any:
        return SimpleNamespace(forecast=self.lower(self.mixer(self.lift(series)).y))

    def input_specs(self) -> tuple[FeatureInput, ...]:
        return (FeatureInput("series", small=(20, self.config.channels)),)

    def outputs(self) -> tuple[str, ...]:
        return ("forecast",)


class ForecasterConfig(ModelConfig):
    """Forecasts."""

    type: Literal["series/forecaster"] = "series/forecaster"
    channels: int = 3
    mixer: Annotated[MixerConfig, OneOf(MIXERS)] = part("gated_convolution")

    def build(self) -> Forecaster:
        return Forecaster(self)


class Wrong(ModelConfig):
    """Builds no model of ours."""

    type: Literal["series/wrong"] = "series/wrong"

    def build(self) -> Any:
        return nn.Linear(2, 2)


class Both(SpectralModel):
    """Two models in one; declares nothing but itself."""

    def __init__(self, config: BothConfig) -> None:
        super().__init__(config)
        self.strands = nn.ModuleList(StrandConfig().build() for _ in range(2))


class BothConfig(ModelConfig):
    """Two."""

    type: Literal["series/both"] = "series/both"

    def build(self) -> Both:
        return Both(self)


class Plugin:
    SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_models(self, register: Any) -> None:
        for config in (StrandConfig, ForecasterConfig, BothConfig, Wrong):
            register("model", config.model_fields["type"].default, config, summary="A test's.")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    HOST.register(Plugin(), namespace="series")
    torch.manual_seed(0)
    yield
    HOST.unregister("series")


@pytest.mark.parametrize(("name", "shape"), [("series/strand", (9,)), ("series/forecaster", (9, 3))])
def test_it_is_saved_loaded_and_exported(name, shape, tmp_path):
    model = build_model({"type": name}).eval()
    saved = save_checkpoint(model, tmp_path / "saved")
    spec = model.only_input
    inputs = {spec.name: spec.sample((4, *shape), torch.Generator().manual_seed(1))}
    with torch.no_grad():
        expected = vars(model.run(inputs))
        again = vars(load_checkpoint(saved, fft="direct").run(inputs))
    made = export_model(model, tmp_path / "model.pt2", format="torch", length=9)
    assert made.inputs == {spec.name: shape, **({"attention_mask": (9,)} if spec.masked else {})}
    assert list(made.outputs) == list(model.outputs())
    mask = [torch.ones(4, 9, dtype=torch.long)] if spec.masked else []
    found = torch.export.load(made.path).module()(*inputs.values(), *mask)
    for output, name in zip(found, model.outputs(), strict=True):
        torch.testing.assert_close(output, expected[name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(again[name], expected[name], rtol=1e-4, atol=1e-5)


def test_commands_label_embed_and_draw_what_it_declares(spectral, tmp_path):
    model = build_model({"type": "series/strand"}).eval()
    saved = save_checkpoint(model, tmp_path / "strand")
    texts = ["ACGT", "ttgaccag"]
    with torch.no_grad():
        alone = [model(torch.tensor([list(text.encode())])) for text in texts]
    rows = [json.loads(line) for line in spectral("classify", saved, *texts, "--json").out.splitlines()]
    for row, found in zip(rows, alone, strict=True):
        probabilities = torch.tensor([row["probabilities"][name] for name in model.config.labels])
        torch.testing.assert_close(probabilities, found.logits[0].softmax(-1))
    rows = [json.loads(line) for line in spectral("embed", saved, *texts).out.splitlines()]
    for row, found in zip(rows, alone, strict=True):
        torch.testing.assert_close(torch.tensor(row["embedding"]), found.pooled[0])
    drawn = spectral("inspect", saved, "--out", tmp_path / "pictures")
    assert drawn.code == 0, drawn
    assert list((tmp_path / "pictures").iterdir())
    table = tmp_path / "table.csv"
    table.write_text("text,label\nACGT,coding\nTTGA,junk\nGGGG,promoter\n")
    judged = spectral("evaluate", saved, "--data", table)
    assert "measured on  3 texts" in judged.out, judged
    same = measure_change(model, lambda: None, b"ACGT" * 100, "strands", ByteTokenizer())
    assert (same.measure, same.after) == ("same label for 2 pieces of strands", 1.0)


def test_what_it_does_not_declare_is_refused_by_name(spectral, tmp_path):
    saved = save_checkpoint(build_model({"type": "series/forecaster"}), tmp_path / "forecaster")
    for command, why in {
        ("embed", "x"): "pools no embeddings",
        ("classify", "x"): "classify takes a classifier",
        ("generate",): "generate takes a language_model",
        ("evaluate", "--data", "x"): "declares no task",
    }.items():
        name, *rest = command
        spectral(name, saved, *rest).refused(rf"a model of type series/forecaster.*{why}")
    model = build_model({"type": "series/both"})
    with pytest.raises(ConfigError, match=r"a series/both cannot be exported: it declares no input_specs\(\)"):
        export_model(model, tmp_path / "both.pt2", format="torch")
    with pytest.raises(UnsupportedInputError, match="a series/both has no loss"):
        model.loss()
    assert list(model.submodels()) == ["strands.0", "strands.1"]
    model.gradient_checkpointing = True
    assert all(inner.gradient_checkpointing for inner in model.submodels().values())


def test_a_duty_that_it_breaks_is_named():
    with pytest.raises(PluginError, match=r"Wrong\.build must return SpectralModel; it returned Linear"):
        build_model({"type": "series/wrong"})

    class Listed(Strand):
        def input_specs(self) -> Any:
            return list(super().input_specs())

    with pytest.raises(PluginError, match=r"Listed\.input_specs must return tuple; it returned list"):
        assert Listed(StrandConfig()).only_input


def test_hugging_face_s_class_of_its_task_holds_it(tmp_path):
    huggingface = pytest.importorskip("spectral_models.integrations.huggingface")
    model = build_model({"type": "series/strand"}).eval()
    wrapped = huggingface.SpectralForSequenceClassification.wrap(model)
    ids, labels = torch.tensor([list(b"ACGTAC"), list(b"TTGACA")]), torch.tensor([0, 2])
    found = wrapped(ids, labels=labels)
    torch.testing.assert_close(found.loss, model.loss(ids, labels).loss)
    wrapped.save_pretrained(tmp_path)
    again = huggingface.SpectralForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(ids).logits, found.logits)
    with pytest.raises(ConfigError, match="holds causal language models; got a model of type 'series/strand'"):
        huggingface.SpectralForCausalLM.wrap(model)
