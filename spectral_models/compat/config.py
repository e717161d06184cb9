"""The original project's configuration, and what its fields become here."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator

from spectral_core.config import Config, Length, Width
from spectral_core.errors import suggestion
from spectral_models.assembly import parse_model
from spectral_models.compat.sizes import preset_of
from spectral_models.compat.translation import Variant, translated
from spectral_models.config import ModelConfig, override
from spectral_models.variants.language_model import LanguageModelConfig


class LayerType(Enum):
    """Kinds of layers; each is the block of that name (:func:`spectral_models.list_blocks`)."""

    DENSE = "dense"
    SPARSE = "sparse"
    MOE = "moe"
    MULTISCALE = "multiscale"
    HYBRID = "hybrid"
    ADAPTIVE = "adaptive"


class ModalityType(Enum):
    """What goes into an encoder or a classifier."""

    TEXT = "text"
    VISION = "vision"
    AUDIO = "audio"


class SpectralConfig(Config):
    """The original's fields, with its defaults; :meth:`translate` makes a config of ours of them.

    :meth:`report` says of each field what it becomes, and of those that become nothing, why. A flag that is None is
    decided by the others. Unlike our configs it may be changed after it was made, as the original's was.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=False, validate_assignment=True)

    vocab_size: Length = 50_257
    embed_dim: Width = 768
    hidden_dim: Width = 3072
    num_layers: int = Field(default=12, gt=0, le=512)
    num_heads: Width | None = None
    max_seq_len: Length = 200_000
    layer_type: LayerType = LayerType.ADAPTIVE
    modality: ModalityType = ModalityType.TEXT
    adaptive_sparsity: bool | None = None
    use_adaptive_sparsity: bool | None = None
    sparsity: float = Field(default=0.15, gt=0, lt=1)
    use_moe: bool = False
    num_experts: Width = 8
    num_active_experts: Width = 2
    use_phase_aware: bool | None = None
    use_cross_frequency: bool = True
    use_rope: bool = True
    hierarchical_fft: bool | None = None
    use_hierarchical_fft: bool | None = None
    chunk_size: Length = 8192
    use_xla: bool = False
    use_custom_kernels: bool = False
    use_fused_ops: bool = True
    use_flash_fft: bool = True
    use_apex: bool = False
    dropout: float = Field(default=0.1, ge=0, lt=1)
    tie_word_embeddings: bool = True
    use_gradient_checkpointing: bool = False
    vision_patch_size: Width = 16
    audio_sample_rate: Width = 16_000

    _preset: LanguageModelConfig | None = PrivateAttr(default=None)
    _shown: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def of_size(cls, size: str, **fields: Any) -> SpectralConfig:
        """The preset of that size, changed by fields: ``tiny`` to ``xlarge``, ``100m`` to ``100b`` or ``slm-100b``.

        A field that is not given leaves the preset as it is. Raises ConfigError naming the nearest sizes.
        """
        preset = preset_of(size)
        shown = {
            "vocab_size": preset.vocab_size,
            "embed_dim": preset.embed_dim or fields.get("hidden_dim", preset.hidden_dim),
            "hidden_dim": preset.hidden_dim,
            "num_layers": preset.num_layers,
            "max_seq_len": preset.max_seq_len,
            "layer_type": LayerType.HYBRID,
            "use_rope": False,
            "dropout": preset.blocks[0].dropout,
        }
        made: SpectralConfig = cls.parse({**shown, **fields})
        made._preset, made._shown = preset, {name: shown[name] for name in shown.keys() - fields.keys()}
        return made

    @property
    def given(self) -> frozenset[str]:
        """The fields that were set, in the call or after it."""
        unset = {name for name, value in self._shown.items() if getattr(self, name) == value}
        return frozenset(self.model_fields_set - unset)

    def translate(self, variant: Variant = "language_model", **overrides: Any) -> ModelConfig:
        """Our config of the same model: a language_model, a seq2seq, or an encoder or classifier of that modality.

        overrides: as in :func:`spectral_models.load_config`, for what the original had no field for. Raises ConfigError
        for fields that contradict each other or the variant.
        """
        data, _ = translated(self, variant, self._preset)
        return parse_model(override(data, overrides))

    def report(self, variant: Variant = "language_model") -> str:
        """What each field becomes in that variant, a line each, or why it becomes nothing."""
        _, steps = translated(self, variant, self._preset)
        lines = [str(step) for step in steps]
        if self._preset is not None:
            taken = "" if variant in ("language_model", "seq2seq") else ": its sizes, with blocks 'dense'"
            lines = [f"what is not given is the preset's{taken}", *lines]
        return "\n".join(lines)

    @field_validator("layer_type", "modality", mode="before")
    @classmethod
    def _known(cls, value: Any, info: ValidationInfo) -> Any:
        kind = {"layer_type": LayerType, "modality": ModalityType}[info.field_name or ""]
        names = [member.value for member in kind]
        if isinstance(value, str) and value not in names:
            raise ValueError(
                f"no {info.field_name} is called {value!r}.{suggestion(value, names)} Known: {', '.join(names)}"
            )
        return value

    @field_validator("chunk_size")
    @classmethod
    def _within_the_sequence(cls, value: int, info: ValidationInfo) -> int:
        return min(value, info.data.get("max_seq_len", value))
