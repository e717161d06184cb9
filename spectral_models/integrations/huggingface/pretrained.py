"""Base of our ``PreTrainedModel`` classes, each a wrapper of a model of ours: building, loading, saving."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import warnings
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import WeightRenaming
from transformers.integrations.accelerate import load_offloaded_parameter
from transformers.utils import cached_file

from spectral_core import ConfigError, UnsupportedInputError
from spectral_layers.frontends.base import FrontEnd
from spectral_layers.frontends.tokens import Tokens
from spectral_models.assembly import build_model
from spectral_models.checkpoint import WEIGHTS, companions, own_memory
from spectral_models.errors import CheckpointError
from spectral_models.inputs import TokenInput
from spectral_models.integrations.huggingface.config import SpectralHFConfig
from spectral_models.integrations.huggingface.forward import SharedForward
from spectral_models.model import SpectralModel
from spectral_models.quantization import int8_layers
from spectral_models.record import CONFIG
from spectral_models.registries import architecture_of, task_of
from spectral_models.seal import MARKER, sealed, verify, write_marker
from spectral_models.weights import current_name, earlier_names, misfits

_LOCATION = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")
_NO_ERRORS = {
    f"_raise_exceptions_for_{trouble}": False for trouble in ("missing_entries", "connection_errors", "gated_repo")
}

_PREFIX = "model."
"""Of the names of all weights here; weights files have the wrapped model's names, without it."""


