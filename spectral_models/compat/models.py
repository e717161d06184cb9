"""The original's models, on ours: what they return is what the original's did, logits or features."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from spectral_core import ConfigError, UnsupportedInputError, fft_backend
from spectral_layers import LayerContext, Stream
from spectral_layers.fusion.cross_modal import CrossModalConfig
from spectral_models.assembly import build_model
from spectral_models.compat.config import ModalityType, SpectralConfig
from spectral_models.compat.rules import head_dim
from spectral_models.compat.translation import Variant
from spectral_models.variants.encoding import Pooling


class _Adapter(nn.Module):
    """``Model(config)`` or ``Model(hidden_dim=64, ...)``.

    model: ours, with everything it returns; :func:`spectral_models.save_checkpoint` takes it. config: the original's;
    its ``report()`` says how the one became the other.
    """

    variant: ClassVar[Variant]
    modality: ClassVar[ModalityType | None] = None
    model: Any

    def __init__(
        self, config: SpectralConfig | None = None, *, changes: dict[str, Any] | None = None, **fields: Any
    ) -> None:
        super().__init__()
        self.config = _configured(config, fields, self.modality)
        self.model = build_model(self.config.translate(self.variant, **(changes or {})))
        self.model.gradient_checkpointing = self.config.use_gradient_checkpointing

    def get_num_params(self, non_embedding: bool = True) -> int:
        """Parameters, without those of the token embedding unless asked for."""
        count = sum(parameter.numel() for parameter in self.parameters())
        if non_embedding:
            count -= sum(part.weight.numel() for part in self.modules() if isinstance(part, nn.Embedding))
        return count


class SpectralLanguageModel(_Adapter):
    """Strictly causal, as the original's was not. Losses of experts are in what ``model.model(input_ids)`` returns."""

    variant = "language_model"

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """input_ids: (B, L). Returns logits (B, L, V)."""
        logits: Tensor = self.model(input_ids, attention_mask).logits
        return logits

    def generate(
        self,
        input_ids: Tensor,
        max_length: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        *,
        do_sample: bool = True,
        eos_token_id: int | None = None,
        **options: Any,
    ) -> Tensor:
        """(B, L) → (B, L + new), new <= max_length. options: of :func:`spectral_models.generation.generate`."""
        tokens: Tensor = self.model.generate(
            input_ids,
            max_new_tokens=max_length,
            temperature=temperature if do_sample else 0.0,
            top_k=top_k or None,
            top_p=top_p,
            stop_tokens=() if eos_token_id is None else (eos_token_id,),
            **options,
        )
        return tokens


