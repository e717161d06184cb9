"""The token classifier: text in; one logit for each label, for each token, out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator
from torch import Tensor

from spectral_core.config import part
from spectral_models.block import under
from spectral_models.inputs import InputSpec
from spectral_models.labels import LabelSet
from spectral_models.variants.encoding import AnyEncoder, EncoderConfig
from spectral_models.variants.labelling import ClassifierOutput, HeadConfig, Labeller


class TokenClassifier(Labeller):
    """logits = W dropout(hidden) + b at each token, which sees the whole row. Padding changes nothing.

    Labels at padding must be IGNORE (-100).
    """

    def __init__(self, config: TokenClassifierConfig) -> None:
        super().__init__(config)
        self.config: TokenClassifierConfig
        with under("encoder"):
            self.encoder = config.encoder.build()
        self.make_head(config.encoder.hidden_dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> ClassifierOutput:
        """As the encoder. logits: (B, L, num_labels), arbitrary at padding."""
        encoded = self.encoder(input_ids, attention_mask)
        return ClassifierOutput(self.logits(encoded.hidden), encoded.pooled) + encoded

    def input_specs(self) -> tuple[InputSpec, ...]:
        return self.encoder.input_specs()


class TokenClassifierConfig(HeadConfig):
    """One label for each token of a text: named entities, parts of speech."""

    type: Literal["token_classifier"] = "token_classifier"
    encoder: AnyEncoder = part("encoder")
    """The encoder, of text; its ``pooling`` is not used by the labels."""

    @field_validator("encoder")
    @classmethod
    def _reads_tokens(cls, encoder: EncoderConfig) -> EncoderConfig:
        if encoder.modality != "text":
            raise ValueError(f"{encoder.type!r} reads {encoder.modality}, and tokens of text are labelled; use encoder")
        return encoder

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("token_classification",)

    @property
    def label_set(self) -> LabelSet:
        return LabelSet(self.num_labels, self.labels, of="token")

    def with_data(self, *, labels: tuple[str, ...] | None = None, **inputs: Any) -> TokenClassifierConfig:
        return self.model_copy(update={"labels": labels, "encoder": self.encoder.with_data(**inputs)})

    def build(self) -> TokenClassifier:
        return TokenClassifier(self)
