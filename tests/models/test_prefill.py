"""Prompts read in chunks: the same result for any chunk, and nothing that grows with the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_core import ConfigError, UnsupportedInputError
from spectral_layers import State
from spectral_models import build_model
from spectral_models.generation import prefill
from spectral_models.variants.language_model import LanguageModel

VOCABULARY = 13
LENGTHS = [23, 9, 1, 16]
MIXERS: dict[str, dict[str, Any]] = {
    "resonant": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}},
    "implicit": {"type": "gated_convolution", "filter": "implicit"},
    "holographic": {"type": "holographic", "head_dim": 8, "phases": 8},
    "spectral_product": {"type": "spectral_product"},
    "spectral_gating": {"type": "spectral_gating", "gates": ["magnitude"], "head_dim": 8, "block": 4, "window": 8},
    "multiscale": {"type": "multiscale"},
}


def made(*mixers: str) -> LanguageModel:
    """In float64, with random parameters; experts in the last block."""
    torch.manual_seed(0)
    blocks: list[dict[str, Any]] = [{"mixer": MIXERS[name]} for name in mixers]
    blocks[-1]["feedforward"] = {"type": "moe", "experts": 3}
    model = build_model({"vocab_size": VOCABULARY, "hidden_dim": 16, "num_layers": len(blocks), "layers": blocks})
    assert isinstance(model, LanguageModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.double().eval()


def tokens(*shape: int) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=[(name,) for name in MIXERS] + [("resonant", "holographic")], ids="-".join)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return made(*request.param)


@pytest.mark.parametrize("chunk", [1, 5, 8, 22, 23, 100])
def test_a_chunked_prompt_is_read_as_a_whole_one(model: LanguageModel, chunk: int) -> None:
    prompt, more = tokens(2, 23), tokens(2, 3)
    with torch.no_grad():
        whole = model(torch.cat([prompt, more], 1)).logits
        logits, state = prefill(model, prompt, chunk=chunk)
        torch.testing.assert_close(logits, whole[:, 22], rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(model(more, state=state).logits, whole[:, 23:], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("chunk", [4, 9, None])
def test_padded_prompts_are_read_like_each_alone(model: LanguageModel, side: str, chunk: int | None) -> None:
    """Rows end in different chunks, some before the last begins."""
    prompt, more = tokens(4, 23), tokens(4, 3)
    mask = torch.arange(23) < torch.tensor(LENGTHS)[:, None]
    batch = prompt
    if side == "left":
        batch = torch.stack([row.roll(-length) for row, length in zip(prompt, LENGTHS, strict=True)])
        mask = mask.flip(1)
    with torch.no_grad():
        logits, state = prefill(model, batch, mask, chunk=chunk)
        assert state.position.tolist() == LENGTHS
        after = model(more, state=state).logits
        for row, length in enumerate(LENGTHS):
            alone = model(torch.cat([prompt[row : row + 1, :length], more[row : row + 1]], 1)).logits[0]
            torch.testing.assert_close(logits[row], alone[length - 1], rtol=1e-8, atol=1e-9)
            torch.testing.assert_close(after[row], alone[length:], rtol=1e-8, atol=1e-9)


def test_a_prompt_may_continue_a_state() -> None:
    model, prompt = made("resonant", "holographic"), tokens(2, 23)
    with torch.no_grad():
        whole = model(prompt).logits[:, -1]
        state = model(prompt[:, :6], return_state=True).state
        torch.testing.assert_close(prefill(model, prompt[:, 6:], state=state, chunk=7)[0], whole)


def test_generation_is_the_same_for_any_chunk() -> None:
    model, prompt = made("resonant", "holographic"), tokens(3, 40)
    whole = model.generate(prompt, max_new_tokens=30, prefill_chunk=None)
    for chunk in (1, 7, 40):
        assert torch.equal(model.generate(prompt, max_new_tokens=30, prefill_chunk=chunk), whole)
    assert len(whole[:, 40:].unique()) > 3, "a constant continuation says little"


def test_what_is_fed_has_the_size_of_the_chunk() -> None:
    model = made("holographic")
    fed: list[tuple[int, ...]] = []
    handle = model.register_forward_pre_hook(lambda _, inputs: fed.append(tuple(inputs[0].shape)))
    try:
        model.generate(tokens(2, 23), max_new_tokens=2, prefill_chunk=10)
    finally:
        handle.remove()
    assert fed == [(2, 10), (2, 10), (2, 3), (2, 1)]


def tensors(state: State) -> Iterator[Tensor]:
    yield from state.tensors.values()
    for part in state.parts.values():
        yield from tensors(part)


def size(state: State) -> int:
    """Bytes of storage: a view would keep all of what it is a view of."""
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors(state))


def test_a_resonant_models_state_does_not_grow() -> None:
    """The twin, a filter without a recurrence, remembers every input, and is caught by the same measure."""
    sizes: dict[str, list[int]] = {}
    for mixer in ("resonant", "implicit"):
        model, prompt = made(mixer, "holographic"), tokens(1, 4096)
        sizes[mixer] = [size(prefill(model, prompt[:, :length], chunk=256)[1]) for length in (512, 4096)]
    assert sizes["resonant"][0] == sizes["resonant"][1]
    assert sizes["implicit"][1] > 3 * sizes["implicit"][0]


def test_what_cannot_be_read_is_refused() -> None:
    model = made("holographic")
    with pytest.raises(ConfigError, match="chunk must be at least 1; got 0"):
        prefill(model, tokens(1, 4), chunk=0)
    with pytest.raises(UnsupportedInputError, match=r"rows \[1\] of the prompt are empty"):
        prefill(model, tokens(2, 4), torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]))
    with pytest.raises(UnsupportedInputError, match="at least one token per row"):
        prefill(model, tokens(1, 4)[0])
    with pytest.raises(UnsupportedInputError, match=r"mask \(1, 3\).* must have the prompt's shape \(1, 4\)"):
        prefill(model, tokens(1, 4), torch.ones(1, 3))
