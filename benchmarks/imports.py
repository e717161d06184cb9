"""What importing the core and the command costs beside `import torch`: fresh processes, interleaved."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 9
MODULES = ("torch", "spectral_core", "spectral_models.cli.commands")


def seconds(module: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)  # noqa: S603
    return time.perf_counter() - start


def main() -> None:
    seconds(MODULES[-1])
    rounds = [{module: seconds(module) for module in MODULES} for _ in range(RUNS)]
    for module in MODULES:
        ratios = sorted(each[module] / each["torch"] for each in rounds)
        print(
            f"import {module:<28}  {statistics.median(each[module] for each in rounds):.2f} s (median of {RUNS}), "
            f"{statistics.median(ratios):.3f} of torch's, round by round ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


if __name__ == "__main__":
    main()
