"""Configs of the original translate as the README says, and the models they describe run."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import spectral_compat
import torch
from spectral_compat import LayerType, ModalityType, SpectralConfig, create_spectral_classifier, create_spectral_lm
from spectral_compat.config import list_sizes
from spectral_compat.translation import RULES
from torch import Tensor

from spectral_core import ConfigError
from spectral_models import build_model, list_blocks, list_models, load_config

PAGE = Path(__file__).parents[1] / "README.md"
SMALL: dict[str, Any] = {"vocab_size": 40, "embed_dim": 8, "hidden_dim": 16, "num_layers": 2, "num_experts": 3}
READ_BOTH_WAYS = [LayerType.DENSE, LayerType.SPARSE, LayerType.MOE, LayerType.ADAPTIVE]


def tokens(*shape: int) -> Tensor:
    return torch.randint(SMALL["vocab_size"], shape, generator=torch.Generator().manual_seed(0))


def config(**fields: Any) -> SpectralConfig:
    return SpectralConfig(**{**SMALL, **fields})


def data(variant: Any = "language_model", **fields: Any) -> dict[str, Any]:
    """The translation of a small config, as data, with its first block under ``block``."""
    found = config(**fields).translate(variant).model_dump()
    return {**found, "block": found["layers"][0] if "layers" in found else None}


def line(report: str, field: str) -> str:
    return next(row for row in report.splitlines() if row.startswith(f"{field} = "))


def refusal(call: Any, *given: Any, **named: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*given, **named)
    return str(caught.value)


# what is exported


# translation


def test_every_field_has_a_rule_and_a_line_in_every_report() -> None:
    assert set(RULES) == set(SpectralConfig.model_fields)
    for variant in ("language_model", "encoder", "classifier", "seq2seq"):
        report = config(layer_type="dense").report(variant)
        assert {row.split(" = ")[0] for row in report.splitlines()} == set(RULES)
        assert all(" → " in row for row in report.splitlines())


def test_the_sizes_of_a_config() -> None:
    found = data(max_seq_len=512, dropout=0.25, tie_word_embeddings=False)
    expected = {"vocab_size": 40, "embed_dim": 8, "hidden_dim": 16, "num_layers": 2, "max_seq_len": 512}
    assert {name: found[name] for name in expected} == expected
    assert found["type"] == "language_model"
    assert found["tie_embeddings"] is False
    assert found["block"]["dropout"] == 0.25
    classifier = config(dropout=0.25).translate("classifier", num_labels=7)
    assert (classifier.dropout, classifier.num_labels, classifier.encoder.vocab_size) == (0.25, 7, 40)


@pytest.mark.parametrize("kind", LayerType)
def test_a_layer_type_is_the_block_of_that_name(kind: LayerType) -> None:
    assert kind.value in list_blocks()
    named = load_config({"hidden_dim": 16, "num_layers": 2, "block": kind.value}).blocks
    for given in (kind, kind.value):
        found = config(layer_type=given).translate().blocks
        assert [block.mixer.type for block in found] == [block.mixer.type for block in named]
        assert [block.feedforward.type for block in found] == [block.feedforward.type for block in named]


def test_layer_types_and_blocks_have_the_same_names() -> None:
    assert {kind.value for kind in LayerType} == set(list_blocks())


@pytest.mark.parametrize("switch", ["adaptive_sparsity", "use_adaptive_sparsity"])
def test_sparsity_and_whether_it_adapts(switch: str) -> None:
    for kind, flag, expected in (("sparse", None, "fixed"), ("sparse", True, "adaptive"), ("adaptive", False, "fixed")):
        sparsity = data(layer_type=kind, sparsity=0.1, **{switch: flag})["block"]["mixer"]["sparsity"]
        assert (sparsity["type"], sparsity["share"]) == (expected, 0.1)
    report = config(layer_type="dense", **{switch: True}).report()
    assert "sparsity" not in data(layer_type="dense", **{switch: True})["block"]["mixer"]
    for field in (switch, "sparsity"):
        assert "nothing: gated_convolution drops no frequencies" in line(report, field)


def test_experts() -> None:
    for fields in ({"use_moe": True, "layer_type": "sparse"}, {"layer_type": "moe"}):
        feedforward = data(num_experts=5, num_active_experts=1, **fields)["block"]["feedforward"]
        assert (feedforward["type"], feedforward["experts"], feedforward["active"]) == ("moe", 5, 1)
    assert data(layer_type="dense")["block"]["feedforward"]["type"] == "swiglu"
    assert "nothing: no experts" in line(config(layer_type="dense").report(), "num_experts")
    assert "active = 4 exceeds experts = 3" in refusal(config(use_moe=True, num_active_experts=4).translate)


def test_heads() -> None:
    assert data(layer_type="hybrid", num_heads=4)["layers"][1]["mixer"]["head_dim"] == 4
    assert data(hidden_dim=100)["block"]["mixer"]["head_dim"] == 25, "the widest head of at most 32 that divides"
    assert data("seq2seq", num_heads=2)["fusion"]["head_dim"] == 8
    assert "nothing: gated_convolution has no heads" in line(config(layer_type="dense").report(), "num_heads")
    assert "num_heads = 3 does not divide hidden_dim = 16" in refusal(config(num_heads=3).translate)


def test_memories_begin_as_long_as_the_context_asks() -> None:
    long = data(layer_type="hybrid", max_seq_len=200_000)["layers"]
    assert long[0]["mixer"]["filter"]["timescales"][1] == 12_500
    assert long[1]["mixer"]["timescales"][1] == 50_000
    short = data(layer_type="hybrid", max_seq_len=512)["layers"]
    assert short[0]["mixer"]["filter"]["timescales"][1] == 1024, "never shorter than they are by themselves"


def test_phases() -> None:
    def gates(**fields: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = data(**fields)["block"]["mixer"]["gates"]
        return found

    assert (
        gates(layer_type="adaptive")[0]["phase_terms"]
        == gates(layer_type="adaptive", use_phase_aware=True)[0]["phase_terms"]
        == 4
    )
    assert gates(layer_type="adaptive", use_phase_aware=False)[0]["phase_terms"] is None
    assert [gate["type"] for gate in gates(layer_type="sparse", use_phase_aware=True)] == ["magnitude", "phase"]
    assert [gate["type"] for gate in gates(layer_type="sparse")] == ["magnitude"]


def test_positions() -> None:
    assert data(use_rope=True)["position"]["type"] == "rope"
    assert data(use_rope=False)["position"]["type"] == "none"
    assert data("encoder", use_rope=False)["position"]["type"] == "sinusoidal"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "auto"),
        ({"use_custom_kernels": True}, "auto"),
        ({"use_fused_ops": False}, "auto"),
        ({"use_hierarchical_fft": True}, "hierarchical"),
        ({"hierarchical_fft": True, "use_custom_kernels": True}, "hierarchical"),
        ({"chunk_size": 4096}, "hierarchical"),
        ({"chunk_size": 4096, "use_hierarchical_fft": False}, "auto"),
        ({"use_xla": True}, "xla"),
        ({"use_xla": True, "use_hierarchical_fft": True, "chunk_size": 64, "use_custom_kernels": True}, "xla"),
    ],
)
def test_the_fields_about_transforms_decide_one_backend_in_rank(fields: dict[str, Any], expected: str) -> None:
    found = data(**fields)["fft"]
    assert found["type"] == expected
    if expected == "hierarchical":
        assert found["chunk_size"] == fields.get("chunk_size", 8192)
    report = config(**fields).report()
    deciding = [field for field in fields if f"→ fft: {expected}" in line(report, field)]
    assert deciding or expected == "auto"
    for field in set(fields) - set(deciding):
        assert f"nothing: fft is {expected}" in line(report, field)


def test_a_chunk_longer_than_the_sequence_is_reduced() -> None:
    assert config(chunk_size=8192, max_seq_len=512).translate().fft.chunk_size == 512
    assert config(chunk_size=8192, max_seq_len=100_000).translate().fft.chunk_size == 8192


def test_a_default_is_told_from_what_was_given() -> None:
    report = config(sparsity=0.15).report()
    assert line(report, "sparsity") == "sparsity = 0.15 → mixer.sparsity.share: 0.15"
    assert line(report, "use_apex") == "use_apex = False (default) → nothing: PyTorch's own optimizers are used"


def test_a_config_may_be_changed_as_the_original_s() -> None:
    changed = config()
    changed.dropout = 0.5
    changed.layer_type = "dense"  # type: ignore[assignment]
    assert changed.layer_type is LayerType.DENSE
    assert changed.translate().blocks[0].dropout == 0.5
    with pytest.raises(ValueError, match="less than 1"):
        changed.dropout = 1.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hiden_dim": 8}, "hiden_dim: unknown key. Did you mean 'hidden_dim'?"),
        ({"layer_type": "spars"}, "layer_type: Input should be 'dense', 'sparse', 'moe'"),
        ({"modality": "video"}, "modality: Input should be 'text', 'vision' or 'audio'"),
        ({"sparsity": 1.5}, "sparsity: "),
        ({"adaptive_sparsity": True, "use_adaptive_sparsity": False}, "are one switch; they say True and False"),
        ({"hierarchical_fft": True, "use_hierarchical_fft": False}, "are one switch"),
        ({"modality": "vision"}, "a language model reads text; modality is 'vision'"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(lambda: SpectralConfig.parse({**SMALL, **fields}).translate())


@pytest.mark.parametrize("kind", [LayerType.MULTISCALE, LayerType.HYBRID])
def test_an_encoder_refuses_layers_that_read_the_past_only(kind: LayerType) -> None:
    message = refusal(config(layer_type=kind).translate, "encoder")
    assert f"layer_type '{kind.value}' reads the past only" in message
    assert "Layer types for it: adaptive, dense, moe, sparse." in message


# models


@pytest.mark.parametrize("variant", ["language_model", "encoder", "classifier", "seq2seq"])
@pytest.mark.parametrize("kind", READ_BOTH_WAYS)
def test_every_translation_is_a_model(kind: LayerType, variant: Any) -> None:
    model = build_model(config(layer_type=kind).translate(variant))
    given = (tokens(2, 9), tokens(2, 7)) if variant == "seq2seq" else (tokens(2, 9),)
    out = model(*given)
    assert (out.hidden if variant == "encoder" else out.logits).isfinite().all()


@pytest.mark.parametrize("kind", LayerType)
def test_a_pair_s_encoder_reads_both_ways(kind: LayerType) -> None:
    pair = config(layer_type=kind)
    expected = kind.value if kind in READ_BOTH_WAYS else "dense"
    assert f"encoder: the block {expected!r}" in pair.report("seq2seq").splitlines()[-1]
    named = load_config({"type": "encoder", "hidden_dim": 16, "num_layers": 2, "block": expected})
    mixers = [block.mixer.type for block in pair.translate("seq2seq").encoder.blocks]  # type: ignore[attr-defined]
    assert mixers == [block.mixer.type for block in named.blocks]  # type: ignore[attr-defined]


def test_pictures_and_sound() -> None:
    small = SpectralConfig(hidden_dim=16, num_layers=2, layer_type="dense", vision_patch_size=8, audio_sample_rate=8000)
    pictures = build_model(small.model_copy(update={"modality": ModalityType.VISION}).translate("classifier"))
    assert pictures(torch.randn(2, 3, 16, 24)).logits.shape == (2, 2)
    heard = small.model_copy(update={"modality": ModalityType.AUDIO}).translate("encoder")
    assert heard.frontend.sample_rate == 8000  # type: ignore[attr-defined]
    assert build_model(heard)(torch.randn(2, 1600)).hidden.shape[0] == 2


def test_gradient_checkpointing_reaches_the_model() -> None:
    for wanted in (False, True):
        small = config(layer_type="dense", use_gradient_checkpointing=wanted)
        assert create_spectral_classifier(config=small).gradient_checkpointing is wanted


def test_a_config_and_fields_together_are_refused() -> None:
    assert "not both; got vocab_size too" in refusal(create_spectral_classifier, 40, config=config())


# sizes


def test_sizes_are_the_presets_of_language_models() -> None:
    presets = {name.removeprefix("slm-") for name in list_models() if load_config(name).type == "language_model"}
    assert set(list_sizes()) == presets


@pytest.mark.parametrize(
    ("size", "preset"), [("tiny", "tiny"), ("500m", "slm-500m"), ("slm-500m", "slm-500m"), ("100b", "slm-100b")]
)
def test_a_size_is_a_preset_changed_by_what_is_given(size: str, preset: str) -> None:
    assert SpectralConfig.of_size(size).translate() == load_config(preset)
    changed = SpectralConfig.of_size(size, vocab_size=1000, dropout=0.3).translate()
    blocks = {f"layers.{index}.dropout": 0.3 for index in range(2)}
    assert changed == load_config(preset, vocab_size=1000, **blocks)
    report = SpectralConfig.of_size(size, vocab_size=1000).report()
    assert report == "what is not given is the preset's\nvocab_size = 1000 → vocab_size: 1000"


def test_half_a_billion_by_name() -> None:
    with torch.device("meta"):
        model = create_spectral_lm("500m", vocab_size=50257)
    assert abs(sum(parameter.numel() for parameter in model.parameters()) - 500e6) < 25e6
    assert (model.config.max_seq_len, model.config.hidden_dim) == (131_072, 1280)


def test_a_language_model_by_size_runs() -> None:
    model = create_spectral_lm("tiny", vocab_size=300, max_seq_len=2048, layer_type="sparse", sparsity=0.25)
    assert model(tokens(1, 40)).logits.shape == (1, 40, 300)
    block = model.config.layers[0]
    found = (block.mixer.type, block.mixer.sparsity.share, model.config.max_seq_len)
    assert found == ("spectral_gating", 0.25, 2048)


def test_a_classifier_by_size_has_its_width_depth_and_context() -> None:
    with torch.device("meta"):
        model = create_spectral_classifier(config="small", num_classes=2, vocab_size=30522)
    encoder, preset = model.config.encoder, load_config("small")
    assert (encoder.hidden_dim, encoder.num_layers, encoder.max_seq_len) == (384, 8, preset.max_seq_len)  # type: ignore[attr-defined]
    assert (encoder.vocab_size, encoder.blocks[0].mixer.type) == (30522, "gated_convolution")
    assert "its sizes, with blocks 'dense'" in SpectralConfig.of_size("small").report("classifier")
    tiny = create_spectral_classifier(40, 3, "tiny", dropout=0.2, pooling="max")
    assert tiny(tokens(2, 9)).logits.shape == (2, 3)
    assert (tiny.config.dropout, tiny.config.encoder.pooling) == (0.2, "max")
    assert create_spectral_classifier(config=config(), num_classes=4)(tokens(2, 9)).logits.shape == (2, 4)


def test_pictures_and_sequences_by_size() -> None:
    pictures = SpectralConfig.of_size("tiny", modality="vision").translate("encoder")
    pair: Any = SpectralConfig.of_size("tiny", vocab_size=40).translate("seq2seq")
    assert (pictures.type, pictures.hidden_dim) == ("vision_encoder", 128)  # type: ignore[attr-defined]
    assert [block.mixer.type for block in pair.blocks] == ["gated_convolution", "holographic"]
    assert [block.mixer.type for block in pair.encoder.blocks] == ["gated_convolution"]
    assert (pair.vocab_size, pair.encoder.vocab_size) == (40, 40)


@pytest.mark.parametrize(
    ("size", "hint"),
    [("600m", "Did you mean '"), ("bose", "Did you mean 'base'?"), ("classifier-small", "Sizes: tiny, small")],
)
def test_an_unknown_size_is_told_the_sizes(size: str, hint: str) -> None:
    message = refusal(create_spectral_lm, size)
    assert f"no size is called {size!r}." in message
    assert hint in message
    assert refusal(create_spectral_classifier, config=size) == message


# names that are not here


@pytest.mark.parametrize("name", spectral_compat.REMOVED)
def test_a_name_that_is_not_here_says_what_to_write(name: str) -> None:
    with pytest.raises(ImportError, match=re.escape(spectral_compat.REMOVED[name])):
        getattr(importlib.import_module("spectral_compat"), name)
    assert f"`{name}" in PAGE.read_text(encoding="utf-8")
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = spectral_compat.Nothing


# the page


def section(title: str) -> str:
    return next(part for part in PAGE.read_text(encoding="utf-8").split("\n## ") if part.startswith(title))


def test_the_table_of_the_page_has_every_field() -> None:
    assert re.findall(r"^\| `(\w+)` \|", section("What each field becomes"), re.MULTILINE) == list(RULES)


def test_the_page_s_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec", dont_inherit=True), namespace)  # noqa: S102
    assert namespace["logits"].shape == (1, 64, 50257)
    assert namespace["tokens"].shape == (1, 72)
    assert namespace["ours"].type == "classifier"


def test_the_page_names_every_size() -> None:
    named = set(re.findall(r"`(\w+)`", section("Sizes")))
    assert {"tiny", "xlarge", "100m", "500m", "1b", "3b", "13b"} <= named
    assert {name for name in named if name[0].isdigit()} <= set(list_sizes())
