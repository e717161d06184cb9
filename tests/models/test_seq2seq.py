"""One sequence to another: what the decoder is told of the source, how it is trained and used, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_core import ConfigError, StateError, UnsupportedInputError
from spectral_layers import FUSIONS, MIXERS
from spectral_layers.testing import MixerCase, mixer_cases
from spectral_models import build_model, load_checkpoint, load_config, save_checkpoint
from spectral_models.data import sequences_batch
from spectral_models.variants.seq2seq import Seq2Seq

SOURCES, TARGETS = 11, 13
FAST = {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}}, "feedforward": "mlp"}
ROUTED = {"mixer": {"type": "holographic", "head_dim": 8, "phases": 8}, "feedforward": {"type": "moe", "experts": 2}}
ENCODER = {"type": "encoder", "vocab_size": SOURCES, "hidden_dim": 24, "num_layers": 1, "block": FAST}
MODEL = {
    "type": "seq2seq",
    "vocab_size": TARGETS,
    "hidden_dim": 16,
    "num_layers": 2,
    "layers": [FAST, ROUTED],
    "fusion": {"type": "source_product", "head_dim": 4, "phases": 8},
    "encoder": ENCODER,
}


def made(**overrides: Any) -> Seq2Seq:
    """In eval mode and float64, with random parameters: what starts at zero hides what it would do."""
    torch.manual_seed(0)
    model = build_model(MODEL, **overrides)
    assert isinstance(model, Seq2Seq)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval()


@pytest.fixture(scope="module")
def model() -> Seq2Seq:
    return made()


def sources(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(SOURCES, shape, generator=torch.Generator().manual_seed(seed))


def targets(*shape: int, seed: int = 2) -> Tensor:
    return torch.randint(TARGETS, shape, generator=torch.Generator().manual_seed(seed))


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest of b."""
    assert a.shape == b.shape
    assert b.abs().max() > 1e-3, "a comparison with zeros says nothing"
    return float((a - b).abs().max() / b.abs().max())


# What a target hears


def of(case: MixerCase) -> Seq2Seq:
    """A decoder around a mixer of the registry, heads as wide as the small model."""
    mixer = case.config.model_dump()
    if "head_dim" in mixer:
        mixer["head_dim"] = 8
    return made(layers=[{"mixer": mixer, "feedforward": "mlp"}], num_layers=1, max_seq_len=256)


@pytest.mark.parametrize("case", [case for case in mixer_cases() if case.causal], ids=str)
def test_every_token_hears_the_source_and_the_past_with_every_mixer(case: MixerCase) -> None:
    model, input_ids, decoder_input_ids = of(case), sources(2, 7), targets(2, 2 * case.block + 5)
    place = case.block + 1
    with torch.no_grad():
        logits = model(input_ids, decoder_input_ids).logits
        changed = decoder_input_ids.clone()
        changed[:, place:] = (changed[:, place:] + 1) % TARGETS
        moved = (model(input_ids, changed).logits - logits).abs()
        assert moved[:, place:].max() > 1e-3
        assert moved[:, :place].max() <= 1e-9 * moved.max()
        for token in (0, 3, 6):
            other = input_ids.clone()
            other[:, token] = (other[:, token] + 1) % SOURCES
            assert (model(other, decoder_input_ids).logits - logits).abs().amax((0, 2)).min() > 1e-9
        state, streamed = model.prepare(input_ids), []
        for chunk in decoder_input_ids.split([1, place, decoder_input_ids.shape[1] - place - 1], 1):
            output = model(None, chunk, state=state, return_state=True)
            streamed.append(output.logits)
            state = output.state
        assert difference(torch.cat(streamed, 1), logits) < 1e-9


@pytest.mark.parametrize("sides", [("left", "right"), ("right", "left")])
def test_padding_on_either_side_of_both_changes_nothing(model: Seq2Seq, sides: tuple[str, str]) -> None:
    lengths, widths = ((7, 2), (1, 9), (4, 5)), (8, 11)
    batches = sources(3, widths[0]), targets(3, widths[1])
    masks = torch.zeros(3, widths[0]), torch.zeros(3, widths[1])
    for row, pair in enumerate(lengths):
        for length, width, side, mask in zip(pair, widths, sides, masks, strict=True):
            mask[row, width - length if side == "left" else 0 : width if side == "left" else length] = 1
    with torch.no_grad():
        output = model(*batches, *masks)
        greedy = model.generate(batches[0], masks[0], max_new_tokens=6, stop_tokens=())
        for row in range(3):
            source, target = (batch[row][mask[row] == 1][None] for batch, mask in zip(batches, masks, strict=True))
            assert difference(output.logits[row][masks[1][row] == 1], model(source, target).logits[0]) < 1e-9
            assert torch.equal(model.generate(source, max_new_tokens=6, stop_tokens=())[0], greedy[row])


