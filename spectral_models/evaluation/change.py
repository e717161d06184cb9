"""What a change of a model's weights, quantisation for one, costs: the same measure before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core import ConfigError
from spectral_layers import fixed_weights
from spectral_models.data import ContiguousWindows, Tokenizer
from spectral_models.data.corpus import measured_tokens
from spectral_models.errors import not_numbers
from spectral_models.evaluation.bits import bits_per_byte
from spectral_models.inputs import InputSpec
from spectral_models.model import SpectralModel

_PIECES = 64


@dataclass(frozen=True)
class Change:
    """measure: what was measured, and on what. before: None where the measure compares the two, and 1 is no change."""

    measure: str
    before: float | None
    after: float


def changed(
    model: SpectralModel, change: Callable[[], object], text: bytes, source: str, tokenizer: Tokenizer
) -> Change:
    """Call ``change``, which changes the model in place, and say by how much it did.

    Decoders: bits per byte of the text. Models with labels: the share of inputs, or of tokens, that keep their label,
    or their set of labels; of numbers, the cosine between those before and after. Models that embed: the mean cosine
    between embeddings before and after. Their inputs are pieces of the text, or random where they read anything else.
    source: what the text is called. Raises ConfigError for other models.
    """
    config, specs = model.config, model.input_specs()
    known = config.label_set
    if not (model.continues_text or (specs and (known or config.pools))):
        raise ConfigError(
            f"a {config.type} has no measure of a change here; language models have, and models that label or embed "
            "rows, and declare their inputs."
        )
    if model.continues_text:
        tokens, size = measured_tokens(text, tokenizer)
        windows = ContiguousWindows(tokens, specs[0].shape()[0], size)
        before = bits_per_byte(model, windows)
        change()
        return Change(f"bits per byte of {size:,} bytes of {source}", before, bits_per_byte(model, windows))
    inputs, of = _inputs(specs, text, source, tokenizer)
    wanted = "pooled" if known is None else "logits"
    first = _outputs(model, inputs, wanted)
    change()
    second = _outputs(model, inputs, wanted)
    if known is None:
        cosine = F.cosine_similarity(first, second, dim=-1).mean()
        return Change(f"cosine of embeddings of {of}", None, float(cosine))
    if known.problem == "regression":
        cosine = F.cosine_similarity(first.flatten(), second.flatten(), dim=0)
        return Change(f"cosine of numbers for {of}", None, float(cosine))
    if known.problem == "multi_label_classification":
        kept = ((first >= 0) == (second >= 0)).all(-1)
    else:
        kept = first.argmax(-1) == second.argmax(-1)
    return Change(f"same label for {of}", None, float(kept.double().mean()))


def _inputs(
    specs: Sequence[InputSpec], text: bytes, source: str, tokenizer: Tokenizer
) -> tuple[list[dict[str, Tensor]], str]:
    """Rows of their own, by the input's name, and what they are."""
    if len(specs) == 1 and specs[0].kind == "tokens":
        tokens, _ = measured_tokens(text, tokenizer)
        pieces = tokens.long().split(specs[0].shape()[0])[:_PIECES]
        return [{specs[0].name: piece[None]} for piece in pieces], f"{len(pieces)} pieces of {source}"
    generator = torch.Generator().manual_seed(0)
    made = {spec.name: spec.example(_PIECES, generator) for spec in specs}
    rows = [{name: values[row : row + 1] for name, values in made.items()} for row in range(_PIECES)]
    return rows, f"{_PIECES} random inputs"


@torch.no_grad()
def _outputs(model: SpectralModel, inputs: list[dict[str, Tensor]], wanted: str) -> Tensor:
    """The logits of each row, or of each token of all rows, or the embeddings: (N, D) in float64."""
    with fixed_weights(model):
        found = torch.cat([getattr(model.run(row), wanted).flatten(0, -2) for row in inputs]).double()
    if not found.isfinite().all():
        raise not_numbers("outputs")
    return found
