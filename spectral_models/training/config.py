"""What a training run is: a model, data, and how to train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, SerializeAsAny, model_validator
from pydantic_core import PydanticCustomError

from spectral_core import ConfigError
from spectral_core.config import Config, Length, OneOf, Scale, Weight, Width
from spectral_core.errors import shown
from spectral_core.plain_data import is_file
from spectral_models.assembly import list_models, load_config, read_yaml
from spectral_models.config import ModelConfig, override
from spectral_models.data import DataConfig
from spectral_models.data.folders import LabelledFilesConfig
from spectral_models.data.labelled import LabelledTextsConfig
from spectral_models.data.tokenizers import TokenizerConfig
from spectral_models.registries import MODELS
from spectral_models.variants.classifier import ClassifierConfig
from spectral_models.variants.encoder import TextEncoderConfig
from spectral_models.variants.encoding import EncoderConfig
from spectral_models.variants.language_model import LanguageModelConfig

_Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]


class TrainingConfig(Config):
    """AdamW with warm-up and cosine decay, gradients clipped; weight decay on linear and embedding weights only."""

    steps: Length = 500
    """Optimiser steps."""
    batch_size: Length = 16
    """Sequences or examples per step over all processes and accumulated batches."""
    accumulation: Length = 1
    """Batches whose gradients are summed into one step."""
    learning_rate: Scale = 2e-3
    warmup: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of the steps over which the rate rises to learning_rate."""
    final_rate: float = Field(default=0.1, ge=0.0, le=1.0)
    """Where the cosine ends, relative to learning_rate."""
    weight_decay: Weight = 0.1
    betas: tuple[_Momentum, _Momentum] = (0.9, 0.95)
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of a label's weight that is spread over all labels; for classifiers."""
    clip: Scale = 1.0
    """Largest norm of the gradient."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Autocast of matrix products; parameters, transforms and states stay in float32 or above. fp16 needs a GPU."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass."""
    eval_every: Length = 100
    """Steps between evaluations on what is held out."""
    save_every: Length = 100
    """Steps between checkpoints."""
    keep: Width = Field(default=2, ge=2)
    """Checkpoints kept; at least two, so that one is whole while another is written."""
    log_every: Length = 10
    seed: int = Field(default=0, ge=0, lt=1 << 32)


_Data = DataConfig | LabelledTextsConfig | LabelledFilesConfig
_DATA: dict[str, type[DataConfig] | type[LabelledTextsConfig] | type[LabelledFilesConfig]] = {
    "text": DataConfig,
    "labelled": LabelledTextsConfig,
    "labelled_files": LabelledFilesConfig,
}


def _data_of(value: Any) -> _Data:
    """What a run reads, by its ``type``, which is ``text`` where it is absent."""
    if isinstance(value, _Data):
        return value
    kind = value.get("type", "text") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in _DATA:
        message = (
            "data is a mapping of type 'text' (language models), 'labelled' (classifiers of texts) or "
            f"'labelled_files' (classifiers of images and audio); got {shown(value)}"
        )
        raise PydanticCustomError("unknown_part", "{message}", {"message": message})
    return _DATA[kind].model_validate(value)


class RunConfig(Config):
    """The file ``spectral train`` reads."""

    model: Annotated[ModelConfig, OneOf(MODELS)]
    """A model config, or the name of a preset: a language_model, or a classifier."""
    data: Annotated[_Data, PlainValidator(_data_of, json_schema_input_type=_Data), SerializeAsAny()] = DataConfig()
    """What it reads: text to a language_model; labelled texts, images or recordings to a classifier."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits(self) -> RunConfig:
        model, data = self.model, self.data
        if not isinstance(model, LanguageModelConfig | ClassifierConfig):
            raise ValueError(f"training is for a language_model or a classifier; got {model.type}")  # noqa: TRY004
        wanted, of = "text", f"a {model.type}"
        if isinstance(model, ClassifierConfig):
            wanted, of = _labelled(type(model.encoder)), f"a classifier over {model.encoder.type!r}"
        if data.type != wanted:
            raise ValueError(f"{of} reads data of type {wanted!r}; got {data.type!r}")
        if isinstance(model, LanguageModelConfig):
            assert isinstance(data, DataConfig)
            _check_vocabulary(data.tokenizer, model.vocab_size, "model.vocab_size")
            if self.training.label_smoothing:
                raise ValueError("training.label_smoothing is for classifiers; set it to 0")
        elif isinstance(data, LabelledTextsConfig):
            if not isinstance(model.encoder, TextEncoderConfig):
                raise ValueError(  # noqa: TRY004
                    f"training reads texts for an encoder of type 'encoder'; got {model.encoder.type!r}"
                )
            _check_vocabulary(data.tokenizer, model.encoder.vocab_size, "model.encoder.vocab_size")
            if model.encoder.max_length not in (None, data.max_length):
                raise ValueError(
                    f"data.max_length is {data.max_length}, and model.encoder.max_length {model.encoder.max_length}; "
                    "leave the model's out, training writes the data's there"
                )
        return self


def _labelled(encoder: type[EncoderConfig]) -> str:
    """The type of data that a classifier over such an encoder learns from."""
    return "labelled" if encoder.modality == "text" else "labelled_files"


def _check_vocabulary(tokenizer: TokenizerConfig, vocab_size: int, path: str) -> None:
    """As far as it is known before the tokenizer is made."""
    if tokenizer.type == "file":
        return
    tokens = 256 if tokenizer.type == "bytes" else tokenizer.vocab_size or 257
    if vocab_size < tokens:
        raise ValueError(
            f"the tokenizer {tokenizer.type!r} needs a vocab_size of at least {tokens}; {path} is {vocab_size}"
        )


def load_run(source: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> RunConfig:
    """A validated run from a YAML file, a mapping, or a model preset's name with default data and training.

    changes: values at dotted paths, ``{"training.steps": 100}``. In both, ``model`` may name a preset.
    """
    changes = dict(changes or {})
    if isinstance(source, Mapping):
        data = dict(source)
    elif isinstance(source, str) and source in list_models():
        data = {"model": source}
    else:
        path = Path(source)
        if path.suffix not in (".yaml", ".yml", ".json") and not is_file(path):
            raise ConfigError(
                f"{shown(str(source))} is neither a run config (.yaml, .json) nor a preset: {', '.join(list_models())}."
            )
        data = read_yaml(path)
        if "model" not in changes and not data.keys() & RunConfig.model_fields.keys():
            raise ConfigError(
                f"{path} has no model, data or training: it is no run's config. If it is a model's, put it under "
                "'model:' in a file of its own, where data and training may stand beside it."
            )
    if "model" in changes:
        data["model"] = changes.pop("model")
    model = data.get("model")
    if isinstance(model, str) and model not in MODELS:
        data["model"] = load_config(model).model_dump()
    elif isinstance(model, Mapping) and "type" not in model:
        data["model"] = {"type": "language_model", **model}
    data = override(data, changes, RunConfig)
    model, reads = data.get("model"), data.get("data", {})
    if isinstance(model, Mapping) and model.get("type") == "classifier" and isinstance(reads, Mapping):
        encoder = model.get("encoder", "encoder")
        name = encoder.get("type") if isinstance(encoder, Mapping) else encoder
        found = MODELS.configs().get(name) if isinstance(name, str) else None
        if found is None or not issubclass(found, EncoderConfig):
            found = TextEncoderConfig  # validation says what is wrong with it
        data["data"] = {"type": _labelled(found), **reads}
    run: RunConfig = RunConfig.parse(data)
    return run