def test_pictures_and_sounds_are_sources_too() -> None:
    """A padded sound is the sound alone, though its frames are what is fused."""
    patches = {"type": "vision_encoder", "frontend": {"type": "patches", "size": 2, "channels": 1}}
    mel = {"type": "mel", "sample_rate": 2000, "n_fft": 64, "hop_length": 20, "n_mels": 6, "bands": 1}
    shared = {"hidden_dim": 16, "num_layers": 1, "block": FAST}
    pictures = made(encoder={**shared, **patches})
    assert pictures.bridge is None
    ids = targets(2, 5)
    assert pictures(torch.randn(2, 1, 4, 6).double(), ids).logits.shape == (2, 5, TARGETS)
    sounds = made(encoder={**shared, "type": "audio_encoder", "frontend": mel, "mixing": "sequence"})
    sound, mask = torch.randn(2, 300).double(), torch.ones(2, 300)
    mask[1, 120:] = 0
    with torch.no_grad():
        logits = sounds(sound, ids, mask, sample_rate=2000).logits
        assert difference(logits[1:], sounds(sound[1:, :120], ids[1:]).logits) < 1e-9
        with pytest.raises(UnsupportedInputError, match="Resample it"):
            sounds.prepare(sound, sample_rate=16_000)


def test_the_source_is_encoded_once(model: Seq2Seq) -> None:
    seen: list[tuple[int, ...]] = []
    handle = model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    try:
        model.generate(sources(2, 7), max_new_tokens=5, num_beams=3, stop_tokens=())
    finally:
        handle.remove()
    assert seen == [(2, 7)]


# Generation


def likeliest(model: Seq2Seq, input_ids: Tensor, new: int) -> Tensor:
    """By a full pass over everything for every token."""
    target = torch.full((input_ids.shape[0], 1), model.config.decoder_start_token_id)
    with torch.no_grad():
        for _ in range(new):
            target = torch.cat([target, model(input_ids, target).logits[:, -1:].argmax(-1)], 1)
    return target[:, 1:]


def test_greedy_is_the_argmax_of_full_passes() -> None:
    model = made(decoder_start_token_id=5)
    found = model.generate(sources(3, 7), max_new_tokens=20, stop_tokens=())
    assert torch.equal(found, likeliest(model, sources(3, 7), 20))
    assert len(found.unique()) > 2, "a constant says little"


def test_a_target_ends_with_its_token_and_is_padded() -> None:
    open_ended = likeliest(made(decoder_start_token_id=5), sources(3, 7), 20)
    end = int(open_ended[0, 2])
    model = made(decoder_start_token_id=5, eos_token_id=end, pad_token_id=12)
    found = model.generate(sources(3, 7), max_new_tokens=20)
    for row, whole in zip(found.tolist(), open_ended.tolist(), strict=True):
        stop = whole.index(end) + 1 if end in whole else 20
        assert row == (whole[:stop] + [12] * 20)[: found.shape[1]]


def test_several_targets_of_a_source_follow_each_other(model: Seq2Seq) -> None:
    options = {"max_new_tokens": 6, "num_return_sequences": 3}
    beams = model.generate(sources(2, 7), num_beams=4, **options)
    alone = torch.cat([model.generate(row, num_beams=4, **options) for row in sources(2, 7)[:, None]])
    assert beams.shape[0] == 6
    assert torch.equal(beams, alone)
    generator = torch.Generator().manual_seed(0)
    drawn = model.generate(sources(2, 7), temperature=1.0, generator=generator, stop_tokens=(), **options)
    assert drawn.shape == (6, 6)
    assert len(drawn.unique(dim=0)) > 4


# Training


def test_a_few_steps_learn_to_copy_backwards() -> None:
    torch.manual_seed(0)
    sizes = {"layers": [FAST], "num_layers": 1, "hidden_dim": 32, "fusion.head_dim": 8, "encoder.hidden_dim": 32}
    model = build_model(MODEL, **sizes)
    assert isinstance(model, Seq2Seq)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(30):
        input_ids, mask, labels = sequences_batch(
            32, task="reverse", symbols=8, shortest=2, longest=6, generator=generator
        )
        loss = model.loss(input_ids, labels, mask, decoder_attention_mask=labels != -100).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2.0
    assert losses[-1] < 0.5
    found = model.eval().generate(input_ids, mask, max_new_tokens=7)
    found = torch.nn.functional.pad(found, (0, 7 - found.shape[1]))
    assert ((found == labels) | (labels == -100)).double().mean() > 0.8


