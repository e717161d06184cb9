"""The classifier: whatever an encoder reads, in; one logit for each label, out."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from spectral_core.config import part
from spectral_models.block import under
from spectral_models.data.readers import Reader
from spectral_models.inputs import InputSpec
from spectral_models.variants.encoding import AnyEncoder
from spectral_models.variants.labelling import ClassifierOutput, Labeller, LabellerConfig


class Classifier(Labeller):
    """logits = W dropout(pooled) + b, pooled as the encoder's config says. Padding changes nothing."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__(config)
        self.config: ClassifierConfig
        with under("encoder"):
            self.encoder = config.encoder.build()
        self.make_head(config.encoder.hidden_dim)

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None, **options: Any) -> ClassifierOutput:
        """inputs, attention_mask, options: what the encoder takes: an ``audio_encoder`` also a ``sample_rate``."""
        self.encoder.refuse_unknown(options)
        encoded = self.encoder(inputs, attention_mask, **options)
        return ClassifierOutput(self.logits(encoded.pooled), encoded.pooled) + encoded

    def input_specs(self) -> tuple[InputSpec, ...]:
        return self.encoder.input_specs()


class ClassifierConfig(LabellerConfig):
    """One label for each text, image or recording, from any encoder's pooled embedding."""

    type: Literal["classifier"] = "classifier"
    encoder: AnyEncoder = part("encoder")
    """The encoder, of text, images or audio; its ``pooling`` makes one vector of a row."""

    def reader(self) -> Reader | None:
        return self.encoder.reader()

    def with_data(self, *, labels: tuple[str, ...] | None = None, **inputs: Any) -> ClassifierConfig:
        return self.model_copy(update={"labels": labels, "encoder": self.encoder.with_data(**inputs)})

    def build(self) -> Classifier:
        return Classifier(self)
