"""Checks of front ends: shapes of features, independence of rows and padding, refusals of unsuitable inputs."""

from __future__ import annotations

import math
from typing import get_args

import torch

from spectral_core.errors import UnsupportedInputError
from spectral_core.testing import assert_close
from spectral_layers.frontends.base import Modality
from spectral_layers.testing.cases import FrontEndCase
from spectral_layers.testing.check import for_all, normal, only_for, require_autocast, require_error
from spectral_layers.testing.gradients import require_parameter_gradients

_BATCH = 4


@for_all
def check_features_fit_their_rows_and_grid(case: FrontEndCase) -> None:
    """Features are (B, L, D), finite, in the parameters' dtype; a grid has L places; rows only for given lengths.

    An empty batch stays empty. The config declares its modality.
    """
    for dtype in (torch.float64, torch.float32):
        part = case.build(dtype)
        for batch in (_BATCH, 0):
            output = part(case.inputs(part, batch, dtype))
            x = output.x
            if x.dim() != 3 or x.shape[0] != batch or x.shape[2] != case.hidden_dim or x.dtype != dtype:
                raise AssertionError(
                    f"{case}: features are ({batch}, L, {case.hidden_dim}) {dtype}; got {tuple(x.shape)} {x.dtype}."
                )
            if not x.isfinite().all():
                raise AssertionError(f"{case}: features in {dtype} are not finite.")
            if output.grid is not None and math.prod(output.grid) != x.shape[1]:
                raise AssertionError(f"{case}: a grid of {output.grid} for {x.shape[1]} tokens.")
            if output.rows is not None:
                raise AssertionError(f"{case}: inputs without lengths are full rows; got {output.rows}.")
    modality = getattr(type(case.config), "modality", None)
    if modality not in get_args(Modality):
        raise AssertionError(f"{case}: its config's modality is one of {get_args(Modality)}; got {modality!r}.")


@for_all
def check_inputs_do_not_mix(case: FrontEndCase) -> None:
    """A row has the features it has alone."""
    part = case.build()
    inputs = case.inputs(part, _BATCH)
    with torch.no_grad():
        x = part(inputs).x
        for row in range(_BATCH):
            assert_close(f"{case}: row {row} without the others", part(inputs[row : row + 1]).x, x[row, None], 1e-9)


@only_for(lambda case: case.build().takes_lengths)
def check_padding_of_inputs_changes_nothing(case: FrontEndCase) -> None:
    """A padded row has the tokens it has alone, whatever the padding holds; an empty row has none."""
    part = case.build()
    inputs = case.inputs(part, _BATCH)
    width = inputs.shape[-1]
    lengths = torch.tensor([width, width // 2, 1, 0])
    with torch.no_grad():
        paddings = [torch.zeros_like(inputs), inputs.flip(0)]
        if inputs.is_floating_point():
            paddings.append(torch.full_like(inputs, torch.nan))
        for padding in paddings:
            padded = torch.where(torch.arange(width) < lengths[:, None], inputs, padding)
            output = part(padded, lengths)
            if output.rows is None:
                raise AssertionError(f"{case}: lengths came in, and no rows go out.")
            for row, length in enumerate(lengths.tolist()):
                alone = part(inputs[row : row + 1, :length]).x[0] if length else inputs.new_zeros(0, case.hidden_dim)
                found = int(output.rows.lengths[row])
                if output.grid is not None and found % output.grid[1]:
                    raise AssertionError(f"{case}: {found} tokens are no whole rows of a grid of {output.grid}.")
                if found != len(alone):
                    raise AssertionError(f"{case}: an input of {length} has {found} tokens padded, {len(alone)} alone.")
                assert_close(f"{case}: {length} of {width} in a padded batch", output.x[row, :found], alone, 1e-9)


@only_for(lambda case: case.build().example(1).is_floating_point())
def check_extreme_inputs_do_not_vanish(case: FrontEndCase) -> None:
    """Silence has finite features. Too large and non-finite values are refused, or their features are not finite.

    A model refuses non-finite features, but would accept features that became 0.
    """
    part = case.build(torch.float32)
    inputs = case.inputs(part, _BATCH, torch.float32)
    for value in (0.0, 1e-45, 1e30, math.inf, math.nan):
        try:
            with torch.no_grad():
                x = part(torch.full_like(inputs, value)).x
        except UnsupportedInputError:
            continue
        finite = bool(x.isfinite().all())
        if abs(value) < 1 and not finite:
            raise AssertionError(f"{case}: features of {value:g} are not finite.")
        if not math.isfinite(value) and finite:
            raise AssertionError(f"{case}: features of {value:g} are finite, as if it were an input. Refuse it.")
        if value == 1e30 and not x.any():
            raise AssertionError(f"{case}: features of {value:g} are all 0; did a square overflow? Refuse such inputs.")


@for_all
def check_gradients_of_a_front_end(case: FrontEndCase) -> None:
    """Every parameter gets a gradient that is finite, for inputs of zeros too, and not all zero."""
    part = case.build(torch.float32)
    inputs = case.inputs(part, _BATCH, torch.float32)
    for given in (torch.zeros_like(inputs), inputs):
        part.zero_grad()
        x = part(given).x
        (x * normal(*x.shape, dtype=torch.float32)).sum().backward()
        require_parameter_gradients(str(case), part, dead=given is not inputs)


@for_all
def check_a_front_end_under_autocast(case: FrontEndCase) -> None:
    """Under bfloat16 autocast features are within a tenth of float32's."""
    part = case.build(torch.float32)
    inputs = case.inputs(part, _BATCH, torch.float32)
    require_autocast(str(case), lambda: part(inputs).x)


@for_all
def check_inputs_of_another_kind_are_refused(case: FrontEndCase) -> None:
    """A missing axis, integers for floats or floats for integers, and lengths that do not fit."""
    part = case.build()
    inputs = case.inputs(part, _BATCH)
    width = inputs.shape[-1]
    other = inputs.long() if inputs.is_floating_point() else inputs.double()
    for what, given, lengths in (
        ("a missing axis", inputs[0], None),
        (f"{other.dtype} for {inputs.dtype}", other, None),
        ("one length for all rows", inputs, torch.tensor([width])),
        ("a length beyond the input", inputs, torch.tensor([width, width, width, width + 1])),
        ("a negative length", inputs, torch.tensor([width, width, width, -1])),
        ("fractional lengths", inputs, torch.full((_BATCH,), width / 2)),
    ):
        require_error(UnsupportedInputError, f"{case}: {what}", part, given, lengths)
    if not part.takes_lengths:
        require_error(UnsupportedInputError, f"{case}: lengths", part, inputs, torch.full((_BATCH,), width))
