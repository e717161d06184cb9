"""Defines ``torch.library`` operators: schema, implementation, fake and gradients in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_LIBRARIES: dict[str, torch.library.Library] = {}


def operator(
    namespace: str,
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    backward: Callable[..., Any] | None = None,
    keep: Callable[..., None] | None = None,
    dispatch: str = "CompositeExplicitAutograd",
) -> Any:
    """The operator ``torch.ops.<namespace>.<name>``; compilers take it as one node and do not look inside.

    schema: ``"name(Tensor x, int n) -> Tensor"``. run: computes it, without autograd. fake: its outputs' shapes,
    strides and dtypes, from fake tensors. backward, keep: as ``torch.library.register_autograd`` takes them. dispatch:
    the key under which ``run`` is registered; the default serves every device.

    Defined by schema, because ``torch.library.custom_op`` would import the compiler, and with it triton, at its first
    call.
    """
    library = _LIBRARIES.setdefault(namespace, torch.library.Library(namespace, "FRAGMENT"))
    library.define(schema)
    name = schema.partition("(")[0]
    library.impl(name, run, dispatch)
    torch.library.register_fake(f"{namespace}::{name}", fake, lib=library)
    if backward is not None:
        torch.library.register_autograd(f"{namespace}::{name}", backward, setup_context=keep, lib=library)
    return getattr(getattr(torch.ops, namespace), name)
