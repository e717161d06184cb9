"""The environment of a measurement: versions and hardware."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import torch

from spectral_core import FFT_BACKENDS, __version__


def environment(device: str) -> dict[str, str | int | dict[str, str]]:
    """Versions, device, threads and date of a measurement, and who provides each backend."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "spectral_networks": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "backends": {entry.name: f"{entry.provider} {entry.version}" for entry in FFT_BACKENDS},
    }


def device_name(device: str) -> str:
    """The GPU's name, or the processor's as Linux gives it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