class SpectralEncoder(_Adapter):
    """Text to features, or pictures or sound, as the config's modality says."""

    variant = "encoder"

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the modality takes. Returns (B, L, hidden_dim): of tokens, of patches, or of frames."""
        features: Tensor = self.model(inputs, attention_mask).hidden
        if self.config.modality is ModalityType.AUDIO:
            # One feature a frame, as the original's: the mean over its bands.
            features = features.unflatten(1, (-1, self.model.frontend.bands)).mean(2)
        return features


class SpectralVisionEncoder(SpectralEncoder):
    """Pictures (B, 3, H, W) to features (B, patches, hidden_dim)."""

    modality = ModalityType.VISION


class SpectralAudioEncoder(SpectralEncoder):
    """Sound (B, T) to features (B, 1 + T // 160, hidden_dim), one for each frame."""

    modality = ModalityType.AUDIO


class SpectralClassifier(_Adapter):
    """Text to logits of classes, or pictures or sound, as the config's modality says."""

    variant = "classifier"

    def __init__(
        self,
        config: SpectralConfig | None = None,
        num_classes: int = 2,
        *,
        pooling: Pooling = "mean",
        **fields: Any,
    ) -> None:
        super().__init__(config, changes={"num_labels": num_classes, "encoder.pooling": pooling}, **fields)

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the modality takes. Returns logits (B, num_classes)."""
        logits: Tensor = self.model(inputs, attention_mask).logits
        return logits


class SpectralSeq2Seq(_Adapter):
    """An encoder of the config's modality and a strictly causal decoder that reads it by fusion, of the same fields."""

    variant = "seq2seq"

    def __init__(
        self,
        config: SpectralConfig | None = None,
        eos_token_id: int = 2,
        pad_token_id: int = 0,
        bos_token_id: int = 1,
        **fields: Any,
    ) -> None:
        tokens = {"start_token_id": bos_token_id, "end_token_id": eos_token_id, "pad_token_id": pad_token_id}
        super().__init__(config, changes=tokens, **fields)

    def forward(
        self, src_ids: Tensor, tgt_ids: Tensor, src_mask: Tensor | None = None, tgt_mask: Tensor | None = None
    ) -> Tensor:
        """src_ids: (B, S). tgt_ids: (B, L), from the start token on. Returns logits (B, L, V) of the next tokens.

        Masks are nonzero at real tokens.
        """
        logits: Tensor = self.model(src_ids, tgt_ids, src_mask, tgt_mask).logits
        return logits

    def generate(
        self,
        src_ids: Tensor,
        max_length: int = 100,
        num_beams: int = 1,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        **options: Any,
    ) -> Tensor:
        """(B, S) → (B, new), new <= max_length: up to the end token, then padding. options: as above."""
        tokens: Tensor = self.model.generate(
            src_ids,
            max_new_tokens=max_length,
            num_beams=num_beams,
            temperature=temperature,
            top_k=top_k or None,
            top_p=top_p,
            **options,
        )
        return tokens


class SpectralCrossModalFusion(nn.Module):
    """Our fusion ``cross_modal`` of streams called text, vision and audio, of one width and any lengths."""

    def __init__(self, config: SpectralConfig | None = None, **fields: Any) -> None:
        super().__init__()
        self.config = _configured(config, fields, None)
        width = self.config.hidden_dim
        fusion: CrossModalConfig = CrossModalConfig.parse(
            {"modalities": ("text", "vision", "audio"), "head_dim": head_dim(width, self.config.num_heads)}
        )
        self.fusion = fusion.build(LayerContext(width, causal=False, fft=fft_backend("auto")))

    def forward(
        self,
        text_features: Tensor | None = None,
        vision_features: Tensor | None = None,
        audio_features: Tensor | None = None,
    ) -> Tensor:
        """(B, L, hidden_dim) each, one at least. Returns the first of them with what the others add, in its length."""
        given = {"text": text_features, "vision": vision_features, "audio": audio_features}
        streams = {name: Stream(x) for name, x in given.items() if x is not None}
        if not streams:
            raise UnsupportedInputError(
                "there is nothing to fuse: give text_features, vision_features or audio_features."
            )
        fused: Tensor = self.fusion(streams, next(iter(streams))).y
        return fused


def create_spectral_lm(
    size: str = "base", vocab_size: int | None = None, max_seq_len: int | None = None, **fields: Any
) -> SpectralLanguageModel:
    """The preset of that size, ``tiny`` to ``xlarge`` or ``100m`` to ``100b``, changed by fields of SpectralConfig."""
    return SpectralLanguageModel(SpectralConfig.of_size(size, **_asked(fields, vocab_size, max_seq_len)))


def create_spectral_classifier(
    vocab_size: int | None = None,
    num_classes: int = 2,
    config: str | SpectralConfig = "base",
    *,
    max_seq_len: int | None = None,
    pooling: Pooling = "mean",
    **fields: Any,
) -> SpectralClassifier:
    """A classifier of that size, with the width, depth and context of the preset, or of a SpectralConfig."""
    if isinstance(config, str):
        config = SpectralConfig.of_size(config, **_asked(fields, vocab_size, max_seq_len))
    elif asked := _asked(fields, vocab_size, max_seq_len):
        raise ConfigError(f"give a SpectralConfig or its fields, not both; got {', '.join(asked)} too.")
    return SpectralClassifier(config, num_classes, pooling=pooling)


def _asked(fields: dict[str, Any], vocab_size: int | None, max_seq_len: int | None) -> dict[str, Any]:
    found = {"vocab_size": vocab_size, "max_seq_len": max_seq_len}
    return {**{name: value for name, value in found.items() if value is not None}, **fields}


def _configured(config: SpectralConfig | None, fields: dict[str, Any], modality: ModalityType | None) -> SpectralConfig:
    if config is None:
        config = SpectralConfig.parse(fields)
    elif fields:
        raise ConfigError(f"give a SpectralConfig or its fields, not both; got {', '.join(fields)} too.")
    # A copy: a config that is changed later describes another model.
    return config.model_copy(update={} if modality is None else {"modality": modality})
