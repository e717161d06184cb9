"""What `import spectral_core` costs beside `import torch`: paired fresh processes, interleaved."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 9


def seconds(module: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)  # noqa: S603
    return time.perf_counter() - start


def main() -> None:
    seconds("spectral_core")
    pairs = [(seconds("spectral_core"), seconds("torch")) for _ in range(RUNS)]
    ratios = sorted(ours / torch for ours, torch in pairs)
    print(f"import torch          {statistics.median(t for _, t in pairs):.2f} s (median of {RUNS})")
    print(f"import spectral_core  {statistics.median(o for o, _ in pairs):.2f} s")
    print(f"ratio, pair by pair   {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
