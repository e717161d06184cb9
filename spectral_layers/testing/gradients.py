"""Gradients at any scale of the input, and through the layers that claim to be linear."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

SCALES = (1.0, 0.0, 1e-30, 1e-25, 1e-10)
# Roots and norms smoothed at 1e-3 multiply gradients by some thousands, a raw angle by the inverse of the input.
_GROWTH = 1e6


def require_gradients(
    what: str, module: nn.Module, loss: Callable[[Tensor], Tensor], x: Tensor, *, dead: bool = False
) -> None:
    """Raise AssertionError unless parameters get finite gradients at every scale of x, and x bounded ones.

    Every ``nn.Linear`` with a gradient must have been called, because adapters and quantisation replace its call.
    dead: whether a parameter's gradient may be zero at scale 1, as it may at all others.
    """
    usual = 0.0
    for scale in SCALES:
        module.zero_grad()
        scaled = (x * scale).requires_grad_()
        with _calls(module) as called:
            value = loss(scaled)
        value.backward()
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear) and layer.weight.grad is not None and layer not in called:
                raise AssertionError(
                    f"{what}: the weight of the linear layer {name} is read without calling the layer, so LoRA and "
                    "quantisation would silently have no effect. Call it, or make it a Projection "
                    "(spectral_layers.projection), which they leave alone."
                )
        here = f"{what}, inputs of size {scale:g}"
        require_parameter_gradients(here, module, dead=dead or scale != 1.0)
        largest = _finite(here, "the input", scaled).abs().max().item()
        usual = largest if scale == 1.0 else usual
        if largest > _GROWTH * usual:
            raise AssertionError(
                f"{here}: the gradient of the input is {largest:.2g}, and {usual:.2g} at size 1: it explodes where "
                "there is silence. See SpectralView.phase for an angle that does not."
            )


def require_parameter_gradients(what: str, module: nn.Module, *, dead: bool = False) -> None:
    """Raise AssertionError unless each parameter has a finite gradient, and one that is not all zero unless dead."""
    for name, parameter in module.named_parameters():
        if not (_finite(what, name, parameter).any() or dead):
            raise AssertionError(f"{what}: {name} gets an all-zero gradient; it cannot learn.")


def _finite(what: str, name: str, tensor: Tensor) -> Tensor:
    if tensor.grad is None:
        raise AssertionError(f"{what}: {name} gets no gradient; is it detached?")
    if not tensor.grad.isfinite().all():
        raise AssertionError(
            f"{what}: the gradient of {name} is not finite. Roots and angles need smoothing before they are "
            "differentiated: see SpectralView.magnitude and SpectralView.phase."
        )
    return tensor.grad


@contextmanager
def _calls(module: nn.Module) -> Iterator[set[nn.Module]]:
    """Collects the linear layers of a module that are called inside the block."""
    called: set[nn.Module] = set()
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(lambda layer, *_: called.add(layer)) for layer in layers]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()
