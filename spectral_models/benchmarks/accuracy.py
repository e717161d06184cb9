"""Compares every result with float64 before anything is timed.

The reference is torch.fft in float64 at another transform length, itself compared with the direct sum at a few
positions. Long signals are compared on evenly spread channels, first and last included.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_core.backends.base import fast_length
from spectral_core.testing.numerics import relative_error
from spectral_models.benchmarks.contestants import HEAD_DIM, Attention
from spectral_models.benchmarks.problem import DTYPES, Problem, Workload

POINTS = 1 << 23
"""Samples that are compared: all channels of signals up to 8,192 tokens of 768 channels."""

_SIGNALS = ("output", "input gradient")
_FLOOR = {torch.float64: 1e-14}  # float64 against float64: both sides round


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """The relative error of one result, that of plain, and the allowed one."""

    result: str
    error: float
    plain: float | None
    allowed: float

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed

    def __str__(self) -> str:
        return f"{self.result} is off by {self.error:.2g}, {self.allowed:.2g} is allowed"


class Reference:
    """The exact results of a workload on some channels."""

    def __init__(self, problem: Problem, workload: Workload) -> None:
        shape = problem.shape
        count = max(1, min(shape.channels, max(4, POINTS // (shape.batch * shape.length))))
        self.channels = torch.linspace(0, shape.channels - 1, count).round().long().unique().to(shape.device)
        self._dtype = DTYPES[shape.dtype]
        self._results = _exact(problem, workload, self.channels)

    def errors(self, results: Mapping[str, Tensor]) -> dict[str, float]:
        """The relative error of each result. A wrong shape or a NaN has error infinity."""
        return {
            name: relative_error(_part(name, results[name], self.channels), exact)
            for name, exact in self._results.items()
        }

    def yardstick(self, errors: Mapping[str, float]) -> list[Accuracy]:
        """Judges plain itself: it must keep half of the digits."""
        allowed = torch.finfo(self._dtype).eps ** 0.5
        return [Accuracy(result=name, error=error, plain=error, allowed=allowed) for name, error in errors.items()]

    def judge(self, errors: Mapping[str, float], plain: Mapping[str, float]) -> list[Accuracy]:
        """Allows twice plain's error in the same dtype, plus a floor for results that are exact in plain by chance."""
        floor = _FLOOR.get(self._dtype, 1e-7)
        return [
            Accuracy(result=name, error=error, plain=plain[name], allowed=2 * plain[name] + floor)
            for name, error in errors.items()
        ]


def check_attention(problem: Problem, results: Mapping[str, Tensor]) -> list[Accuracy]:
    """Compares the output of attention at three positions with softmax in float64."""
    q, k, v = (x.double() for x in Attention().inputs(problem.shape))
    error = 0.0
    for t in _positions(problem.shape.length):
        scores = (k[..., : t + 1, :] @ q[..., t, :, None]).squeeze(-1) / HEAD_DIM**0.5
        exact = (scores.softmax(-1)[..., None, :] @ v[..., : t + 1, :]).squeeze(-2)
        error = max(error, relative_error(results["output"][..., t, :], exact))
    allowed = 16 * torch.finfo(DTYPES[problem.shape.dtype]).eps
    return [Accuracy(result="output", error=error, plain=None, allowed=allowed)]


def _exact(problem: Problem, workload: Workload, channels: Tensor) -> dict[str, Tensor]:
    u, g = problem.u[:, channels].double(), problem.cotangent[:, channels].double()
    if workload == "training":
        module = copy.deepcopy(problem.filter).double()
        for parameter in module.parameters():  # channels of a filter are independent: keep the compared ones
            parameter.data = parameter.data[channels]
        kernel = module.kernel(u.shape[-1])
        y, du, dk = _convolution(u, kernel.detach(), g)
        names, parameters = zip(*module.named_parameters(), strict=True)
        gradients = torch.autograd.grad(kernel, parameters, dk)
        named = {f"{name} gradient": gradient for name, gradient in zip(names, gradients, strict=True)}
        return {"output": y, "input gradient": du, **named}
    y, du, _ = _convolution(u, problem.kernel[channels].double(), g)
    return {"output": y} if workload == "forward" else {"output": y, "input gradient": du}


def _convolution(u: Tensor, kernel: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The output y of the causal convolution, and the gradients of sum(y g) in u and in the kernel, all float64."""
    length = u.shape[-1]
    n = fast_length(2 * length + 1)  # never plain's 2L, so that the two do not round alike
    a, b, c = (torch.fft.rfft(x, n=n) for x in (u, kernel, g))
    y = torch.fft.irfft(a * b, n=n)[..., :length]
    du = torch.fft.irfft(c * b.conj(), n=n)[..., :length]
    dk = torch.fft.irfft((c * a.conj()).sum(0), n=n)[..., :length]
    for t in _positions(length):
        sums = {
            "output": (y, (kernel[:, : t + 1].flip(-1) * u[..., : t + 1]).sum(-1)),
            "input gradient": (du, (g[..., t:] * kernel[:, : length - t]).sum(-1)),
            "kernel gradient": (dk, (g[..., t:] * u[..., : length - t]).sum((0, -1))),
        }
        for name, (ours, direct) in sums.items():
            # Against the size of the whole: a single sum may happen to be near zero.
            distance = (ours[..., t] - direct).abs().max().item()
            assert distance <= 1e-11 * ours.abs().max().item(), f"the float64 reference is wrong: {name} at {t}"
    return y, du, dk


def _positions(length: int) -> list[int]:
    return sorted({0, length // 3, length - 1})


def _part(name: str, result: Tensor, channels: Tensor) -> Tensor:
    return result[:, channels] if name in _SIGNALS else result[channels]
