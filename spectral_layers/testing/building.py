"""Checks of how any part is built: on the meta device as elsewhere, by keyword as by its config."""

from __future__ import annotations

from typing import Any

import torch

from spectral_layers.testing.cases import PartCase
from spectral_layers.testing.check import for_all, only_for


@for_all
def check_it_builds_on_meta(case: PartCase[Any]) -> None:
    """On the meta device, where models are counted without memory, a part has the same parameters as elsewhere."""
    expected = {name: parameter.shape for name, parameter in case.build().named_parameters()}
    try:
        with torch.device("meta"):
            part = case.build()
    except RuntimeError as error:
        raise AssertionError(
            f"{case} cannot be built on the meta device: {error} Fixed tables are computed under torch.device('cpu'), "
            "and what a parameter holds is not read while building."
        ) from error
    found = {name: parameter.shape for name, parameter in part.named_parameters()}
    if found != expected:
        raise AssertionError(f"{case}: parameters on the meta device must be {expected}; got {found}.")
    elsewhere = {name: str(parameter.device) for name, parameter in part.named_parameters() if not parameter.is_meta}
    if elsewhere:
        raise AssertionError(f"{case}: parameters take the device a model is built on; on meta, got {elsewhere}.")


def _has_options(case: PartCase[Any]) -> bool:
    """Whether the part has the form of this release; parts of the earlier one cannot be made by keyword."""
    return isinstance(case.config, case.build().config_class)


@only_for(_has_options)
def check_keywords_make_the_same_part(case: PartCase[Any]) -> None:
    """Made by keyword arguments alone, the part has the weights that its config gives it."""
    built, context = case.build(), case.context()
    where = {name: getattr(context, "hidden_dim" if name == "dim" else name) for name in context.keywords.model_fields}
    options = {name: getattr(case.config, name) for name in type(case.config).model_fields if name != "type"}
    made = case.randomised(lambda: type(built)(**where, **options))
    expected, found = built.state_dict(), made.state_dict()
    if expected.keys() != found.keys() or not all(torch.equal(expected[name], found[name]) for name in expected):
        raise AssertionError(
            f"{case}: {type(built).__name__} made by keyword arguments has other weights than its config gives it. "
            "Leave build() out of the config, and make everything in setup(config, context)."
        )
