"""The Triton kernels without a GPU: interpreted, compiled ahead of time, and what the backend says where they cannot
run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spectral_core import Request, UnsupportedInputError, convolve, fft_backend, modulate
from spectral_kernels import availability
from spectral_kernels.factors import ACROSS, ON_CHIP
from spectral_kernels.launch import LONGEST, columns, points_for, split
from spectral_kernels.modulation.op import digits

HERE = Path(__file__).parent
pytest.importorskip("triton", reason="triton is a dependency on Linux on x86-64 only")


def test_what_the_kernels_compute() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / "interpreted.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def compiled(folder: Path, targets: str, precisions: str) -> list[dict[str, object]]:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(HERE / "ahead.py"), targets, precisions]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_what_was_compiled(made: list[dict[str, object]], ways: int) -> None:
    # On chip: respond, collect, convolve, differentiate. In passes: two spread, three work in chunks, three gather.
    # Modulation: two.
    names = [each["kernel"] for each in made]
    assert len(names) == 14 * ways
    for each in made:
        assert 0 < int(str(each["shared"])) <= availability.SHARED_BYTES, each
        assert int(str(each["cubin"])) > 10_000, each


def test_every_kernel_compiles_for_ampere_and_hopper_within_their_memory(pytestconfig: pytest.Config) -> None:
    # The compiler's own cache, keyed by source and version: only what changed is compiled again.
    folder = pytestconfig.cache.mkdir("triton")
    check_what_was_compiled(compiled(folder, "80:4096,90:4096,90:256", "tf32"), 3)


@pytest.mark.slow
def test_every_precision_compiles_within_memory(pytestconfig: pytest.Config) -> None:
    folder = pytestconfig.cache.mkdir("triton")
    check_what_was_compiled(compiled(folder, "80:4096,80:256,90:4096", "ieee,tf32x3"), 6)


def test_every_length_has_a_class() -> None:
    points = min(ON_CHIP)
    while points <= LONGEST:
        cut = split(points)
        if cut is None:
            assert ON_CHIP[points].points == points
        else:
            across, within = cut
            assert across.points * within.points == points
            assert across in ACROSS.values()
            assert within in ON_CHIP.values()
            assert columns(across, within.points) * across.points <= 4096
        points *= 2
    assert points_for(1) == 256
    assert points_for(512) == 256
    assert points_for(513) == 512
    assert LONGEST >= 1 << 20


def test_digits_multiply_to_their_number() -> None:
    for n in range(1, 300):
        found = digits(n)
        if found is None:
            assert any(n % prime == 0 for prime in range(67, n + 1)), n  # some factor is beyond 64
            continue
        exact, padded = found
        assert exact.points == n
        assert padded.points <= 4096
        assert all(small <= large for small, large in zip(exact, padded, strict=True))


def request(**changes: object) -> Request:
    given = {"operator": "convolution", "device": "cuda", "dtype": torch.bfloat16, "batch": 2, "channels": 3}
    given |= {"length": 64, "taps": 64, "mode": "causal", "grad": True}
    return Request(**{**given, **changes})


class Properties:
    name = "GTX"
    major, minor = 7, 5
    shared_memory_per_block = 48 << 10
    shared_memory_per_block_optin = 64 << 10


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_reasons_are_given() -> None:
    u = torch.ones(1, 1, 4)
    with pytest.raises(UnsupportedInputError, match=r"triton cannot run this convolution: no CUDA device\. Choose"):
        convolve(u, u[0], backend="triton")
    with pytest.raises(UnsupportedInputError, match="this modulation: no CUDA device; dtype float64 unsupported"):
        modulate(u.double(), backend="triton")
    plan = fft_backend("auto").plan(request(device="cpu", dtype=torch.float32))
    assert "triton: no CUDA device" in str(plan)


def test_every_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = fft_backend("triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: Properties)
    needed = availability.SHARED_BYTES
    assert triton.unsupported_reasons(request(dtype=torch.float64)) == [
        "compute capability 7.5 of GTX; at least 8.0 is needed",
        f"65536 bytes of shared memory in a block of GTX; {needed} are needed",
        "dtype float64 unsupported",
    ]
    monkeypatch.setattr(Properties, "major", 9)
    monkeypatch.setattr(Properties, "shared_memory_per_block_optin", 227 << 10)
    assert triton.unsupported_reasons(request()) == []
    assert triton.unsupported_reasons(request(length=1 << 20, taps=1 << 20)) == []
    assert triton.unsupported_reasons(request(device="cpu")) == ["the input is on cpu, not on a CUDA device"]
    assert triton.unsupported_reasons(request(length=1 << 25)) == [
        f"a transform of {1 << 26} points; at most {2 * LONGEST}"
    ]
    (prime,) = triton.unsupported_reasons(request(operator="modulation", length=127))
    assert prime.startswith("127 points have no two or three factors")
    # Auto takes it once it is measured there, and says why it does not.
    assert "triton: not measured on cuda" in str(fft_backend("auto").plan(request(length=65, taps=65)))
