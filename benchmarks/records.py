"""Rows of a long benchmark, kept as they come: what was killed goes on with the rows that are missing."""

from __future__ import annotations

import csv
import fcntl
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectral_core import ConfigError
from spectral_models import load_config
from spectral_models.benchmarks.environment import environment
from spectral_models.config import ModelConfig

Row = dict[str, Any]


class Records:
    """A JSON file of rows, each known by the values of ``keys``. Several processes may add to it."""

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self.path = path
        self.keys = tuple(keys)
        path.parent.mkdir(parents=True, exist_ok=True)

    def rows(self) -> list[Row]:
        return json.loads(self.path.read_text(encoding="utf-8"))["rows"] if self.path.exists() else []

    def has(self, **wanted: Any) -> bool:
        return any(all(row[key] == wanted[key] for key in self.keys) for row in self.rows())

    def add(self, row: Row) -> None:
        """Append a finished row with the versions and the device it was made with; the file is whole at any moment."""
        row = {**row, "environment": environment("cpu")}
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            rows = [*self.rows(), row]
            made = self.path.with_suffix(".new")
            made.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
            made.replace(self.path)
            self._write_csv(rows)

    def _write_csv(self, rows: Sequence[Row]) -> None:
        """The same without curves and configs."""
        flat = [{**row, **row["environment"]} for row in rows]
        plain = [{key: value for key, value in row.items() if not isinstance(value, list | dict)} for row in flat]
        with self.path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in plain for key in row)), lineterminator="\n")
            writer.writeheader()
            writer.writerows(plain)


def parameters(config: ModelConfig) -> int:
    """All parameters, frozen ones included, tied ones once."""
    return sum(parameter.numel() for parameter in config.build().parameters())


def sized(model: dict[str, Any], mixers: Sequence[Any], target: int, feedforward: str = "mlp") -> ModelConfig:
    """The model whose layers hold these mixers in turn, its feed-forwards just wide enough for so many parameters."""

    def made(expansion: float) -> ModelConfig:
        fed = {"type": feedforward, "expansion": expansion}
        return load_config({**model, "layers": [{"mixer": mixer, "feedforward": fed} for mixer in mixers]})

    per_unit = parameters(made(2.0)) - parameters(made(1.0))
    expansion = 1.0 + (target - parameters(made(1.0))) / per_unit
    if expansion * model["hidden_dim"] < 1:
        raise ConfigError(f"{target:,} parameters leave no room for feed-forwards beside the mixers {mixers}.")
    config = made(expansion)
    assert abs(parameters(config) / target - 1) < 0.02
    return config
