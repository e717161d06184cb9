"""File formats of programs: writing, loading and running them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from spectral_models.errors import needs_extra
from spectral_models.quiet import quietly

Format = Literal["torch", "onnx"]
SUFFIXES: dict[str, Format] = {".pt2": "torch", ".onnx": "onnx"}

Run = Callable[[dict[str, Tensor]], Sequence[Tensor]]
"""Runs a program: inputs by name, in the program's order, to outputs in order."""
Write = Callable[[ExportedProgram, Path, Sequence[str], Sequence[str]], None]
"""Writes a program to a file; takes the names of inputs and outputs."""


def _torch_format() -> tuple[Write, Callable[[Path], Run]]:
    def write(program: ExportedProgram, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        torch.export.save(program, path)

    def load(path: Path) -> Run:
        module = torch.no_grad()(torch.export.load(path).module())
        return lambda sample: module(*sample.values())

    return write, load


def _onnx_format() -> tuple[Write, Callable[[Path], Run]]:
    with needs_extra("ONNX needs", "export"):
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it: a missing one is reported before the trace

    def write(program: ExportedProgram, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        with quietly("torch.onnx", "onnxscript"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # torch.onnx's own use of torch
            made = torch.onnx.export(program, input_names=inputs, output_names=outputs, verbose=False)
        assert made is not None
        made.save(path)

    def load(path: Path) -> Run:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        def run(sample: dict[str, Tensor]) -> list[Tensor]:
            found = session.run(None, {name: tensor.numpy() for name, tensor in sample.items()})
            return [torch.from_numpy(output) for output in found]

        return run

    return write, load


FORMATS: dict[Format, Callable[[], tuple[Write, Callable[[Path], Run]]]] = {
    "torch": _torch_format,
    "onnx": _onnx_format,
}
"""Writer and loader of each format. Raises ConfigError if a library is missing."""
