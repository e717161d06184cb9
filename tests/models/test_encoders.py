"""Encoders of text, pictures and sound: both ways, padding or none, along one axis or two; clear when they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_core import ConfigError, UnsupportedInputError
from spectral_layers import MIXERS, POSITIONS, Rotation, Rows
from spectral_layers.testing import MixerCase, mixer_cases
from spectral_models import build_model, load_checkpoint, load_config, save_checkpoint
from spectral_models.variants.audio_encoder import AudioEncoder
from spectral_models.variants.encoding import Encoder
from spectral_models.variants.plane import Lines
from spectral_models.variants.plane_encoder import PlaneEncoder

VOCABULARY = 13
CASES = [case for case in mixer_cases() if not case.causal]
FAST = {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 2}}, "feedforward": "mlp"}
BLOCK = {"mixer": {"type": "spectral_gating", "head_dim": 8}, "feedforward": {"type": "moe", "experts": 3, "active": 2}}
SHARED = {"hidden_dim": 16, "num_layers": 2, "layers": [FAST, BLOCK]}
TEXT = {"type": "encoder", "vocab_size": VOCABULARY, **SHARED}
IMAGE = {"type": "vision_encoder", "frontend": {"type": "patches", "size": 2, "channels": 1}, **SHARED}
MEL = {"type": "mel", "sample_rate": 2000, "n_fft": 64, "hop_length": 20, "n_mels": 12, "bands": 3}
AUDIO = {"type": "audio_encoder", "frontend": MEL, **SHARED}
POOLINGS = ["mean", "max", "cls", "last"]
LENGTHS = (7, 20, 1, 13)


def made(config: dict[str, Any], **overrides: Any) -> Encoder:
    """In eval mode and float64, with random parameters: what starts at zero hides what it would do."""
    torch.manual_seed(0)
    model = build_model(config, **overrides)
    assert isinstance(model, Encoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval()


def inputs_for(model: Encoder, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    inputs = model.frontend.example(batch)
    return inputs.double() if inputs.is_floating_point() else inputs


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest of b."""
    assert a.shape == b.shape
    assert b.abs().max() > 1e-3, "a comparison with zeros says nothing"
    return float((a - b).abs().max() / b.abs().max())


def padded(rows: list[Tensor], side: str, fill: float) -> tuple[Tensor, Tensor]:
    """The rows (1, L) in one batch, and its mask."""
    width = max(row.shape[1] for row in rows) + 2
    batch = torch.full((len(rows), width), fill, dtype=rows[0].dtype)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        here = slice(width - row.shape[1], width) if side == "left" else slice(row.shape[1])
        batch[index, here], mask[index, here] = row[0], 1
    return batch, mask


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


# Both ways


