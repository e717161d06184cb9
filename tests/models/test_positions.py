"""Positions in a language model: one function however it is fed, and nothing changed where there are none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_core import ConfigError, StateError, UnsupportedInputError
from spectral_layers import POSITIONS
from spectral_layers.positions.sinusoidal import Sinusoidal
from spectral_models import build_model
from spectral_models.variants.language_model import LanguageModel

VOCABULARY, LIMIT = 13, 48
LAYERS = [
    {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}}, "feedforward": "mlp"},
    {"mixer": {"type": "holographic", "head_dim": 8, "phases": 8}},
]
every_position = pytest.mark.parametrize("position", POSITIONS.names())


def made(position: str, **overrides: Any) -> LanguageModel:
    """A small model in float64 whose parameters are random, limited where its position has a limit."""
    limit = LIMIT if position == "learned" else None
    config = {"vocab_size": VOCABULARY, "hidden_dim": 16, "num_layers": 2, "layers": LAYERS, "max_seq_len": limit}
    torch.manual_seed(0)
    model = build_model(config, position=position, **overrides)
    assert isinstance(model, LanguageModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval()


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def difference(a: Tensor, b: Tensor) -> float:
    assert b.abs().max() > 1e-3, "a comparison with zeros says nothing"
    return float((a - b).abs().max() / b.abs().max())


@every_position
def test_single_tokens_and_chunks_give_the_logits_of_the_full_pass(position: str) -> None:
    model, input_ids = made(position), tokens(2, LIMIT)
    with torch.no_grad():
        whole = model(input_ids).logits
        for sizes in ([1] * LIMIT, [7, 1, 30, 10]):
            state, found = None, []
            for chunk in input_ids.split(sizes, 1):
                output = model(chunk, state=state, return_state=True)
                state = output.state
                found.append(output.logits)
            assert difference(torch.cat(found, 1), whole) < 1e-10


@every_position
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_now_or_later(position: str, side: str) -> None:
    """Rows of 20, 5 and 1 tokens, as batches and alone, and what follows them."""
    model, lengths = made(position), (20, 5, 1)
    input_ids, more = tokens(3, 20), tokens(3, 8, seed=2)
    mask = torch.arange(20) < torch.tensor(lengths)[:, None]
    if side == "left":
        mask = mask.flip(1)
    with torch.no_grad():
        output = model(input_ids, mask, return_state=True)
        following = model(more, state=output.state).logits
        for row, length in enumerate(lengths):
            alone = model(torch.cat([input_ids[row][mask[row]], more[row]])[None]).logits[0]
            assert difference(output.logits[row][mask[row]], alone[:length]) < 1e-10
            assert difference(following[row], alone[length:]) < 1e-10


@every_position
def test_rows_that_stand_apart_continue_by_different_lengths(position: str) -> None:
    """With a state and padding in one call: a padded row near its limit must not be refused for its padding."""
    model, first, second = made(position), tokens(2, 44), tokens(2, 4, seed=2)
    with torch.no_grad():
        mask = torch.arange(44) < torch.tensor([[44], [3]])
        state = model(first, mask, return_state=True).state
        mask = torch.tensor([[True, False, False, False], [True, True, True, True]])
        found = model(second, mask, state=state).logits
        alone = model(torch.cat([first[0], second[0, :1]])[None]).logits[0, -1:]
        assert difference(found[0, :1], alone) < 1e-10
        alone = model(torch.cat([first[1, :3], second[1]])[None]).logits[0, -4:]
        assert difference(found[1], alone) < 1e-10


@every_position
def test_taken_back_tokens_stand_where_they_stood(position: str) -> None:
    model, prompt, more = made(position), tokens(2, 9), tokens(2, 20, seed=2)
    with torch.no_grad():
        state = model(prompt, return_state=True).state.reserve(rewind=6)
        for token in more.split(1, 1):
            state = model(token, state=state, return_state=True).state
        state = model.rewind(state, 5)
        whole = model(torch.cat([prompt, more], 1)).logits
        assert difference(model(more[:, 15:], state=state).logits, whole[:, 24:]) < 1e-10


@every_position
def test_generation_continues_padded_prompts_as_it_does_each_alone(position: str) -> None:
    model, prompts = made(position), tokens(2, 12)
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, :7] = 0
    batch = model.generate(prompts, mask, max_new_tokens=9)
    assert torch.equal(batch[:1], model.generate(prompts[:1], max_new_tokens=9))
    assert torch.equal(batch[1:, 7:], model.generate(prompts[1:, 7:], max_new_tokens=9))


@every_position
def test_gradient_checkpointing_changes_no_gradient(position: str) -> None:
    model, input_ids = made(position).train(), tokens(2, 20)
    found = []
    for checkpointing in (False, True):
        model.gradient_checkpointing = checkpointing
        loss = model(input_ids).logits.square().mean()
        found.append(torch.autograd.grad(loss, list(model.parameters())))
    for plain, recomputed in zip(*found, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(recomputed, plain, rtol=1e-9, atol=1e-12)


def test_the_same_weights_see_every_position_but_none() -> None:
    plain, input_ids = made("none"), tokens(2, LIMIT)
    with torch.no_grad():
        wanted = plain(input_ids).logits
        for position in POSITIONS.names():
            model = made(position)
            model.load_state_dict(plain.state_dict(), strict=False)
            logits = model(input_ids).logits
            assert torch.equal(logits, wanted) if position == "none" else difference(logits, wanted) > 1e-2


def test_a_learned_position_ends_where_its_table_does() -> None:
    """In one pass and across calls; the refusal leaves the state as it was, and generation asks first."""
    model, input_ids = made("learned"), tokens(1, LIMIT)
    assert model.length_limit == LIMIT
    with torch.no_grad():
        whole = model(input_ids).logits
        with pytest.raises(UnsupportedInputError, match=rf"Learned is limited to {LIMIT} tokens.*got {LIMIT + 1}\."):
            model(tokens(1, LIMIT + 1))
        state = model(input_ids[:, :-1], return_state=True).state
        with pytest.raises(
            UnsupportedInputError, match=rf"limited to {LIMIT} tokens.*got {LIMIT + 1}\. Raise max_seq_"
        ):
            model(tokens(1, 2), state=state)
        assert difference(model(input_ids[:, -1:], state=state).logits, whole[:, -1:]) < 1e-10
    with pytest.raises(UnsupportedInputError, match=f"need {LIMIT + 1} positions; the model has {LIMIT}"):
        model.generate(input_ids[:, :40], max_new_tokens=10)


def test_a_learned_position_without_a_length_is_refused_by_its_path() -> None:
    with pytest.raises(ConfigError, match=r"^position: the position 'learned' .* set the model's max_seq_len"):
        build_model({"position": "learned"})


def test_a_state_continues_no_model_with_other_positions() -> None:
    state = made("rope")(tokens(1, 4), return_state=True).state
    with pytest.raises(StateError, match="cannot continue LanguageModel"):
        made("none")(tokens(1, 1), state=state)
    with pytest.raises(StateError, match="2 rows, the input 1"):
        made("learned")(tokens(1, 1), state=made("learned")(tokens(2, 4), return_state=True).state)


# The factorised embedding


def test_a_narrow_embedding_saves_its_share_of_parameters() -> None:
    whole, narrow = (
        sum(parameter.numel() for parameter in made("none", vocab_size=1000, embed_dim=width).parameters())
        for width in (None, 4)
    )
    assert whole - narrow == 1000 * 16 - (1000 * 4 + 4 * 16)


def test_a_tied_head_goes_back_the_way_the_embedding_came() -> None:
    model, input_ids = made("none", embed_dim=4), tokens(2, 9)
    seen: list[Tensor] = []
    model.norm.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        logits = model(input_ids).logits
        table = model.frontend.embedding.weight @ model.frontend.proj.weight.T
        assert difference(logits, seen[0] @ table.T) < 1e-12


def test_an_untied_head_reads_the_whole_width() -> None:
    model = made("none", embed_dim=4, tie_embeddings=False)
    assert model.head.weight.shape == (VOCABULARY, 16)
    assert model(tokens(2, 9)).logits.shape == (2, 9, VOCABULARY)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"type": "encoder", "hidden_dim": 64}, 0.16),
        ({"type": "encoder", "hidden_dim": 64, "embed_scale": 1.0}, 0.02),
        ({"type": "vision_encoder", "hidden_dim": 64}, 1.0),
        ({"type": "language_model", "hidden_dim": 64, "position": {"type": "sinusoidal", "scale": 0.5}}, 0.5),
    ],
)
def test_waves_begin_as_large_as_the_features_they_are_added_to(config: dict[str, Any], size: float) -> None:
    """Larger, they would drown tokens; smaller, the order would be lost. A model may say otherwise."""
    model = build_model({**config, "num_layers": 1})
    assert isinstance(model.position, Sinusoidal)
    assert model.position.scale.item() == pytest.approx(size)
