"""``spectral embed``: texts, images or audio as vectors, and how alike they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import typer
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.nn import functional as F

from spectral_core import ConfigError
from spectral_layers import fixed_weights
from spectral_models.checkpoint import load_checkpoint, load_tokenizer
from spectral_models.cli.console import out
from spectral_models.cli.inputs import batches, read_items
from spectral_models.cli.outputs import check_output
from spectral_models.errors import not_numbers

_COMPARED = 12


def embed(
    checkpoint: Path = typer.Argument(help="An encoder's checkpoint directory, or a classifier's, or a run's."),
    items: list[str] | None = typer.Argument(
        None, metavar="TEXT", help="Texts; or paths of images, or of WAV files; or of several inputs JSON objects."
    ),
    file: Path | None = typer.Option(None, help="One text or path on each line, instead; - for the standard input."),
    output: Path | None = typer.Option(None, "--out", help="Write them to this .npy file, (inputs, width) in float32."),
    normalize: bool = typer.Option(False, "--normalize", help="Scale each to length 1, for products to be cosines."),
) -> None:
    """Turn texts, images or audio into the vectors an encoder pools them into.

    The mean over an input's own tokens, padding left out, unless the encoder
    was made with another pooling. A terminal shows the cosines between up to 12
    of them; a pipe gets a line of JSON for each.

      spectral embed runs/encoder "a cat sat" "the dog lay" "interest rates"

      spectral embed runs/encoder --file sentences.txt --out embeddings.npy --normalize
    """
    found = read_items(items or [], file)
    if output is not None and output.suffix != ".npy":
        named = output.with_suffix(".npy") if output.name else "embeddings.npy"
        raise ConfigError(f"--out {output}: embeddings are written as .npy; call it {named}.")
    if output is not None:
        check_output(output, [checkpoint, *found, file or ""])
    model = load_checkpoint(checkpoint)
    if not model.config.pools:
        raise ConfigError(
            f"{checkpoint} holds a model of type {model.config.type}, which pools no embeddings. embed takes an "
            "encoder, vision_encoder or audio_encoder, or a classifier over one or several."
        )
    names: list[str] = []
    pooled: list[Tensor] = []
    with fixed_weights(model), torch.no_grad():
        for batch in batches(model, load_tokenizer(checkpoint), found):
            names += batch.names
            pooled.append(model.run(batch.inputs, batch.attention_mask).pooled)
    vectors = torch.cat(pooled).float()
    if not vectors.isfinite().all():
        raise not_numbers("embeddings")
    if normalize:
        vectors = F.normalize(vectors, dim=-1)
    if output is not None:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            np.save(output, vectors.numpy())
        except OSError as error:
            raise ConfigError(f"cannot write {output}: {error.strerror}. Choose another --out.") from None
        typer.echo(f"written {output}, {len(names)} embeddings of {vectors.shape[1]} numbers")
    if out.is_terminal:
        _show_cosines(names, vectors)
    elif output is None:
        for item, vector in zip(names, vectors.tolist(), strict=True):
            typer.echo(json.dumps({"input": item, "embedding": vector}))


def _show_cosines(items: list[str], vectors: Tensor) -> None:
    """Each against those before it; of one, its first numbers."""
    if len(items) == 1:
        start = "  ".join(f"{value:+.3f}" for value in vectors[0, :6].tolist())
        out.print(f"{vectors.shape[1]} numbers: {start} ...", highlight=False)
        return
    unit = F.normalize(vectors[:_COMPARED], dim=-1)
    cosines = (unit @ unit.T).tolist()
    table = Table("", "input", *map(str, range(1, len(cosines))), box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, row in enumerate(cosines):
        shown = [f"{value:+.2f}" for value in row[:index]]
        table.add_row(str(index + 1), Text(items[index], no_wrap=True, overflow="ellipsis"), *shown)
    out.print(table, highlight=False)
    if len(items) > _COMPARED:
        out.print(f"the first {_COMPARED} of {len(items)}", style="dim", highlight=False)
