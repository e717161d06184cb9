"""The configuration of ``resonance_nn``, its fields with its defaults, and its functions that make a model by size."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, PositiveInt, PrivateAttr

from spectral_compat.translation import Variant, translated
from spectral_core import ConfigError
from spectral_core.config import Config
from spectral_core.errors import suggestion
from spectral_models import ModelConfig, build_model, list_models, load_config


class LayerType(Enum):
    """Kinds of layers; each is the block of that name (:func:`spectral_models.list_blocks`)."""

    DENSE = "dense"
    SPARSE = "sparse"
    MOE = "moe"
    MULTISCALE = "multiscale"
    HYBRID = "hybrid"
    ADAPTIVE = "adaptive"


class ModalityType(Enum):
    """What an encoder or a classifier reads."""

    TEXT = "text"
    VISION = "vision"
    AUDIO = "audio"


class SpectralConfig(Config):
    """The original's fields and defaults. :meth:`translate` gives our config of the same model.

    :meth:`report` says for each field what it becomes, or why it has no effect. A flag that is None is decided by the
    other fields. Unlike our configs it is mutable, as the original's is.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=False, validate_assignment=True)

    vocab_size: PositiveInt = 50_257
    embed_dim: PositiveInt = 768
    hidden_dim: PositiveInt = 3072
    num_layers: PositiveInt = 12
    num_heads: PositiveInt | None = None
    max_seq_len: PositiveInt = 200_000
    layer_type: LayerType = LayerType.ADAPTIVE
    modality: ModalityType = ModalityType.TEXT
    adaptive_sparsity: bool | None = None
    use_adaptive_sparsity: bool | None = None
    sparsity: float = Field(default=0.15, gt=0, lt=1)
    use_moe: bool = False
    num_experts: PositiveInt = 8
    num_active_experts: PositiveInt = 2
    use_phase_aware: bool | None = None
    use_cross_frequency: bool = True
    use_rope: bool = True
    hierarchical_fft: bool | None = None
    use_hierarchical_fft: bool | None = None
    chunk_size: PositiveInt = 8192
    use_xla: bool = False
    use_custom_kernels: bool = False
    use_fused_ops: bool = True
    use_flash_fft: bool = True
    use_apex: bool = False
    dropout: float = Field(default=0.1, ge=0, lt=1)
    tie_word_embeddings: bool = True
    use_gradient_checkpointing: bool = False
    vision_patch_size: PositiveInt = 16
    audio_sample_rate: PositiveInt = 16_000

    _preset: Any = PrivateAttr(default=None)

    @classmethod
    def of_size(cls, size: str, **fields: Any) -> SpectralConfig:
        """The preset of that size, changed by fields: ``tiny`` to ``xlarge``, ``100m`` to ``100b`` or ``slm-100b``.

        Fields that are not given, or None, keep the preset's values. Raises ConfigError with the nearest size.
        """
        short, sizes = str(size).removeprefix("slm-"), list_sizes()
        if short not in sizes:
            raise ConfigError(f"no size is called {size!r}.{suggestion(short, sizes)} Sizes: {', '.join(sizes)}.")
        given = {name: value for name, value in fields.items() if value is not None}
        made: SpectralConfig = cls.parse({"dropout": 0.0, "layer_type": "hybrid", **given})
        made.__pydantic_fields_set__.intersection_update(given)
        made._preset = load_config(f"slm-{short}" if short[0].isdigit() else short)
        return made

    def translate(self, variant: Variant = "language_model", **overrides: Any) -> ModelConfig:
        """Our config of the same model: a language_model, a seq2seq, or an encoder or classifier of that modality.

        overrides: as in :func:`spectral_models.load_config`, for what the original has no field for. Raises
        ConfigError for fields that contradict each other or the variant.
        """
        data, _ = translated(self, variant, self._preset)
        return load_config(data, **overrides)

    def report(self, variant: Variant = "language_model") -> str:
        """What each field becomes in that variant, one line each, or why it has no effect."""
        _, lines = translated(self, variant, self._preset)
        if self._preset is not None:
            taken = "" if variant in ("language_model", "seq2seq") else ": its sizes, with blocks 'dense'"
            lines = [f"what is not given is the preset's{taken}", *lines]
        return "\n".join(lines)


def list_sizes() -> list[str]:
    """Sizes by name: presets of language models, the numbered ones without their ``slm-``."""
    return ["tiny", "small", "base", "medium", "large", "xlarge", *(name[4:] for name in list_models("slm-*"))]


def create_spectral_lm(
    size: str = "base", vocab_size: int | None = None, max_seq_len: int | None = None, **fields: Any
) -> Any:
    """A language model: the preset of that size (``tiny`` to ``xlarge``, ``100m`` to ``100b``), changed by fields.

    Strictly causal, as the original's is not. ``model(input_ids).logits`` are (B, L, V).
    """
    fields = {"vocab_size": vocab_size, "max_seq_len": max_seq_len, **fields}
    return _built(SpectralConfig.of_size(size, **fields), "language_model")


def create_spectral_classifier(
    vocab_size: int | None = None,
    num_classes: int = 2,
    config: str | SpectralConfig = "base",
    *,
    pooling: str = "mean",
    **fields: Any,
) -> Any:
    """A classifier with the width, depth and context of a preset, changed by fields, or of a SpectralConfig.

    ``model(inputs).logits`` are (B, num_classes).
    """
    fields = {name: value for name, value in {"vocab_size": vocab_size, **fields}.items() if value is not None}
    if isinstance(config, str):
        config = SpectralConfig.of_size(config, **fields)
    elif fields:
        raise ConfigError(f"give a SpectralConfig or its fields, not both; got {', '.join(fields)} too.")
    return _built(config, "classifier", **{"num_labels": num_classes, "encoder.pooling": pooling})


def _built(config: SpectralConfig, variant: Any, **overrides: Any) -> Any:
    model: Any = build_model(config.translate(variant, **overrides))
    model.gradient_checkpointing = config.use_gradient_checkpointing
    return model
