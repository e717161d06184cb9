"""Models as programs for other runtimes, torch.export and ONNX, each run and compared after it was written.

A program computes a model's transforms by products with real matrices (``fft: xla``): no complex numbers and no FFT,
which exporters lack. Its matrices have the size of the transforms, so a program has one length, and any batch size.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from spectral_core import ConfigError, FFTBackendConfig, SpectralError
from spectral_layers import Rows
from spectral_models.assembly import build_model
from spectral_models.config import parts_of
from spectral_models.model import SpectralModel
from spectral_models.quantization import int8_layers
from spectral_models.quiet import quietly
from spectral_models.variants.audio_encoder import AudioEncoder
from spectral_models.variants.classifier import Classifier
from spectral_models.variants.encoder import TextEncoder
from spectral_models.variants.encoding import Encoder, EncoderOutput
from spectral_models.variants.language_model import LanguageModel
from spectral_models.variants.vision_encoder import VisionEncoder

Format = Literal["torch", "onnx"]
SUFFIXES: dict[str, Format] = {".pt2": "torch", ".onnx": "onnx"}
TOLERANCE = 1e-4
"""What an output of a program may differ from the model's, relative to the largest value of that output."""
_LENGTH = 256
_BATCHES = (1, 3)  # of the samples it is checked on; the example it is traced with has 2


class ExportError(SpectralError, RuntimeError):
    """A model that cannot become a program, or a program that does not compute what the model does."""


@dataclass(frozen=True)
class Exported:
    """What was written. inputs and outputs: shapes by name, behind the batch. error: the largest that was found."""

    path: Path
    bytes: int
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    error: float


def export_model(
    model: SpectralModel,
    path: str | Path,
    *,
    format: Format,
    length: int | None = None,
    size: tuple[int, int] | None = None,
    masked: bool = True,
) -> Exported:
    """Write a model as a program, in float32, load it again and compare what it computes with the model.

    format: ``torch`` for ``torch.export.load(path).module()``, ``onnx`` for ONNX runtimes. length: tokens of a text, or
    samples of a sound; 256 tokens, or a second. size: height and width of pictures, where the model leaves them open.
    masked: whether encoders of text and sound get an ``attention_mask``, so that inputs may be shorter than ``length``;
    causal models need none: what stands behind a token does not change it.

    Outputs: ``logits`` of language models and classifiers; ``pooled`` and ``hidden`` of encoders (zero at padding),
    and ``logits`` of their head. The file appears under its name when every output, on random inputs in batches of
    another size than the one traced, is within TOLERANCE of the model's; until then it is in a directory beside it.

    Raises ExportError when the model cannot be traced or the program computes something else, UnsupportedInputError for
    a length or size the model does not take, ConfigError for variants that have no program or a missing library.
    """
    path = Path(path)
    if path.is_dir():
        raise ExportError(f"cannot write {path}: it is a directory. Choose another path.")
    if int8_layers(model):
        raise ConfigError("this model has int8 weights, which have no program here; export the one it was made from.")
    reference = _Program(_in_float32(model, {}))
    names = _output_names(reference.model)
    example, *samples = (
        _inputs(reference.model, batch, length=length, size=size, masked=masked) for batch in (2, *_BATCHES)
    )
    with torch.no_grad():
        expected = [reference(*sample.values()) for sample in samples]
    write, load = _FORMATS[format]()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
            written = Path(directory) / path.name
            write(_traced(_Program(_in_float32(model, _transforms(model))), example), written, list(example), names)
            run = load(written)
            errors = [_worst(run(sample), outputs, names) for sample, outputs in zip(samples, expected, strict=True)]
            files = sorted(Path(directory).iterdir(), key=lambda file: file == written)  # the program behind its data
            total = sum(file.stat().st_size for file in files)
            for file in files:
                file.replace(path.with_name(file.name))
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}. Choose another path.") from None
    inputs, outputs = dict(example), dict(zip(names, expected[0], strict=True))
    return Exported(path, total, _shapes(inputs), _shapes(outputs), max(errors))


class _Program(nn.Module):
    """A model that takes and gives tensors only."""

    def __init__(self, model: SpectralModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, ...]:
        output = self.model(inputs, attention_mask)
        if not isinstance(output, EncoderOutput):
            return (output.logits,)
        hidden = output.hidden if output.mask is None else output.hidden.masked_fill(~output.mask[..., None], 0.0)
        outputs = (output.pooled, hidden)
        return outputs if output.logits is None else (*outputs, output.logits)


