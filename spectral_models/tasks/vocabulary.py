"""Whether a tokenizer fits the inputs of a model."""

from __future__ import annotations

import torch

from spectral_models.config import ModelConfig
from spectral_models.data.config import AnyDataConfig
from spectral_models.data.tokenizers import BpeConfig, BytesConfig
from spectral_models.inputs import InputSpec, TokenInput


def specs_of(model: ModelConfig) -> tuple[InputSpec, ...]:
    """The input specs of a config's model, which is built on the meta device."""
    with torch.device("meta"):
        return model.build().input_specs()


def vocabulary_of(model: ModelConfig) -> int:
    """The largest vocabulary that a tokenizer may have: the smallest among the model's token inputs."""
    return min(spec.vocab_size for spec in specs_of(model) if isinstance(spec, TokenInput))


def text_reasons(model: ModelConfig, data: AnyDataConfig) -> list[str]:
    """Why the model cannot read texts with the ``tokenizer`` and ``max_length`` of the data's config.

    Empty if it can, if the config has no tokenizer, and if the tokenizer's size is not known before it is read.
    """
    options = dict(data)
    tokenizer, max_length = options.get("tokenizer"), options.get("max_length")
    if tokenizer is None:
        return []
    try:
        specs = [spec for spec in specs_of(model) if isinstance(spec, TokenInput)]
    except Exception:  # a part that cannot be built on the meta device, or at all: build_model reports it
        return []
    limits = {spec.max_length for spec in specs} - {None, max_length} if max_length else ()
    reasons = [
        f"data.max_length is {max_length}, and the model's max_length {limit}; leave the model's out, training writes "
        "the data's there"
        for limit in limits
    ]
    if specs and isinstance(tokenizer, BytesConfig | BpeConfig):
        needed = 256 if isinstance(tokenizer, BytesConfig) else tokenizer.vocab_size or 257
        size = min(spec.vocab_size for spec in specs)
        if size < needed:
            reasons.append(
                f"the tokenizer {tokenizer.type!r} needs a vocab_size of at least {needed}; the model's is {size}"
            )
    return reasons
