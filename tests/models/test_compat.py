"""The names of the project this one follows: they run, and say what became of each field, as the page does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_core import ConfigError, Spectrum, UnsupportedInputError
from spectral_models import build_model, compat, list_blocks, list_models, load_checkpoint, load_config, save_checkpoint
from spectral_models.compat import (
    AdaptiveFrequencySelector,
    AdvancedSpectralGating,
    HierarchicalFFT,
    LayerType,
    ModalityType,
    OptimizedFFT,
    SpectralAudioEncoder,
    SpectralClassifier,
    SpectralConfig,
    SpectralCrossModalFusion,
    SpectralEncoder,
    SpectralLanguageModel,
    SpectralSeq2Seq,
    SpectralVisionEncoder,
    create_spectral_classifier,
    create_spectral_lm,
)
from spectral_models.compat.rules import RULES
from spectral_models.compat.sizes import list_sizes

PAGE = Path(__file__).parents[2] / "docs" / "compat.md"
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


def test_the_names_of_the_original() -> None:
    assert set(compat.__all__) == {
        "LayerType", "ModalityType", "SpectralConfig", "create_spectral_lm", "create_spectral_classifier",
        "SpectralLanguageModel", "SpectralClassifier", "SpectralEncoder", "SpectralSeq2Seq", "SpectralVisionEncoder",
        "SpectralAudioEncoder", "SpectralCrossModalFusion", "HierarchicalFFT", "OptimizedFFT", "AdvancedSpectralGating",
        "AdaptiveFrequencySelector",
    }  # fmt: skip
    assert all(hasattr(compat, name) for name in compat.__all__)


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
    assert "nothing: there are no experts" in line(config(layer_type="dense").report(), "num_experts")
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
    assert config(max_seq_len=512, chunk_size=8192).chunk_size == 512
    assert config(chunk_size=8192, max_seq_len=512).translate().fft.chunk_size == 512
    assert config(max_seq_len=100_000).chunk_size == 8192
    assert HierarchicalFFT(max_seq_len=100, chunk_size=8192).fft.chunk_size == 100  # type: ignore[attr-defined]


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
        ({"layer_type": "spars"}, "no layer_type is called 'spars'. Did you mean 'sparse'? Known: dense, sparse"),
        ({"modality": "video"}, "no modality is called 'video'. Known: text, vision, audio"),
        ({"sparsity": 1.5}, "sparsity: "),
        ({"adaptive_sparsity": True, "use_adaptive_sparsity": False}, "are one switch; they say True and False"),
        ({"hierarchical_fft": True, "use_hierarchical_fft": False}, "are one switch"),
        ({"modality": "vision"}, "a language model reads text; modality is 'vision'"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(SpectralLanguageModel, **{**SMALL, **fields})


@pytest.mark.parametrize("kind", [LayerType.MULTISCALE, LayerType.HYBRID])
def test_an_encoder_refuses_layers_that_read_the_past_only(kind: LayerType) -> None:
    message = refusal(SpectralEncoder, config(layer_type=kind))
    assert f"layer_type '{kind.value}' reads the past only" in message
    assert "Layer types for it: adaptive, dense, moe, sparse." in message


def test_a_config_and_fields_together_are_refused() -> None:
    assert "not both; got dropout too" in refusal(SpectralEncoder, config(), dropout=0.3)
    assert "not both; got vocab_size too" in refusal(create_spectral_classifier, 40, config=config())


# models


@pytest.mark.parametrize("kind", LayerType)
def test_a_language_model_is_causal_and_is_the_model_of_its_translation(kind: LayerType) -> None:
    torch.manual_seed(0)
    model = SpectralLanguageModel(config(layer_type=kind)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        input_ids = tokens(2, 70)
        logits = model(input_ids)
        changed = input_ids.clone()
        changed[:, 50:] = (changed[:, 50:] + 1) % SMALL["vocab_size"]
        moved = (model(changed) - logits).abs()
    assert logits.shape == (2, 70, 40)
    assert moved[:, :50].max() <= 1e-9 * moved[:, 50:].max()
    assert model.model.config == config(layer_type=kind).translate()


@pytest.mark.parametrize("kind", READ_BOTH_WAYS)
def test_encoders_and_classifiers_of_every_layer_type(kind: LayerType) -> None:
    torch.manual_seed(0)
    encoder = SpectralEncoder(config(layer_type=kind)).eval()
    mask = torch.tensor([[1] * 9 + [0] * 3, [1] * 12])
    with torch.no_grad():
        features = encoder(tokens(2, 12), mask)
        assert features.shape == (2, 12, 16)
        torch.testing.assert_close(encoder(tokens(2, 12)[:1, :9])[0], features[0, :9], rtol=1e-4, atol=1e-5)
    classifier = SpectralClassifier(config(layer_type=kind), num_classes=5, pooling="max")
    logits = classifier(tokens(2, 12), mask)
    assert logits.shape == (2, 5)
    assert classifier.model.config.encoder.pooling == "max"
    logits.sum().backward()


def test_pictures_and_sound() -> None:
    small = {"hidden_dim": 16, "num_layers": 2, "layer_type": "dense"}
    assert SpectralVisionEncoder(**small, vision_patch_size=8)(torch.randn(2, 3, 16, 24)).shape == (2, 6, 16)
    sound = SpectralAudioEncoder(SpectralConfig(**small))
    assert sound(torch.randn(2, 1600)).shape == (2, 11, 16), (
        "a feature for each frame of 160 samples, not for each band"
    )
    assert sound.config.modality is ModalityType.AUDIO
    for modality, inputs in (("vision", torch.randn(2, 3, 32, 32)), ("audio", torch.randn(2, 1600))):
        assert SpectralClassifier(**small, modality=modality, num_classes=3)(inputs).shape == (2, 3)
    heard = SpectralAudioEncoder(**small, audio_sample_rate=8000).model.config
    assert heard.frontend.sample_rate == 8000


@pytest.mark.parametrize("kind", LayerType)
def test_a_sequence_to_another(kind: LayerType) -> None:
    torch.manual_seed(0)
    model = SpectralSeq2Seq(config(layer_type=kind), eos_token_id=3).double().eval()
    source, target = tokens(2, 9), tokens(2, 7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        logits = model(source, target)
        assert logits.shape == (2, 7, 40)
        assert (model(source.flip(1), target) - logits).abs().max() > 1e-3, "the source is not read"
        later = target.clone()
        later[:, 5:] = (later[:, 5:] + 1) % 40
        assert (model(source, later) - logits)[:, :5].abs().max() < 1e-9
        found = model.generate(source, max_length=6, num_beams=3)
    assert found.shape[0] == 2
    assert 1 <= found.shape[1] <= 6
    assert (model.model.config.start_token_id, model.model.config.end_token_id) == (1, 3)
    expected = kind.value if kind in READ_BOTH_WAYS else "dense"
    assert f"encoder: the block {expected!r}" in model.config.report("seq2seq").splitlines()[-1]


def test_fusion_of_any_modalities() -> None:
    torch.manual_seed(0)
    fusion = SpectralCrossModalFusion(config(num_heads=4))
    text, vision, audio = torch.randn(2, 9, 16), torch.randn(2, 6, 16), torch.randn(2, 20, 16)
    fused = fusion(text_features=text, vision_features=vision, audio_features=audio)
    assert fused.shape == text.shape
    assert fusion(vision_features=vision, audio_features=audio).shape == vision.shape
    assert not torch.equal(fused, fusion(text_features=text, vision_features=vision))
    with pytest.raises(UnsupportedInputError, match="nothing to fuse"):
        fusion()
    assert "num_heads = 3 does not divide" in refusal(SpectralCrossModalFusion, config(num_heads=3))


def test_generation_counts_new_tokens_and_stops() -> None:
    torch.manual_seed(0)
    model = SpectralLanguageModel(config(layer_type="hybrid")).eval()
    prompt = tokens(2, 20)
    greedy = model.generate(prompt, max_length=6, do_sample=False)
    assert greedy.shape == (2, 26)
    assert torch.equal(greedy, model.model.generate(prompt, max_new_tokens=6))
    stopped = model.generate(prompt[:1], max_length=6, do_sample=False, eos_token_id=int(greedy[0, 20]))
    assert stopped.shape == (1, 21)
    assert model.generate(prompt, 3, temperature=0.8, top_k=0, top_p=0.9).shape == (2, 23)


def test_parameters_are_counted_with_and_without_the_embedding() -> None:
    model = SpectralLanguageModel(config())
    assert model.get_num_params(non_embedding=False) == sum(parameter.numel() for parameter in model.parameters())
    assert model.get_num_params(non_embedding=False) - model.get_num_params() == 40 * 8


def test_gradient_checkpointing_reaches_the_model() -> None:
    for made in (SpectralLanguageModel, SpectralClassifier, SpectralSeq2Seq):
        assert made(config(use_gradient_checkpointing=True)).model.gradient_checkpointing
        assert not made(config()).model.gradient_checkpointing


def test_a_config_that_is_changed_later_describes_another_model() -> None:
    changed = config()
    model = SpectralEncoder(changed)
    changed.num_layers = 9
    assert model.config.num_layers == 2


def test_what_is_inside_is_saved_as_any_model_of_ours(tmp_path: Path) -> None:
    model = SpectralLanguageModel(config(layer_type="dense")).eval()
    save_checkpoint(model.model, tmp_path / "model")
    loaded = load_checkpoint(tmp_path / "model")
    assert torch.equal(loaded(tokens(1, 9)).logits, model(tokens(1, 9)))


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
    assert abs(model.get_num_params(non_embedding=False) - 500e6) < 25e6
    assert model.config.max_seq_len == model.model.config.max_seq_len == 131_072
    assert model.config.hidden_dim == 1280
    assert model.config.layer_type is LayerType.HYBRID


def test_a_language_model_by_size_runs() -> None:
    model = create_spectral_lm("tiny", vocab_size=300, max_seq_len=2048, layer_type="sparse", sparsity=0.25)
    assert model(tokens(1, 40)).shape == (1, 40, 300)
    block = model.model.config.layers[0]
    assert (block.mixer.type, block.mixer.sparsity.share, model.model.config.max_seq_len) == (
        "spectral_gating",
        0.25,
        2048,
    )


def test_a_classifier_by_size_has_its_width_depth_and_context() -> None:
    with torch.device("meta"):
        model = create_spectral_classifier(config="small", num_classes=2, vocab_size=30522)
    encoder, preset = model.model.config.encoder, load_config("small")
    assert (encoder.hidden_dim, encoder.num_layers, encoder.max_seq_len) == (384, 8, preset.max_seq_len)
    assert (encoder.vocab_size, encoder.blocks[0].mixer.type) == (30522, "gated_convolution")
    assert "its sizes, with blocks 'dense'" in model.config.report("classifier")
    tiny = create_spectral_classifier(40, 3, "tiny", dropout=0.2)
    assert tiny(tokens(2, 9)).shape == (2, 3)
    assert tiny.model.config.dropout == 0.2
    assert create_spectral_classifier(config=config(), num_classes=4)(tokens(2, 9)).shape == (2, 4)


def test_pictures_and_sequences_by_size() -> None:
    with torch.device("meta"):
        pictures = create_spectral_classifier(config="tiny", num_classes=2, modality="vision").model.config.encoder
        pair = SpectralSeq2Seq(SpectralConfig.of_size("tiny", vocab_size=40)).model.config
    assert (pictures.type, pictures.hidden_dim) == ("vision_encoder", 128)
    assert [block.mixer.type for block in pair.blocks] == ["gated_convolution", "holographic"]
    assert [block.mixer.type for block in pair.encoder.blocks] == ["gated_convolution"]
    assert (pair.vocab_size, pair.encoder.vocab_size) == (40, 40)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [("600m", "Nearest: 500m and 1b."), ("slm-2b", "Nearest: 1b and 3b."), ("1m", "Nearest: 100m."),
     ("2000b", "Nearest: 100b."), ("bose", "Did you mean 'base'?"), ("classifier-small", "Sizes: tiny, small")],
)  # fmt: skip
def test_an_unknown_size_is_told_the_nearest(size: str, nearest: str) -> None:
    message = refusal(create_spectral_lm, size)
    assert f"no size is called {size!r}." in message
    assert nearest in message
    assert refusal(create_spectral_classifier, config=size) == message


# transforms, gates and selectors


@pytest.mark.parametrize(
    "transform", [HierarchicalFFT(chunk_size=16), OptimizedFFT(), OptimizedFFT(use_hierarchical=False)]
)
@pytest.mark.parametrize("length", [1, 2, 7, 64, 1001])
def test_transforms_are_inverted_exactly(transform: OptimizedFFT, length: int) -> None:
    x = torch.randn(2, length, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    spectrum = transform(x)
    assert spectrum.real.shape == spectrum.imag.shape == (2, length // 2 + 1, 3)
    back = transform.inverse(spectrum, length)
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)
    expected = torch.fft.rfft(x.detach(), dim=1, norm="ortho")
    torch.testing.assert_close(torch.complex(*spectrum).detach(), expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad((back * x.detach()).sum(), x)
    torch.testing.assert_close(gradient, x.detach(), rtol=1e-12, atol=1e-12)


def test_chunks_change_no_number() -> None:
    x = torch.randn(1, 500, 4)
    whole, chunked = HierarchicalFFT(chunk_size=8192)(x), HierarchicalFFT(chunk_size=32)(x)
    torch.testing.assert_close(whole, chunked)


def test_transforms_refuse_what_does_not_fit() -> None:
    with pytest.raises(UnsupportedInputError, match=r"HierarchicalFFT transforms real \(B, L, D = 4\); got"):
        HierarchicalFFT(4)(torch.randn(2, 9, 5))
    with pytest.raises(UnsupportedInputError, match="max_seq_len = 8; got 9 tokens"):
        OptimizedFFT(max_seq_len=8)(torch.randn(2, 9, 5))
    with pytest.raises(UnsupportedInputError, match="5 bins are no spectrum of 10 samples, which has 6"):
        OptimizedFFT().inverse(OptimizedFFT()(torch.randn(2, 9, 5)), 10)


@pytest.mark.parametrize("length", [1, 2, 9, 64])
def test_a_gate_starts_near_the_identity_and_every_parameter_learns(length: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, length, 12)
    transform, gate = HierarchicalFFT(12), AdvancedSpectralGating(12, num_heads=3)
    spectrum = transform(x)
    changed = gate.eval()(spectrum)
    assert changed.real.shape == spectrum.real.shape
    assert transform.inverse(changed, length).shape == x.shape
    (changed.real.square() + changed.imag.square()).sum().backward()
    assert all(parameter.grad is not None for parameter in gate.parameters())


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_selector_keeps_its_share_of_bins_and_zeroes_the_others(share: float) -> None:
    torch.manual_seed(0)
    selector = AdaptiveFrequencySelector(8, base_sparsity=share, num_heads=2).eval()
    spectrum = OptimizedFFT()(torch.randn(3, 79, 8))
    kept = selector(spectrum)
    count = max(1, round(share * 40))
    for channels in (slice(0, 4), slice(4, 8)):
        bins = (kept.real[..., channels] != 0).any(-1)
        assert (bins.sum(1) == count).all()
        torch.testing.assert_close(kept.imag[..., channels][bins], spectrum.imag[..., channels][bins])


def test_gates_refuse_complex_tensors_and_other_widths() -> None:
    gate = AdvancedSpectralGating(8, num_heads=2)
    with pytest.raises(UnsupportedInputError, match=r"takes real and imaginary parts, Spectrum\(z\.real, z\.imag\)"):
        gate(torch.fft.rfft(torch.randn(2, 9, 8), dim=1))
    with pytest.raises(UnsupportedInputError, match=r"takes parts \(B, F, 8\)"):
        gate(Spectrum(torch.randn(2, 5, 6), torch.randn(2, 5, 6)))
    with pytest.raises(UnsupportedInputError, match="num_heads = 3 does not divide dim = 8"):
        AdaptiveFrequencySelector(8, num_heads=3)


# the page


def test_the_table_of_the_page_is_that_of_the_rules() -> None:
    section = PAGE.read_text(encoding="utf-8").split("\n## ")[1]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE))
    assert rows == {field: rule.__doc__ for field, rule in RULES.items()}


def test_the_page_s_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec", dont_inherit=True), namespace)  # noqa: S102
    assert namespace["logits"].shape == (1, 64, 50257)
    assert namespace["tokens"].shape == (1, 72)
    assert namespace["ours"].type == "classifier"
    assert build_model(namespace["ours"]).config.num_labels == 3


def test_the_page_names_every_size() -> None:
    table = PAGE.read_text(encoding="utf-8").split("\n## ")[2]
    named = set(re.findall(r"`(\w+)`", table))
    assert {"tiny", "xlarge", "100m", "500m", "1b", "3b", "13b"} <= named
    assert {name for name in named if name[0].isdigit()} <= set(list_sizes())
