"""Settings of a benchmark, validated when they are created."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from spectral_core import FFT_BACKENDS, ConfigError, list_fft_backends
from spectral_core.errors import suggestion
from spectral_models.arguments import whole
from spectral_models.benchmarks.memory import measurable
from spectral_models.benchmarks.problem import DTYPES, WORKLOADS, Workload

LENGTHS = (2048, 8192, 16384, 65536, 200_000)
QUICK_LENGTHS = (2048, 8192)
QUICK_SECONDS = 6.0
_LARGEST = 1 << 30
_MOST_ROUNDS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The comparisons: every length with every workload and dtype. backends: by default all but direct and xla.

    seconds: limits the rounds, though to no less than 3; None for no limit.
    attention_limit: attention is not run on longer signals: its work grows with the square of the length.
    memory: whether peaks are measured too, each in a process of its own.
    """

    backends: tuple[str, ...] = ()
    lengths: tuple[int, ...] = LENGTHS
    dtypes: tuple[str, ...] = ("float32",)
    workloads: tuple[Workload, ...] = WORKLOADS
    batch: int = 1
    channels: int = 768
    rounds: int = 9
    seconds: float | None = None
    device: str = "cpu"
    memory: bool = False
    attention_limit: int = 16384

    def __post_init__(self) -> None:
        for name in self.backends:
            FFT_BACKENDS.get(name)  # raises UnknownComponentError with the known names
        # Sizes that do not fit the memory are skipped one by one: see memory.shortage.
        for field in ("batch", "channels", "attention_limit"):
            whole(field, getattr(self, field), least=1, most=_LARGEST)
        whole("rounds", self.rounds, least=1, most=_MOST_ROUNDS)
        for length in self.lengths:
            whole("length", length, least=1, most=_LARGEST)
        for field in ("lengths", "dtypes", "workloads"):
            if not getattr(self, field):
                raise ConfigError(f"no {field} are given; at least one is needed.")
        _known("dtype", self.dtypes, DTYPES)
        _known("workload", self.workloads, WORKLOADS)
        _check_device(self.device)
        if self.memory and not measurable(self.device):
            raise ConfigError("peak memory on a CPU is read from /proc, which this system lacks; leave --memory out.")

    def rounds_within(self, round_seconds: float) -> int:
        """The number of rounds, if one takes that long."""
        if self.seconds is None:
            return self.rounds
        return min(self.rounds, max(3, int(self.seconds / round_seconds)))

    @property
    def names(self) -> tuple[str, ...]:
        """The backends to measure."""
        # direct and xla are for short kernels and for devices without an FFT: measured only if they are named.
        return self.backends or tuple(name for name in list_fft_backends() if name not in ("direct", "xla"))


def _known(what: str, given: Iterable[str], known: Iterable[Any]) -> None:
    for name in given:
        if name not in known:
            raise ConfigError(f"{what} {name!r} is unknown.{suggestion(name, known)} Known: {', '.join(known)}.")


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} cannot be measured; give cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not here; this machine has {torch.cuda.device_count()} CUDA devices.")
