"""Checks of what parts are made of: real operators, and no transform but the backend's.

TPUs and exporters have no FFT and no complex numbers. With ``fft: xla``, whose transforms are products of real
matrices, all that a part adds is in sight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spectral_layers.testing.cases import FilterCase, FusionCase, MixerCase
from spectral_layers.testing.check import for_all, normal
from spectral_layers.testing.fusions import given, streams_of


class Operators(TorchDispatchMode):
    """Notes the operators that run below it, and which of them made complex numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no type for it
        self.names: set[str] = set()
        self.complex: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        self.names.add(name)
        if any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in torch.utils._pytree.tree_leaves(made)):
            self.complex.add(name)
        return made


def train_mixer(case: MixerCase, device: torch.device | str = "cpu") -> None:
    """A training step of the mixer without its optimiser, with matrix products for transforms; and decoding."""
    mixer = replace(case, fft="xla").build(torch.float32).to(device).train()
    x = normal(2, 2 * case.block + 13, case.hidden_dim, dtype=torch.float32).to(device).requires_grad_()
    output = mixer(x)
    torch.stack([output.y.square().sum(), *output.losses.values()]).sum().backward()
    if case.causal and mixer.streams:
        with torch.no_grad():
            state = mixer.eval()(x[:, :9], return_state=True).state
            for part in x[:, 9:13].split([1, 3], 1):
                state = mixer(part, state=state, return_state=True).state


def train_filter(case: FilterCase, device: torch.device | str = "cpu") -> None:
    """A filter's kernel and its gradients, with matrix products for transforms."""
    replace(case, fft="xla").build(torch.float32).to(device).kernel(150).square().sum().backward()


def train_fusion(case: FusionCase, device: torch.device | str = "cpu") -> None:
    """A training step of the fusion without its optimiser, with matrix products for transforms."""
    fusion = replace(case, fft="xla").build(torch.float32).to(device).train()
    streams = {name: x.float().to(device).requires_grad_() for name, x in streams_of(case, fusion).items()}
    target = next(iter(streams))
    output = fusion(given(case, target, streams), target)
    torch.stack([output.y.square().sum(), *output.losses.values()]).sum().backward()


@for_all
def check_a_mixer_transforms_through_its_backend(case: MixerCase) -> None:
    """With ``fft: xla`` training and decoding call no FFT and make no complex number."""
    _require_real(str(case), lambda: train_mixer(case))


@for_all
def check_a_filter_transforms_through_its_backend(case: FilterCase) -> None:
    """With ``fft: xla`` a kernel and its gradients call no FFT and make no complex number."""
    _require_real(str(case), lambda: train_filter(case))


@for_all
def check_a_fusion_transforms_through_its_backend(case: FusionCase) -> None:
    """With ``fft: xla`` training calls no FFT and makes no complex number."""
    _require_real(str(case), lambda: train_fusion(case))


def _require_real(what: str, run: Callable[[], None]) -> None:
    with Operators() as seen:
        run()
    transforms = sorted(name for name in seen.names if name.startswith("_fft_"))
    if transforms:
        raise AssertionError(
            f"{what} calls {', '.join(transforms)} with fft: xla, which has no FFT. Transform by the rfft and irfft of "
            "the backend that build is given, context.fft."
        )
    if seen.complex:
        raise AssertionError(
            f"{what} makes complex numbers with fft: xla, by {', '.join(sorted(seen.complex))}. TPUs and exporters "
            "have none: keep real and imaginary parts as real tensors."
        )
