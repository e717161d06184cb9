"""``fft: auto``: a backend chosen per class of request, cached, and reported with the reasons.

``thresholds.json`` holds the measured thresholds between backends; ``benchmarks/plan.py`` measures them. Candidates are
our own backends only; a third party's backend is used when a config names it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import torch
from torch import Tensor

from spectral_core.backends.base import (
    FFTBackend,
    FFTBackendConfig,
    Mode,
    PreparedKernel,
    Request,
    Spectrum,
    Support,
)
from spectral_core.errors import UnsupportedInputError
from spectral_kernels.tracing import power_of_two, transformed, varies

CANDIDATES = ("triton", "direct", "hierarchical", "torch", "xla")
_THRESHOLDS = json.loads(resources.files("spectral_core.backends").joinpath("thresholds.json").read_text())
_KEPT = 4096
"""The most cached plans; one more clears the cache, which grows where every batch has another length."""
_log = logging.getLogger("spectral_core")


@dataclass(frozen=True, slots=True)
class Plan:
    """The backend chosen for a request, and the reasons against those that were preferred to it."""

    backend: FFTBackend
    rejected: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        against = "".join(f"; {name}: {reasons}" for name, reasons in self.rejected)
        return f"auto → {self.backend.name}{against}"


class AutoFFT(FFTBackend):
    """Delegates each request to the first of its candidates that supports it and is not known to be slower."""

    name = "auto"
    higher_order = True

    def __init__(self, candidates: tuple[FFTBackend, ...]) -> None:
        self._candidates = candidates
        self._plans: dict[Request, Plan] = {}

    def plan(self, request: Request) -> Plan:
        """The plan for a class of requests. Raises UnsupportedInputError when no candidate can serve it."""
        if torch.compiler.is_compiling() or transformed():
            return self._make(request)  # a trace records neither logging nor caches; torch.func needs other plans
        made = self._plans.get(request)
        if made is None:
            if len(self._plans) == _KEPT:
                self._plans.clear()
            made = self._plans[request] = self._make(request)
            _log.info("%s (%s)", made, request)
        return made

    def _make(self, request: Request) -> Plan:
        rejected: list[tuple[str, str]] = []
        for backend in self._candidates:
            reasons = backend.reasons_against(request) or _slower(backend.name, request)
            if not reasons:
                return Plan(backend, tuple(rejected))
            rejected.append((backend.name, ", ".join(reasons)))
        shown = "; ".join(f"{name}: {reasons}" for name, reasons in rejected)
        raise UnsupportedInputError(f"no FFT backend can run this {request.operator}: {shown}.")

    def select(self, request: Request) -> FFTBackend:
        return self.plan(request).backend

    def unsupported_reasons(self, request: Request) -> list[str]:
        try:
            self.plan(request)
        except UnsupportedInputError as error:
            return [str(error)]
        return []

    def rfft(self, x: Tensor, n: int) -> Spectrum:
        return self.plan(Request.of("transform", x, n, grad=x.requires_grad)).backend.rfft(x, n)

    def irfft(self, spectrum: Spectrum, n: int) -> Tensor:
        return self.plan(Request.of("transform", spectrum.real, n, grad=spectrum.real.requires_grad)).backend.irfft(
            spectrum, n
        )

    def prepare_kernel(self, kernel: Tensor, length: int, mode: Mode) -> PreparedKernel:
        request = Request.of("convolution", kernel, length, taps=kernel.shape[-1], mode=mode, grad=kernel.requires_grad)
        return self.plan(request).backend.prepare_kernel(kernel, length, mode)

    def convolution(
        self,
        u: Tensor,
        kernel: PreparedKernel,
        *,
        skip: Tensor | None = None,
        pre_gate: Tensor | None = None,
        post_gate: Tensor | None = None,
    ) -> Tensor:
        return kernel.backend.convolution(u, kernel, skip=skip, pre_gate=pre_gate, post_gate=post_gate)

    def modulation(self, x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
        request = Request.of("modulation", x, n, grad=x.requires_grad)
        return self.plan(request).backend.modulation(x, gain, phase, n)


def _slower(name: str, request: Request) -> list[str]:
    """Reasons, by measurement, against a backend that supports the request."""
    if name == "torch" and request.device == "xla":
        return ["torch_xla sends complex transforms to the host"]
    if name not in ("triton", "direct", "hierarchical"):
        return []
    measured = _THRESHOLDS.get(request.device, {})
    if f"{name}_points" not in measured:
        return [f"not measured on {request.device}"]
    if name == "direct" and request.operator != "convolution":
        return [f"no {request.operator} of its own"]
    # A graph for many lengths is treated as one of the next power of two.
    sizes = request.channels, request.length, request.taps
    channels, transform, taps = (power_of_two(size) if varies(size) else size for size in sizes)
    if request.operator == "convolution":
        transform = Support.of(taps, transform, request.mode).points
    points, least = channels * transform, measured[f"{name}_points"]
    if name == "direct":
        most = measured["direct_taps"]["training" if request.grad else "forward"]
        if taps > most:
            return [f"{taps} taps, faster up to {most}"]
    return [] if points >= least else [f"{points} points, faster from {least}"]


class AutoFFTConfig(FFTBackendConfig):
    """Chooses a backend for each class of request, and says why."""

    type: Literal["auto"] = "auto"

    def build(self) -> AutoFFT:
        from spectral_core.backends.selection import fft_backend

        return AutoFFT(tuple(fft_backend(name) for name in CANDIDATES))
