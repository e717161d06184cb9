"""States by themselves: trees of tensors, the reserve for rewinding, and what saving leaves behind."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from spectral_core import StateError
from spectral_layers import MixerOutput, State
from spectral_layers.testing import MixerCase, mixer_cases
from spectral_layers.testing.cases import streams

STREAMING = [case for case in mixer_cases() if streams(case)]


def tree(rows: int = 2) -> State:
    """A state of a whole model: two layers, one with a part of its own."""
    position = torch.arange(rows)
    inner = State("filter", position, {"modes": torch.randn(rows, 3)})
    layers = {"layers.0": State("mixer", position, {"past": torch.randn(rows, 2)}, {"inner": inner})}
    layers["layers.1"] = State("mixer", position, {"past": torch.randn(rows, 2)})
    return State("model", position, {}, layers)


def test_a_tree_is_saved_and_loaded_whole() -> None:
    state = tree()
    saved = state.save()
    assert sorted(saved) == [
        "layers.0/inner/filter:modes",
        "layers.0/inner/filter:position",
        "layers.0/mixer:past",
        "layers.0/mixer:position",
        "layers.1/mixer:past",
        "layers.1/mixer:position",
        "model:position",
    ]
    loaded = State.load(saved)
    assert (loaded.owner, loaded.parts["layers.0"].parts["inner"].owner) == ("model", "filter")
    again = loaded.save()
    assert all(torch.equal(saved[name], again[name]) for name in saved)


def test_select_reaches_every_part() -> None:
    state = tree(3)
    order = torch.tensor([2, 2, 0, 1])
    selected = state.select(order)
    modes = state.parts["layers.0"].parts["inner"]["modes"]
    assert selected.position.tolist() == [2, 2, 0, 1]
    assert torch.equal(selected.parts["layers.0"].parts["inner"]["modes"], modes[order])
    assert selected.select(torch.tensor([], dtype=torch.long)).position.shape == (0,)


def test_a_clone_shares_no_memory() -> None:
    state = tree()
    clone = state.clone()
    for name, tensor in clone.parts["layers.0"].parts["inner"].tensors.items():
        tensor.zero_()
        assert state.parts["layers.0"].parts["inner"][name].any()


def test_a_state_saved_in_part_names_what_it_lacks() -> None:
    state = State.load({key: tensor for key, tensor in tree().save().items() if not key.startswith("layers.1")})
    with pytest.raises(StateError, match=r"state of model holds nothing of its part 'layers\.1'"):
        state.part("layers.1")
    with pytest.raises(StateError, match="state of model holds no 'past'"):
        state["past"]


def test_loading_what_is_no_state_says_so() -> None:
    with pytest.raises(StateError, match="not a saved state: they have no position"):
        State.load({"model:weight": torch.ones(2)})
    with pytest.raises(StateError, match="not a saved state"):
        State.load({})


@pytest.mark.parametrize("case", STREAMING, ids=str)
def test_saved_states_are_what_safetensors_takes(case: MixerCase) -> None:
    # It refuses strided tensors and tensors that share memory: views of a projection are both.
    mixer = case.build()
    for batch in (1, 2):
        output = mixer(torch.randn(batch, case.block + 3, case.hidden_dim, dtype=torch.float64), return_state=True)
        saved = output.state.save()
        loaded = State.load(safetensors.torch.load(safetensors.torch.save(saved)))
        assert loaded.position.tolist() == [case.block + 3] * batch
        assert sum(tensor.numel() for tensor in saved.values()) < 1e6


@pytest.mark.parametrize("case", STREAMING, ids=str)
def test_a_state_carries_gradients_across_chunks(case: MixerCase) -> None:
    # Training on long sequences in chunks: what the state remembers has been learned.
    mixer = case.build()
    x = torch.randn(1, 20, case.hidden_dim, dtype=torch.float64, requires_grad=True)
    whole = mixer(x).y[:, 12:].sum()
    (expected,) = torch.autograd.grad(whole, x)
    first = mixer(x[:, :12], return_state=True)
    (found,) = torch.autograd.grad(mixer(x[:, 12:], state=first.state).y.sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


def counting(x: torch.Tensor, state: State) -> State:
    """A part that sums what it has seen."""
    state.consume("sum", x.shape[0])
    made = State("sum", state.position + x.shape[1], {"sum": state["sum"] + x.sum(1)})
    return made.record(state, x, ragged=False)


def part(x: torch.Tensor, state: State) -> MixerOutput:
    """As a part returns it."""
    return MixerOutput(x, counting(x, state))


@pytest.mark.parametrize("sizes", [[1] * 30, [3] * 10, [30], [29, 1], [1, 29], [4, 4, 4, 1, 1, 1, 15]], ids=str)
def test_a_reserve_reaches_back_from_any_place(sizes: list[int]) -> None:
    # The newest state always stands at least the reserve behind a snapshot, however calls were cut.
    reserve, x = 4, torch.arange(30.0)[None, :, None]
    state = State("sum", torch.zeros(1, dtype=torch.long), {"sum": torch.zeros(1, 1)}).reserve(rewind=reserve)
    seen = 0
    for chunk in x.split(sizes, 1):
        state = counting(chunk, state)
        seen += chunk.shape[1]
        for tokens in range(min(reserve, seen) + 1):
            earlier = state.clone().rewind(tokens, part)
            assert earlier.position.tolist() == [seen - tokens]
            assert earlier["sum"].item() == sum(range(seen - tokens))
        with pytest.raises(StateError, match=f"cannot rewind by {reserve + 1} tokens: {min(reserve, seen)} of "):
            state.rewind(reserve + 1, part)


def test_rewinding_twice_uses_one_reserve() -> None:
    x = torch.arange(30.0)[None, :, None]
    state = State("sum", torch.zeros(1, dtype=torch.long), {"sum": torch.zeros(1, 1)}).reserve(rewind=3)
    for token in x.split(1, 1):
        state = counting(token, state)
    for expected in (29, 28):
        state = state.rewind(1, part)
        assert state["sum"].item() == sum(range(expected))


def test_a_reserve_keeps_inputs_whose_memory_is_used_again() -> None:
    # As a decoding loop does that writes each token into one buffer.
    state = State("sum", torch.zeros(1, dtype=torch.long), {"sum": torch.zeros(1, 1)}).reserve(rewind=5)
    buffer = torch.zeros(1, 1, 1)
    for token in range(1, 6):
        state = counting(buffer.fill_(token), state)
    assert state.rewind(2, part)["sum"].item() == 1 + 2 + 3


def test_rewinding_refuses_what_it_cannot_do() -> None:
    state = tree()
    with pytest.raises(StateError, match="nothing to rewind to: call state"):
        state.rewind(1, part)
    for tokens in (0, -1):
        with pytest.raises(StateError, match="takes at least 1 token"):
            state.reserve(rewind=tokens)
    state.reserve(rewind=2)
    with pytest.raises(StateError, match="cannot rewind by -1 tokens"):
        state.rewind(-1, part)


def test_rows_that_advance_unequally_begin_a_reserve_anew() -> None:
    # Rows cannot go back by a common count past a call in which they advanced by different ones.
    state = State("sum", torch.zeros(2, dtype=torch.long), {"sum": torch.zeros(2, 1)}).reserve(rewind=3)
    state = counting(torch.ones(2, 5, 1), state)
    ragged = State("sum", state.position + torch.tensor([1, 2]), {"sum": state["sum"] + 1})
    ragged.record(state, torch.ones(2, 2, 1), ragged=True)
    with pytest.raises(StateError, match="cannot rewind by 1 tokens: 0 of 3 reserved tokens are available"):
        ragged.rewind(1, part)
    assert counting(torch.ones(2, 1, 1), ragged).rewind(1, part).position.tolist() == [6, 7]


def test_errors_name_both_sides() -> None:
    with pytest.raises(StateError, match="belongs to model; it cannot continue Holographic"):
        tree().consume("Holographic", 2)
    with pytest.raises(StateError, match=r"has 2 rows, the input 5\. Use select"):
        tree().consume("model", 5)
    state = tree().consume("model", 2)
    with pytest.raises(StateError, match="already continued, and a call consumes its state"):
        state.consume("model", 2)
    assert repr(tree()) == "State(model, position=[0, 1])"
