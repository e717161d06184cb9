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

    And unless every ``nn.Linear`` that gets one was called: adapters and quantisation take the place of its call.

    dead: whether a parameter's gradient may be zero at scale 1; elsewhere there is nothing to learn from.
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
                    f"{what}: the weight of the linear layer {name} is read, and the layer not called, so that LoRA or "
                    "quantisation would be passed by in silence. Call it, or make it a Projection "
                    "(spectral_layers.projection), which they leave alone."
                )
        for name, tensor in {"the input": scaled, **dict(module.named_parameters())}.items():
            gradient = tensor.grad
            if gradient is None:
                raise AssertionError(f"{what}: {name} gets no gradient at inputs of size {scale:g}; is it detached?")
            if not gradient.isfinite().all():
                raise AssertionError(
                    f"{what}: the gradient of {name} is not finite at inputs of size {scale:g}. Roots and angles need "
                    "smoothing before they are differentiated: see SpectralView.magnitude and SpectralView.phase."
                )
            if name == "the input":
                largest = gradient.abs().max().item()
                usual = largest if scale == 1.0 else usual
                if largest > _GROWTH * usual:
                    raise AssertionError(
                        f"{what}: the gradient of the input is {largest:.2g} at inputs of size {scale:g}, "
                        f"and {usual:.2g} at size 1: it explodes where there is silence. See SpectralView.phase for an "
                        "angle that does not."
                    )
            elif scale == 1.0 and not dead and not gradient.any():
                raise AssertionError(f"{what}: {name} gets an all-zero gradient at inputs of size 1; it cannot learn.")


@contextmanager
def _calls(module: nn.Module) -> Iterator[set[nn.Module]]:
    """The linear layers inside a module that are called meanwhile."""
    called: set[nn.Module] = set()
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(lambda layer, *_: called.add(layer)) for layer in layers]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()
