"""What all our ``PreTrainedModel`` classes share: each holds a model of ours as ``model``, and is no second one."""

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
from spectral_layers.report import with_hidden_states
from spectral_models.assembly import build_model
from spectral_models.checkpoint import WEIGHTS, companions, own_memory
from spectral_models.errors import CheckpointError
from spectral_models.inputs import TokenInput
from spectral_models.integrations.huggingface.cache import SpectralCache
from spectral_models.integrations.huggingface.config import SpectralHFConfig
from spectral_models.integrations.huggingface.outputs import SpectralOutput, hidden_states_of, when_read
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel
from spectral_models.quantization import int8_layers
from spectral_models.record import CONFIG
from spectral_models.registries import architecture_of, task_of
from spectral_models.seal import MARKER, sealed, verify, write_marker
from spectral_models.weights import current_name, earlier_names, misfits

_WHERE = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")
_QUIETLY = {
    f"_raise_exceptions_for_{trouble}": False for trouble in ("missing_entries", "connection_errors", "gated_repo")
}

_INSIDE = "model."
"""Begins the name of every weight here. Files have the model's own names, without it."""


class SpectralPreTrainedModel(PreTrainedModel):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Base of our classes: ``SpectralForX(SpectralHFConfig.of(config))``, or ``SpectralForX.wrap(model)``.

    ``save_pretrained`` writes our checkpoint format, with what else Hugging Face keeps in a model's directory beside
    it; ``from_pretrained`` reads what either wrote. ``load_state_dict`` takes a file's names as well as its own, and
    raises CheckpointError, with ``strict=False`` too, for weights that are missing or unknown: nothing is loaded then.
    ``loss`` has the model's auxiliary losses in training, and not in evaluation.

    A class belongs to a task, and holds any model whose task names it (:meth:`TaskConfig.architecture`).

    holds: what these models are, in messages; None for all models. gives: what else of the model's output is in the
    class's. in_chunks: whether training computes the loss without the logits of all tokens.
    listed: transformers' names of the classes of a task, by which Trainer (label smoothing), pipelines and model cards
    know a class; Auto classes do not enter those that they register. loss_named: what ``loss_function`` is.
    """

    config_class = SpectralHFConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["Block", "SourceBlock", "Tokens"]
    accepts_loss_kwargs = False

    holds: ClassVar[str | None]
    gives: ClassVar[tuple[str, ...]] = ()
    in_chunks: ClassVar[bool] = False
    listed: ClassVar[MutableMapping[str, str]]
    loss_named: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Enter a class, a user's or FSDP's subclass too, in transformers' list of its task.

        The keys there are model types. All our classes share one, and lm_eval would take it for a sequence-to-sequence
        model; a class's name is nobody's model type.
        """
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "listed"):
            cls.listed[cls.__name__] = cls.__name__

    def __init__(self, config: SpectralHFConfig, model: SpectralModel | None = None) -> None:
        described = config.model_config()
        if model is not None and model.config != described:
            raise ConfigError(
                "the model has another config than this one. Use wrap(model), with as many labels as it has."
            )
        fitting = architecture_of(described)
        if self.holds is not None and fitting not in {base.__name__ for base in type(self).__mro__}:
            task = task_of(described)
            if fitting is not None:
                instead = f"Use {fitting}"
            else:
                what = "It is for no task as it is, and" if task is None else f"Its task {task.type}"
                instead = f"{what} has no Hugging Face class; load it with spectral_models.load_checkpoint"
            raise ConfigError(
                f"{type(self).__name__} holds {self.holds}; got a model of type {described.type!r}. {instead}."
            )
        super().__init__(config)
        self.loss_type = self.loss_named  # transformers guesses it from the class's name
        self.model: Any = build_model(described) if model is None else model
        self.post_init()

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Nothing: the shim beside a checkpoint is how Auto classes find our code, and no save copies a module."""

    @classmethod
    def wrap(cls, model: SpectralModel, **kwargs: Any) -> Any:
        """The class around a model that is there. kwargs: what Hugging Face keeps beside a model, ``id2label``."""
        return cls(SpectralHFConfig.of(model.config, **kwargs), model)

    @classmethod
    def from_pretrained(cls, path: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As everywhere in Hugging Face, but that weights which the file lacks are an error, and not made up.

        Weights are checked against the marker beside them, as by :func:`load_checkpoint`; without one, a warning says
        that they were not. Raises CheckpointError for damage and for weights that are lacking; with
        ``ignore_mismatched_sizes=True`` weights of another size begin anew.
        """
        if path is not None and not Path(path).is_dir():  # of a hub, only the files that are asked for are fetched
            where = {name: kwargs[name] for name in _WHERE if name in kwargs}
            cached_file(path, MARKER, **where, **_QUIETLY)
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
        """Give weights their names here, and refuse those that do not fit before one is loaded.

        Trainer loads with ``strict=False``, whatever the names. A set of weights that is smaller on purpose is an
        adapter's, or is loaded into ``.model``. Inside a wrapper (prefix) its own loading checks the names.
        """
        earlier = earlier_names(self.model)
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key[len(prefix) :].removeprefix(_INSIDE)
            if name not in self._parameters:  # FSDP keeps its flat parameter on the module that it wraps
                state_dict[f"{prefix}{_INSIDE}{current_name(name, earlier)}"] = state_dict.pop(key)
        if not prefix:
            ours = self.state_dict(keep_vars=True)
            arrived = {id(ours[name]) for name in state_dict if name in ours}
            partly = hasattr(self, "peft_config")
            awaited = {
                name: tensor
                for name, tensor in ours.items()
                if name in state_dict or not (partly or id(tensor) in arrived)
            }
            if found := misfits(awaited, state_dict):
                raise CheckpointError(
                    f"these weights are not those of this {type(self).__name__}: {found}. Nothing was loaded. Use the "
                    "checkpoint of a model with the same config; to load a part on purpose, load it into .model."
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    @classmethod
    def get_init_context(cls, *args: Any, **kwargs: Any) -> list[Any]:
        """Parts are built where their weights will be: some compute tensors, which a meta device would lose."""
        contexts = super().get_init_context(*args, **kwargs)
        return [context for context in contexts if not isinstance(context, torch.device)]

    def _move_missing_keys_from_meta_to_device(self, *_: Any) -> None:
        """Nothing is on the meta device; buffers that no file holds are as their part computed them."""

    def _init_weights(self, module: nn.Module) -> None:
        """Parts initialise themselves."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """A checkpoint of ours, into a directory that may hold other files. Options as in Hugging Face.

        The weights are one file, whatever ``max_shard_size``. With an adapter on it, only that is saved.
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
        weights = own_memory({name.removeprefix(_INSIDE): self._fetched(name, whole[name]) for name in whole})
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
        """Push the model card of the checkpoint that the model was loaded from, if the weights are still its own."""
        saved, source = Path(working_dir), Path(self.config._name_or_path or working_dir)
        if (source / MARKER).is_file() and sealed(source).get(WEIGHTS) == sealed(saved)[WEIGHTS]:
            for card in (source / "README.md", source / "curve.png"):
                if card.is_file() and source != saved:
                    shutil.copyfile(card, saved / card.name)
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    def _fetched(self, name: str, tensor: Tensor) -> Tensor:
        """A weight, from where accelerate has offloaded it."""
        with suppress(ValueError):  # of a weight on the meta device that nobody offloaded
            return load_offloaded_parameter(self, name) if tensor.is_meta else tensor
        return tensor

    def answered(
        self,
        inputs: Mapping[str, Any],
        attention_mask: Tensor | None,
        labels: Tensor | None,
        asked: dict[str, Any],
        *,
        cache: SpectralCache | None = None,
        kept: slice | Tensor = slice(None),
        **options: Any,
    ) -> Any:
        """The forward pass of every class.

        inputs: by the names that forward has for them, in the model's order. asked: what else forward was given, of
        which it takes num_items_in_batch, output_hidden_states and return_dict. kept: columns of the logits. options:
        of the model. With labels the loss is the model's own, auxiliary losses included in training alone; for
        predictions of tokens in evaluation it is the cross-entropy of the logits, which are computed anyway.
        """
        step_count, return_dict = asked.pop("num_items_in_batch", None), asked.pop("return_dict", None)
        wanted = asked.pop("output_hidden_states", None)
        wanted = self.config.output_hidden_states if wanted is None else wanted
        refuse(asked)
        if attention_mask is not None:
            options["attention_mask"] = attention_mask
        with with_hidden_states("all" if wanted else "none"):
            if labels is None or (self.in_chunks and not self.training):
                if cache is not None:
                    options = {"state": cache.begun(), "return_state": True} | options
                found = self.model(*inputs.values(), **options)
                if cache is not None:
                    cache.take(found.state, list(inputs.values())[-1])
                loss = None if labels is None else StepLoss.of_logits(found.logits, labels, {}, {}, step_count).loss
                also = {name: getattr(found, name, None) for name in self.gives}
                answer = SpectralOutput(loss, found.logits[:, kept], cache, **also)
            else:
                if any(tensor.is_meta and tensor.requires_grad for tensor in self.parameters()):
                    raise UnsupportedInputError(
                        "offloaded weights get no gradients: accelerate fetches copies for each call, and PEFT puts "
                        "adapters where the weights are. Train the model without offloading."
                    )
                if cache is not None:
                    raise UnsupportedInputError("in training, labels go without a cache: leave use_cache false.")
                found = self._loss(inputs, labels, step_count, options)
                loss = found.loss if self.training else StepLoss.of(found.nats, found.count, {}, {}, step_count).loss
                answer = SpectralOutput(loss, self._logits(found, inputs, options, kept))
        if wanted:
            if not found.hidden_states:
                raise UnsupportedInputError(
                    f"output_hidden_states: a {self.model.config.type} reports no hidden states here. Leave it out."
                )
            for name, states in hidden_states_of(found).items():
                setattr(answer, name, states)
        if self.training or labels is not None:  # pipelines take tensors only
            answer.losses, answer.metrics = found.losses, found.metrics
        return answer.to_tuple() if return_dict is False else answer

    def _loss(
        self, inputs: Mapping[str, Any], labels: Tensor, step_count: Tensor | int | None, options: dict[str, Any]
    ) -> StepLoss:
        """The model's own."""
        known = self.model.config.label_set
        if known is not None and self.config.problem_type not in (None, known.problem):
            raise ConfigError(
                f"problem_type {self.config.problem_type!r} was set behind a model that is built for "
                f"{known.problem!r}. Give it to from_pretrained(path, problem_type=...), or build the model with it."
            )
        (_, first), *others = inputs.items()
        found: StepLoss = self.model.loss(first, labels, step_count=step_count, **dict(others), **options)
        return found

    def _logits(self, found: StepLoss, inputs: Mapping[str, Any], options: dict[str, Any], kept: slice | Tensor) -> Any:
        """Of the call whose loss was ``found``: computed now, or when they are read where training needs none."""
        if self.in_chunks:
            return when_read(found.logits, self.model, found.loss.device.type, kept)
        if found.logits is not None:
            return found.logits()
        return None if self.training else self.model(*inputs.values(), **options).logits

    def token_inputs(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """The one of both that was given: ids (B, L), or in their place what the embedding gives for them."""
        if inputs_embeds is not None and not any(isinstance(module, Tokens) for module in self.model.modules()):
            raise UnsupportedInputError(f"a {self.model.config.type} takes no inputs_embeds. Give input_ids.")
        found = inputs_embeds if input_ids is None else input_ids
        if found is None or (input_ids is not None and inputs_embeds is not None):
            raise UnsupportedInputError("give input_ids or inputs_embeds, one of the two.")
        return found

    def get_input_embeddings(self) -> nn.Module:
        # Of a source's and a target's, the first: the source's.
        frontend = next((module for module in self.model.modules() if isinstance(module, FrontEnd)), self.model)
        found: nn.Module = frontend.embedding if isinstance(frontend, Tokens) else frontend
        return found

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
        """The embedding, where it has that many rows. Raises UnsupportedInputError for another number."""
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


def refuse(options: Mapping[str, Any]) -> None:
    """Raise UnsupportedInputError for what Hugging Face offers models and ours have not, if it is asked for."""
    asked = sorted(name for name, value in options.items() if value is not None and value is not False)
    if {"position_ids", "seq_idx", "cu_seq_lens_q"} & set(asked):
        raise UnsupportedInputError(
            f"{', '.join(asked)}: packed and padding-free batches hold several documents in a row, which these models "
            "would mix. Use packing=False and padding_free=False, and leave position_ids out: rows begin at 0."
        )
    if asked:
        raise UnsupportedInputError(
            f"{', '.join(asked)}: these models neither take nor give it. They have no attention weights, and read "
            "token ids, images or audio."
        )
