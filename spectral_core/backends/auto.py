"""``fft: auto``: a backend chosen per class of request, cached, and reported with the reasons.

Where to switch was measured: ``thresholds.json`` holds the numbers, ``benchmarks/plan.py`` makes them. Candidates are
our own backends; a third party's is used when it is named, never by itself.
"""

from __future__ import annotations

import json
import logging
import math
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
    transform_dtype,
)
from spectral_core.errors import UnsupportedInputError
from spectral_kernels.tracing import power_of_two, transformed, varies

CANDIDATES = ("triton", "direct", "hierarchical", "torch", "xla")
_THRESHOLDS = json.loads(resources.files("spectral_core.backends").joinpath("thresholds.json").read_text())
_KEPT = 4096
"""Plans at most: where every batch has a length of its own, one more drops them all."""
_log = logging.getLogger("spectral_core")


@dataclass(frozen=True, slots=True)
class Plan:
    """What auto chose for a request, and what spoke against the backends it would have preferred."""

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

    @property
    def plans(self) -> dict[Request, Plan]:
        """The plans it holds: all made so far, until there are too many."""
        return dict(self._plans)

    def plan(self, request: Request) -> Plan:
        """The plan for a class of requests. Raises UnsupportedInputError when no candidate can serve it."""
        if torch.compiler.is_compiling() or transformed():
            return self._make(request)  # a trace holds neither log lines nor caches; torch.func has plans of its own
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
        return self.plan(_request("transform", x, n)).backend.rfft(x, n)

    def irfft(self, spectrum: Spectrum, n: int) -> Tensor:
        return self.plan(_request("transform", spectrum.real, n)).backend.irfft(spectrum, n)

    def prepare_kernel(self, kernel: Tensor, length: int, mode: Mode) -> PreparedKernel:
        request = _request("convolution", kernel, length, taps=kernel.shape[-1], mode=mode)
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
        return self.plan(_request("modulation", x, n)).backend.modulation(x, gain, phase, n)


def _slower(name: str, request: Request) -> list[str]:
    """Why measurements speak against a backend that could serve the request."""
    if name == "torch" and request.device == "xla":
        return ["torch_xla sends complex transforms to the host"]
    if name not in ("triton", "direct", "hierarchical"):
        return []
    measured = _THRESHOLDS.get(request.device, {})
    if f"{name}_points" not in measured:
        return [f"not measured on {request.device}"]
    if name == "direct" and request.operator != "convolution":
        return [f"no {request.operator} of its own"]
    # A graph for many lengths is judged, and its message written, as one of the next power of two.
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


def _request(
    operator: Literal["convolution", "modulation", "transform"],
    x: Tensor,
    length: int,
    taps: int = 0,
    mode: Mode = "causal",
) -> Request:
    """The class of request an input belongs to. Leading axes beyond (B, D, L) count as batch."""
    return Request(
        operator=operator,
        device=x.device.type,
        dtype=transform_dtype(x.dtype),
        batch=math.prod(x.shape[:-2]),  # numel() would fix a traced batch
        channels=x.shape[-2] if x.dim() > 1 else 1,
        length=length,
        taps=taps,
        mode=mode,
        grad=x.requires_grad,
    )


class AutoFFTConfig(FFTBackendConfig):
    """Chooses a backend for each class of request, and says why."""

    type: Literal["auto"] = "auto"

    def build(self) -> AutoFFT:
        from spectral_core.backends.selection import fft_backend

        return AutoFFT(tuple(fft_backend(name) for name in CANDIDATES))
