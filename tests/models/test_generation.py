"""Generation: what is fed, what is drawn, when it ends and what it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spectral_core import ConfigError, UnsupportedInputError
from spectral_layers import State
from spectral_models import build_model
from spectral_models.generation import generate
from spectral_models.variants.language_model import LanguageModel

VOCABULARY = 13
BLOCKS = [
    {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}}, "feedforward": "mlp"},
    {"mixer": {"type": "holographic", "head_dim": 8, "phases": 8}},
]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """Small, in float64, with random parameters: its likeliest tokens vary."""
    torch.manual_seed(0)
    made = build_model({"vocab_size": VOCABULARY, "hidden_dim": 16, "num_layers": 2, "layers": BLOCKS})
    assert isinstance(made, LanguageModel)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made.double().eval()


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def repeated(model: LanguageModel, prompt: Tensor, new: int) -> Tensor:
    """The likeliest continuation by a full pass over everything for every token."""
    with torch.no_grad():
        for _ in range(new):
            prompt = torch.cat([prompt, model(prompt).logits[:, -1:].argmax(-1)], 1)
    return prompt


@dataclass
class Output:
    logits: Tensor
    state: State | None


class Fixed:
    """Gives the same logits at every position, whatever it is fed, and keeps a record of that."""

    def __init__(self, logits: list[float] | Tensor) -> None:
        self.logits = torch.as_tensor(logits)
        self.fed: list[Tensor] = []

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        state: State | None = None,
        return_state: bool = False,
        logits_to_keep: int = 0,
    ) -> Output:
        self.fed.append(input_ids)
        logits = self.logits.expand(*input_ids.shape, self.logits.shape[-1])[:, -logits_to_keep:]
        before = torch.zeros(input_ids.shape[0], dtype=torch.long) if state is None else state.position
        return Output(logits, State("Fixed", before + input_ids.shape[1]) if return_state else None)


class Scripted(Fixed):
    """Wants row b's next token to be the next of ``script[b]``."""

    def __init__(self, *script: list[int]) -> None:
        super().__init__(torch.zeros(VOCABULARY))
        self.script = script

    def __call__(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Output:
        output = super().__call__(input_ids, *args, **kwargs)
        step = len(self.fed) - 1
        wanted = torch.tensor([row[step] if step < len(row) else 0 for row in self.script])
        output.logits = output.logits + 9 * torch.nn.functional.one_hot(wanted, VOCABULARY)[:, None]
        return output


# Greedy


def test_greedy_is_the_argmax_of_full_passes(model: LanguageModel) -> None:
    prompt = tokens(3, 7)
    made = model.generate(prompt, max_new_tokens=80)
    assert torch.equal(made, repeated(model, prompt, 80))
    assert len(made[:, 7:].unique()) > 3, "a constant continuation says little"


def test_no_token_is_computed_twice(model: LanguageModel) -> None:
    fed: list[tuple[int, ...]] = []
    handle = model.register_forward_pre_hook(lambda _, inputs: fed.append(tuple(inputs[0].shape)))
    try:
        model.generate(tokens(2, 7), max_new_tokens=5)
    finally:
        handle.remove()
    assert fed == [(2, 7), (2, 1), (2, 1), (2, 1), (2, 1)]  # and the last token drawn is never fed


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_prompts_are_continued_like_each_alone(model: LanguageModel, side: str) -> None:
    lengths = (4, 9, 1)
    rows = [tokens(1, length, seed=length) for length in lengths]
    prompt, mask = torch.full((3, 9), 5), torch.zeros(3, 9, dtype=torch.bool)
    for index, row in enumerate(rows):
        here = slice(9 - row.shape[1], 9) if side == "left" else slice(row.shape[1])
        prompt[index, here], mask[index, here] = row[0], True
    made = model.generate(prompt, mask, max_new_tokens=20, repetition_penalty=1.3)
    assert torch.equal(made[:, :9], prompt)
    for index, row in enumerate(rows):
        alone = model.generate(row, max_new_tokens=20, repetition_penalty=1.3)
        assert torch.equal(made[index, 9:], alone[0, row.shape[1] :])


def test_prompts_of_any_integer_type_keep_it(model: LanguageModel) -> None:
    expected = model.generate(tokens(2, 5), max_new_tokens=6)
    for kind in (torch.int32, torch.uint8):
        made = model.generate(tokens(2, 5).to(kind), max_new_tokens=6)
        assert made.dtype == kind
        assert torch.equal(made.long(), expected)


def test_an_integer_type_too_narrow_for_the_vocabulary_is_refused() -> None:
    with pytest.raises(UnsupportedInputError, match=r"tokens up to 299 do not fit the prompt's \(1, 2\) uint8.*int64"):
        generate(Fixed(torch.zeros(300)), tokens(1, 2).to(torch.uint8), max_new_tokens=1)


def test_generation_records_no_gradients_and_leaves_the_mode_alone(model: LanguageModel) -> None:
    made = model.generate(tokens(1, 3), max_new_tokens=2)
    assert not made.requires_grad
    assert not model.training
    generate(model, tokens(1, 3), max_new_tokens=2)
    assert all(parameter.grad is None for parameter in model.parameters())


# Sampling

PROBABILITIES = (0.4, 0.05, 0.3, 0.05, 0.2)
LOGITS = [math.log(p) for p in PROBABILITIES]


def frequencies(draws: int = 20_000, logits: list[float] | None = None, **options: Any) -> Tensor:
    """How often each token is drawn, one per row."""
    prompt = torch.zeros(draws, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    made = generate(Fixed(logits or LOGITS), prompt, max_new_tokens=1, generator=generator, **options)
    return torch.bincount(made[:, 1], minlength=5) / draws


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 1.0}, PROBABILITIES),
        ({"temperature": 0.5}, [p**2 for p in PROBABILITIES]),
        ({"temperature": 2.0}, [p**0.5 for p in PROBABILITIES]),
        ({"temperature": 1.0, "top_k": 2}, [0.4, 0, 0.3, 0, 0]),
        ({"temperature": 1.0, "top_k": 99}, PROBABILITIES),
        ({"temperature": 1.0, "top_p": 1.0}, PROBABILITIES),
        ({"temperature": 1.0, "top_p": 0.65}, [0.4, 0, 0.3, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.75}, [0.4, 0, 0.3, 0, 0.2]),
        ({"temperature": 1.0, "top_p": 0.01}, [1, 0, 0, 0, 0]),  # the likeliest always stays
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.7}, [0.4, 0, 0.3, 0, 0]),  # of 4/9, 3/9, 2/9: 7/9 suffice
        ({"temperature": 0.5, "top_p": 0.54}, [1, 0, 0, 0, 0]),  # temperature first: 0.16 of 0.295 is 0.542
        ({"temperature": 1e-30}, [1, 0, 0, 0, 0]),  # too low to divide by
        ({"temperature": 1.0, "top_k": 1}, [1, 0, 0, 0, 0]),
        ({}, [1, 0, 0, 0, 0]),
    ],
)
def test_tokens_are_drawn_as_asked(options: dict[str, Any], expected: list[float]) -> None:
    """20,000 draws: a frequency's standard deviation is below 0.0036, so 0.015 is four of them."""
    wanted = torch.tensor(expected) / sum(expected)
    found = frequencies(**options)
    assert (found - wanted).abs().max() < 0.015
    assert (found[wanted == 0] == 0).all()


