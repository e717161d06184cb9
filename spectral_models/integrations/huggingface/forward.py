"""The forward pass that all classes share: inputs, losses, logits and hidden states under Hugging Face's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from spectral_core import ConfigError, UnsupportedInputError
from spectral_layers.frontends.tokens import Tokens
from spectral_layers.report import with_hidden_states
from spectral_models.integrations.huggingface.cache import SpectralCache
from spectral_models.integrations.huggingface.outputs import SpectralOutput, hidden_states_of, when_read
from spectral_models.labels import Problem
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel


class SharedForward(PreTrainedModel):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Base of our classes, with what their ``forward`` methods call.

    extra_fields: tensors of the model's output that the class's output has too. chunked_loss: whether the model
    computes its training loss in chunks of tokens, so that logits are computed only if they are read.
    """

    extra_fields: ClassVar[tuple[str, ...]] = ()
    chunked_loss: ClassVar[bool] = False

    def call_model(
        self,
        inputs: Mapping[str, Any],
        attention_mask: Tensor | None,
        labels: Tensor | None,
        extras: dict[str, Any],
        *,
        cache: SpectralCache | None = None,
        columns: slice | Tensor = slice(None),
        **options: Any,
    ) -> Any:
        """The class's output.

        inputs: by name, in the model's order. extras: other arguments of ``forward``: num_items_in_batch,
        output_hidden_states and return_dict; any other is refused. columns: of the logits. options: for the model.

        With labels the loss is the model's own, or that of its labels' problem if its class defines none, with
        auxiliary losses in training only; in evaluation, models with a chunked loss compute all logits anyway, and the
        loss is their cross-entropy.
        """
        step_count, return_dict = extras.pop("num_items_in_batch", None), extras.pop("return_dict", None)
        all_layers = extras.pop("output_hidden_states", None)
        all_layers = self.config.output_hidden_states if all_layers is None else all_layers
        refuse(extras)
        if attention_mask is not None:
            options["attention_mask"] = attention_mask
        with with_hidden_states("all" if all_layers else "none"):
            if labels is None or (self.chunked_loss and not self.training):
                if cache is not None:
                    options = {"state": cache.begun(), "return_state": True} | options
                report = self.model(*inputs.values(), **options)
                if cache is not None:
                    cache.take(report.state, list(inputs.values())[-1])
                loss = None if labels is None else StepLoss.of_logits(report.logits, labels, {}, {}, step_count).loss
                fields = {name: getattr(report, name, None) for name in self.extra_fields}
                output = SpectralOutput(loss, report.logits[:, columns], cache, **fields)
            else:
                if cache is not None:
                    raise UnsupportedInputError("in training, labels go without a cache: leave use_cache false.")
                report = self._step_loss(inputs, labels, step_count, options)
                loss = report.loss
                if not self.training:
                    loss = StepLoss.of(report.nats, report.count, {}, {}, step_count).loss
                output = SpectralOutput(loss, self._logits(report, inputs, options, columns))
        if all_layers:
            if not report.hidden_states:
                raise UnsupportedInputError(
                    f"output_hidden_states: a {self.model.config.type} reports no hidden states here. Leave it out."
                )
            for name, states in hidden_states_of(report).items():
                setattr(output, name, states)
        if self.training or labels is not None:  # pipelines take tensors only
            output.losses, output.metrics = report.losses, report.metrics
        return output.to_tuple() if return_dict is False else output

    def _step_loss(
        self, inputs: Mapping[str, Any], labels: Tensor, step_count: Tensor | int | None, options: dict[str, Any]
    ) -> StepLoss:
        if self.training and any(tensor.is_meta and tensor.requires_grad for tensor in self.parameters()):
            raise UnsupportedInputError(
                "offloaded weights get no gradients: accelerate fetches copies for each call, and PEFT puts adapters "
                "where the weights are. Train the model without offloading."
            )
        label_set = self.model.config.label_set
        if label_set is not None and self.config.problem_type not in (None, label_set.problem):
            raise ConfigError(
                f"problem_type was set to {self.config.problem_type!r} in the config of a model that is built for "
                f"{label_set.problem!r}. Give it to from_pretrained(path, problem_type=...), or build the model with "
                "it."
            )
        if type(self.model).loss is SpectralModel.loss:  # its class defines none
            report = self.model(*inputs.values(), **options)
            problem: Problem = "single_label_classification" if label_set is None else label_set.problem
            given = report.losses, report.metrics, step_count
            return StepLoss.of_labels(problem, report.logits, labels, *given) + report
        (_, first), *others = inputs.items()
        step: StepLoss = self.model.loss(first, labels, step_count=step_count, **dict(others), **options)
        return step

    def _logits(
        self, step: StepLoss, inputs: Mapping[str, Any], options: dict[str, Any], columns: slice | Tensor
    ) -> Any:
        """The logits of a call whose loss is known; in evaluation by another call if the loss does not keep them."""
        if self.chunked_loss:
            return when_read(step.logits, self.model, step.loss.device.type, columns)
        if step.logits is not None:
            return step.logits()
        return None if self.training else self.model(*inputs.values(), **options).logits

    def token_inputs(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Ids (B, L), or embeddings (B, L, embed_dim) in their place: whichever was given."""
        if inputs_embeds is not None and not any(isinstance(module, Tokens) for module in self.model.modules()):
            raise UnsupportedInputError(f"a {self.model.config.type} takes no inputs_embeds. Give input_ids.")
        tokens = inputs_embeds if input_ids is None else input_ids
        if tokens is None or (input_ids is not None and inputs_embeds is not None):
            raise UnsupportedInputError("give input_ids or inputs_embeds, one of the two.")
        return tokens


def refuse(extras: Mapping[str, Any]) -> None:
    """Raise UnsupportedInputError for arguments that our models do not have, unless they are None or False."""
    names = sorted(name for name, value in extras.items() if value is not None and value is not False)
    if {"position_ids", "seq_idx", "cu_seq_lens_q"} & set(names):
        raise UnsupportedInputError(
            f"{', '.join(names)}: packed and padding-free batches hold several documents in a row, which these models "
            "would mix. Use packing=False and padding_free=False, and leave position_ids out: rows begin at 0."
        )
    if names:
        raise UnsupportedInputError(
            f"{', '.join(names)}: these models neither take nor give it. They have no attention weights, and read "
            "token ids, images or audio."
        )
