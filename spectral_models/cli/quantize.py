"""``spectral quantize``: writes a checkpoint with int8 weights and measures the change."""

from __future__ import annotations

from pathlib import Path

import typer

from spectral_core import ConfigError
from spectral_models.checkpoint import WEIGHTS, find, load_checkpoint, load_tokenizer, save_checkpoint
from spectral_models.cli.console import out
from spectral_models.cli.outputs import check_output
from spectral_models.data import DataConfig
from spectral_models.data.byte_files import TOKENIZER
from spectral_models.data.corpus import sample
from spectral_models.evaluation.change import measure_change
from spectral_models.quantization import quantize as to_int8
from spectral_models.quantization import torchao
from spectral_models.record import CONFIG, int8_of, read_record

_BYTES = 32768


def quantize(
    checkpoint: Path = typer.Argument(help="A checkpoint's directory, or a run's."),
    output: Path = typer.Argument(metavar="OUT", help="The directory of the checkpoint to write."),
    data: str | None = typer.Option(
        None, help="Text to measure the change on: a file or directory. By default held-out files of 'stdlib'."
    ),
) -> None:
    """Convert the weights of linear layers to int8, and print the change in size and quality.

    Projections of mixers and feed-forwards shrink to a quarter; embeddings,
    heads, filters and norms are not converted. Every command reads the new
    checkpoint if the extra quantize is installed, but it cannot be exported or
    trained.

    The change is measured in bits per byte for language models, as the share of
    inputs that keep their label for classifiers, and as the cosine between
    embeddings for encoders.

      spectral quantize runs/mine runs/mine-int8 --data book.txt

      spectral generate runs/mine-int8 --prompt "def "
    """
    check_output(output, [checkpoint, data or ""], replaced=True)
    if (output / CONFIG).is_file() and int8_of(read_record(output), output) == []:
        raise ConfigError(f"{output} holds a model that is not int8, which would be lost. Choose another OUT.")
    torchao()  # reports a missing library before the model is loaded
    model, tokenizer = load_checkpoint(checkpoint), load_tokenizer(checkpoint)
    text = sample(DataConfig(source=data or "stdlib"), held_out=data is None, limit=_BYTES)
    source = data or "held-out stdlib"
    names: list[str] = []
    change = measure_change(model, lambda: names.extend(to_int8(model)), text, source, tokenizer)
    save_checkpoint(model, output, tokenizer=tokenizer if (find(checkpoint) / TOKENIZER).exists() else None)
    before, after = ((find(path) / WEIGHTS).stat().st_size for path in (checkpoint, output))
    weights = sum(model.get_parameter(f"{name}.weight").numel() for name in names)
    was = "" if change.before is None else f"{change.before:.4f} -> "
    out.print(
        f"int8    {weights:,} weights of {len(names)} linear layers\n"
        f"size    {before:,} -> {after:,} bytes on disk, {before / after:.2f} times smaller\n"
        f"change  {was}{change.after:.4f} {change.measure}\n"
        f"written {output}",
        soft_wrap=True,
    )
