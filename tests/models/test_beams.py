"""Beam search against the list of all sequences, its options, and what it refuses."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_core import ConfigError
from spectral_layers import State
from spectral_models.generation import generate

VOCABULARY, STOP, PAD = 3, 2, 0


@dataclass
class Output:
    logits: Tensor
    state: State | None


class Table:
    """Logits by the last two tokens and the number of tokens so far: a table per row, which the state remembers."""

    def __init__(self, rows: int, *, vocabulary: int = VOCABULARY, scale: float = 1.5, seed: int = 0) -> None:
        self.vocabulary = vocabulary
        generator = torch.Generator().manual_seed(seed)
        self.logits = scale * torch.randn(rows, 16, vocabulary, vocabulary, vocabulary, generator=generator)
        self.fed: list[int] = []

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        state: State | None = None,
        return_state: bool = False,
        logits_to_keep: int = 0,
    ) -> Output:
        batch = input_ids.shape[0]
        self.fed.append(batch)
        if state is None:
            state = State("Table", torch.zeros(batch, dtype=torch.long), {"row": torch.arange(batch)})
            state.tensors["last"] = torch.zeros(batch, dtype=torch.long)
        state.consume("Table", batch)
        assert input_ids.shape[1] == 1
        row, last, token = state["row"], state["last"], input_ids[:, 0]
        logits = self.logits[row, state.position, last, token]
        return Output(logits[:, None], State("Table", state.position + 1, {"row": row, "last": token}))

    def everything(self, row: int, new: int, length_penalty: float) -> list[tuple[float, list[int]]]:
        """All sequences of up to ``new`` tokens that end, or are cut off there, with their scores, best first."""
        steps = self.logits.log_softmax(-1)
        found = []
        for length in range(1, new + 1):
            for sequence in itertools.product(range(self.vocabulary), repeat=length):
                if STOP in sequence[:-1] or (length < new and sequence[-1] != STOP):
                    continue
                before = [0, 0, *sequence]
                total = sum(
                    float(steps[row, at, before[at], before[at + 1], token]) for at, token in enumerate(sequence)
                )
                found.append((total / length**length_penalty, list(sequence)))
        return sorted(found, reverse=True)


def searched(model: Table, rows: int, new: int, **options: Any) -> Tensor:
    """What is generated behind a prompt of one token 0 in each row: (rows, R, N)."""
    prompt = torch.zeros(rows, 1, dtype=torch.long)
    options = {"stop_tokens": [STOP], "pad_token_id": PAD, "max_new_tokens": new, **options}
    return generate(model, prompt, **options)[:, 1:].unflatten(0, (rows, -1))


def plain(sequence: Tensor) -> list[int]:
    """A row without the padding behind its stop token."""
    tokens = sequence.tolist()
    return tokens[: tokens.index(STOP) + 1] if STOP in tokens else tokens


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_search_finds_the_best_of_all_sequences(seed: int, length_penalty: float) -> None:
    """Beams enough for all sequences that go on: the search is exhaustive, and orders them as the list does."""
    model = Table(3, seed=seed)
    made = searched(model, 3, 4, num_beams=31, num_return_sequences=31, length_penalty=length_penalty)
    for row in range(3):
        wanted = model.everything(row, 4, length_penalty)
        assert len(wanted) == 31
        assert [plain(sequence) for sequence in made[row]] == [sequence for _, sequence in wanted]


def by_hand(model: Table, row: int, new: int, beams: int, length_penalty: float, early: bool) -> list[list[int]]:
    """The same search on lists of sequences."""
    steps = model.logits.log_softmax(-1)
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, list[int]]] = []
    for length in range(1, new + 1):
        longer = []
        for total, sequence in running:
            before = [0, 0, *sequence]
            step = steps[row, length - 1, before[length - 1], before[length]]
            longer += [(total + float(step[token]), [*sequence, token]) for token in range(model.vocabulary)]
        longer.sort(reverse=True)
        for total, sequence in longer[:beams]:
            if sequence[-1] == STOP or length == new:
                ended.append((total / length**length_penalty, sequence))
        ended = sorted(ended, reverse=True)[:beams]
        running = [found for found in longer if found[1][-1] != STOP][:beams]
        if len(ended) == beams:
            longest = new if length_penalty > 0 else length + 1
            if early or ended[-1][0] >= running[0][0] / longest**length_penalty:
                break
    return [sequence for _, sequence in ended]


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("beams", [2, 3, 5])
def test_a_narrow_search_is_the_one_on_lists(beams: int, length_penalty: float, early: bool) -> None:
    model = Table(6, vocabulary=5, seed=beams)
    options = {"num_beams": beams, "num_return_sequences": beams, "length_penalty": length_penalty}
    made = searched(model, 6, 7, early_stopping=early, **options)
    for row in range(6):
        assert [plain(found) for found in made[row]] == by_hand(model, row, 7, beams, length_penalty, early)


def test_a_narrow_search_misses_what_a_wide_one_finds() -> None:
    """Otherwise the tests above would hold for greedy decoding too."""
    model = Table(24, vocabulary=5, scale=0.8)
    greedy, narrow, wide = (
        [plain(found[0]) for found in searched(model, 24, 7, num_beams=beams)] for beams in (1, 2, 200)
    )
    assert greedy != narrow
    assert narrow != wide


def test_one_beam_is_greedy() -> None:
    model = Table(4)
    assert torch.equal(searched(model, 4, 6, num_beams=1), searched(model, 4, 6))


def test_length_is_rewarded_as_asked() -> None:
    """More of a penalty exponent, longer sequences: log-probabilities are negative."""
    model = Table(24, scale=1.0)
    lengths = [
        sum(len(plain(found[0])) for found in searched(model, 24, 8, num_beams=6, length_penalty=penalty))
        for penalty in (-2.0, 0.0, 1.0, 4.0)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[1] < lengths[3]


def test_early_stopping_saves_steps() -> None:
    steps = []
    for early in (False, True):
        model = Table(2, seed=3)
        searched(model, 2, 14, num_beams=2, early_stopping=early)
        steps.append(len(model.fed))
    assert steps[1] < steps[0]


def test_a_search_goes_on_while_a_longer_sequence_can_score_better() -> None:
    """Two have ended, at -0.69 and -0.35 a token; one at -6.7 goes on, loses nothing more and ends at -0.48."""
    model = Table(1)
    model.logits[:] = torch.tensor([0.0, -20.0, -20.0])
    model.logits[:, 0] = torch.tensor([0.0, -20.0, 0.0])
    model.logits[:, 1] = torch.tensor([-6.0, -20.0, 0.0])
    made = searched(model, 1, 14, num_beams=2, num_return_sequences=2)
    assert [plain(found) for found in made[0]] == [[0, STOP], [0] * 14]


def test_ended_sequences_are_padded_and_no_column_is_empty() -> None:
    model = Table(8, scale=3.0)
    made = searched(model, 8, 10, num_beams=3, num_return_sequences=2, length_penalty=0.0, pad_token_id=1).flatten(0, 1)
    assert made.shape[1] == max(len(plain(row)) for row in made)
    for row in made:
        assert (row[len(plain(row)) :] == 1).all()


def test_fewer_sequences_than_beams_leave_padding() -> None:
    made = searched(Table(1), 1, 1, num_beams=5, num_return_sequences=5, pad_token_id=1)[0]
    assert sorted(made[:3, 0].tolist()) == [0, 1, 2]
    assert made[3:].flatten().tolist() == [1, 1]


def test_samples_of_a_prompt_follow_each_other() -> None:
    """The prompt is read once for all of them."""
    model = Table(2)
    made = searched(model, 2, 5, temperature=1.0, num_return_sequences=40, generator=torch.Generator().manual_seed(0))
    assert made.shape[:2] == (2, 40)
    assert model.fed[0] == 2
    assert set(model.fed[1:]) == {80}
    for row in range(2):
        share = (made[row, :, 0] == 0).double().mean()
        assert abs(share - model.logits[row, 0, 0, 0].softmax(-1)[0]) < 0.25, "of its own prompt's distribution"
        assert len(made[row].unique(dim=0)) > 5


def test_a_penalty_on_repetition_acts_in_a_search_too() -> None:
    class Constant(Table):
        def __call__(self, *args: Any, **kwargs: Any) -> Output:
            output = super().__call__(*args, **kwargs)
            output.logits = torch.tensor([2.0, 1.9, 1.8, -9.0]).expand(*output.logits.shape[:2], 4)
            return output

    options = {"stop_tokens": [], "num_beams": 2, "num_return_sequences": 2}
    assert searched(Constant(1, vocabulary=4), 1, 3, **options)[0, 0].tolist() == [0, 0, 0]
    made = searched(Constant(1, vocabulary=4), 1, 2, repetition_penalty=5.0, **options)
    assert sorted(made[0].tolist()) == [[1, 2], [2, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1.*got 0"),
        ({"num_return_sequences": 0}, "num_return_sequences must be at least 1; got 0"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_beams 2 beams end in 2 sequences.*num_beams 3"),
        ({"num_return_sequences": 3}, r"likeliest tokens make one sequence\. Sample .* num_beams of 3 or more"),
        ({"num_beams": 2, "temperature": 0.7}, r"num_beams 2 searches .* got temperature 0\.7\. Leave temperature 0"),
        ({"num_beams": 2, "on_token": print}, "on_token hears tokens as they are drawn; a search .* at its end"),
    ],
)
def test_numbers_that_cannot_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    model = Table(1)
    with pytest.raises(ConfigError, match=message):
        searched(model, 1, 3, **options)
    assert not model.fed