def _in_float32(model: SpectralModel, changes: dict[str, Any]) -> SpectralModel:
    """A copy of the model whose config has these values, in evaluation."""
    copy = build_model(model.config, **changes)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def _transforms(model: SpectralModel) -> dict[str, str]:
    """The change of a config that makes every transform in it a matrix product."""
    return {path: "xla" for path, part in parts_of(model.config) if isinstance(part, FFTBackendConfig)}


def _output_names(model: SpectralModel) -> list[str]:
    if isinstance(model, LanguageModel | Classifier):
        return ["logits"]
    if isinstance(model, TextEncoder) and model.head is not None:
        return ["pooled", "hidden", "logits"]
    if isinstance(model, Encoder):
        return ["pooled", "hidden"]
    raise ConfigError(
        f"a {model.config.type} cannot be exported: only language_model, classifier and the encoders can. Export the "
        "encoders it is made of."
    )


def _inputs(
    model: SpectralModel, batch: int, *, length: int | None, size: tuple[int, int] | None, masked: bool
) -> dict[str, Tensor]:
    """Random inputs by name. Of the rows of a masked batch the first is full, and the others grow shorter."""
    stack = model.encoder if isinstance(model, Classifier) else model
    generator = torch.Generator().manual_seed(batch)
    if isinstance(stack, VisionEncoder):
        return {"pixel_values": torch.randn(batch, *_picture(stack, size), generator=generator)}
    if size is not None:
        raise ConfigError(f"a {stack.config.type} takes no pictures, so its programs have no size; give a length.")
    if isinstance(stack, AudioEncoder):
        length = length or round(getattr(stack.config.frontend, "sample_rate", 16_000))
        inputs = {"input_values": 0.1 * torch.randn(batch, length, generator=generator)}
    else:
        assert isinstance(stack, TextEncoder | LanguageModel)
        length = length or min(_LENGTH, stack.length_limit or _LENGTH)
        ids = torch.randint(stack.config.vocab_size, (batch, length), generator=generator)
        inputs = {"input_ids": ids}
    if masked and not model.config.decoder:
        lengths = torch.tensor([max(1, length // (row + 1)) for row in range(batch)])
        inputs["attention_mask"] = Rows(lengths).mask(length).long()
    return inputs


def _picture(encoder: VisionEncoder, size: tuple[int, int] | None) -> tuple[int, int, int]:
    """Channels, height and width of the pictures an encoder takes."""
    made_for = encoder.config.image_size
    if size is None and made_for is None:
        raise ConfigError("this model takes pictures of any size, and a program has one: give a size, as in 224 224.")
    example = encoder.frontend.example(1)
    return example.shape[1], *(size or made_for or ())


def _traced(program: _Program, example: dict[str, Tensor]) -> ExportedProgram:
    batch = torch.export.Dim("batch")
    try:
        # torch prints the whole graph of a trace that failed.
        with redirect_stderr(io.StringIO()), quietly("torch.fx"):
            return torch.export.export(program, tuple(example.values()), dynamic_shapes=[{0: batch}] * len(example))
    except RuntimeError as error:
        raise ExportError(
            f"this {program.model.config.type} cannot be traced: its shapes depend on values, or a part is not for "
            "tracing. moe counts the tokens of each expert; spectral_gating and fourier in encoders take each row of a "
            "masked batch at its own length: export these without the mask (--full-rows). "
            f"torch.export says: {str(error).splitlines()[0]}"
        ) from error


Run = Callable[[dict[str, Tensor]], Sequence[Tensor]]
Write = Callable[[ExportedProgram, Path, list[str], list[str]], None]


def _torch_format() -> tuple[Write, Callable[[Path], Run]]:
    def write(program: ExportedProgram, path: Path, inputs: list[str], outputs: list[str]) -> None:
        torch.export.save(program, path)

    def load(path: Path) -> Run:
        module = torch.no_grad()(torch.export.load(path).module())
        return lambda sample: module(*sample.values())

    return write, load


def _onnx_format() -> tuple[Write, Callable[[Path], Run]]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it: a missing one is reported before the trace
    except ImportError as error:
        raise ConfigError(
            f"ONNX needs a library that is not installed: {error.name}. Run: pip install 'spectral-networks[export]'"
        ) from None

    def write(program: ExportedProgram, path: Path, inputs: list[str], outputs: list[str]) -> None:
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


_FORMATS: dict[Format, Callable[[], tuple[Write, Callable[[Path], Run]]]] = {
    "torch": _torch_format,
    "onnx": _onnx_format,
}


def _worst(found: Sequence[Tensor], expected: Sequence[Tensor], names: list[str]) -> float:
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


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape[1:]) for name, tensor in tensors.items()}