def test_top_k_keeps_exactly_k_of_equals() -> None:
    """An untrained model in half precision ties often; top_k=1 is greedy all the same."""
    assert (frequencies(logits=[1.0, 1.0, 1.0, 0.0, 0.0], temperature=1.0, top_k=2) > 0).sum() == 2
    assert (frequencies(logits=[1.0] * 5, temperature=1.0, top_k=1) > 0).sum() == 1


def test_top_p_keeps_the_smallest_set_of_equals() -> None:
    assert (frequencies(logits=[0.0] * 5, temperature=1.0, top_p=0.5) > 0).sum() == 3


def test_sampling_is_reproducible_from_its_generator(model: LanguageModel) -> None:
    def drawn(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return model.generate(tokens(2, 3), max_new_tokens=30, temperature=1.0, generator=generator)

    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert torch.equal(torch.rand(1), expected)  # the global state is somebody else's


def test_without_a_generator_the_global_seed_decides(model: LanguageModel) -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append(model.generate(tokens(2, 3), max_new_tokens=30, temperature=1.0))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("logits", "penalty", "expected"),
    [
        ([2.0, 1.5, -1.0], 1.0, 0),
        ([2.0, 1.5, -1.0], 1.3, 0),  # 2 / 1.3 = 1.54
        ([2.0, 1.5, -1.0], 1.4, 1),  # 2 / 1.4 = 1.43
        ([-1.0, -1.5, -9.0], 1.4, 0),  # -1 * 1.4 = -1.4
        ([-1.0, -1.5, -9.0], 1.6, 1),  # -1 * 1.6 = -1.6
        ([1.5, 2.0, -1.0], 0.5, 0),  # below 1 it invites repetition: 1.5 / 0.5 = 3
    ],
)
def test_tokens_that_occurred_are_penalised(logits: list[float], penalty: float, expected: int) -> None:
    """Keskar et al.: positive logits divided, negative ones multiplied, both less likely."""
    made = generate(Fixed(logits), torch.tensor([[0]]), max_new_tokens=1, repetition_penalty=penalty)
    assert made.tolist() == [[0, expected]]


