"""Our models as classes of Hugging Face; importing this package registers them with its Auto classes."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Wav2Vec2FeatureExtractor,
)

from spectral_models.integrations.huggingface.base import SpectralHFModel
from spectral_models.integrations.huggingface.cache import SpectralCache
from spectral_models.integrations.huggingface.causal_lm import SpectralForCausalLM
from spectral_models.integrations.huggingface.classification import (
    SpectralForAudioClassification,
    SpectralForImageClassification,
    SpectralForSequenceClassification,
    SpectralForTokenClassification,
)
from spectral_models.integrations.huggingface.config import SpectralHFConfig
from spectral_models.integrations.huggingface.image_processor import SpectralImageProcessor
from spectral_models.integrations.huggingface.masked_lm import SpectralForMaskedLM
from spectral_models.integrations.huggingface.seq2seq import SpectralForSeq2SeqLM
from spectral_models.integrations.huggingface.tokenizer import byte_tokenizer

AutoConfig.register(SpectralHFConfig.model_type, SpectralHFConfig)
AutoModel.register(SpectralHFConfig, SpectralHFModel)
AutoModelForCausalLM.register(SpectralHFConfig, SpectralForCausalLM)
AutoModelForMaskedLM.register(SpectralHFConfig, SpectralForMaskedLM)
AutoModelForSeq2SeqLM.register(SpectralHFConfig, SpectralForSeq2SeqLM)
AutoModelForSequenceClassification.register(SpectralHFConfig, SpectralForSequenceClassification)
AutoModelForTokenClassification.register(SpectralHFConfig, SpectralForTokenClassification)
AutoModelForImageClassification.register(SpectralHFConfig, SpectralForImageClassification)
AutoModelForAudioClassification.register(SpectralHFConfig, SpectralForAudioClassification)
AutoImageProcessor.register(SpectralHFConfig, SpectralImageProcessor)
AutoFeatureExtractor.register(SpectralHFConfig, Wav2Vec2FeatureExtractor)

__all__ = [
    "SpectralCache",
    "SpectralForAudioClassification",
    "SpectralForCausalLM",
    "SpectralForImageClassification",
    "SpectralForMaskedLM",
    "SpectralForSeq2SeqLM",
    "SpectralForSequenceClassification",
    "SpectralForTokenClassification",
    "SpectralHFConfig",
    "SpectralHFModel",
    "SpectralImageProcessor",
    "byte_tokenizer",
]
