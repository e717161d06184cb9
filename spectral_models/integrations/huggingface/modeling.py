"""A thin ``PreTrainedModel`` around a language model: what ``Trainer`` and accelerate need, and no second model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from spectral_core import ConfigError
from spectral_models.assembly import build_model
from spectral_models.checkpoint import make_record, write_files
from spectral_models.config import ModelConfig
from spectral_models.variants.language_model import LanguageModel


class SpectralHFConfig(PretrainedConfig):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Holds a model config of ours under ``spectral``; the same file as a checkpoint's config.json."""

    model_type = "spectral"

    def __init__(self, spectral: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.spectral = spectral
        super().__init__(**kwargs)

    @classmethod
    def of(cls, config: ModelConfig) -> SpectralHFConfig:
        record = make_record(config)
        record.pop("model_type")
        return cls(**record)


@dataclass
class SpectralCausalLMOutput(ModelOutput):  # type: ignore[misc]
    """loss: with labels only, auxiliary losses included. logits: (B, L, V). losses, metrics: the model's own."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    metrics: dict[str, Tensor] | None = None


class SpectralForCausalLM(PreTrainedModel):  # type: ignore[misc]
    """``SpectralForCausalLM(SpectralHFConfig.of(config))``, or ``SpectralForCausalLM.wrap(model)``.

    ``save_pretrained`` writes our checkpoint format, which :func:`spectral_models.load_checkpoint` reads.
    """

    config_class = SpectralHFConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True

    def __init__(self, config: SpectralHFConfig, model: LanguageModel | None = None) -> None:
        super().__init__(config)
        if model is None:
            if config.spectral is None:
                raise ConfigError("SpectralHFConfig holds no model: make it with SpectralHFConfig.of(config).")
            built = build_model(config.spectral)
            if not isinstance(built, LanguageModel):
                raise ConfigError(f"SpectralForCausalLM holds a language_model; got {built.config.type!r}.")
            model = built
        self.model = model
        self.post_init()

    @classmethod
    def wrap(cls, model: LanguageModel) -> SpectralForCausalLM:
        return cls(SpectralHFConfig.of(model.config), model)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SpectralCausalLMOutput:
        """labels: (B, L), the input ids themselves, as everywhere in Hugging Face: shifted here, -100 ignored."""
        output = self.model(input_ids, attention_mask)
        loss = None
        if labels is not None:
            logits = output.logits[:, :-1].flatten(0, 1).float()
            loss = F.cross_entropy(logits, labels[:, 1:].flatten()) + sum(output.losses.values())
        return SpectralCausalLMOutput(loss, output.logits, output.losses, output.metrics)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **_: Any) -> None:
        """Our three checkpoint files, into a directory that may hold others."""
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_files(self.model, directory)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.frontend.embedding

    def _init_weights(self, module: nn.Module) -> None:
        """Parts initialise themselves."""