def test_drawn_tokens_count_as_seen() -> None:
    made = generate(Fixed([1.1, 1.0, 0.9]), torch.tensor([[2]]), max_new_tokens=3, repetition_penalty=2.0)
    assert made[0, 1:].tolist() == [0, 1, 0]  # then all were seen, and the order is as before


def test_padding_does_not_count_as_seen() -> None:
    """Token 0 stands on the first row's padding only; in the second row it is a token."""
    prompt, mask = torch.tensor([[0, 2], [0, 2]]), torch.tensor([[0, 1], [1, 1]])
    made = generate(Fixed([2.0, 1.5, 0.0]), prompt, mask, max_new_tokens=1, repetition_penalty=2.0)
    assert made[:, 2].tolist() == [0, 1]


# Ending


def test_a_row_ends_with_its_stop_token_and_is_padded() -> None:
    stub = Scripted([4, 7, 5, 5, 5], [4, 4, 4, 8, 5])
    made = generate(stub, torch.tensor([[1], [2]]), max_new_tokens=9, stop_tokens=[7, 8], pad_token_id=3)
    assert made.tolist() == [[1, 4, 7, 3, 3], [2, 4, 4, 4, 8]]
    assert len(stub.fed) == 4  # all rows are done: nothing more is computed


def test_stop_tokens_in_the_prompt_stop_nothing() -> None:
    made = generate(Scripted([4, 5]), torch.tensor([[7]]), max_new_tokens=2, stop_tokens={7})
    assert made.tolist() == [[7, 4, 5]]


def test_each_step_is_reported_as_it_is_drawn() -> None:
    heard: list[list[int]] = []
    stub = Scripted([4, 7, 5], [4, 4, 8])
    made = generate(
        stub,
        torch.tensor([[1], [2]]),
        max_new_tokens=3,
        stop_tokens=[7],
        on_token=lambda token: heard.append([*token.tolist(), len(stub.fed)]),
    )
    assert heard == [[4, 4, 1], [7, 4, 2], [0, 8, 3]]
    assert made[:, 1:].T.tolist() == [step[:2] for step in heard]


