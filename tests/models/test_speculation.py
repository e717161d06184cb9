"""Drafts change the time and no token: for every mixer that streams, and however much of a draft is accepted."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spectral_core import ConfigError, StateError
from spectral_layers import State
from spectral_layers.testing.cases import MixerCase, streams
from spectral_layers.testing.registered import mixer_cases
from spectral_models import build_model
from spectral_models.generation.drafts import Assistant, PromptLookup
from spectral_models.generation.rollback import Rollback
from spectral_models.generation.speculation import Speculation
from spectral_models.variants.language_model import LanguageModel

VOCABULARY = 13
MEMORY = {"type": "holographic", "head_dim": 8, "phases": 8}
LAYOUTS: dict[str, dict[str, Any]] = {
    "hybrid": {"layers": ["hybrid"], "num_layers": 2},
    "memory, additive": {"block": {"mixer": MEMORY}},
    "memory, delta rule": {"block": {"mixer": {**MEMORY, "decay": "per_token", "update": "delta"}}},
    "rope": {"block": "dense", "position": "rope"},
    "learned": {"block": "dense", "position": "learned"},
    **{
        str(case): {"block": {"mixer": case.config.model_dump()}} for case in mixer_cases() if streams(case)
    },
}  # fmt: skip


def built(layout: dict[str, Any], dtype: torch.dtype = torch.float64, **sizes: int) -> LanguageModel:
    """A small model with random parameters, whose likeliest tokens vary."""
    sizes = {"vocab_size": VOCABULARY, "hidden_dim": 32, "num_layers": 1, "max_seq_len": 160} | sizes
    return MixerCase.randomised(lambda: build_model({**sizes, **layout}), dtype)


@cache
def _pair() -> tuple[LanguageModel, LanguageModel]:
    return built(LAYOUTS["memory, delta rule"]), built({"block": "dense"}, hidden_dim=8, num_layers=1)


@pytest.fixture
def model() -> LanguageModel:
    return _pair()[0]


@pytest.fixture
def assistant() -> LanguageModel:
    return _pair()[1]


def tokens(length: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, (1, length), generator=torch.Generator().manual_seed(seed))


class Foresight:
    """Drafts what the text will be, with every so many drafts a wrong token somewhere."""

    most = 24

    def __init__(self, text: Tensor, seed: int) -> None:
        self.text = text
        self.generator = torch.Generator().manual_seed(seed)
        self.offered: list[int] = []

    def draft(self, text: Tensor, count: int) -> Tensor:
        drafted = self.text[:, text.shape[1] : text.shape[1] + count].clone()
        wrong = int(torch.randint(2 * count, (), generator=self.generator))
        if wrong < drafted.shape[1]:
            drafted[:, wrong] = (drafted[:, wrong] + 1) % VOCABULARY
        self.offered.append(drafted.shape[1])
        return drafted


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_logits_are_those_of_one_pass_whatever_was_drafted(layout: str) -> None:
    model, text, prompt = built(LAYOUTS[layout]), tokens(110), 11
    whole = model(text).logits
    drafter = Foresight(text, seed=2)
    state = model(text[:, :prompt], return_state=True).state
    calls: list[int] = []
    with model.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].shape[1])):
        ahead = Speculation(model, drafter, text[:, :prompt], state, most=text.shape[1])
        found = torch.stack([ahead.read(text[:, t : t + 1]) for t in range(prompt, text.shape[1])], 1)
    torch.testing.assert_close(found, whole[:, prompt:], rtol=1e-9, atol=1e-9)
    assert max(drafter.offered) > 8
    assert len(calls) < 0.7 * (text.shape[1] - prompt), "drafts are verified together"


@torch.no_grad()
def test_the_check_sees_tokens_that_were_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The can-fail twin of the test above."""
    monkeypatch.setattr(Rollback, "settle", lambda self, back=0: Rollback.__init__(self, self.state))
    with pytest.raises(AssertionError, match="not close"):
        test_logits_are_those_of_one_pass_whatever_was_drafted("hybrid")


