"""``spectral export``: writes a checkpoint as a checked program for torch.export or ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from spectral_core import ConfigError
from spectral_models.checkpoint import load_checkpoint
from spectral_models.cli.console import out
from spectral_models.cli.outputs import check_output


def export(
    checkpoint: Path = typer.Argument(help="A checkpoint's directory, or a run's."),
    output: Path = typer.Argument(metavar="OUT", help="The file to write: model.pt2 or model.onnx."),
    format: Literal["torch", "onnx"] | None = typer.Option(
        None, help="By default by the suffix of OUT: .pt2 is torch, .onnx is onnx."
    ),
    length: list[str] | None = typer.Option(
        None,
        metavar="N or INPUT=N",
        help="Tokens of texts and samples of audio, fixed. By default 256 tokens, or one second. Repeat it with the "
        "names of inputs that differ.",
    ),
    size: tuple[int, int] | None = typer.Option(
        None, metavar="HEIGHT WIDTH", help="Of images, fixed. By default the model's image_size."
    ),
    full_rows: bool = typer.Option(
        False, "--full-rows", help="Leave out the attention_mask of encoders: every input fills its length."
    ),
) -> None:
    """Write a model as a program for other runtimes, in float32.

    The batch size is free; lengths are fixed, since transforms become products
    with matrices of that size. Pad shorter texts and recordings: encoders take
    an attention_mask for it; causal decoders need none. Inputs: input_ids,
    pixel_values or input_values, and attention_mask; for seq2seq also
    decoder_input_ids; for multimodal all modalities by name, without masks.
    Outputs: logits; for encoders pooled and hidden.

    The written program is loaded, run (ONNX in onnxruntime) and compared with
    the model; a program that differs by more than 1e-4 of the largest output is
    deleted.

      spectral export runs/mine model.pt2 --length 512

      spectral export runs/sentiment sentiment.onnx --length 128

      spectral export runs/digits digits.onnx --size 28 28

      spectral export runs/pairs pairs.onnx --length input_ids=128 --length
      decoder_input_ids=32
    """
    from spectral_models.export import SUFFIXES, TOLERANCE, export_model

    chosen = format or SUFFIXES.get(output.suffix)
    if chosen is None:
        raise ConfigError(
            f"{output} does not say what to write. Call it .pt2 or .onnx, or give --format torch or onnx."
        )
    check_output(output, [checkpoint])
    if output.is_file() and output.suffix not in SUFFIXES:
        raise ConfigError(f"{output} exists, and its name is not a program's (.pt2, .onnx). Choose another OUT.")
    made = export_model(
        load_checkpoint(checkpoint),
        output,
        format=chosen,
        length=_lengths(length or []),
        size=size or None,
        masked=not full_rows,
    )
    width = 1 + max(15, *map(len, made.inputs))
    for label, shapes in (("input", made.inputs), ("output", made.outputs)):
        for name, shape in shapes.items():
            out.print(f"{label:<8}{name:<{width}}({', '.join(['batch', *map(str, shape)])})")
    out.print(
        f"checked {made.error:.1e} from the model, of the largest output (tolerance {TOLERANCE:g})\n"
        f"written {made.path} ({made.bytes:,} bytes, {chosen})",
        soft_wrap=True,
    )


def _lengths(given: list[str]) -> int | dict[str, int] | None:
    """One length for all inputs, or lengths by the names of inputs."""
    read = [text.rpartition("=") for text in given]
    if any(not (number.isdecimal() and len(number) < 20 and int(number)) for _, _, number in read):
        raise ConfigError(f"--length takes N or INPUT=N, N a whole number from 1 on; got {', '.join(given)}.")
    named = {name: int(number) for name, _, number in read if name}
    if not named and len(read) == 1:
        return int(read[0][2])
    if len(named) < len(read):
        raise ConfigError(f"give --length once for all inputs, or once for each by its name; got {', '.join(given)}.")
    return named or None
