"""The contestants: plain torch.fft, the FFT backends, and attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core import FFT_BACKENDS, convolve, fft_backend, prepare_kernel
from spectral_core.backends.base import transform_dtype
from spectral_models.benchmarks.problem import DTYPES, Problem, Shape, Task, Workload

HEAD_DIM = 64


class Contestant(ABC):
    """One implementation. name: in the results. provider: its package and version."""

    name: str
    provider = f"torch {torch.__version__}"

    def refusals(self, shape: Shape, workload: Workload) -> list[str]:
        """Why it does not support this workload; empty if it does."""
        return []

    def runs_as(self, shape: Shape, workload: Workload) -> str:
        """The name of the implementation that runs, which is another if it delegates."""
        return self.name

    @abstractmethod
    def task(self, problem: Problem, workload: Workload) -> Task:
        """The workload, ready to run any number of times, after all possible preparation."""


class Convolution(Contestant):
    """A causal convolution in two steps: preparing the kernel, and applying it."""

    @abstractmethod
    def prepare(self, kernel: Tensor, *, grad: bool) -> Any: ...

    @abstractmethod
    def apply(self, u: Tensor, prepared: Any) -> Tensor: ...

    def task(self, problem: Problem, workload: Workload) -> Task:
        if workload == "training":
            return self._training(problem)
        with torch.no_grad():
            prepared = self.prepare(problem.kernel, grad=workload != "forward")

        def forward() -> dict[str, Tensor]:
            with torch.no_grad():
                return {"output": self.apply(problem.u, prepared)}

        u = problem.u.detach().requires_grad_()

        def forward_backward() -> dict[str, Tensor]:
            y = self.apply(u, prepared)
            (grad,) = torch.autograd.grad(y, u, problem.cotangent)
            return {"output": y.detach(), "input gradient": grad}

        return forward if workload == "forward" else forward_backward

    def _training(self, problem: Problem) -> Task:
        u = problem.u.detach().requires_grad_()
        names, parameters = zip(*problem.filter.named_parameters(), strict=True)

        def step() -> dict[str, Tensor]:
            kernel = problem.filter.kernel(problem.shape.length)
            y = self.apply(u, self.prepare(kernel, grad=True))
            grad, *gradients = torch.autograd.grad(y, (u, *parameters), problem.cotangent)
            named = {f"{name} gradient": gradient for name, gradient in zip(names, gradients, strict=True)}
            return {"output": y.detach(), "input gradient": grad, **named}

        return step


class Plain(Convolution):
    """The convolution by torch.fft: rfft of the signal padded to 2L, product, irfft, crop.

    The crop is a view, so the copy for a contiguous output, which backends make, is not counted.
    """

    name = "plain"

    def prepare(self, kernel: Tensor, *, grad: bool) -> Tensor:
        return torch.fft.rfft(kernel, n=2 * kernel.shape[-1])

    def apply(self, u: Tensor, prepared: Tensor) -> Tensor:
        length = u.shape[-1]
        padded = F.pad(u.to(transform_dtype(u.dtype)), (0, length))
        return torch.fft.irfft(torch.fft.rfft(padded) * prepared, n=2 * length)[..., :length].to(u.dtype)


class Backend(Convolution):
    """A registered FFT backend, through the public functions. Raises UnknownComponentError."""

    def __init__(self, name: str) -> None:
        entry = FFT_BACKENDS.get(name)
        self.name = name
        self.provider = f"{entry.provider} {entry.version}"
        self._fft = fft_backend(name)

    def refusals(self, shape: Shape, workload: Workload) -> list[str]:
        return self._fft.unsupported_reasons(shape.request(workload))

    def runs_as(self, shape: Shape, workload: Workload) -> str:
        return self._fft.select(shape.request(workload)).name

    def prepare(self, kernel: Tensor, *, grad: bool) -> Any:
        return prepare_kernel(kernel, kernel.shape[-1], backend=self._fft, grad=grad)

    def apply(self, u: Tensor, prepared: Any) -> Tensor:
        return convolve(u, prepared, backend=self._fft)


class Attention(Contestant):
    """Causal scaled_dot_product_attention of D / 64 heads on q, k and v of its own.

    It has no kernel to synthesise, and therefore no training workload.
    """

    name = "attention"

    def refusals(self, shape: Shape, workload: Workload) -> list[str]:
        whole = shape.channels % HEAD_DIM == 0
        return [] if whole else [f"{shape.channels} channels do not divide into heads of {HEAD_DIM}"]

    def task(self, problem: Problem, workload: Workload) -> Task:
        q, k, v = self.inputs(problem.shape)

        def forward() -> dict[str, Tensor]:
            with torch.no_grad():
                return {"output": F.scaled_dot_product_attention(q, k, v, is_causal=True)}

        q_leaf, k_leaf, v_leaf = leaves = tuple(x.detach().requires_grad_() for x in (q, k, v))
        cotangent = torch.ones_like(q)

        def forward_backward() -> dict[str, Tensor]:
            y = F.scaled_dot_product_attention(q_leaf, k_leaf, v_leaf, is_causal=True)
            grads = torch.autograd.grad(y, leaves, cotangent)
            return {"output": y.detach(), **dict(zip("qkv", grads, strict=True))}

        return forward if workload == "forward" else forward_backward

    def inputs(self, shape: Shape) -> list[Tensor]:
        """The same q, k, v (B, H, L, 64) at every call."""
        generator = torch.Generator(shape.device).manual_seed(1)
        size = (shape.batch, shape.channels // HEAD_DIM, shape.length, HEAD_DIM)
        dtype = DTYPES[shape.dtype]
        return [torch.randn(size, generator=generator, device=shape.device).to(dtype) for _ in range(3)]


def contestant(name: str) -> Contestant:
    """By its name in the results. Raises UnknownComponentError, or PluginError for a plugin that does not load."""
    fixed: dict[str, type[Contestant]] = {Plain.name: Plain, Attention.name: Attention}
    return fixed[name]() if name in fixed else Backend(name)
