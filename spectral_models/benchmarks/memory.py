"""Free memory, and the peak memory of a workload beyond its inputs and results.

Peaks are measured in a fresh process, so that memory of earlier work cannot hide them. On a CPU the peak is the
resident memory by the Linux kernel (VmHWM), reset after the inputs are created; getrusage's ru_maxrss cannot be reset
and starts at the parent's size. On CUDA it is that of the caching allocator.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import torch

from spectral_core.backends.base import transform_dtype
from spectral_models.benchmarks.contestants import contestant
from spectral_models.benchmarks.problem import DTYPES, Problem, Shape, Workload

# Freed blocks beyond 1 MiB return to the system, so that memory of the set-up is not reused unnoticed.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": "0"}
# Peak of a whole comparison in signals (B, D, L) of the transform's dtype: plain's 5, 12 and 20, and the inputs.
_SIGNALS: dict[Workload, int] = {"forward": 10, "forward+backward": 18, "training": 28}


def measurable(device: str) -> bool:
    """Whether peaks can be measured: on CUDA, and on a CPU under Linux."""
    return torch.device(device).type == "cuda" or Path("/proc/self/clear_refs").exists()


def shortage(shape: Shape, workload: Workload) -> str | None:
    """The reason if the comparison needs more memory than is free; else None."""
    element = transform_dtype(DTYPES[shape.dtype]).itemsize
    needed = _SIGNALS[workload] * shape.batch * shape.channels * shape.length * element
    free = _free(shape.device)
    if free is None or needed <= free:
        return None
    return (
        f"needs about {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free; lower --channels or --batch"
    )


def extra_bytes(name: str, shape: Shape, workload: Workload) -> int:
    """The peak of one call beyond inputs and results. Raises RuntimeError if the process fails."""
    job = json.dumps({"name": name, "shape": asdict(shape), "workload": workload, "threads": torch.get_num_threads()})
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "spectral_models.benchmarks.memory", job],
        env={**os.environ, **_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"memory was not measured: exit status {done.returncode}: {last}")
    return int(done.stdout)


def _main(job: str) -> None:
    given = json.loads(job)
    torch.set_num_threads(given["threads"])
    shape, workload = Shape(**given["shape"]), cast(Workload, given["workload"])
    who = contestant(given["name"])
    small = replace(shape, batch=1, channels=min(shape.channels, 64), length=min(shape.length, 256))
    who.task(Problem.make(small), workload)()  # starts thread pools and loads libraries
    task = who.task(Problem.make(shape), workload)
    gc.collect()
    before = _reset(shape.device)
    results = task()
    extra = _peak(shape.device) - before - sum(result.nbytes for result in results.values())
    sys.stdout.write(f"{max(0, extra)}\n")


def _reset(device: str) -> int:
    """Reset the peak and return the current memory."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")
    return _bytes_of("/proc/self/status", "VmRSS")


def _peak(device: str) -> int:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    return _bytes_of("/proc/self/status", "VmHWM")


def _bytes_of(table: str, field: str) -> int:
    """A field of a table of Linux that counts in KiB."""
    lines = Path(table).read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def _free(device: str) -> int | None:
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return _bytes_of("/proc/meminfo", "MemAvailable") if Path("/proc/meminfo").exists() else None


if __name__ == "__main__":
    _main(sys.argv[1])
