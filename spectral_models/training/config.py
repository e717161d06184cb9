"""Configs of runs: a model, a task, data, and how to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from spectral_core import ConfigError
from spectral_core.config import Config, OneOf
from spectral_core.errors import shown
from spectral_core.plain_data import is_file
from spectral_models.assembly import list_models, load_config, read_yaml
from spectral_models.checkpoint import read_checkpoint
from spectral_models.config import ModelConfig
from spectral_models.data.config import AnyDataConfig
from spectral_models.overrides import override
from spectral_models.registries import MODELS, TASKS
from spectral_models.tasks import TaskConfig
from spectral_models.tasks.config import described
from spectral_models.training.options import TrainingConfig
from spectral_models.transfer import completed


def _kind_of(data: type[AnyDataConfig]) -> str:
    kind: str = data.model_fields["type"].default
    return kind


@dataclass(frozen=True)
class _Data:
    """Annotation: validates data as a config of a type that the run's task reads."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(self.resolve)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        kinds = {kind: None for task in TASKS.configs().values() for kind in task.reads}
        return {"anyOf": [handler(kind.__pydantic_core_schema__) for kind in kinds]}

    @staticmethod
    def resolve(value: object, info: core_schema.ValidationInfo) -> AnyDataConfig:
        """Data without a ``type`` are of the first type that the task reads for the model."""
        model, task = info.data.get("model"), info.data.get("task")
        if isinstance(value, AnyDataConfig):
            return value
        if model is None or task is None:
            return AnyDataConfig.model_construct(type="", source="")  # the error of the model or the task is reported
        kinds = {_kind_of(kind): kind for kind in (*task.data_kinds(model), *task.reads)}
        kind = value.get("type", next(iter(kinds))) if isinstance(value, Mapping) else None
        if not isinstance(kind, str) or kind not in kinds:
            wanted = " or ".join(repr(_kind_of(kind)) for kind in task.data_kinds(model))
            message = f"{task.type} of a {described(model)} reads data of type {wanted}; got {shown(kind or value)}"
            raise PydanticCustomError("unknown_part", "{message}", {"message": message})
        return kinds[kind].model_validate({**value, "type": kind})  # type: ignore[dict-item]


class RunConfig(Config):
    """The file ``spectral train`` reads."""

    model: Annotated[ModelConfig, OneOf(MODELS)]
    """A model config, or the name of a preset."""
    task: Annotated[TaskConfig, OneOf(TASKS)] | None = None
    """What the model is trained for; null takes the model's default: ``classification`` for a classifier."""
    data: Annotated[SerializeAsAny[AnyDataConfig], _Data()] = cast(Any, {})
    """What the model is trained on. The types of data depend on the task."""
    training: TrainingConfig = TrainingConfig()
    init_from: Annotated[str, Field(min_length=1)] | None = None
    """A checkpoint, or the directory of a finished run, whose weights the model begins with; what the model leaves out
    of the config is the checkpoint's. Null begins with random weights."""

    @field_validator("task", mode="after")
    @classmethod
    def _default(cls, task: TaskConfig | None, info: ValidationInfo) -> TaskConfig | None:
        model = info.data.get("model")
        if task is None and model is not None:
            if not model.tasks:
                raise ValueError(f"a model of type {model.type!r} is trained for no task: its config declares none")
            task = TASKS.get(model.tasks[0]).load().parse({"type": model.tasks[0]})
        if task is not None and model is not None and (reason := task.unfit(model)):
            raise ValueError(reason)
        return task

    @model_validator(mode="after")
    def _fits(self) -> RunConfig:
        if self.task is None:
            return self
        # Not by assignment, as configs are frozen, nor in a copy: a validator must return its own instance.
        self.__dict__["model"] = self.task.adapted(self.model)
        if self.training.lora is not None and self.init_from is None:
            raise ValueError("training.lora adapts a checkpoint's weights: name the checkpoint, --from or init_from")
        if self.training.lora is not None and self.training.optimizer == "muon":
            raise ValueError("training.optimizer muon is for whole weight matrices, not for training.lora; use adamw")
        if reasons := self.task.unsupported_reasons(self.model, self.data):
            raise ValueError("; ".join(reasons))
        known = self.model.label_set
        several = known is not None and known.problem == "multi_label_classification"
        if self.training.label_smoothing and (several or not self.task.smooths_labels):
            what = "sets of labels" if several else self.task.type
            raise ValueError(f"training.label_smoothing is for classification, not {what}; set it to 0")
        return self


def load_run(source: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> RunConfig:
    """A validated run from a YAML file, a mapping, or a model preset's name with default data and training.

    changes: values at dotted paths, ``{"training.steps": 100}``. In both, ``model`` may name a preset. With
    ``init_from``, options of the model that are left out are those of that checkpoint.
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
    if "init_from" in changes:
        data["init_from"] = changes.pop("init_from")
    model = data.get("model")
    if isinstance(model, str) and model not in MODELS:
        data["model"] = load_config(model).model_dump()
    elif isinstance(data.get("init_from"), str):
        task = data.get("task")
        task = task.get("type") if isinstance(task, Mapping) else task
        if "model.type" in changes and isinstance(model, Mapping | None):
            model = {**(model or {}), "type": changes.pop("model.type")}
        data["model"] = completed(model, read_checkpoint(data["init_from"])[0], task)
    elif isinstance(model, Mapping) and "type" not in model:
        data["model"] = {"type": "language_model", **model}
    data = override(data, changes, RunConfig)
    run: RunConfig = RunConfig.parse(data)
    return run