@given(
    period=st.integers(1, 9),
    length=st.integers(1, 40),
    new=st.integers(1, 24),
    most=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_greedy_tokens_are_the_same_for_any_prompt(period: int, length: int, new: int, most: int, seed: int) -> None:
    """Prompts of one token, shorter than any match, and of all periods."""
    prompt = tokens(period, seed).repeat(1, length)[:, :length]
    model, helper = _pair()
    plain = model.generate(prompt, max_new_tokens=new)
    assert torch.equal(model.generate(prompt, max_new_tokens=new, prompt_lookup_num_tokens=most), plain)
    assert torch.equal(model.generate(prompt, max_new_tokens=new, assistant=helper), plain)


@pytest.mark.parametrize("layout", ["hybrid", "memory, delta rule"])
def test_greedy_tokens_in_float32_differ_at_ties_alone(layout: str) -> None:
    model, prompt = built(LAYOUTS[layout], torch.float32), tokens(7).repeat(1, 4)
    for options in ({"prompt_lookup_num_tokens": 10}, {"assistant": model}):
        plain, found = model.generate(prompt, max_new_tokens=30), model.generate(prompt, max_new_tokens=30, **options)
        differing = (plain != found)[0].nonzero()
        if differing.numel():
            with torch.no_grad():
                best = model.double()(plain[:, : int(differing[0])]).logits[0, -1].topk(2).values
            assert best[0] - best[1] < 1e-4


DRAWN = {
    "sampled": {"temperature": 0.9, "top_k": 9, "top_p": 0.95},
    "penalised": {"repetition_penalty": 1.3},
    "penalised and sampled": {"temperature": 0.7, "repetition_penalty": 1.2},
    "stopped": {"stop_tokens": [3, 5], "temperature": 1.0},
    "read in chunks": {"prefill_chunk": 5},
}


@pytest.mark.parametrize("drawn", DRAWN)
def test_the_same_seed_draws_the_same_tokens(model: LanguageModel, assistant: LanguageModel, drawn: str) -> None:
    prompt = tokens(9).repeat(1, 3)

    def made(**options: Any) -> tuple[Tensor, list[int]]:
        heard: list[int] = []
        generator = torch.Generator().manual_seed(7)
        options = {"max_new_tokens": 24, "generator": generator, **DRAWN[drawn], **options}
        return model.generate(prompt, on_token=lambda token: heard.append(int(token)), **options), heard

    plain, heard = made()
    for options in ({"prompt_lookup_num_tokens": 8}, {"assistant": assistant}, {"assistant": model}):
        found, also = made(**options)
        assert torch.equal(found, plain)
        assert also == heard


def test_padding_is_no_text_and_a_state_goes_on(model: LanguageModel) -> None:
    prompt = tokens(8).repeat(1, 3)
    plain = model.generate(prompt, max_new_tokens=30)[:, 24:]
    for before, after in ((4, 0), (0, 4)):
        padded = torch.nn.functional.pad(prompt, (before, after))
        mask = torch.nn.functional.pad(torch.ones_like(prompt), (before, after))
        found = model.generate(padded, mask, max_new_tokens=30, prompt_lookup_num_tokens=6)
        assert torch.equal(found[:, 28:], plain)
    with torch.no_grad():
        state = model(prompt[:, :10], return_state=True).state
    found = model.generate(prompt[:, 10:], state=state, max_new_tokens=30, prompt_lookup_num_tokens=6)
    assert torch.equal(found[:, 14:], plain)


def test_a_target_is_drafted_from_itself() -> None:
    small = {"hidden_dim": 32, "num_layers": 1, "block": "dense", "vocab_size": VOCABULARY}
    model = MixerCase.randomised(
        lambda: build_model({"type": "seq2seq", "encoder": {"type": "encoder", **small}, **small})
    )
    source = tokens(12)
    plain = model.generate(source, max_new_tokens=30, stop_tokens=())
    assert torch.equal(model.generate(source, max_new_tokens=30, stop_tokens=(), prompt_lookup_num_tokens=9), plain)
    with pytest.raises(ConfigError, match="assistant has not read what the state holds"):
        model.generate(source, assistant=_pair()[0])


def test_no_more_is_read_than_a_declared_length_holds() -> None:
    limited = built({"block": "dense", "position": "learned"}, max_seq_len=30)
    prompt = tokens(5).repeat(1, 4)
    plain = limited.generate(prompt, max_new_tokens=11)
    short = built({"block": "dense", "position": "learned"}, max_seq_len=24)
    for options in ({"prompt_lookup_num_tokens": 20}, {"assistant": limited}, {"assistant": short}):
        assert torch.equal(limited.generate(prompt, max_new_tokens=11, **options), plain)


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 1, 2, 3, 4], 3, [5, 6, 1]),
        ([1, 2, 3, 4, 5, 6, 1, 2, 3, 4], 99, [5, 6, 1, 2, 3, 4] * 2 + [5, 6, 1, 2]),
        ([7, 1, 2, 3, 4, 5, 9, 1, 2, 3, 4, 6, 8, 1, 2, 3, 4], 1, [6]),
        ([7, 1, 2, 3, 4, 5, 9, 1, 2, 3, 4, 6, 8, 7, 1, 2, 3, 4], 2, [5, 9]),
        ([4] * 5, 2, [4, 4]),
        ([1, 2, 3, 9, 1, 2, 3], 4, []),
        ([4] * 4, 2, []),
        ([1, 2, 3], 4, []),
        ([5], 4, []),
    ],
)
def test_a_lookup_drafts_what_followed_the_longest_and_latest_match(
    text: list[int], count: int, expected: list[int]
) -> None:
    assert PromptLookup(count).draft(torch.tensor([text]), count).tolist() == [expected]