class SpectralPreTrainedModel(SharedForward):
    """Base of our classes: ``SpectralForX(SpectralHFConfig.of(config))``, or ``SpectralForX.wrap(model)``.

    ``save_pretrained`` writes a checkpoint of ours and Hugging Face's own files beside it; ``from_pretrained`` reads
    checkpoints of both. ``load_state_dict`` accepts the names in a weights file as well as the module's, and raises
    CheckpointError for missing or unknown weights, with ``strict=False`` too; then nothing is loaded.

    A class belongs to a task, and wraps any model whose task names it (:meth:`TaskConfig.architecture`).

    model_kind: the models of the class, for messages; None accepts every model. task_names: transformers' mapping of
    class names for the task, in which Trainer (label smoothing), pipelines and model cards look a class up; Auto
    classes do not add registered classes to it. loss_name: transformers' name of the loss, for ``loss_function``.
    """

    config_class = SpectralHFConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["Block", "SourceBlock", "Tokens"]
    accepts_loss_kwargs = False

    model_kind: ClassVar[str | None]
    task_names: ClassVar[MutableMapping[str, str]]
    loss_name: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Add the class, also a subclass of a user or of FSDP, to transformers' mapping for its task.

        The keys of these mappings are model types. All our classes share one, which lm_eval would take for a
        sequence-to-sequence model, so the key is the class's name.
        """
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "task_names"):
            cls.task_names[cls.__name__] = cls.__name__

    def __init__(self, config: SpectralHFConfig, model: SpectralModel | None = None) -> None:
        model_config = config.model_config()
        if model is not None and model.config != model_config:
            raise ConfigError(
                "the model has another config than this one. Use wrap(model), with as many labels as it has."
            )
        architecture = architecture_of(model_config)
        if self.model_kind is not None and architecture not in {base.__name__ for base in type(self).__mro__}:
            task = task_of(model_config)
            if architecture is not None:
                instead = f"Use {architecture}"
            else:
                what = "It is for no task as it is, and" if task is None else f"Its task {task.type}"
                instead = f"{what} has no Hugging Face class; load it with AutoModel or spectral_models.load_checkpoint"
            raise ConfigError(
                f"{type(self).__name__} holds {self.model_kind}; got a model of type {model_config.type!r}. {instead}."
            )
        super().__init__(config)
        self.loss_type = self.loss_name  # transformers guesses it from the class's name
        self.model: Any = build_model(model_config) if model is None else model
        self.post_init()

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Does nothing: Auto classes find our code by the shim in a checkpoint, so no save copies modules."""

    @classmethod
    def wrap(cls, model: SpectralModel, **kwargs: Any) -> Any:
        """The class around an existing model. kwargs: Hugging Face's settings of a model, such as ``id2label``."""
        return cls(SpectralHFConfig.of(model.config, **kwargs), model)

    @classmethod
    def from_pretrained(cls, path: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As in Hugging Face, except that missing weights are an error instead of newly initialised.

        Weights are verified against the marker beside them, as by :func:`load_checkpoint`; without a marker a warning
        says that they were not. Raises CheckpointError for damaged and for missing weights. With
        ``ignore_mismatched_sizes=True`` weights of another size are initialised anew.
        """
        if path is not None and not Path(path).is_dir():  # a hub sends only the files that are asked for
            location = {name: kwargs[name] for name in _LOCATION if name in kwargs}
            cached_file(path, MARKER, **location, **_NO_ERRORS)
        try:
            model, info = super().from_pretrained(path, *args, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise CheckpointError(f"the weights at {path} are damaged: {error}. Copy them again.") from error
        for what in ("missing", "unexpected"):
            if names := sorted(info[f"{what}_keys"]):
                raise CheckpointError(f"the weights at {path} do not fit their config; {what}: {', '.join(names)}.")
        return (model, info) if output_loading_info else model

    @staticmethod
    def _load_pretrained_model(
        model: Any, state_dict: Any, checkpoint_files: list[str] | None, load_config: Any, **kwargs: Any
    ) -> Any:
        for file in map(Path, checkpoint_files or ()):
            if not (file.parent / MARKER).exists() or file.name not in (WEIGHTS, *sealed(file.parent)):
                warnings.warn(
                    f"{file} was not checked for damage: no {MARKER} beside it says what it held. save_pretrained and "
                    "save_checkpoint write one.",
                    stacklevel=2,
                )
            else:
                verify(file.parent, files=(CONFIG, file.name), only=True)
        renamed = [WeightRenaming(f"^{re.escape(earlier)}", now) for earlier, now in earlier_names(model.model).items()]
        load_config = dataclasses.replace(load_config, weight_mapping=[*(load_config.weight_mapping or ()), *renamed])
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, load_config, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Translate the names of weights, and raise CheckpointError before any is loaded unless all fit.

        Trainer loads with ``strict=False`` whatever the names are. A smaller set of weights is an adapter's, or is
        loaded into ``.model``. Inside a wrapper (prefix) the wrapper's own loading checks the names.
        """
        earlier = earlier_names(self.model)
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key[len(prefix) :].removeprefix(_PREFIX)
            if name not in self._parameters:  # FSDP keeps its flat parameter on the module that it wraps
                state_dict[f"{prefix}{_PREFIX}{current_name(name, earlier)}"] = state_dict.pop(key)
        if not prefix:
            ours = self.state_dict(keep_vars=True)
            given = {id(ours[name]) for name in state_dict if name in ours}
            adapter = hasattr(self, "peft_config")
            required = {
                name: tensor
                for name, tensor in ours.items()
                if name in state_dict or not (adapter or id(tensor) in given)
            }
            if differences := misfits(required, state_dict):
                raise CheckpointError(
                    f"these weights are not those of this {type(self).__name__}: {differences}. Nothing was loaded. "
                    "Use the checkpoint of a model with the same config; a part on purpose is loaded into .model."
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    @classmethod
    def get_init_context(cls, *args: Any, **kwargs: Any) -> list[Any]:
        """Without the meta device: parts compute tensors when they are built, which it would lose."""
        contexts = super().get_init_context(*args, **kwargs)
        return [context for context in contexts if not isinstance(context, torch.device)]

    def _move_missing_keys_from_meta_to_device(self, *_: Any) -> None:
        """Does nothing: no weight is on the meta device, and parts have computed the buffers that no file holds."""

    def _init_weights(self, module: nn.Module) -> None:
        """Does nothing: parts initialise themselves."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write a checkpoint of ours into a directory, which may hold other files. Options as in Hugging Face.

        All weights are in one file, whatever ``max_shard_size``. Of a model with an adapter, only that is saved.
        """
        if getattr(self, "_hf_peft_config_loaded", False):
            super().save_pretrained(save_directory, is_main_process, state_dict, push_to_hub, **kwargs)
            return
        if int8_layers(self.model):
            raise ConfigError("int8 weights are kept by spectral_models.save_checkpoint(model.model, path).")
        hub = {
            name: kwargs.pop(name) for name in ("repo_id", "commit_message", "private", "create_pr") if name in kwargs
        }
        whole = self.state_dict() if state_dict is None else state_dict
        weights = own_memory({name.removeprefix(_PREFIX): self._onloaded(name, whole[name]) for name in whole})
        size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
        kwargs.update(max_shard_size=size + 1, save_original_format=False)
        super().save_pretrained(save_directory, is_main_process, weights, **kwargs)
        if is_main_process:
            beside = companions(self.model.config)
            for name, content in beside.items():
                (Path(save_directory) / name).write_text(content, encoding="utf-8")
            shutil.copymode(Path(save_directory) / CONFIG, Path(save_directory) / WEIGHTS)
            write_marker(Path(save_directory), MARKER, [CONFIG, WEIGHTS, *beside])
            if push_to_hub:
                self.push_to_hub(hub.pop("repo_id", Path(save_directory).name), token=kwargs.get("token"), **hub)

    def _upload_modified_files(self, working_dir: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Push the model card of the checkpoint that the model was loaded from, unless the weights have changed."""
        saved, source = Path(working_dir), Path(self.config._name_or_path or working_dir)
        if (source / MARKER).is_file() and sealed(source).get(WEIGHTS) == sealed(saved)[WEIGHTS]:
            for card in (source / "README.md", source / "curve.png"):
                if card.is_file() and source != saved:
                    shutil.copyfile(card, saved / card.name)
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    def _onloaded(self, name: str, tensor: Tensor) -> Tensor:
        """A weight, fetched from where accelerate has offloaded it."""
        with suppress(ValueError):  # on the meta device, but not by accelerate
            return load_offloaded_parameter(self, name) if tensor.is_meta else tensor
        return tensor

    def get_input_embeddings(self) -> nn.Module:
        # Of an encoder and a decoder, the encoder's.
        frontend = next((module for module in self.model.modules() if isinstance(module, FrontEnd)), self.model)
        embedding: nn.Module = frontend.embedding if isinstance(frontend, Tokens) else frontend
        return embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        raise UnsupportedInputError(
            "a model's embedding cannot be replaced: its size is the config's vocab_size. Build the model with that of "
            "the tokenizer."
        )

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        raise UnsupportedInputError(
            "a model's head cannot be replaced: its size is the config's, vocab_size or num_labels. Build the model "
            "with another, or load it with from_pretrained(path, num_labels=..., ignore_mismatched_sizes=True)."
        )

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """The embedding, if it has that many rows already. Raises UnsupportedInputError for another number."""
        sizes = [spec.vocab_size for spec in self.model.input_specs() if isinstance(spec, TokenInput)]
        size = sizes[-1] if sizes else None
        wanted = size if new_num_tokens is None else new_num_tokens
        if wanted is not None and pad_to_multiple_of:
            wanted = -(-wanted // pad_to_multiple_of) * pad_to_multiple_of
        if wanted != size:
            raise UnsupportedInputError(
                f"a vocabulary is not resized: this model's has {size or 'no'} tokens; asked for {wanted}. Nothing was "
                "changed. Build the model with the tokenizer's vocab_size."
            )
        return self.get_input_embeddings()


class SpectralTextModel(SpectralPreTrainedModel):
    """Base of classes whose only input is a text: token ids, or embeddings in their place."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        **options: Any,
    ) -> Any:
        inputs = {"input_ids": self.token_inputs(input_ids, inputs_embeds)}
        return self.call_model(inputs, attention_mask, labels, options)
