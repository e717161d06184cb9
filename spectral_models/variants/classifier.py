"""The classifier: logits of labels from the pooled output of an encoder."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from spectral_core.config import part
from spectral_models.data.readers import Reader
from spectral_models.variants.encoding import AnyEncoder
from spectral_models.variants.labelling import ClassifierOutput, EncoderLabeller, LabellerConfig


class Classifier(EncoderLabeller):
    """logits = W dropout(pooled) + b, pooled by the encoder. Padding does not affect the logits."""

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None, **options: Any) -> ClassifierOutput:
        """inputs, attention_mask, options: arguments of the encoder, such as the ``sample_rate`` of audio."""
        self.encoder.refuse_unknown(options)
        encoded = self.encoder(inputs, attention_mask, **options)
        return ClassifierOutput(self.logits(encoded.pooled), encoded.pooled) + encoded


class ClassifierConfig(LabellerConfig):
    """Labels or numbers for each text, image or recording, from any encoder's pooled embedding."""

    type: Literal["classifier"] = "classifier"
    encoder: AnyEncoder = part("encoder")
    """The encoder, of text, images or audio; its ``pooling`` reduces a row to one vector."""

    def reader(self) -> Reader | None:
        return self.encoder.reader()

    def with_data(self, *, labels: tuple[str, ...] | None = None, **inputs: Any) -> ClassifierConfig:
        return self.model_copy(update={"labels": labels, "encoder": self.encoder.with_data(**inputs)})

    def build(self) -> Classifier:
        return Classifier(self)