def test_every_parameter_learns_and_checkpointing_changes_no_gradient() -> None:
    model, found = made(), []
    input_ids, labels = sources(3, 7), targets(3, 9)
    mask = torch.ones(3, 9)
    mask[1, 5:] = 0
    for checkpointing in (False, True):
        model.train().gradient_checkpointing = checkpointing
        made_of = model.loss(input_ids, labels, decoder_attention_mask=mask)
        assert "decoder.layers.1.feedforward.load_balancing" in made_of.losses
        found.append(torch.autograd.grad(made_of.loss, list(model.parameters())))
    for (name, _), plain, recomputed in zip(model.named_parameters(), *found, strict=True):
        assert plain.abs().max() > 0, name
        torch.testing.assert_close(recomputed, plain, rtol=1e-9, atol=1e-12)


def test_losses_of_both_halves_are_in_the_loss() -> None:
    model = made(**{"encoder.block": ROUTED | {"mixer": FAST["mixer"]}})
    labels = targets(2, 5)
    labels[0, 3:] = -100
    output = model(sources(2, 7), model.decoder_inputs(labels))
    assert {name.split(".")[0] for name in output.losses} == {"encoder", "decoder"}
    assert {name.split(".")[0] for name in output.metrics} == {"encoder", "decoder"}
    log_probabilities = output.logits.float().log_softmax(-1)
    learned = [log_probabilities[row, at, labels[row, at]] for row, at in (labels != -100).nonzero().tolist()]
    wanted = -sum(learned) / len(learned) + sum(output.losses.values())
    found = model.loss(sources(2, 7), labels)
    torch.testing.assert_close(found.loss, wanted, check_dtype=False)
    assert found.losses.keys() == output.losses.keys()
    halves = [model.loss(sources(2, 7)[row], labels[row], step_count=found.count) for row in (slice(1), slice(1, 2))]
    torch.testing.assert_close(sum(half.nats for half in halves), found.nats)


def test_decoder_inputs_are_the_labels_one_later() -> None:
    model = made(decoder_start_token_id=5, pad_token_id=7)
    labels = torch.tensor([[1, 2, 3], [4, -100, -100]])
    assert model.decoder_inputs(labels).tolist() == [[5, 1, 2], [5, 4, 7]]


def test_a_checkpoint_gives_the_same_model(model: Seq2Seq, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "saved")
    loaded = load_checkpoint(tmp_path / "saved")
    assert loaded.config == model.config
    with torch.no_grad():
        ids = sources(2, 7), targets(2, 5)
        assert torch.equal(loaded(*ids).logits, model(*ids).logits)


def test_the_name_alone_is_a_model() -> None:
    model = build_model({"type": "seq2seq", "hidden_dim": 32, "num_layers": 1})
    assert isinstance(model, Seq2Seq)
    assert model.bridge is not None, "the encoder is 256 wide"
    assert model.generate(torch.tensor([list(b"bytes")]), max_new_tokens=3).shape[0] == 1


# What it refuses


def test_a_state_and_a_source_exclude_each_other(model: Seq2Seq) -> None:
    ids, state = targets(2, 3), model.prepare(sources(2, 7))
    with pytest.raises(StateError, match="contains its source: with a state give input_ids None"):
        model(sources(2, 7), ids, state=state)
    for more in ({"attention_mask": torch.ones(2, 7)}, {"sample_rate": 2000}):
        with pytest.raises(StateError, match="nothing else of a source"):
            model(None, ids, state=state, **more)
    with pytest.raises(UnsupportedInputError, match=r"a target needs a source.*prepare\(input_ids\)"):
        model(None, ids)
    with pytest.raises(StateError, match=r"2 rows, the input 3\. Use select"):
        model(None, targets(3, 3), state=state)
    with pytest.raises(StateError, match=r"begins with its state: call prepare"):
        model.decoder(ids)
    with pytest.raises(UnsupportedInputError, match=r"each target has its source; got input_ids \(2, 7\)"):
        model(sources(2, 7), targets(3, 3))


@pytest.mark.parametrize("overrides", [{"fusion.phases": 16}, {"num_layers": 1}, {"layers": [FAST]}])
def test_the_state_of_another_model_is_refused(model: Seq2Seq, overrides: dict[str, Any]) -> None:
    state = made(**overrides).prepare(sources(2, 7))
    with pytest.raises(StateError, match=r"belongs to SourceDecoder.*cannot continue SourceDecoder"):
        model(None, targets(2, 1), state=state)