def test_no_new_tokens_is_the_prompt(model: LanguageModel) -> None:
    prompt, stub = tokens(2, 3), Fixed(LOGITS)
    made = model.generate(prompt, max_new_tokens=0)
    assert torch.equal(made, prompt)
    assert made is not prompt
    generate(stub, prompt, max_new_tokens=0)
    assert stub.fed == []


# What it refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, r"temperature must be at least 0; got -0\.1"),
        ({"temperature": math.nan}, "temperature must be at least 0; got nan"),
        ({"top_k": 0}, "top_k must be at least 1; got 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1; got 0"),
        ({"top_p": 1.5}, r"top_p must be above 0 and at most 1; got 1\.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0; got -1"),
        ({"pad_token_id": -1}, "pad_token_id must be a token, from 0 to 12; got -1"),
        ({"pad_token_id": 13}, "pad_token_id must be a token, from 0 to 12; got 13"),
    ],
)
def test_options_out_of_range_are_refused(model: LanguageModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model.generate(tokens(1, 3), **{"max_new_tokens": 2, **options})


WHOLE = ("max_new_tokens", "top_k", "num_beams", "num_return_sequences", "pad_token_id", "prefill_chunk")
REAL = ("temperature", "top_p", "repetition_penalty", "length_penalty")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in WHOLE for value in (1.5, 2.0, True, "1", [1], torch.ones(2, dtype=torch.long), {})),
        *((name, -(10**30)) for name in WHOLE),
        *((name, 10**12) for name in ("max_new_tokens", "num_beams", "num_return_sequences", "pad_token_id")),
        *((name, value) for name in REAL for value in (math.nan, math.inf, -math.inf, True, "1", [1.0], 1j, 10**400)),
        ("length_penalty", 1e9),
        *(("early_stopping", value) for value in (1, "never", None)),
        *(("stop_tokens", value) for value in (3, "abc", b"abc", None, [1.5], [True], [[1]], [-1], [99], 0.5)),
        *(("generator", value) for value in (3, torch)),
        ("on_token", 3),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_options_of_another_kind_are_one_error_before_anything_is_computed(name: str, value: Any) -> None:
    stub = Fixed(LOGITS)
    with pytest.raises(ConfigError, match=name.replace("prefill_chunk", "chunk")) as raised:
        generate(stub, tokens(1, 3) % 5, **{"max_new_tokens": 2, name: value})
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
    assert len(stub.fed) <= 1, "what depends on the vocabulary is known after the prompt"


@pytest.mark.parametrize("name", [*WHOLE, *REAL])
def test_numbers_of_numpy_and_tensors_of_one_are_numbers(name: str) -> None:
    one = [np.int64(1), np.uint8(1), torch.tensor(1)]
    made = [
        generate(Fixed(LOGITS), tokens(1, 3) % 5, **{"max_new_tokens": 2, "top_k": 1, name: value})
        for value in (1, *one)
    ]
    assert all(torch.equal(found, made[0]) for found in made)
    stops = np.array([0, 4])
    assert generate(Fixed(LOGITS), tokens(1, 3) % 5, stop_tokens=stops).shape == (1, 4)


def test_more_beams_than_fit_are_refused_before_they_have_memory() -> None:
    stub = Fixed(LOGITS)
    with pytest.raises(ConfigError, match=r"more than fit.*1,048,576 sequences"):
        generate(stub, tokens(4, 3) % 5, num_beams=1 << 19)
    with pytest.raises(ConfigError, match=r"more than fit.*67,108,864 tokens"):
        generate(stub, tokens(4, 3) % 5, num_beams=16, max_new_tokens=1 << 23)
    assert not stub.fed


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-40, 1.0, 1e38, 1e300])
@pytest.mark.parametrize("top_p", [None, 1e-300, 1e-50, 1e-8, 0.5])
@pytest.mark.parametrize("repetition_penalty", [1e-300, 1.0, 1e300])
@pytest.mark.parametrize(
    "logits",
    [[0.0, -1.0, -math.inf], [3e38, -3e38, -math.inf], [1e38, 1e38, -math.inf], [-3e38, -3e38, -math.inf]],
    ids=str,
)
def test_no_option_in_range_draws_a_token_that_cannot_occur(
    temperature: float, top_p: float | None, repetition_penalty: float, logits: list[float]
) -> None:
    """Overflow in the penalty or the temperature makes no NaN, of which any token could be drawn."""
    made = generate(
        Fixed(logits),
        torch.tensor([[0, 1, 2]]),
        max_new_tokens=3,
        temperature=temperature,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        generator=torch.Generator().manual_seed(0),
    )
    assert set(made[0, 3:].tolist()) <= {0, 1}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("logits", [[0.0, math.nan], [0.0, math.inf], [-math.inf, -math.inf]], ids=str)
