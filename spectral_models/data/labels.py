"""Labels of rows as tensors or numbers: one class, several classes, a tag for each word, real values."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectral_core.errors import shown, suggestion
from spectral_models.data.source import Table
from spectral_models.errors import DataError

Names = tuple[str, ...] | None
"""Label names by number; None if the labels are numbers."""

_RULE = "a label is a name or an integer from 0; for numbers use task: regression"
_INTEGER = re.compile("0|[1-9][0-9]{0,17}")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_LARGEST = torch.finfo(torch.float32).max


def class_numbers(
    table: Table, num_labels: int, names: Sequence[str] | None = None, *, role: str = "label"
) -> tuple[list[int], Names]:
    """The label of each row as a number, and the label names.

    names: the model's label names, by number. If it has none, a table of :func:`load` learns them from all rows of the
    source: labels that are integers below ``num_labels`` are numbers; other labels are names, numbered in sorted order.
    In any other table, labels without names are numbers.
    Raises DataError, with the place, for labels that do not fit.
    """
    rows, learned = _numbered(table, role, num_labels, names, listed=False)
    return [number for (number,) in rows], learned


def multi_hot(
    table: Table, num_labels: int, names: Sequence[str] | None = None, *, role: str = "label"
) -> tuple[Tensor, Names]:
    """(N, num_labels) floats, 1 for each label in a row's list, and the label names, as in :func:`class_numbers`.

    A list may be empty. Raises DataError, with the place, for cells that are not lists.
    """
    rows, learned = _numbered(table, role, num_labels, names, listed=True)
    hot = torch.zeros(len(rows), num_labels)
    for row, numbers in zip(hot, rows, strict=True):
        row[numbers] = 1.0
    return hot, learned


def tag_numbers(
    table: Table, num_labels: int, names: Sequence[str] | None = None, *, role: str = "tags"
) -> tuple[list[list[int]], Names]:
    """The numbers of each row's tags, and the tag names, as in :func:`class_numbers`."""
    return _numbered(table, role, num_labels, names, listed=True)


def majority(numbers: Sequence[int]) -> float:
    """The accuracy of always predicting the most frequent label."""
    return max(Counter(numbers).values()) / len(numbers)


def real_values(table: Table, *, role: str = "label") -> Tensor:
    """(N,) floats if cells are numbers; (N, K) if they are lists of K numbers.

    Raises DataError, with the place and the cell, for anything but finite numbers and for lists of different lengths.
    """
    cells = table.columns[role]
    rows: list[list[float]] = []
    for index, cell in enumerate(cells):
        row = [_real(table, index, role, value) for value in (cell if isinstance(cell, list) else [cell])]
        rows.append(row)
        if not row or len(row) != len(rows[0]):
            wanted = f"{table.places[0]} has {len(rows[0])}" if rows[0] else "regression needs at least one"
            raise table.error(index, role, f"holds {len(row)} numbers, and {wanted}. Give every row as many.")
    values = torch.tensor(rows)
    return values if any(isinstance(cell, list) for cell in cells) else values[:, 0]


def _real(table: Table, index: int, role: str, cell: Any) -> float:
    if isinstance(cell, int | float | str) and not isinstance(cell, bool):
        try:
            value = math.nan if "_" in str(cell) else float(cell)  # float() also reads Python's 1_000
        except (ValueError, OverflowError):
            value = math.nan
        if abs(value) <= _LARGEST:  # NaN is not below either
            return value
    rule = "for regression a label is a finite number. For names use task: classification."
    raise table.error(index, role, f"holds {shown(cell)}; {rule}")


def _numbered(
    table: Table, role: str, num_labels: int, names: Sequence[str] | None, *, listed: bool
) -> tuple[list[list[int]], Names]:
    rows = _written(table, role, listed)
    if table.whole is not None:
        learned = _learned(table.whole, role, _written(table.whole, role, listed), num_labels, names is None)
        names = learned if names is None else names
    numbers = {str(number): number for number in range(num_labels)}
    known = numbers if names is None else {name: number for number, name in enumerate(names)}
    if not any(map(_NUMBER.fullmatch, known)) and not any(label in known for row in rows for label in row):
        known = numbers  # the table numbers labels that the model names; names that look like numbers stay names
    for place, row in zip(table.places, rows, strict=True):
        for label in row:
            if label not in known:
                unknown = f"the label {label!r} is none of the model's: {', '.join(known)}.{suggestion(label, known)}"
                raise DataError(f"{table.source}, {place}: {unknown}")
    return [[known[label] for label in row] for row in rows], None if names is None else tuple(names)


def _written(table: Table, role: str, listed: bool) -> list[list[str]]:
    """Each row's labels as strings."""
    rows: list[list[str]] = []
    for index, cell in enumerate(table.columns[role]):
        if listed and not isinstance(cell, list):
            rule = "several labels are a list, or a text that data.separator divides."
            raise table.error(index, role, f"holds {shown(cell)}; {rule}")
        row = cell if listed else [cell]
        for label in row:
            if not isinstance(label, int | str) or label == "":
                raise table.error(index, role, f"holds {shown(label)}; {_RULE}.")
        rows.append([str(int(label)) if isinstance(label, int) else label for label in row])
    return rows


def _learned(table: Table, role: str, rows: list[list[str]], num_labels: int, named: bool) -> Names:
    """The sorted label names; None if all labels are integers below ``num_labels``, or ``named`` is false.

    Raises DataError for fewer than two labels, and for names of another number than ``num_labels``.
    """
    distinct = {label for row in rows for label in row}
    if len(distinct) < 2:
        has = f"has only one label, {next(iter(distinct))!r}" if distinct else "has no label"
        raise DataError(f"{table.source} {has}, and a classifier tells two or more apart. Add examples of another.")
    if not named:
        return None
    integers = all(map(_INTEGER.fullmatch, distinct))
    if integers and all(int(label) < num_labels for label in distinct):
        return None
    if all(map(_NUMBER.fullmatch, distinct)):
        for index, row in enumerate(rows):
            if fraction := next((label for label in row if float(label) % 1 > 0), None):
                raise table.error(index, role, f"holds {fraction}; {_RULE}.")
    if len(distinct) != num_labels:
        some = ", ".join(sorted(distinct)[:10]) + (", ..." if len(distinct) > 10 else "")
        raise DataError(
            f"{table.source} has {len(distinct)} different labels ({some}), and the model's num_labels is "
            f"{num_labels}. Set model.num_labels: {len(distinct)}; or, where these are not the labels, name another "
            "column (data.label) or folder (data.source)."
        )
    return tuple(sorted(distinct, key=int) if integers else sorted(distinct))