def test_a_state_saved_in_part_does_not_begin_anew(model: Seq2Seq) -> None:
    state = model(sources(2, 7), targets(2, 3), return_state=True).state
    del state.parts["1"].parts["mixer"]
    with pytest.raises(StateError, match=r"SourceBlock holds nothing of its part 'mixer'"):
        model(None, targets(2, 1), state=state)


CAUSAL = ", ".join(entry.name for entry in FUSIONS if "causal" in entry.load().directions)
ENCODERS = "audio_encoder, encoder, vision_encoder"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"encoder": "language_model"}, rf"^encoder: 'language_model' is not an encoder\. Encoders: {ENCODERS}"),
        ({"encoder": "seq2seq"}, r"^encoder: 'seq2seq' is not an encoder"),
        ({"encoder.pooling": "sum"}, r"^encoder\.pooling: "),
        ({"layers.1.mixer": "fourier"}, r"^layers\.1\.mixer: 'fourier' sees the whole sequence"),
        ({"encoder.block.mixer": "holographic"}, r"^encoder\.block\.mixer: 'holographic' sees the past only"),
        (
            {"fusion": {"type": "cross_modal", "modalities": ["source", "target"]}},
            rf"^fusion: 'cross_modal' lets every token .* Causal fusions: {CAUSAL}\.",
        ),
        ({"fusion": "sum"}, r"^fusion: .*'sum'"),
        ({"decoder_start_token_id": 13}, r"^decoder_start_token_id: a token is below vocab_size, 13; got 13"),
        ({"eos_token_id": 14}, r"^eos_token_id: a token is below vocab_size, 13; got 14"),
        ({"pad_token_id": -1}, r"^pad_token_id: "),
    ],
)
def test_configs_that_cannot_work_are_refused_with_their_path(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(MODEL, **overrides)


def test_every_mixer_that_is_not_causal_is_refused() -> None:
    for entry in MIXERS:
        if "causal" not in entry.load().directions:
            with pytest.raises(ConfigError, match=rf"^block\.mixer: '{entry.name}' sees the whole"):
                load_config(MODEL, layers=None, block={"mixer": entry.name})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"fusion.head_dim": 3}, r"^fusion: head_dim 3 does not divide hidden_dim 16"),
        ({"layers.1.mixer.head_dim": 3}, r"^layers\.1\.mixer: "),
        ({"encoder.block.mixer": {"type": "spectral_gating", "head_dim": 5}}, r"^encoder\.block\.mixer: "),
    ],
)
def test_what_only_building_finds_out_carries_its_path(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(MODEL, **overrides)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (targets(3, 3), r"each target has its source; got input_ids \(2, 7\) .* decoder_input_ids \(3, 3\)"),
        (targets(2), r"labels are \(B, L\), a row for each target; got \(2,\)"),
        (torch.zeros(2, 3), r"one integer for each token, of shape \(2, 3\); got \(2, 3\) float32"),
        (torch.full((2, 3), 13), r"from 0 to 12 \(vocab_size 13\), -100 .*; got 13 to 13"),
        (torch.tensor([[1, -1, -100]] * 2), r"got -1 to 1"),
    ],
)
def test_labels_that_are_none_are_refused(model: Seq2Seq, labels: Tensor, message: str) -> None:
    with pytest.raises(UnsupportedInputError, match=message):
        model.loss(sources(2, 7), labels)


def test_a_sources_sample_rate_is_checked_in_generation_too() -> None:
    mel = {"type": "mel", "sample_rate": 2000, "n_fft": 64, "hop_length": 20, "n_mels": 6, "bands": 3}
    model = made(encoder={"type": "audio_encoder", "frontend": mel, "hidden_dim": 16, "num_layers": 2, "block": FAST})
    sound = torch.randn(2, 200, dtype=torch.float64)
    assert model.generate(sound, sample_rate=2000, max_new_tokens=2, stop_tokens=()).shape == (2, 2)
    with pytest.raises(UnsupportedInputError, match=r"reads 2000 samples a second; the audio has 8000"):
        model.generate(sound, sample_rate=8000)
    with pytest.raises(UnsupportedInputError, match=r"'encoder', .* no option 'sample_rate'"):
        made()(sources(1, 4), targets(1, 2), sample_rate=8000)


def test_a_declared_length_limits_what_is_generated() -> None:
    model = made(max_seq_len=6, position="learned")
    assert model.generate(sources(1, 9), max_new_tokens=6, stop_tokens=()).shape == (1, 6)
    with pytest.raises(UnsupportedInputError, match=r"7 new tokens need 7 positions; the model has 6"):
        model.generate(sources(1, 9), max_new_tokens=7)