@pytest.mark.parametrize("case", CASES, ids=str)
def test_padded_text_is_the_text_alone(case: MixerCase) -> None:
    """With every mixer an encoder can have: hidden states, pooled vectors and the logits of masked tokens."""
    mixer = case.config.model_dump()
    block = {"mixer": {**mixer, "head_dim": 8} if "head_dim" in mixer else mixer, "feedforward": "mlp"}
    model = made({**TEXT, "layers": [block]}, masked_lm=True, max_seq_len=64)
    rows = [tokens(1, length, seed=length) for length in LENGTHS]
    with torch.no_grad():
        alone = [model(row) for row in rows]
        for side, fill in (("left", 5), ("right", 9)):
            batch, mask = padded(rows, side, fill)
            output = model(batch, mask)
            assert output.hidden.shape == (*batch.shape, 16)
            assert torch.equal(output.mask, mask == 1)
            for index, row in enumerate(alone):
                here = output.mask[index]
                assert difference(output.pooled[index], row.pooled[0]) < 1e-10
                assert difference(output.hidden[index][here], row.hidden[0]) < 1e-10
                assert difference(output.logits[index][here], row.logits[0]) < 1e-10


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_token_is_heard_by_every_other(case: MixerCase) -> None:
    """An encoder that saw the past only, or nothing, would pass every test of padding."""
    mixer = case.config.model_dump()
    block = {"mixer": {**mixer, "head_dim": 8} if "head_dim" in mixer else mixer, "feedforward": "mlp"}
    model, input_ids = made({**TEXT, "layers": [block]}, max_seq_len=64), tokens(1, 9)
    with torch.no_grad():
        before = model(input_ids).hidden
        for token in (0, 4, 8):
            changed = input_ids.clone()
            changed[:, token] = (changed[:, token] + 1) % VOCABULARY
            moved = (model(changed).hidden - before).abs().amax(-1)[0]
            assert (moved > 1e-9).all(), token


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("position", POSITIONS.names())
def test_no_pooling_and_no_position_hears_padding(position: str, pooling: str) -> None:
    model = made(TEXT, position=position, pooling=pooling, max_seq_len=20)
    rows = [tokens(1, length, seed=length) for length in LENGTHS]
    with torch.no_grad():
        for side in ("left", "right"):
            output = model(*padded(rows, side, 5))
            for index, row in enumerate(rows):
                assert difference(output.pooled[index], model(row).pooled[0]) < 1e-10


@pytest.mark.parametrize(
    ("mixing", "pooling"), [("separable", how) for how in ("mean", "max", "last")] + [("sequence", "cls")]
)
def test_padded_sound_is_the_sound_alone(mixing: str, pooling: str) -> None:
    """Lengths in samples, features in frames and bands; the auxiliary losses of its parts count no padding either."""
    model = made(AUDIO, mixing=mixing, pooling=pooling)
    rows = [0.3 * torch.randn(1, 9 * length, dtype=torch.float64) for length in LENGTHS]
    with torch.no_grad():
        for side in ("left", "right"):
            output = model(*padded(rows, side, 0.7))
            for index, row in enumerate(rows):
                alone = model(row)
                frames = 1 + row.shape[1] // 20
                assert int(output.mask[index].sum()) == alone.hidden.shape[1] == 3 * frames
                assert difference(output.pooled[index], alone.pooled[0]) < 1e-10
                assert difference(output.hidden[index, : 3 * frames], alone.hidden[0]) < 1e-10
        twice = model(*padded([rows[1], rows[1]], "right", 0.7))
        once = model(rows[1])
    for name, loss in once.losses.items():
        torch.testing.assert_close(twice.losses[name], loss, msg=name)
    assert once.losses


@pytest.mark.parametrize("config", [TEXT, IMAGE, {**IMAGE, "mixing": "separable"}, AUDIO], ids=lambda c: c["type"])
def test_a_row_does_not_depend_on_the_batch_around_it(config: dict[str, Any]) -> None:
    model = made(config)
    inputs = inputs_for(model, 3)
    with torch.no_grad():
        output = model(inputs)
        for row in range(3):
            alone = model(inputs[row : row + 1])
            assert difference(output.hidden[row], alone.hidden[0]) < 1e-10
            assert difference(output.pooled[row], alone.pooled[0]) < 1e-10
        assert model(inputs[:0]).pooled.shape == (0, 16), "data loaders hand out empty batches"


# Pooling


def test_pooling_is_what_it_says() -> None:
    models = {how: made(TEXT, pooling=how) for how in ("mean", "max", "last")}
    batch, mask = padded([tokens(1, length, seed=length) for length in LENGTHS], "right", 5)
    with torch.no_grad():
        for row, length in enumerate(LENGTHS):
            for how, model in models.items():
                output = model(batch, mask)
                real = output.hidden[row, :length]
                wanted = {"mean": real.mean(0), "max": real.amax(0), "last": real[-1]}[how]
                assert difference(output.pooled[row], wanted) < 1e-12


