"""Checks that the result of a row depends on its own tokens only, not on padding or other rows."""

from __future__ import annotations

import torch

from spectral_core.testing import assert_close
from spectral_layers.rows import Alignment, Rows
from spectral_layers.testing.cases import MixerCase, streams
from spectral_layers.testing.check import for_all, normal, only_for, ragged, require_like
from spectral_layers.testing.streaming import run

_BOUND = 1e-9


def _lengths(case: MixerCase) -> list[int]:
    return [case.length, case.length // 2, 1, 0, case.block, 7]


@for_all
def check_right_padding_changes_nothing(case: MixerCase) -> None:
    """Each row of a padded batch has the outputs it has alone, for any padding, also at lengths 0 and 1."""
    mixer, lengths = case.build(), _lengths(case)
    x = normal(len(lengths), case.length, case.hidden_dim)
    with torch.no_grad():
        for loudness in (0.0, 10.0):
            padded = torch.where(ragged(lengths).mask(case.length)[..., None], x, loudness * x.flip(0))
            y = mixer(padded, rows=ragged(lengths)).y
            for row, length in enumerate(lengths):
                if length:
                    alone = mixer(x[row : row + 1, :length]).y[0]
                    what = f"{case}: a row of {length} in a batch padded to {case.length} with values of {loudness:g}"
                    assert_close(what, y[row, :length], alone, _BOUND)


@only_for(streams)
def check_padding_stays_out_of_the_state(case: MixerCase) -> None:
    """The state of a padded batch continues each row as the row's own state does."""
    mixer, lengths = case.build(), _lengths(case)
    x = normal(len(lengths), case.length, case.hidden_dim)
    following = normal(len(lengths), 3, case.hidden_dim, seed=1)
    with torch.no_grad():
        padded = torch.where(ragged(lengths).mask(case.length)[..., None], x, 10.0)
        _, state = run(mixer, padded, rows=ragged(lengths))
        y, _ = run(mixer, following, state)
        for row, length in enumerate(lengths):
            own = run(mixer, x[row : row + 1, :length])[1] if length else None
            alone, _ = run(mixer, following[row : row + 1], own)
            assert_close(f"{case}: three tokens after a padded row of {length}", y[row : row + 1], alone, _BOUND)


@for_all
def check_left_padding_through_alignment(case: MixerCase) -> None:
    """Rows padded on the left, gathered and scattered back as a model does, have the outputs they have alone."""
    mixer, lengths = case.build(), _lengths(case)
    x = normal(len(lengths), case.length, case.hidden_dim)
    mask = ragged(lengths).mask(case.length).flip(1)
    aligned = Alignment.of(mask)
    with torch.no_grad():
        y = aligned.scatter(mixer(aligned.gather(x), rows=aligned.rows).y)
        for row, length in enumerate(lengths):
            if length:
                alone = mixer(x[row : row + 1, case.length - length :]).y[0]
                what = f"{case}: a row of {length} behind {case.length - length} of padding"
                assert_close(what, y[row, case.length - length :], alone, _BOUND)


@for_all
def check_rows_do_not_mix(case: MixerCase) -> None:
    """New tokens in one row do not change the others; permuted rows give permuted outputs."""
    mixer = case.build()
    x = normal(3, case.length, case.hidden_dim)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        y = mixer(x).y
        changed = x.clone()
        changed[1] = 100 * normal(case.length, case.hidden_dim, seed=1)
        others = mixer(changed).y[[0, 2]]
        assert_close(f"{case}: rows 0 and 2 when row 1 alone has new tokens", others, y[[0, 2]], _BOUND)
        assert_close(f"{case}: rows in the order {order.tolist()}", mixer(x[order]).y, y[order], _BOUND)
        assert_close(f"{case}: a row without the others", mixer(x[1:2]).y, y[1:2], _BOUND)


@for_all
def check_an_empty_batch(case: MixerCase) -> None:
    """An empty batch gives an empty batch, and a state without rows if the mixer streams."""
    mixer = case.build()
    nothing = normal(0, 5, case.hidden_dim)
    require_like(str(case), mixer(nothing).y, nothing)
    if streams(case):
        _, state = run(mixer, nothing)
        run(mixer, normal(0, 1, case.hidden_dim), state)


@only_for(lambda case: case.build().keeps_segments)
def check_packed_documents_stay_apart(case: MixerCase) -> None:
    """Documents packed into one row by segment ids have the outputs they have in rows of their own."""
    mixer, first = case.build(), case.block + 3
    x = normal(2, case.length, case.hidden_dim)
    segments = (torch.arange(case.length) >= first).long().expand(2, -1)
    rows = Rows(torch.full((2,), case.length), segments)
    with torch.no_grad():
        y = mixer(x, rows=rows).y
        for name, here in (("first", slice(0, first)), ("second", slice(first, None))):
            assert_close(f"{case}: the {name} of two packed documents", y[:, here], mixer(x[:, here]).y, _BOUND)
