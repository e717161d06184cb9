"""Padding and the small index arithmetic under it: masks, alignment, spans of rows that start at different columns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_core import UnsupportedInputError
from spectral_layers import Rows, Stream
from spectral_layers.rows import Alignment, aligned, append, last, span


def test_the_mask_of_rows() -> None:
    rows = Rows(torch.tensor([3, 0, 4]))
    assert rows.mask(4).int().tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float32])
def test_alignment_of_masks_of_any_dtype(dtype: torch.dtype) -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=dtype)
    aligned = Alignment.of(mask)
    assert aligned.columns[:, 0].tolist() == [2, 0, 1, 0, 0]
    assert aligned.rows.lengths.tolist() == [2, 3, 2, 0, 4]


@pytest.mark.parametrize("holes", [[1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 0, 1]])
def test_masks_with_holes_are_refused_by_row(holes: list[int]) -> None:
    mask = torch.tensor([[1, 1, 1, 1], holes, [0, 1, 1, 0]])
    with pytest.raises(UnsupportedInputError, match=r"holes in rows \[1\]: a row's tokens must be contiguous"):
        Alignment.of(mask)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(UnsupportedInputError, match=r"an attention mask is \(B, L\); got \(1, 1, 4\) float32"):
        Alignment.of(torch.ones(1, 1, 4))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=4))
def test_gathering_and_scattering_are_inverse(spans: list[tuple[int, int]]) -> None:
    columns = torch.arange(12)
    mask = torch.stack([(columns >= start) & (columns < start + length) for start, length in spans])
    x = torch.arange(len(spans) * 24.0).view(len(spans), 12, 2)
    aligned = Alignment.of(mask)
    gathered = aligned.gather(x)
    for row, (start, length) in enumerate(spans):
        assert torch.equal(gathered[row, :length], x[row, start : start + length])
    assert torch.equal(aligned.scatter(gathered)[mask], x[mask])
    assert torch.equal(aligned.gather(x[..., 0]), gathered[..., 0]), "token ids are gathered as vectors are"


def test_aligned_inputs_are_as_wide_as_the_longest_row() -> None:
    mask = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    inputs = torch.arange(15).view(3, 5)
    gathered, alignment = aligned(inputs, mask, name="input_ids")
    assert gathered.shape == (3, 3)
    assert gathered[0, :2].tolist() == [3, 4]
    assert gathered[1].tolist() == [6, 7, 8]
    assert torch.equal(alignment.scatter(gathered)[mask != 0], inputs[mask != 0])
    with pytest.raises(UnsupportedInputError, match=r"must have input_ids' shape"):
        aligned(inputs, mask[:, 1:], name="input_ids")


def test_rows_count_only_where_one_is_shorter() -> None:
    rows = Rows(torch.tensor([3, 2]))
    assert rows.if_ragged(3) is rows
    assert Rows(torch.tensor([3, 3])).if_ragged(3) is None


def test_a_stream_of_a_mask_begins_at_index_0() -> None:
    x = torch.arange(16.0).view(2, 4, 2)
    assert Stream.of(x, None).x is x
    stream = Stream.of(x, torch.tensor([[0, 1, 1, 0], [0, 0, 0, 1]]))
    assert stream.rows is not None
    assert stream.rows.lengths.tolist() == [2, 1]
    assert torch.equal(stream.x[0], x[0, 1:3])
    assert torch.equal(stream.x[1, 0], x[1, 3])
    assert Stream.of(x, torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1]])).rows is None, "no row is shorter than another"


def test_the_last_tokens_of_each_row() -> None:
    x = torch.arange(8.0).view(2, 4, 1)
    assert last(x, None, 2)[..., 0].tolist() == [[2, 3], [6, 7]]
    assert last(x, Rows(torch.tensor([2, 4])), 2)[..., 0].tolist() == [[0, 1], [6, 7]]
    assert last(x, Rows(torch.tensor([2, 4])), 9).shape == (2, 4, 1)


def direct_span(x: torch.Tensor, starts: list[int], width: int) -> torch.Tensor:
    y = x.new_zeros(*x.shape[:2], width)
    for row, start in enumerate(starts):
        for column in range(width):
            if 0 <= start + column < x.shape[-1]:
                y[row, :, column] = x[row, :, start + column]
    return y


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.integers(-9, 12), min_size=1, max_size=3), st.integers(0, 9), st.integers(1, 7))
def test_span_takes_columns_and_zeros_outside(starts: list[int], width: int, length: int) -> None:
    x = torch.rand(len(starts), 2, length, generator=torch.Generator().manual_seed(0)) + 1
    assert torch.equal(span(x, torch.tensor(starts), width), direct_span(x, starts, width))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(1, 4))
def test_append_puts_each_row_behind_its_own_past(fill: list[int], width: int) -> None:
    past, x = torch.rand(len(fill), 2, 5) + 1, torch.rand(len(fill), 2, width) + 1
    y = append(past, x, torch.tensor(fill))
    assert y.shape == (len(fill), 2, 5 + width)
    for row, count in enumerate(fill):
        expected = torch.cat([past[row, :, :count], x[row], torch.zeros(2, 5 - count)], -1)
        assert torch.equal(y[row], expected)


def test_span_and_append_are_differentiable() -> None:
    past = torch.rand(2, 1, 3, dtype=torch.float64, requires_grad=True)
    x = torch.rand(2, 1, 2, dtype=torch.float64, requires_grad=True)
    fill = torch.tensor([1, 3])
    assert torch.autograd.gradcheck(lambda past, x: span(append(past, x, fill), fill - 1, 3), (past, x))
