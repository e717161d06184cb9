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
from spectral_models.model import SpectralModel
from spectral_models.variants.classifier import Classifier
from spectral_models.variants.encoding import Encoder
from spectral_models.variants.language_model import LanguageModel

_CONTEXT = 256
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

    Language models: bits per byte of the text. Classifiers: the share of inputs that keep their label; encoders: the
    mean cosine between embeddings before and after. Their inputs are pieces of the text, or for pictures and sound
    random. source: what the text is called. Raises ConfigError for other variants.
    """
    if isinstance(model, LanguageModel):
        tokens, size = measured_tokens(text, tokenizer)
        windows = ContiguousWindows(tokens, min(_CONTEXT, model.length_limit or _CONTEXT), size)
        before = bits_per_byte(model, windows)
        change()
        return Change(f"bits per byte of {size:,} bytes of {source}", before, bits_per_byte(model, windows))
    if not isinstance(model, Classifier | Encoder):
        raise ConfigError(
            f"a {model.config.type} has no measure of a change here; language_model, classifier and the encoders have."
        )
    inputs, of = _inputs(model.encoder if isinstance(model, Classifier) else model, text, source, tokenizer)
    first = _outputs(model, inputs)
    change()
    second = _outputs(model, inputs)
    if isinstance(model, Classifier):
        kept = (first.argmax(-1) == second.argmax(-1)).double().mean()
        return Change(f"same label for {of}", None, float(kept))
    cosine = F.cosine_similarity(first.double(), second.double(), dim=-1).mean()
    return Change(f"cosine of embeddings of {of}", None, float(cosine))


def _inputs(encoder: Encoder, text: bytes, source: str, tokenizer: Tokenizer) -> tuple[list[Tensor], str]:
    """Rows of their own, and what they are."""
    if encoder.config.modality != "text":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            size = getattr(encoder.config, "image_size", None)
            made = encoder.frontend.example(_PIECES)
            made = made if size is None else torch.randn(_PIECES, made.shape[1], *size)
        return list(made[:, None]), f"{_PIECES} random inputs"
    tokens, _ = measured_tokens(text, tokenizer)
    pieces = tokens.long().split(min(_CONTEXT, encoder.length_limit or _CONTEXT))[:_PIECES]
    return [piece[None] for piece in pieces], f"{len(pieces)} pieces of {source}"


@torch.no_grad()
def _outputs(model: SpectralModel, inputs: list[Tensor]) -> Tensor:
    """The logits of a classifier, or the embeddings of an encoder, of each row."""
    with fixed_weights(model):
        outputs = [model(row) for row in inputs]
    found = torch.cat([output.logits if isinstance(model, Classifier) else output.pooled for output in outputs])
    if not found.isfinite().all():
        raise not_numbers("outputs")
    return found
