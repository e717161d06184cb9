"""Every registered FFT backend keeps every promise; one that is added is tested for free."""

from __future__ import annotations

import pytest
import torch

from spectral_core import FFTBackend, Request, fft_backend, list_fft_backends
from spectral_core.backends.torch_fft import TorchFFT
from spectral_core.testing import BACKEND_CHECKS, Check
from spectral_core.testing.inputs import Inputs


@pytest.fixture(
    scope="module",
    # Blocks of one channel, and chunks or segments of time, which the kit's signals are too short for by default.
    params=[
        *((name, {}) for name in list_fft_backends()),
        ("hierarchical", {"block_bytes": 1}),
        ("hierarchical", {"chunk_size": 1}),
    ],
    ids=lambda param: "-".join([param[0], *(f"{key}={value}" for key, value in param[1].items())]),
)
def backend(request: pytest.FixtureRequest) -> FFTBackend:
    name, options = request.param
    made = fft_backend(name, **options)
    try:
        Inputs(made)
    except AssertionError as error:
        pytest.skip(str(error))
    return made


@pytest.mark.parametrize("check", BACKEND_CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, backend: FFTBackend) -> None:
    check(backend)


class RunsElsewhere(TorchFFT):
    def unsupported_reasons(self, request: Request) -> list[str]:
        return ["no TPU here"]


def test_the_kit_says_when_a_backend_runs_nowhere_here() -> None:
    for check in BACKEND_CHECKS:
        with pytest.raises(AssertionError, match="no TPU here"):
            check(RunsElsewhere())


class OnlyFloat32(TorchFFT):
    """As a backend on a device without float64."""

    def unsupported_reasons(self, request: Request) -> list[str]:
        return ["float64 unsupported"] if request.dtype == torch.float64 else []


@pytest.mark.parametrize("check", BACKEND_CHECKS, ids=lambda check: check.__name__)
def test_a_backend_without_float64_is_checked_in_float32(check: Check) -> None:
    check(OnlyFloat32())
