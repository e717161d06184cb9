"""Our own model variants, registered through the hook third parties use."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookimpl

_VARIANTS = (
    ("language_model", "language_model:LanguageModelConfig",
     "Strictly causal language model: next-token logits, streaming state, generation."),
    ("seq2seq", "seq2seq:Seq2SeqConfig",
     "One sequence to another: any encoder, and a causal decoder that reads the source by fusion."),
    ("encoder", "encoder:TextEncoderConfig",
     "Text to embeddings of tokens and of rows; optionally a masked-language-model head."),
    ("vision_encoder", "vision_encoder:VisionEncoderConfig",
     "Images to embeddings, mixed as a sequence of patches or along rows and columns."),
    ("audio_encoder", "audio_encoder:AudioEncoderConfig",
     "Audio to embeddings, mixed along time and along frequency."),
    ("classifier", "classifier:ClassifierConfig", "One label for each text, image or recording, from any encoder."),
    ("multimodal", "multimodal:MultimodalConfig",
     "One label for what several encoders read, by name, fused; any modality may be missing."),
)  # fmt: skip


@hookimpl
def spectral_register_models(register: Registrar) -> None:
    for name, target, summary in _VARIANTS:
        register("model", name, f"spectral_models.variants.{target}", summary=summary)