def test_a_learned_token_hears_the_row_and_takes_no_place_in_it() -> None:
    model, plain = made(TEXT, pooling="cls"), made(TEXT)
    input_ids = tokens(2, 9)
    with torch.no_grad():
        output = model(input_ids)
        assert output.hidden.shape == (2, 9, 16)
        assert difference(output.pooled[0], output.pooled[1]) > 1e-2, "it hears the row"
        wanted = output.pooled[0].clone()
        model.cls.add_(1)
        assert difference(model(input_ids).pooled[0], wanted) > 1e-2
    assert set(dict(model.named_parameters())) - set(dict(plain.named_parameters())) == {"cls"}


# Planes


def by_hand(model: PlaneEncoder, x: Tensor, down: bool, block: Any) -> Tensor:
    """One picture's features (R, C, D) through a block, line by line."""
    lines = x.transpose(0, 1) if down else x
    y = torch.stack([block(line[None]).x[0] for line in lines])
    return y.transpose(0, 1) if down else y


@pytest.mark.parametrize("config", [IMAGE, AUDIO], ids=lambda c: c["type"])
def test_separable_mixing_goes_along_one_axis_after_the_other(config: dict[str, Any]) -> None:
    """Against the same blocks run on each row, or column, by itself: pictures rows first, sound along time first."""
    model = made(config, mixing="separable", num_layers=3, position="none")
    assert isinstance(model, PlaneEncoder)
    inputs = inputs_for(model)
    with torch.no_grad():
        output, found = model(inputs), model.frontend(inputs)
        for row in range(2):
            x = found.x[row].unflatten(0, found.grid)
            for index, block in enumerate(model.blocks):
                x = by_hand(model, x, (index % 2 == 0) == isinstance(model, AudioEncoder), block)
            assert difference(output.hidden[row], model.norm(x).flatten(0, 1)) < 1e-12


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_lines_take_a_plane_apart_and_put_it_together(batch: int, down: bool) -> None:
    """With rotations, which turn each place as they do on the whole plane, and rows, which end where it does."""
    grid, x = (4, 5), torch.randn(batch, 20, 6)
    theta = torch.randn(1, 20, 3)
    rotation, rows = Rotation(theta.cos(), theta.sin()), Rows(torch.tensor([20, 5, 10])[:batch])
    layout = Lines.of(grid, down=down, batch=batch, rows=rows, rotation=rotation)
    lines = layout.split(x)
    assert lines.shape == (batch * (5 if down else 4), 4 if down else 5, 6)
    assert torch.equal(layout.merge(lines), x)
    assert torch.equal(layout.split(rotation(x)), layout.rotation(lines))
    real = torch.arange(20) < rows.lengths[:, None]
    assert torch.equal(layout.merge(layout.rows.mask(lines.shape[1])[..., None])[..., 0], real)


