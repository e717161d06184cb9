"""What a change of a model's weights, quantisation for one, costs: the same measure before and after."""

from __future__ import annotations

from collections.abc import Callable
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

    Decoders: bits per byte of the text. Models that label rows: the share of inputs that keep their label; those that
    embed them: the mean cosine between embeddings before and after. Their inputs are pieces of the text, or random
    where they read no tokens. source: what the text is called. Raises ConfigError for other models.
    """
    config, spec = model.config, model.only_input
    if spec is None or not (model.continues_text or config.label_set or config.pools):
        raise ConfigError(
            f"a {config.type} has no measure of a change here; language models have, and models of one input that "
            "label or embed its rows."
        )
    if model.continues_text:
        tokens, size = measured_tokens(text, tokenizer)
        windows = ContiguousWindows(tokens, spec.shape()[0], size)
        before = bits_per_byte(model, windows)
        change()
        return Change(f"bits per byte of {size:,} bytes of {source}", before, bits_per_byte(model, windows))
    inputs, of = _inputs(spec, text, source, tokenizer)
    wanted = "pooled" if config.label_set is None else "logits"
    first = _outputs(model, inputs, wanted)
    change()
    second = _outputs(model, inputs, wanted)
    if config.label_set is not None:
        kept = (first.argmax(-1) == second.argmax(-1)).double().mean()
        return Change(f"same label for {of}", None, float(kept))
    cosine = F.cosine_similarity(first.double(), second.double(), dim=-1).mean()
    return Change(f"cosine of embeddings of {of}", None, float(cosine))


def _inputs(spec: InputSpec, text: bytes, source: str, tokenizer: Tokenizer) -> tuple[list[dict[str, Tensor]], str]:
    """Rows of their own, by the input's name, and what they are."""
    if spec.kind == "tokens":
        tokens, _ = measured_tokens(text, tokenizer)
        pieces = tokens.long().split(spec.shape()[0])[:_PIECES]
        return [{spec.name: piece[None]} for piece in pieces], f"{len(pieces)} pieces of {source}"
    made = spec.example(_PIECES, torch.Generator().manual_seed(0))
    return [{spec.name: row} for row in made[:, None]], f"{_PIECES} random inputs"


@torch.no_grad()
def _outputs(model: SpectralModel, inputs: list[dict[str, Tensor]], wanted: str) -> Tensor:
    """The logits or embeddings of each row."""
    with fixed_weights(model):
        found = torch.cat([getattr(model.run(row), wanted) for row in inputs])
    if not found.isfinite().all():
        raise not_numbers("outputs")
    return found
