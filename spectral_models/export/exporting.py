"""Writes a model as a program, loads it again, and keeps it if its outputs are the model's."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from spectral_core import ConfigError, FFTBackendConfig, SpectralError
from spectral_models.assembly import build_model
from spectral_models.config import parts_of
from spectral_models.errors import not_numbers
from spectral_models.export.formats import FORMATS, Format
from spectral_models.export.programs import Lengths, Program
from spectral_models.inputs import Shape, Size
from spectral_models.model import SpectralModel
from spectral_models.quantization import int8_layers
from spectral_models.quiet import quietly

TOLERANCE = 1e-4
"""Allowed difference of a program's output from the model's, relative to the largest value of that output."""
_BATCHES = (1, 3)  # of the samples it is checked on; the example it is traced with has 2


class ExportError(SpectralError, RuntimeError):
    """A model that cannot be exported, or a program whose outputs are not the model's."""


@dataclass(frozen=True)
class Exported:
    """An exported program. inputs, outputs: shapes by name, without the batch. error: the largest difference found."""

    path: Path
    bytes: int
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    error: float


def export_model(
    model: SpectralModel,
    path: str | Path,
    *,
    format: Format,
    length: Lengths = None,
    size: Size | None = None,
    masked: bool = True,
) -> Exported:
    """Write a model as a program, in float32, load it again and compare its outputs with the model's.

    format: ``torch`` for ``torch.export.load(path).module()``, ``onnx`` for ONNX runtimes. length: tokens of texts and
    samples of recordings, for all inputs or by name; by default 256 tokens, or a second. size: height and width of
    images, if the model does not fix them. masked: whether the first input of an encoder, if it is text or audio, gets
    an ``attention_mask``, so that inputs may be shorter than the length.

    Inputs, in order: ``input_ids``, ``input_values`` or ``pixel_values``, ``attention_mask``, and the
    ``decoder_input_ids`` of seq2seq. Decoders need no mask, since padding on the right does not change earlier outputs.
    Inputs of multimodal models: all modalities by name, at their full lengths. Outputs: ``logits``; of encoders
    ``pooled`` and ``hidden`` (zero at padding), then ``logits`` if they have a head. The program is written to a
    temporary directory, and renamed to ``path`` if all outputs, on random inputs in batches of other sizes than the
    traced one, are within TOLERANCE of the model's.

    Raises ExportError if the model cannot be traced or the outputs differ, UnsupportedInputError for a length or size
    that the model does not support, ConfigError for a model without declared inputs and outputs and for a missing
    library.
    """
    path = Path(path)
    if path.is_dir():
        raise ExportError(f"cannot write {path}: it is a directory. Choose another path.")
    if format not in FORMATS:
        raise ConfigError(f"a program's format is {' or '.join(FORMATS)}; got {format!r}.")
    if int8_layers(model):
        raise ConfigError("this model has int8 weights, which have no program here; export the one it was made from.")
    reference = Program(_in_float32(model, {}))
    shapes = reference.shapes(length, size)
    example, *samples = (reference.sample(shapes, batch, masked=masked) for batch in (2, *_BATCHES))
    with torch.no_grad():
        expected = [reference(*sample.values()) for sample in samples]
    names = reference.outputs
    for outputs in expected:
        for name, output in zip(names, outputs, strict=True):
            if not output.isfinite().all():
                raise not_numbers(name)
    write, load = FORMATS[format]()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
            written = Path(directory) / path.name
            program = Program(_in_float32(model, _transforms(model)))
            write(_traced(program, example), written, list(example), names)
            run = load(written)
            errors = [_worst(run(sample), outputs, names) for sample, outputs in zip(samples, expected, strict=True)]
            files = sorted(Path(directory).iterdir(), key=lambda file: file == written)  # the program behind its data
            total = sum(file.stat().st_size for file in files)
            for file in files:
                file.replace(path.with_name(file.name))
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}. Choose another path.") from None
    return Exported(path, total, _shapes(example), _shapes(dict(zip(names, expected[0], strict=True))), max(errors))


def _in_float32(model: SpectralModel, changes: dict[str, Any]) -> SpectralModel:
    """A copy of the model with these config values, in float32 and eval mode."""
    copy = build_model(model.config, **changes)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def _transforms(model: SpectralModel) -> dict[str, str]:
    """The config values that make every transform a matrix product."""
    named = (path for path, part in parts_of(model.config) if isinstance(part, FFTBackendConfig))
    return dict.fromkeys(("fft", *named), "xla")


def _traced(program: Program, example: dict[str, Tensor]) -> ExportedProgram:
    batch = torch.export.Dim("batch")
    try:
        # torch prints the whole graph of a trace that failed.
        with redirect_stderr(io.StringIO()), quietly("torch.fx"):
            given = tuple(example.values())
            return torch.export.export(program, given, dynamic_shapes=(tuple({0: batch} for _ in given),))
    except RuntimeError as error:
        raise ExportError(
            f"this {program.model.config.type} cannot be traced: its shapes depend on values, or a part is not for "
            "tracing. spectral_gating and fourier in encoders take each row of a masked batch at its own length: "
            "export these without the mask (--full-rows). "
            f"torch.export says: {str(error).splitlines()[0]}"
        ) from error


def _worst(found: Sequence[Tensor], expected: Sequence[Tensor], names: Sequence[str]) -> float:
    """The largest error of any output, relative to its largest value. Raises ExportError beyond the tolerance."""
    worst = 0.0
    for name, ours, right in zip(names, found, expected, strict=True):
        error = float((ours - right).abs().max() / right.abs().max()) if ours.shape == right.shape else float("inf")
        if not error <= TOLERANCE:  # not a number is beyond it too
            raise ExportError(
                f"the program's {name} differ from the model's by {error:.1e} of the largest, more than {TOLERANCE:g}. "
                "It was not kept. Please report this, with the model's config."
            )
        worst = max(worst, error)
    return worst


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape[1:]) for name, tensor in tensors.items()}
