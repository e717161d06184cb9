"""The core starts without the libraries only some users have; proved in a fresh process."""

from __future__ import annotations

import subprocess
import sys

FORBIDDEN = ("triton", "torch_xla", "transformers", "accelerate", "datasets", "matplotlib", "typer", "pytest")


def loaded_by(statement: str) -> set[str]:
    """Which of the forbidden modules a fresh process holds after the statement, and torch itself did not load."""
    script = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        f"{statement}\n"
        f"print(*[name for name in {FORBIDDEN!r} if name in sys.modules and name not in before])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_core_and_its_kit_import_no_optional_library() -> None:
    use = "import torch, spectral_core; spectral_core.convolve(torch.ones(1, 1, 4), torch.ones(1, 2))"
    assert loaded_by(f"import spectral_core.testing\n{use}") == set()


def test_the_proof_can_fail() -> None:
    # typer stands for all: the least costly of them that is always installed.
    assert loaded_by("import spectral_core, typer") == {"typer"}
