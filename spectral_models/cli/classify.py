"""``spectral classify``: the label of each text, image or recording, and how likely it is."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import typer
from rich.table import Table
from rich.text import Text

from spectral_core import ConfigError
from spectral_layers import fixed_weights
from spectral_models.checkpoint import load_checkpoint, load_tokenizer
from spectral_models.cli.console import out
from spectral_models.cli.inputs import batches, read_items
from spectral_models.errors import not_numbers

_SHOWN = 3


def classify(
    checkpoint: Path = typer.Argument(help="A classifier's checkpoint directory, or a run's."),
    items: list[str] | None = typer.Argument(None, metavar="TEXT", help="Texts; or paths of images, or of WAV files."),
    file: Path | None = typer.Option(None, help="One text or path on each line, instead; - for the standard input."),
    as_json: bool = typer.Option(False, "--json", help="A line of JSON for each, with all labels, for scripts."),
) -> None:
    """Label texts, images or audio with a trained classifier.

    Files go in as in training, by what the checkpoint says: pixels by its mean
    and deviation, images of its size, audio of its sample rate. Nothing is
    resized or resampled. Texts are cut where training cut them.

      spectral classify runs/sentiment "a fine film" "nothing in it"

      spectral classify runs/sentiment --file reviews.txt --json

      spectral classify runs/digits seven.png
    """
    found = read_items(items or [], file)
    model = load_checkpoint(checkpoint)
    known, spec = model.config.label_set, model.only_input
    if known is None or spec is None:
        raise ConfigError(
            f"{checkpoint} holds a model of type {model.config.type}: classify takes a classifier. For an encoder's "
            "embeddings: spectral embed; a multimodal is called in Python, with its inputs by name."
        )
    names = known.names or [str(label) for label in range(known.size)]
    table = Table("input", "label", "probability", "then", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    with fixed_weights(model), torch.no_grad():
        for batch in batches(model, spec, load_tokenizer(checkpoint), found):
            logits = model.run(batch.inputs, batch.attention_mask).logits
            if logits.isnan().any():
                raise not_numbers("logits")
            for item, row in zip(batch.names, logits.float().softmax(-1).tolist(), strict=True):
                ranked = sorted(zip(names, row, strict=True), key=lambda pair: -pair[1])
                (label, probability), *others = ranked
                if as_json:
                    typer.echo(json.dumps({"input": item, "label": label, "probabilities": dict(ranked)}))
                elif out.is_terminal:
                    then = "  ".join(f"{name} {share:.3f}" for name, share in others[: _SHOWN - 1])
                    table.add_row(_short(item), Text(label), f"{probability:.3f}", Text(then, style="dim"))
                else:
                    typer.echo(f"{label}\t{probability:.3f}\t{item}")
    if out.is_terminal and not as_json:
        out.print(table, highlight=False)


def _short(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
