"""Checks of fusions that stream: the source is absorbed once, and the target goes on in any chunks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from spectral_core.errors import StateError
from spectral_core.testing import assert_close
from spectral_layers.fusion.base import Fusion, Stream
from spectral_layers.rows import Rows
from spectral_layers.state import State
from spectral_layers.testing.cases import FusionCase
from spectral_layers.testing.check import normal, only_for, ragged, require_error
from spectral_layers.testing.fusions import given, names_of, streams_of

_BOUND = 1e-9


def can_stream(case: FusionCase) -> bool:
    return case.causal and case.build().streams


def cannot_stream(case: FusionCase) -> bool:
    return not can_stream(case)


def _split(case: FusionCase, fusion: Fusion) -> tuple[str, Tensor, dict[str, Stream], Tensor]:
    """The target's name, its tokens, the other streams (of unequal rows), and y of the full pass."""
    target = names_of(fusion)[0]
    streams = given(case, target, streams_of(case, fusion))
    sources = {
        name: Stream(stream.x, ragged([stream.x.shape[1], 3, 1])) for name, stream in streams.items() if name != target
    }
    y = fusion({target: streams[target], **sources}, target).y
    return target, streams[target].x, sources, y


def _continued(
    fusion: Fusion, target: str, state: State, chunks: Iterable[Tensor], rows: Rows | None = None
) -> tuple[Tensor, State]:
    outputs = []
    for chunk in chunks:
        output = fusion({target: Stream(chunk, rows, "causal")}, target, state=state, return_state=True)
        if output.state is None:
            raise AssertionError(f"{type(fusion).__name__} returned no state though return_state was set.")
        outputs.append(output.y)
        state = output.state
    return torch.cat(outputs, 1), state


@only_for(can_stream)
def check_a_target_in_chunks_equals_the_full_pass(case: FusionCase) -> None:
    """From a prepared source, or after a call with it, chunks of any size and single tokens give the full pass's y."""
    fusion = case.build()
    with torch.no_grad():
        target, x, sources, y = _split(case, fusion)
        for size in (1, 2, 5, x.shape[1]):
            streamed, state = _continued(fusion, target, fusion.prepare(sources), x.split(size, 1))
            assert_close(f"{case}: chunks of {size} against the full pass", streamed, y, _BOUND)
            if state.position.tolist() != [x.shape[1]] * 3:
                raise AssertionError(f"{case}: the state counts {state.position.tolist()} tokens of {x.shape[1]}.")
        for prefill in (1, 4):
            streams = {target: Stream(x[:, :prefill], None, "causal"), **sources}
            output = fusion(streams, target, return_state=True)
            if output.state is None:
                raise AssertionError(f"{case} returned no state though return_state was set.")
            rest, _ = _continued(fusion, target, output.state, x[:, prefill:].split(3, 1))
            assert_close(f"{case}: a prefill of {prefill}, then chunks", torch.cat([output.y, rest], 1), y, _BOUND)


@only_for(can_stream)
def check_rows_of_a_target_continue_from_where_each_ended(case: FusionCase) -> None:
    """After chunks of unequal rows, each row goes on at its own position."""
    fusion = case.build()
    with torch.no_grad():
        target, x, sources, y = _split(case, fusion)
        state, at = fusion.prepare(sources), [0, 0, 0]
        for number, lengths in enumerate(([4, 0, 1], [1, 2, 3], [1, 1, 1])):
            chunk = 10 * normal(3, max(lengths), case.hidden_dim, seed=number + 20)
            for row, (start, count) in enumerate(zip(at, lengths, strict=True)):
                chunk[row, :count] = x[row, start : start + count]
            found, state = _continued(fusion, target, state, [chunk], ragged(lengths))
            for row, (start, count) in enumerate(zip(at, lengths, strict=True)):
                what = f"{case}: {count} tokens of a row at position {start}"
                assert_close(what, found[row, :count], y[row, start : start + count], _BOUND)
            at = [start + count for start, count in zip(at, lengths, strict=True)]
            if state.position.tolist() != at:
                raise AssertionError(f"{case}: the state counts {state.position.tolist()} tokens; its rows hold {at}.")


@only_for(can_stream)
def check_a_fusion_s_state_is_its_own(case: FusionCase) -> None:
    """Clones, selected rows (beams), saved and rewound states continue; consumed and foreign ones are refused."""
    fusion = case.build()
    order = torch.tensor([2, 0, 0, 1])
    with torch.no_grad():
        target, x, sources, y = _split(case, fusion)
        _, state = _continued(fusion, target, fusion.prepare(sources), [x[:, :4]])
        clone, beams, saved = state.clone(), state.select(order), state.save()
        state.reserve(rewind=3)
        _, state = _continued(fusion, target, state, normal(3, 3, case.hidden_dim, seed=30).split(1, 1))
        again = fusion.rewind(state, 3, target)
        held = {"a clone": clone, "a saved state": State.load(saved), "a state rewound by 3": again}
        for what, kept in held.items():
            rest, _ = _continued(fusion, target, kept, [x[:, 4:5], x[:, 5:]])
            assert_close(f"{case}: {what}", rest, y[:, 4:], _BOUND)
        rest, _ = _continued(fusion, target, beams, [x[order, 4:]])
        assert_close(f"{case}: rows selected as {order.tolist()}", rest, y[order, 4:], _BOUND)
        own = {target: Stream(x, None, "causal")}
        require_error(StateError, f"{case}: continuing a consumed state", fusion, own, target, state=clone)
        prepared = fusion.prepare(sources)
        foreign = State("another part", prepared.position, prepared.tensors)
        require_error(StateError, f"{case}: continuing another part's state", fusion, own, target, state=foreign)
        both = {**own, **sources}
        require_error(StateError, f"{case}: a source beside a state", fusion, both, target, state=prepared)


@only_for(cannot_stream)
def check_a_fusion_without_a_state_refuses_one(case: FusionCase) -> None:
    """return_state, prepare and any state are refused by a fusion that does not stream."""
    fusion = case.build()
    target = names_of(fusion)[0]
    streams = given(case, target, streams_of(case, fusion))
    own, state = {target: streams[target]}, State(type(fusion).__name__, torch.zeros(3, dtype=torch.long))
    require_error(StateError, f"{case}: return_state", fusion, streams, target, return_state=True)
    require_error(StateError, f"{case}: a state", fusion, own, target, state=state)
    require_error(StateError, f"{case}: prepare", fusion.prepare, own)