def test_logits_that_are_not_numbers_are_refused(temperature: float, logits: list[float]) -> None:
    with pytest.raises(UnsupportedInputError, match=r"not numbers.*diverged"):
        generate(Fixed(logits), torch.zeros(1, 1, dtype=torch.long), temperature=temperature)


@pytest.mark.parametrize("state", [3, "state", torch.zeros(1), {}])
def test_a_state_that_is_none_is_refused(model: LanguageModel, state: Any) -> None:
    with pytest.raises(UnsupportedInputError, match=r"state must be what a call of the model with return_state=True"):
        model.generate(tokens(1, 3), state=state)


def test_an_option_that_does_not_exist_is_refused(model: LanguageModel) -> None:
    with pytest.raises(TypeError, match="top_q"):
        model.generate(tokens(1, 3), top_q=1)


@pytest.mark.parametrize(
    ("prompt", "mask", "message"),
    [
        (torch.zeros(1, 0, dtype=torch.long), None, r"at least one token per row; got \(1, 0\)"),
        (torch.zeros(0, 3, dtype=torch.long), None, r"got \(0, 3\)"),
        (torch.zeros(3, dtype=torch.long), None, r"a prompt is \(B, L\).*got \(3,\)"),
        (tokens(3, 2), torch.tensor([[1, 1], [0, 0], [0, 0]]), r"rows \[1, 2\] of the prompt are empty"),
        (tokens(2, 3), torch.tensor([[1, 0, 1], [1, 1, 1]]), r"holes in rows \[0\]"),
        (tokens(2, 3), torch.ones(2, 4), r"mask \(2, 4\).*must have the prompt's shape \(2, 3\)"),
        (tokens(2, 3), torch.ones(3), r"must have the prompt's shape"),
        (torch.tensor([[99]]), None, "got 99 to 99"),
        *((torch.zeros(1, 3, dtype=kind), None, "integers") for kind in (torch.float32, torch.bool, torch.complex64)),
        (tokens(2, 3), [[1, 1, 1]] * 2, r"mask list must have the prompt's shape"),
    ],
)
def test_prompts_that_are_none_are_refused(
    model: LanguageModel, prompt: Tensor, mask: Tensor | None, message: str
) -> None:
    with pytest.raises(UnsupportedInputError, match=message):
        model.generate(prompt, mask, max_new_tokens=2)


def test_a_declared_length_is_not_generated_past() -> None:
    """Refused before the first token: a caller that does not listen would lose all those drawn."""
    limited = build_model(
        {"vocab_size": VOCABULARY, "hidden_dim": 8, "num_layers": 1, "max_seq_len": 6},
        **{"block.mixer.type": "gated_convolution", "block.mixer.filter": "spectrum"},
    ).eval()
    assert isinstance(limited, LanguageModel)
    heard: list[Tensor] = []
    assert limited.generate(tokens(1, 4), max_new_tokens=3).shape == (1, 7)  # the last token is never fed
    with pytest.raises(UnsupportedInputError, match=r"9 new tokens need 12 positions; the model has 6"):
        limited.generate(tokens(1, 4), max_new_tokens=9, on_token=heard.append)
    assert not heard
