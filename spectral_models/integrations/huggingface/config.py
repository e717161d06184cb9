"""The Hugging Face config of all variants; its file is also a checkpoint's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import PretrainedConfig

from spectral_core import ConfigError
from spectral_models.assembly import parse_model
from spectral_models.config import ModelConfig
from spectral_models.errors import CheckpointError
from spectral_models.record import config_of, make_record


class _Alias:
    """An option of the model's config under Hugging Face's name, read-only."""

    def __init__(self, *path: str) -> None:
        self.paths = (path, ("encoder", *path))

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, config: SpectralHFConfig | None, owner: type) -> Any:
        for path in self.paths:
            value: Any = None if config is None else config.spectral
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                return value
        raise AttributeError(self.name)

    def __set__(self, config: SpectralHFConfig, value: Any) -> None:
        if getattr(config, self.name, None) != value:
            raise ConfigError(
                f"{self.name} cannot be set to {value!r}: it is the model's {'.'.join(self.paths[0])}. Build the model "
                "with another, or load it with load_checkpoint(path, name=value) and wrap it."
            )


_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Attributes that tools read from every config; None for a model without such tokens."""

_TARGET_TOKENS = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
"""Options of models of text to text."""


class SpectralHFConfig(PretrainedConfig):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Holds a validated model config of ours under ``spectral``; ``SpectralHFConfig.of(config)`` makes one.

    ``num_labels``, ``id2label`` and ``problem_type`` are Hugging Face's, and the model is built with them; all other
    options are in ``spectral``. Raises ConfigError with the path of an invalid value, PluginError naming the package
    to install, and CheckpointError for a newer schema.
    """

    model_type: ClassVar[str] = "spectral"
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        *("past_key_values", "hidden", "pooled", "losses", "metrics"),
        *("hidden_states", "encoder_hidden_states", "decoder_hidden_states"),
    ]

    vocab_size = _Alias("vocab_size")
    hidden_size = _Alias("hidden_dim")
    num_hidden_layers = _Alias("num_layers")
    max_position_embeddings = _Alias("max_seq_len")
    tie_word_embeddings = _Alias("tie_embeddings")

    def __init__(self, spectral: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if "quantization" in kwargs:
            raise CheckpointError(
                "this checkpoint has int8 weights, which from_pretrained does not read. Use "
                "wrap(load_checkpoint(path)), or the checkpoint that was quantised."
            )
        names = ("schema_version", "framework_version", "components")
        record: dict[str, Any] = {name: kwargs.pop(name) for name in names if name in kwargs}
        self.spectral: dict[str, Any] | None = None
        if spectral is not None:
            config = config_of({**record, "spectral": spectral}, "this checkpoint") if record else parse_model(spectral)
            self.spectral = config.model_dump(mode="json")
            if known := config.label_set:
                if known.names and kwargs.get("id2label") is None:
                    kwargs["id2label"] = dict(enumerate(known.names))
                    kwargs["label2id"] = {name: number for number, name in enumerate(known.names)}
                elif kwargs.get("id2label") is None:
                    kwargs.setdefault("num_labels", known.size)
                kwargs["problem_type"] = kwargs.get("problem_type") or known.problem
            kwargs["is_encoder_decoder"] = config.reads_source
            for name in _TARGET_TOKENS:
                if name in self.spectral:
                    kwargs.setdefault(name, self.spectral[name])
        super().__init__(**{**dict.fromkeys(_TOKENS), **kwargs})

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Does nothing, as for models."""

    @classmethod
    def of(cls, config: ModelConfig, **kwargs: Any) -> SpectralHFConfig:
        """kwargs: settings of Hugging Face's, such as ``id2label`` and ``label2id``."""
        return cls(config.model_dump(mode="json"), **kwargs)

    def model_config(self) -> ModelConfig:
        """The model's config, with Hugging Face's labels and problem type."""
        if self.spectral is None:
            raise ConfigError("SpectralHFConfig holds no model: make it with SpectralHFConfig.of(config).")
        config = parse_model(self.spectral)
        known, changes = config.label_set, dict[str, Any]()
        if known and self.num_labels != known.size:
            changes = {"num_labels": self.num_labels, **({"labels": None} if known.names else {})}
        if known and self.problem_type not in (None, known.problem):
            changes["problem_type"] = self.problem_type
        return parse_model(self.spectral, changes) if changes else config

    def to_dict(self) -> dict[str, Any]:
        """Hugging Face's keys and those of a checkpoint's config.json."""
        record = {} if self.spectral is None else make_record(self.model_config())
        # PEFT's prompt tuning asks every model for a width and a number of heads, and uses the width.
        asked = {"hidden_size": self.hidden_size, "num_attention_heads": 1} if hasattr(self, "hidden_size") else {}
        made = {**super().to_dict(), **asked, **record}
        return {**made, "architectures": self.architectures} if self.architectures else made
