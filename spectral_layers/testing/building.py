"""A check that any part can be built on the meta device."""

from __future__ import annotations

from typing import Any

import torch

from spectral_layers.testing.cases import PartCase
from spectral_layers.testing.check import for_all


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
