"""The effect of changed weights on a model, as by quantisation: a measure before and after."""

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
    """measure: its name, and what it was measured on. before: None if ``after`` compares both, and 1 is no change."""

    measure: str
    before: float | None
    after: float


def measure_change(
    model: SpectralModel, change: Callable[[], object], text: bytes, source: str, tokenizer: Tokenizer
) -> Change:
    """Call ``change``, which changes the model in place, and measure its effect.

    Decoders: bits per byte of the text, before and after. Classifiers: the share of inputs, or of tokens, that keep
    their label or set of labels. Regression: the cosine between the numbers before and after. Models that embed: the
    mean cosine between embeddings before and after. Inputs are pieces of the text; random for models that read anything
    else. source: the text's name. Raises ConfigError for other models.
    """
    config, specs, labels = model.config, model.input_specs(), model.config.label_set
    if not (model.continues_text or (specs and (labels or config.pools))):
        raise ConfigError(
            f"the change of a {config.type} cannot be measured: it must be a language model, or declare its inputs and "
            "label or embed rows."
        )
    if model.continues_text:
        tokens, size = measured_tokens(text, tokenizer)
        windows = ContiguousWindows(tokens, specs[0].shape()[0], size)
        bits = bits_per_byte(model, windows)
        change()
        return Change(f"bits per byte of {size:,} bytes of {source}", bits, bits_per_byte(model, windows))
    inputs, of = _inputs(specs, text, source, tokenizer)
    output = "logits" if labels else "pooled"
    before = _outputs(model, inputs, output)
    change()
    after = _outputs(model, inputs, output)
    if labels is None:
        measure, kept = f"cosine of embeddings of {of}", F.cosine_similarity(before, after, dim=-1)
    elif labels.problem == "regression":
        measure, kept = f"cosine of numbers for {of}", F.cosine_similarity(before.flatten(), after.flatten(), dim=0)
    elif labels.problem == "multi_label_classification":
        measure, kept = f"same label for {of}", ((before >= 0) == (after >= 0)).all(-1)
    else:
        measure, kept = f"same label for {of}", before.argmax(-1) == after.argmax(-1)
    return Change(measure, None, float(kept.double().mean()))


def _inputs(
    specs: Sequence[InputSpec], text: bytes, source: str, tokenizer: Tokenizer
) -> tuple[list[dict[str, Tensor]], str]:
    """Batches of one row, by the input's name, and a description of all."""
    if len(specs) == 1 and specs[0].kind == "tokens":
        tokens, _ = measured_tokens(text, tokenizer)
        pieces = tokens.long().split(specs[0].shape()[0])[:_PIECES]
        return [{specs[0].name: piece[None]} for piece in pieces], f"{len(pieces)} pieces of {source}"
    generator = torch.Generator().manual_seed(0)
    rows = [{spec.name: spec.example(1, generator) for spec in specs} for _ in range(_PIECES)]
    return rows, f"{_PIECES} random inputs"


@torch.no_grad()
def _outputs(model: SpectralModel, inputs: list[dict[str, Tensor]], name: str) -> Tensor:
    """An output of all rows, or of all tokens of all rows: (N, D) in float64."""
    with fixed_weights(model):
        outputs = torch.cat([getattr(model.run(row), name).flatten(0, -2) for row in inputs]).double()
    if not outputs.isfinite().all():
        raise not_numbers("outputs")
    return outputs
