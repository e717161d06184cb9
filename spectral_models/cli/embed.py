"""``spectral embed``: embeddings of texts, images or audio, and their cosines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import typer
from rich.text import Text
from torch import Tensor
from torch.nn import functional as F

from spectral_core import ConfigError
from spectral_layers import fixed_weights
from spectral_models.checkpoint import load_checkpoint, load_tokenizer
from spectral_models.cli.console import out, plain_table
from spectral_models.cli.inputs import FILE, ITEMS, batches, read_items
from spectral_models.cli.outputs import check_output
from spectral_models.errors import not_numbers

_COMPARED = 12


def embed(
    checkpoint: Path = typer.Argument(help="An encoder's checkpoint directory, or a classifier's, or a run's."),
    items: list[str] | None = ITEMS,
    file: Path | None = FILE,
    output: Path | None = typer.Option(None, "--out", help="Write to this .npy file, (inputs, width) in float32."),
    normalize: bool = typer.Option(False, "--normalize", help="Scale each to length 1, so that products are cosines."),
) -> None:
    """Print the pooled embeddings of texts, images or audio.

    By default an encoder pools by the mean over an input's tokens, without
    padding. A terminal shows the cosines between up to 12 embeddings; a pipe
    gets a line of JSON for each.

      spectral embed runs/encoder "a cat sat" "the dog lay" "interest rates"

      spectral embed runs/encoder --file sentences.txt --out embeddings.npy --normalize
    """
    given = read_items(items, file)
    if output is not None and output.suffix != ".npy":
        named = output.with_suffix(".npy") if output.name else "embeddings.npy"
        raise ConfigError(f"--out {output}: embeddings are written as .npy; call it {named}.")
    if output is not None:
        check_output(output, [checkpoint, *given, file or ""])
    model = load_checkpoint(checkpoint)
    if not model.config.pools:
        raise ConfigError(
            f"{checkpoint} holds a model of type {model.config.type}, which pools no embeddings. embed takes an "
            "encoder, vision_encoder or audio_encoder, or a classifier over one or several."
        )
    names: list[str] = []
    pooled: list[Tensor] = []
    with fixed_weights(model), torch.no_grad():
        for batch in batches(model, load_tokenizer(checkpoint), given):
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
    """The cosines of each embedding with those before it; the first numbers of a single one."""
    if len(items) == 1:
        start = "  ".join(f"{value:+.3f}" for value in vectors[0, :6].tolist())
        out.print(f"{vectors.shape[1]} numbers: {start} ...")
        return
    unit = F.normalize(vectors[:_COMPARED], dim=-1)
    cosines = (unit @ unit.T).tolist()
    table = plain_table("", "input", *map(str, range(1, len(cosines))))
    for index, row in enumerate(cosines):
        shown = [f"{value:+.2f}" for value in row[:index]]
        table.add_row(str(index + 1), Text(items[index], no_wrap=True, overflow="ellipsis"), *shown)
    out.print(table)
    if len(items) > _COMPARED:
        out.print(f"the first {_COMPARED} of {len(items)}", style="dim")
