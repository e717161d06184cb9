"""Checks of what goes beyond one gradient: gradients of gradients, and the transforms of torch.func.

A backend that declares ``higher_order`` computes both correctly. Any other may refuse, but must not return wrong
numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from spectral_core.backends.base import FFTBackend, Mode
from spectral_core.convolution import convolve, prepare_kernel
from spectral_core.modulation import modulate
from spectral_core.testing.gradients import weighted_sum
from spectral_core.testing.inputs import Inputs
from spectral_core.testing.numerics import assert_close
from spectral_core.testing.oracle import oracle_convolve, oracle_modulate

_CASES: tuple[tuple[Mode, tuple[int, ...]], ...] = (
    ("causal", (3, 4)),
    ("causal", (2, 3, 13)),
    ("circular", (3, 8)),
    ("centered", (3, 5)),
)


def check_gradients_of_gradients(backend: FFTBackend) -> None:
    """Second derivatives of both operators, with raw and prepared kernels, are those of the definition."""
    draw = Inputs(backend)
    for mode, shape in _CASES:
        tensors = {name: draw.normal(2, 3, 5) for name in ("u", "pre_gate", "post_gate")}
        tensors["skip"], kernel = draw.normal(3), draw.normal(*shape)
        run, exact = partial(convolve, mode=mode, backend=backend), partial(oracle_convolve, mode=mode)
        what = f"{mode} convolution, kernel {shape}"
        _compare(backend, what, run, exact, {**tensors, "kernel": kernel}, draw.tolerance)
        prepared = prepare_kernel(kernel, 5, mode=mode, backend=backend)
        run, exact = partial(run, kernel=prepared), partial(exact, kernel=kernel)
        _compare(backend, f"{what}, prepared", run, exact, tensors, draw.tolerance)
    fields = {"x": draw.normal(2, 3, 7), "gain": draw.normal(2, 3, 4), "phase": draw.normal(3, 4)}
    _compare(backend, "modulation", partial(modulate, backend=backend), oracle_modulate, fields, draw.tolerance)


def check_transforms_of_torch_func(backend: FFTBackend) -> None:
    """vmap, vmap of grad and jvp of both operators agree with a loop over the samples and with the definition."""
    draw = Inputs(backend)

    def loss(run: Callable[..., Tensor], *given: Tensor) -> Tensor:
        return run(*given).square().sum()

    raw, modulation = partial(convolve, backend=backend), partial(modulate, backend=backend)
    prepared = partial(raw, kernel=prepare_kernel(draw.normal(3, 12), 9, backend=backend))
    for what, run, samples in (
        ("convolution", raw, (draw.normal(4, 2, 3, 9), draw.normal(4, 3, 5))),
        ("convolution, prepared", prepared, (draw.normal(4, 2, 3, 9),)),
        ("modulation", modulation, (draw.normal(4, 2, 3, 8), draw.normal(4, 3, 5))),
    ):
        try:
            outputs = vmap(run)(*samples)
            gradients = vmap(grad(partial(loss, run)))(*samples)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch scripts its own decompositions for jvp
                tangent = jvp(run, tuple(z[0] for z in samples), tuple(z[1] for z in samples))[1]
        except Exception as error:
            _refused(backend, what, error)
            continue
        assert_close(f"vmap of {what}", outputs, torch.stack([run(*row) for row in zip(*samples, strict=True)]), 1e-6)
        for index, row in enumerate(zip(*samples, strict=True)):
            leaves = [z.clone().requires_grad_() for z in row]
            (wanted,) = torch.autograd.grad(loss(run, *leaves), leaves[:1])
            assert_close(f"vmap of the gradient of {what}, sample {index}", gradients[index], wanted, 1e-6)
        # Both operators are linear in each of their tensors here.
        wanted = run(samples[0][1], *(z[0] for z in samples[1:]))
        if len(samples) > 1:
            wanted = wanted + run(samples[0][0], samples[1][1])
        assert_close(f"jvp of {what}", tangent, wanted, 1e-6)


def _compare(
    backend: FFTBackend,
    what: str,
    run: Callable[..., Tensor],
    exact: Callable[..., Tensor],
    tensors: Mapping[str, Tensor],
    tolerance: float,
) -> None:
    try:
        found = _second(run, tensors)
    except Exception as error:
        _refused(backend, f"gradients of gradients of {what}", error)
        return
    for name, second, wanted in zip(tensors, found, _second(exact, tensors), strict=True):
        assert_close(f"{what}: gradient of all gradients for {name}", second, wanted, 100 * tolerance)


def _second(run: Callable[..., Tensor], tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The gradient in every tensor of the squared gradients in every tensor."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    gradients = torch.autograd.grad(weighted_sum(run(**leaves)), list(leaves.values()), create_graph=True)
    return torch.autograd.grad(torch.stack([each.square().sum() for each in gradients]).sum(), list(leaves.values()))


def _refused(backend: FFTBackend, what: str, error: Exception) -> None:
    if backend.higher_order:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}, but the backend declares higher_order.")