def test_an_assistant_reads_each_token_once_and_stops_where_it_is_not_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    assistant, text = _pair()[1], tokens(12)
    drafter = Assistant(assistant, VOCABULARY)
    monkeypatch.setattr("spectral_models.generation.drafts._CONFIDENCE", 0.0)
    with torch.no_grad(), assistant.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].shape[1])):
        first = drafter.draft(text[:, :8], 3)
        second = drafter.draft(text, 2)
    assert read == [8, 1, 1, 4, 1]
    assert torch.equal(first, assistant.generate(text[:, :8], max_new_tokens=3)[:, 8:])
    assert torch.equal(second, assistant.generate(text, max_new_tokens=2)[:, 12:])
    monkeypatch.setattr("spectral_models.generation.drafts._CONFIDENCE", 1.0)
    with torch.no_grad():
        assert Assistant(assistant, VOCABULARY).draft(text, 5).shape == (1, 0)


def test_text_that_cannot_be_drafted_is_read_singly(model: LanguageModel) -> None:
    """A drafter that is always wrong is asked ever less."""

    class Wrong(Foresight):
        def draft(self, text: Tensor, count: int) -> Tensor:
            self.offered.append(count)
            return (self.text[:, text.shape[1] : text.shape[1] + count] + 1) % VOCABULARY

    text = tokens(200)
    drafter = Wrong(text, 0)
    with torch.no_grad():
        state = model(text[:, :8], return_state=True).state
        ahead = Speculation(model, drafter, text[:, :8], state, most=200)
        for t in range(8, 200):
            ahead.read(text[:, t : t + 1])
    assert len(drafter.offered) <= 12


def test_what_was_kept_for_good_is_not_taken_back() -> None:
    rollback = Rollback(State("part", torch.zeros(1, dtype=torch.long)))
    rollback.begun()
    rollback.take(State("part", torch.ones(1, dtype=torch.long)), tokens(3))
    with pytest.raises(StateError, match="cannot take back 4 tokens: 3 were read"):
        rollback.settle(4)
    rollback.settle(1)
    assert rollback.state.position.tolist() == [0]
    assert torch.equal(rollback.due(tokens(1, 5)), torch.cat([tokens(3)[:, :2], tokens(1, 5)], 1))
    rollback.settle(2)
    with pytest.raises(StateError, match="cannot take back 1 tokens: 0 were read"):
        rollback.settle(1)


REFUSED = {
    "several prompts": ({"prompt_lookup_num_tokens": 4, "rows": 2}, "one sequence at a time; got 2 prompts"),
    "beams": ({"prompt_lookup_num_tokens": 4, "num_beams": 3}, "one sequence at a time.*num_beams 3"),
    "samples": (
        {"prompt_lookup_num_tokens": 4, "num_return_sequences": 2, "temperature": 1.0},
        "one sequence at a time",
    ),
    "both": ({"prompt_lookup_num_tokens": 4, "assistant": "hybrid"}, "give one of them"),
    "no tokens": ({"prompt_lookup_num_tokens": 0}, "prompt_lookup_num_tokens must be at least 1; got 0"),
    "half a token": ({"prompt_lookup_num_tokens": 1.5}, "prompt_lookup_num_tokens must be a whole number"),
    "another vocabulary": ({"assistant": {"vocab_size": 14}}, "a vocabulary of 14 tokens, the model one of 13"),
    "an encoder": ({"assistant": {"type": "encoder"}}, "language model that keeps a state; got encoder"),
    "beams of an assistant": ({"assistant": "hybrid", "num_beams": 2}, "one sequence at a time"),
    "no model": ({"assistant": 3}, "language model that keeps a state; got int"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_drafted_is_one_error(model: LanguageModel, case: str) -> None:
    options, message = REFUSED[case]
    options = dict(options)
    if isinstance(options.get("assistant"), dict):
        options["assistant"] = built({"num_layers": 1, **options["assistant"]})
    if options.get("assistant") == "hybrid":
        options["assistant"] = model
    drawn: list[Tensor] = []
    if options.get("num_beams", 1) == 1:
        options["on_token"] = drawn.append
    with pytest.raises(ConfigError, match=message) as raised:
        model.generate(tokens(6).expand(options.pop("rows", 1), -1), max_new_tokens=3, **options)
    assert "\n" not in str(raised.value)
    assert not drawn
