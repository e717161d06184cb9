"""The config of a task: which models and data it supports, and why not others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from spectral_core.config import PartConfig
from spectral_models.config import ModelConfig, parts_of
from spectral_models.data.config import AnyDataConfig
from spectral_models.tasks.vocabulary import text_reasons

if TYPE_CHECKING:
    from spectral_models.data import Tokenizer
    from spectral_models.tasks.task import Task


Kinds = tuple[type[AnyDataConfig], ...]
"""Classes of data configs, each with a ``type``."""


class TaskConfig(PartConfig):
    """Base of the configs of tasks. A subclass defines :meth:`load`.

    reads: classes of the data configs that the task can read. smooths_labels: whether its loss takes
    ``label_smoothing``. like: another task, whose models this one can train too. uses_all_parameters: whether the loss
    of every batch depends on every parameter; if not, distributed training looks for unused parameters at each step.
    """

    must_return = (("unsupported_reasons", list),)

    reads: ClassVar[Kinds] = ()
    smooths_labels: ClassVar[bool] = False
    like: ClassVar[str | None] = None
    uses_all_parameters: ClassVar[bool] = True

    def data_kinds(self, model: ModelConfig) -> Kinds:
        """The classes in ``reads`` that fit a model, the default first."""
        return self.reads

    def unfit(self, model: ModelConfig) -> str | None:
        """Why the task cannot train the model, whatever the data; None if it can."""
        if {self.type, self.like} & set(model.tasks):
            return None
        others = f"only for {', '.join(model.tasks)}" if model.tasks else "for no task, since its config declares none"
        return f"a model of type {model.type!r} cannot be trained for {self.type}, {others}"

    def adapted(self, model: ModelConfig) -> ModelConfig:
        """The config of the model to train: see :meth:`ModelConfig.for_task`. model: one that the task can train."""
        return model.for_task(self.type if self.like is None or self.type in model.tasks else self.like)

    def unsupported_reasons(self, model: ModelConfig, data: AnyDataConfig) -> list[str]:
        """Why the task cannot train this model on these data; empty if it can. Reads no data."""
        if reason := self.unfit(model):
            return [reason]
        kinds = self.data_kinds(model)
        if not isinstance(data, kinds):
            wanted = " or ".join(repr(kind.model_fields["type"].default) for kind in kinds)
            return [f"{self.type} of a {described(model)} reads data of type {wanted}; got {data.type!r}"]
        return text_reasons(model, data)

    def architecture(self, model: ModelConfig) -> str | None:
        """The name of the Hugging Face class for the model, in ``integrations.huggingface``; None if there is none."""
        return None

    def load(
        self, model: ModelConfig, data: Any, *, tokenizer: Tokenizer | None = None, split: str | None = None
    ) -> Task:
        """The task with its data read.

        tokenizer: replaces the one in the data's config. split: hold out all of that split of the source, for
        evaluation only. Raises DataError for data that cannot be read, or that do not fit the model.
        """
        raise NotImplementedError(f"{type(self).__name__} must define load(model, data)")


def described(model: ModelConfig) -> str:
    """A model's type, with those of the models inside it: ``classifier over 'vision_encoder'``."""
    inner = [repr(part.type) for _, part in parts_of(model) if isinstance(part, ModelConfig)]
    return f"{model.type} over {', '.join(inner)}" if inner else model.type
