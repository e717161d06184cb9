"""The token classifier: logits of labels for each token of a text."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import field_validator
from torch import Tensor

from spectral_core.config import part
from spectral_models.labels import LabelSet
from spectral_models.variants.encoding import AnyEncoder, EncoderConfig
from spectral_models.variants.labelling import ClassifierOutput, EncoderLabeller, HeadConfig


class TokenClassifier(EncoderLabeller):
    """logits = W dropout(hidden) + b at each token, from the whole row. Padding does not affect the logits.

    Labels at padding must be IGNORE (-100).
    """

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> ClassifierOutput:
        """The encoder's arguments. Returns logits (B, L, num_labels), arbitrary at padding."""
        encoded = self.encoder(input_ids, attention_mask)
        return ClassifierOutput(self.logits(encoded.hidden), encoded.pooled) + encoded


class TokenClassifierConfig(HeadConfig):
    """One label for each token of a text: named entities, parts of speech."""

    tasks: ClassVar[tuple[str, ...]] = ("token_classification",)

    type: Literal["token_classifier"] = "token_classifier"
    encoder: AnyEncoder = part("encoder")
    """A text encoder. Its ``pooling`` does not affect the logits."""

    @field_validator("encoder")
    @classmethod
    def _reads_tokens(cls, encoder: EncoderConfig) -> EncoderConfig:
        if encoder.modality != "text":
            raise ValueError(f"{encoder.type!r} reads {encoder.modality}, and tokens of text are labelled. Use encoder")
        return encoder

    @property
    def label_set(self) -> LabelSet:
        return LabelSet(self.num_labels, self.labels, of="token")

    def with_data(self, *, labels: tuple[str, ...] | None = None, **inputs: Any) -> TokenClassifierConfig:
        return self.model_copy(update={"labels": labels, "encoder": self.encoder.with_data(**inputs)})

    def build(self) -> TokenClassifier:
        return TokenClassifier(self)
