"""Our language model as a Hugging Face ``PreTrainedModel``."""

from spectral_models.integrations.huggingface.modeling import SpectralForCausalLM, SpectralHFConfig

__all__ = ["SpectralForCausalLM", "SpectralHFConfig"]
