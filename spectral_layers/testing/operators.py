"""A check that parts use real operators, and no transforms but those of their backend.

TPUs and exporters have no FFT and no complex numbers. The transforms of ``fft: xla`` are products of real matrices, so
any FFT or complex number comes from the part itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spectral_layers.fusion.base import FusionOutput
from spectral_layers.mixers.base import MixerOutput
from spectral_layers.testing.cases import FilterCase, FusionCase, MixerCase
from spectral_layers.testing.check import for_all, normal
from spectral_layers.testing.fusions import given, streams_of


class Operators(TorchDispatchMode):
    """Records the operators that run inside it, those that return complex numbers, and the largest result's size."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no type for it
        self.names: set[str] = set()
        self.complex: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        self.names.add(name)
        for tensor in (leaf for leaf in torch.utils._pytree.tree_leaves(made) if isinstance(leaf, Tensor)):
            self.largest = max(self.largest, tensor.numel())
            if tensor.is_complex():
                self.complex.add(name)
        return made


def train(case: MixerCase | FilterCase | FusionCase, device: torch.device | str = "cpu") -> None:
    """Forward and backward passes with matrix products for transforms; a mixer that streams also decodes."""
    part: Any = replace(case, fft="xla").build(torch.float32).to(device).train()
    if isinstance(case, FilterCase):
        part.kernel(150).square().sum().backward()
    elif isinstance(case, FusionCase):
        tensors = {name: x.float().to(device).requires_grad_() for name, x in streams_of(case, part).items()}
        target = next(iter(tensors))
        _backward(part(given(case, target, tensors), target))
    else:
        x = normal(2, 2 * case.block + 13, case.hidden_dim, dtype=torch.float32).to(device).requires_grad_()
        _backward(part(x))
        if case.causal and part.streams:
            with torch.no_grad():
                state = part.eval()(x[:, :9], return_state=True).state
                for chunk in x[:, 9:13].split([1, 3], 1):
                    state = part(chunk, state=state, return_state=True).state


def _backward(output: MixerOutput | FusionOutput) -> None:
    torch.stack([output.y.square().sum(), *output.losses.values()]).sum().backward()


@for_all
def check_it_transforms_through_its_backend(case: MixerCase | FilterCase | FusionCase) -> None:
    """With ``fft: xla``, training and decoding call no FFT and create no complex numbers."""
    with Operators() as seen:
        train(case)
    transforms = sorted(name for name in seen.names if name.startswith("_fft_"))
    if transforms:
        raise AssertionError(
            f"{case} calls {', '.join(transforms)} with fft: xla, which has no FFT. Transform by the rfft and irfft of "
            "the backend that build is given, context.fft."
        )
    if seen.complex:
        raise AssertionError(
            f"{case} makes complex numbers with fft: xla, by {', '.join(sorted(seen.complex))}. TPUs and exporters "
            "have none: keep real and imaginary parts as real tensors."
        )