@pytest.mark.parametrize("config", [IMAGE, AUDIO], ids=lambda c: c["type"])
def test_two_blocks_connect_all_places_of_a_plane(config: dict[str, Any]) -> None:
    model = made(config, mixing="separable", layers=[{"mixer": "fourier"}])
    with torch.no_grad():
        x = model.frontend(inputs_for(model, 1))
        reached = []
        for index in (0, x.x.shape[1] // 2, x.x.shape[1] - 1):
            changed = x.x.clone()
            changed[:, index] += 1
            layouts = model.layouts(x.grid, x.x, None, None)
            moved = model.through_blocks(changed, layouts).x - model.through_blocks(x.x, layouts).x
            reached.append((moved.abs().amax(-1) > 1e-9).all())
    assert all(reached)


@pytest.mark.parametrize("position", ["rope", "sinusoidal"])
@pytest.mark.parametrize("mixing", ["sequence", "separable"])
def test_places_are_rows_and_columns(mixing: str, position: str) -> None:
    """A picture and its transpose give other embeddings, and by two-dimensional angles: not those of a line."""
    model = made(IMAGE, mixing=mixing, position=position)
    inputs, seen = inputs_for(model), []
    turned = model.position.rotation

    def flat(positions: Tensor, dtype: torch.dtype, grid: Any = None) -> Any:
        seen.append(grid)
        return turned(positions, dtype)

    with torch.no_grad():
        on_a_plane = model(inputs).pooled
        assert difference(model(inputs.transpose(2, 3)).pooled, on_a_plane) > 1e-3
        model.position.rotation = flat
        on_a_line = model(inputs).pooled
    assert seen == [(2, 3)]
    assert (difference(on_a_line, on_a_plane) > 1e-3) == (position == "rope")


def test_pictures_of_any_size_that_patches_divide() -> None:
    model = made(IMAGE, mixing="separable")
    with torch.no_grad():
        for height, width in ((2, 2), (4, 10), (8, 2)):
            assert model(torch.randn(1, 1, height, width).double()).hidden.shape == (1, height * width // 4, 16)


# Training


@pytest.mark.parametrize("config", [TEXT, {**IMAGE, "mixing": "separable"}, AUDIO], ids=lambda c: c["type"])
def test_every_parameter_learns_and_checkpointing_changes_no_gradient(config: dict[str, Any]) -> None:
    options: dict[str, Any] = {"layers.1.feedforward.experts": 2}  # of which both are active
    if config is AUDIO:
        options |= {"pooling": "cls", "mixing": "sequence"}
    model = made(config, **options)
    inputs, found = inputs_for(model), []
    weights = torch.randn(16, dtype=torch.float64)
    for checkpointing in (False, True):
        model.train().gradient_checkpointing = checkpointing
        output = model(inputs)
        loss = (output.pooled * weights).sum() + output.hidden.square().mean() + sum(output.losses.values())
        found.append(torch.autograd.grad(loss, list(model.parameters())))
    for (name, _), plain, recomputed in zip(model.named_parameters(), *found, strict=True):
        assert plain.abs().max() > 0, name
        torch.testing.assert_close(recomputed, plain, rtol=1e-9, atol=1e-12)


def test_the_masked_head_learns_what_stands_behind_a_mask() -> None:
    """Each token is the sum of its neighbours: one side alone cannot tell."""
    torch.manual_seed(0)
    model = build_model(TEXT, layers=[FAST], num_layers=1, masked_lm=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(120):
        sides = torch.randint(3, (64, 2))
        row = torch.stack([sides[:, 0], torch.full((64,), 12), sides[:, 1]], 1)
        loss = torch.nn.functional.cross_entropy(model(row).logits[:, 1], sides.sum(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2.0
    assert sum(losses[-10:]) / 10 < 0.2, "the better of the two sides alone leaves log 3"


@pytest.mark.parametrize("config", [TEXT, {**IMAGE, "mixing": "separable"}, AUDIO], ids=lambda c: c["type"])
def test_a_checkpoint_gives_the_same_encoder(config: dict[str, Any], tmp_path: Path) -> None:
    model = made(config)
    save_checkpoint(model, tmp_path / "saved")
    loaded = load_checkpoint(tmp_path / "saved")
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(inputs_for(model)).pooled, model(inputs_for(model)).pooled)
    other = load_checkpoint(tmp_path / "saved", pooling="max", fft="torch")
    assert other.config.pooling == "max"


# What they refuse


CAUSAL_ONLY = [entry.name for entry in MIXERS if "bidirectional" not in entry.load().directions]
FITTING = ", ".join(entry.name for entry in MIXERS if "bidirectional" in entry.load().directions)


@pytest.mark.parametrize("mixer", CAUSAL_ONLY)
def test_a_mixer_of_the_past_only_is_refused_with_those_that_fit(mixer: str) -> None:
    message = rf"^layers\.1\.mixer: '{mixer}' sees the past only.*Bidirectional mixers: {FITTING}\."
    with pytest.raises(ConfigError, match=message):
        load_config(TEXT, layers=[{}, {"mixer": mixer}])


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        (IMAGE, {"frontend": "mel"}, r"^frontend: 'mel' takes audio, and the vision_encoder image\..*: patches\."),
        (AUDIO, {"frontend": "tokens"}, r"^frontend: 'tokens' takes text, and the audio_encoder audio\..*: mel\."),
        (IMAGE, {"image_size": [8, 5]}, r"^image_size: 8 x 5 is not a multiple of the patches' 2 x 2 pixels"),
        (IMAGE, {"mixing": "separable", "pooling": "cls"}, r"^pooling: a 'cls' token stands on no row or column"),
        (IMAGE, {"mixing": "separable", "num_layers": 1}, r"^num_layers: .* needs 2 layers or more"),
        (IMAGE, {"mixing": "rows"}, r"^mixing: Input should be 'sequence' or 'separable'"),
        (AUDIO, {"frontend.bands": 1}, r"^frontend\.bands: with one band there is no frequency to mix along"),
        (TEXT, {"pooling": "sum"}, r"^pooling: Input should be 'mean', 'max', 'cls' or 'last'"),
        ({**TEXT, "block": {}}, {}, "give either block .* or layers"),
    ],
)
def test_configs_that_cannot_work_are_refused_with_their_path(
    config: dict[str, Any], overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(config, **overrides)


@pytest.mark.parametrize(
    ("config", "overrides", "call", "message"),
    [
        (TEXT, {}, (torch.tensor([[1, 13]]),), r"from 0 to 12 \(vocab_size 13\); got 1 to 13"),
        (TEXT, {}, (tokens(2, 0),), "at least one token"),
        (TEXT, {}, (tokens(3, 4), torch.tensor([[1] * 4, [0] * 4, [0] * 4])), r"rows \[1, 2\] are empty"),
        (TEXT, {}, (tokens(1, 4), torch.tensor([[1, 0, 1, 1]])), r"holes in rows \[0\]"),
        (TEXT, {}, (tokens(2, 4), torch.ones(2, 3)), r"mask \(2, 3\).* must have input_ids' shape"),
        (TEXT, {}, (torch.randn(1, 1, 4, 4),), r"input_ids are \(B, L\) integers"),
        (TEXT, {"position": "learned", "max_seq_len": 5}, (tokens(1, 6),), "limited to 5 tokens.*got 6"),
        (IMAGE, {}, (tokens(1, 4),), r"images are \(B, C, H, W\) floats"),
        (IMAGE, {}, (torch.randn(1, 1, 4, 5),), "got 4 x 5. Resize or pad"),
        (IMAGE, {"image_size": [8, 4]}, (torch.randn(1, 1, 4, 8),), r"of 8 x 4 \(image_size.*; got \(1, 1, 4, 8\)"),
        (IMAGE, {"image_size": [8, 4]}, (torch.randn(4),), r"of 8 x 4 \(image_size.*; got \(4,\)"),
        (IMAGE, {}, (torch.randn(1, 1, 4, 4), torch.ones(1, 4)), "takes no attention mask"),
        (AUDIO, {}, (torch.zeros(1, 2, 99),), r"audio is \(B, T\) floats"),
        (AUDIO, {}, (torch.zeros(2, 99), torch.tensor([[1] * 99, [0] * 99])), r"rows \[1\] are empty"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_words(
    config: dict[str, Any], overrides: dict[str, Any], call: tuple[Tensor, ...], message: str
) -> None:
    with pytest.raises(UnsupportedInputError, match=message):
        build_model(config, **overrides)(*call)


def test_sound_of_another_rate_is_refused() -> None:
    model, sound = build_model(AUDIO), torch.zeros(1, 99)
    assert model(sound, sample_rate=2000).pooled.shape == (1, 16)
    with pytest.raises(UnsupportedInputError, match=r"reads 2000 samples a second; the audio has 16000\. Resample it"):
        model(sound, sample_rate=16_000)
