"""Checks of states, of mixers and of fusions: the full pass, any chunks and one token at a time are one function."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from spectral_core.errors import StateError
from spectral_core.testing import assert_close
from spectral_layers.mixers.base import Mixer
from spectral_layers.rows import Rows
from spectral_layers.state import State
from spectral_layers.testing.cases import FusionCase, MixerCase, streams
from spectral_layers.testing.check import normal, only_for, ragged, require_error
from spectral_layers.testing.fusions import Conditioned

_BOUND = 1e-9


def run(
    part: Mixer | Conditioned, x: Tensor, state: State | None = None, rows: Rows | None = None
) -> tuple[Tensor, State]:
    """Outputs and state of one call."""
    output = part(x, state=state, rows=rows, return_state=True)
    if output.state is None:
        raise AssertionError(f"{type(part).__name__} returned no state though return_state was set.")
    return output.y, output.state


def continued(part: Mixer | Conditioned, state: State | None, chunks: Iterable[Tensor]) -> tuple[Tensor, State]:
    """Outputs and last state of a sequence fed in chunks."""
    outputs = []
    for chunk in chunks:
        y, state = run(part, chunk, state)
        outputs.append(y)
    assert state is not None
    return torch.cat(outputs, 1), state


@only_for(streams)
def check_chunks_equal_the_full_pass(case: MixerCase | FusionCase) -> None:
    """Chunks of 1, of a block plus or minus 1, and of prime lengths have the outputs of the full pass."""
    mixer, length = _built(case), case.length
    x = normal(2, length, case.hidden_dim)
    with torch.no_grad():
        y = mixer(x).y
        for size in sorted({1, 7, 31, 37, 67, max(1, case.block - 1), case.block + 1}):
            streamed, state = continued(mixer, None, x.split(size, 1))
            assert_close(f"{case}: chunks of {size} against the full pass", streamed, y, _BOUND)
            _require_position(case, state, [length, length])


@only_for(streams)
def check_one_token_after_any_prefill(case: MixerCase | FusionCase) -> None:
    """After a prefill of any length, at and around block bounds, one token and then the rest continue the sequence."""
    mixer, length = _built(case), case.length
    x = normal(2, length, case.hidden_dim)
    with torch.no_grad():
        y = mixer(x).y
        for prefill in sorted({1, 2, case.block - 1, case.block, case.block + 1, 2 * case.block, length - 3} - {0}):
            head, state = run(mixer, x[:, :prefill])
            assert_close(f"{case}: a prefill of {prefill} that returns its state", head, y[:, :prefill], _BOUND)
            rest, _ = continued(mixer, state, [x[:, prefill : prefill + 1], x[:, prefill + 1 :]])
            assert_close(
                f"{case}: one token, then the rest, after a prefill of {prefill}", rest, y[:, prefill:], _BOUND
            )


@only_for(streams)
def check_rows_continue_from_where_each_ended(case: MixerCase | FusionCase) -> None:
    """After a prefill of rows of different lengths, 0 and 1 included, each row continues from its own last token.

    The following calls are ragged, of one token, and of almost a block; outputs are those of the full pass.
    """
    mixer, block = _built(case), case.block
    steps = [
        [block + 3, 0, 1, 2 * block, block],
        [4, 3, 0, 1, 2],
        [1] * 5,
        [max(1, block - 1)] * 5,
        [0, 2, 5, 1, 0],
        [1] * 5,
    ]
    total = torch.tensor(steps).sum(0).tolist()
    x = normal(5, max(total), case.hidden_dim)
    with torch.no_grad():
        y = mixer(x).y
        state: State | None = None
        at = [0] * 5
        for number, lengths in enumerate(steps):
            width = max(lengths)
            # Padding must not matter, so it is large.
            chunk = 10 * normal(5, width, case.hidden_dim, seed=number + 2)
            for row, (start, count) in enumerate(zip(at, lengths, strict=True)):
                chunk[row, :count] = x[row, start : start + count]
            rows = None if min(lengths) == width else ragged(lengths)
            found, state = run(mixer, chunk, state, rows)
            for row, (start, count) in enumerate(zip(at, lengths, strict=True)):
                what = f"{case}: {count} tokens of a row at position {start}, in call {number} of rows {lengths}"
                assert_close(what, found[row, :count], y[row, start : start + count], _BOUND)
            at = [start + count for start, count in zip(at, lengths, strict=True)]
            _require_position(case, state, at)


@only_for(streams)
def check_a_state_is_continued_once_and_by_its_owner(case: MixerCase | FusionCase) -> None:
    """Consumed states and those of another part or batch are refused, and a refused state is not consumed."""
    mixer = _built(case)
    x = normal(2, 9, case.hidden_dim)
    with torch.no_grad():
        _, state = run(mixer, x)
        require_error(
            StateError, f"{case}: continuing a state of 2 rows by 3", mixer, normal(3, 1, case.hidden_dim), state=state
        )
        foreign = State("another part", state.position, state.tensors, state.parts)
        require_error(StateError, f"{case}: continuing another part's state", mixer, x, state=foreign)
        mixer(x, state=state)
        require_error(StateError, f"{case}: continuing a consumed state", mixer, x, state=state)
        require_error(StateError, f"{case}: cloning a consumed state", state.clone)
        require_error(StateError, f"{case}: saving a consumed state", state.save)


@only_for(streams)
def check_clones_and_selections_stand_alone(case: MixerCase | FusionCase) -> None:
    """A clone is independent of its original; select repeats, reorders and drops rows."""
    mixer, prefill = _built(case), case.block + 3
    x = normal(3, prefill + 6, case.hidden_dim)
    order = torch.tensor([2, 0, 0, 1])
    with torch.no_grad():
        y = mixer(x).y
        _, state = run(mixer, x[:, :prefill])
        clone, selected = state.clone(), state.select(order)
        continued(mixer, state, [normal(3, 1, case.hidden_dim, seed=1), normal(3, 4, case.hidden_dim, seed=2)])
        after, _ = continued(mixer, clone, [x[:, prefill : prefill + 1], x[:, prefill + 1 :]])
        assert_close(f"{case}: a clone after its original went elsewhere", after, y[:, prefill:], _BOUND)
        after, _ = continued(mixer, selected, [x[order, prefill : prefill + 1], x[order, prefill + 1 :]])
        assert_close(f"{case}: rows selected as {order.tolist()}", after, y[order, prefill:], _BOUND)


@only_for(streams)
def check_a_saved_state_continues(case: MixerCase | FusionCase) -> None:
    """save() returns contiguous tensors that later calls do not change; State.load restores the state from them."""
    mixer, prefill = _built(case), case.block + 3
    x = normal(2, prefill + 5, case.hidden_dim)
    with torch.no_grad():
        y = mixer(x).y
        _, state = run(mixer, x[:, :prefill])
        saved = state.save()
        strided = sorted(name for name, tensor in saved.items() if not tensor.is_contiguous() or tensor.requires_grad)
        if strided:
            raise AssertionError(f"{case}: saved tensors must be contiguous and free of gradients; not so: {strided}.")
        mixer(x[:, :3], state=state)
        for attempt in ("first", "second"):
            loaded = State.load({name: tensor.clone() for name, tensor in saved.items()})
            after, _ = continued(mixer, loaded, x[:, prefill:].split(2, 1))
            assert_close(f"{case}: the {attempt} state loaded from what was saved", after, y[:, prefill:], _BOUND)


@only_for(streams)
def check_rewinding(case: MixerCase | FusionCase) -> None:
    """A state with a reserve of R tokens rewinds by up to R, whatever the chunks; rewinding further raises."""
    mixer, reserve, prefill = _built(case), 5, max(1, case.block - 2)
    length = prefill + 17
    x = normal(2, length, case.hidden_dim)
    with torch.no_grad():
        y = mixer(x).y
        for sizes in ([1] * 6, [2, 5, 1, 4], [11], [1, 9, 1]):
            _, state = run(mixer, x[:, :prefill])
            state.reserve(rewind=reserve)
            end = prefill + sum(sizes)
            _, state = continued(mixer, state, x[:, prefill:end].split(sizes, 1))
            require_error(StateError, f"{case}: rewinding further than the reserve", mixer.rewind, state, reserve + 1)
            for tokens, kind in ((0, "state"), (1, "clone"), (3, "selection"), (reserve, "state")):
                order = torch.tensor([1, 0])
                held = state.select(order) if kind == "selection" else state.clone()
                rows = order if kind == "selection" else torch.tensor([0, 1])
                earlier = mixer.rewind(held, tokens)
                require_error(StateError, f"{case}: continuing a state that was rewound", mixer, x[:, :1], state=held)
                _require_position(case, earlier, [end - tokens] * 2)
                again, _ = continued(
                    mixer, earlier, [x[rows, end - tokens : end - tokens + 1], x[rows, end - tokens + 1 :]]
                )
                what = f"{case}: a {kind} rewound by {tokens} after chunks {sizes}"
                assert_close(what, again, y[rows, end - tokens :], _BOUND)
        _, state = run(mixer, x[:, :prefill])
        require_error(StateError, f"{case}: rewinding without a reserve", mixer.rewind, state, 1)
        state.reserve(rewind=reserve)
        _, state = run(mixer, x[:, prefill : prefill + 2], state)
        require_error(StateError, f"{case}: rewinding to before the reserve began", mixer.rewind, state, 3)


def _built(case: MixerCase | FusionCase) -> Mixer | Conditioned:
    return case.build() if isinstance(case, MixerCase) else Conditioned(case)


def _require_position(case: MixerCase | FusionCase, state: State, expected: list[int]) -> None:
    if state.position.tolist() != expected:
        raise AssertionError(f"{case}: the state counts {state.position.tolist()} tokens; its rows hold {expected}.")
