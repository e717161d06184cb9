"""Registers our own model variants and tasks, by the hook that third parties use."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookimpl

_PARTS = (
    ("model", "language_model", "variants.language_model:LanguageModelConfig",
     "Strictly causal language model: next-token logits, streaming state, generation."),
    ("model", "seq2seq", "variants.seq2seq:Seq2SeqConfig",
     "A sequence from another: any encoder, and a causal decoder that reads the source by fusion."),
    ("model", "encoder", "variants.encoder:TextEncoderConfig",
     "Text to embeddings of tokens and of rows; optionally a masked-language-model head."),
    ("model", "vision_encoder", "variants.vision_encoder:VisionEncoderConfig",
     "Images to embeddings, mixed as a sequence of patches or along rows and columns."),
    ("model", "audio_encoder", "variants.audio_encoder:AudioEncoderConfig",
     "Audio to embeddings, mixed along time and along frequency."),
    ("model", "classifier", "variants.classifier:ClassifierConfig", "Labels or numbers from any encoder."),
    ("model", "token_classifier", "variants.token_classifier:TokenClassifierConfig",
     "A label for each token of a text."),
    ("model", "multimodal", "variants.multimodal:MultimodalConfig",
     "Labels for rows of several modalities, fused; any may be missing."),
    ("task", "causal_lm", "tasks.causal_lm:CausalLMConfig", "Next tokens of text; bits per byte."),
    ("task", "masked_lm", "tasks.masked_lm:MaskedLMConfig",
     "Hidden tokens of text from both sides; accuracy and perplexity."),
    ("task", "seq2seq_lm", "tasks.seq2seq_lm:Seq2SeqLMConfig",
     "Targets from sources: text, images or audio to text; chrF, exact match."),
    ("task", "classification", "tasks.classification:ClassificationConfig",
     "A label, or a set of labels, for each text, image or recording; accuracy, F1, Matthews."),
    ("task", "regression", "tasks.regression:RegressionConfig",
     "A number for each text, image or recording; Pearson, Spearman, squared error."),
    ("task", "token_classification", "tasks.token_classification:TokenClassificationConfig",
     "A tag for each word of a sentence; accuracy, F1."),
    ("task", "multimodal_classification", "tasks.multimodal_classification:MultimodalClassificationConfig",
     "A label, or a set of labels, for rows of texts, images and audio, some of them missing."),
)  # fmt: skip


@hookimpl
def spectral_register_models(register: Registrar) -> None:
    for kind, name, target, summary in _PARTS:
        register(kind, name, f"spectral_models.{target}", summary=summary)
