"""The promises of an FFT backend, by the framework's public checks."""

from __future__ import annotations

import pytest

from spectral_core import fft_backend
from spectral_core.testing import BACKEND_CHECKS, Check

pytest.importorskip("ducc0", reason="ducc0 is not installed: pip install ducc0")

OPTIONS = {
    "defaults": {},
    "one row a block": {"block_bytes": 1},
    "a few rows a block, three threads": {"block_bytes": 1200, "threads": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("check", BACKEND_CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, options: dict[str, int]) -> None:
    check(fft_backend("ducc/ducc0", **options))
