"""Outputs whose logits are computed when they are read: a training loss in chunks does not need them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from spectral_core import UnsupportedInputError
from spectral_layers import Report
from spectral_models.integrations.huggingface.cache import SpectralCache

Logits = Tensor | Callable[[], Tensor] | None
HiddenStates = tuple[Tensor, ...] | dict[str, tuple[Tensor, ...]]
"""Of all layers; in a model with an encoder for each modality, by modality."""


class WhenRead:
    """A dataclass field whose value may be a function, which is called when the field is first read."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, output: Any, owner: type) -> Any:
        value = None if output is None else output.__dict__.get(self.name)
        if callable(value):
            value = value()
            setattr(output, self.name, value)
        return value

    def __set__(self, output: Any, value: Any) -> None:
        output.__dict__[self.name] = value


WHEN_READ: Any = WhenRead()


class OutputWhenRead(ModelOutput):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Reads fields by attribute, so that ``output["logits"]``, ``output[1]`` and ``to_tuple()`` compute logits too.

    ``items()`` and ``values()`` contain the function instead. Mixed precision, DDP and FSDP rebuild outputs from these
    or as pytrees, and so compute no logits that nobody reads.
    """

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self:
                raise KeyError(key)
            return getattr(self, key)
        names = list(self.keys())[key]
        return getattr(self, names) if isinstance(names, str) else tuple(getattr(self, name) for name in names)

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key) if key in self else default


@dataclass
class SpectralOutput(OutputWhenRead):
    """The output of the classes of tasks.

    loss: with labels. losses, metrics: the model's, in training or with labels. logits: (B, num_labels), (B, L, V) or
    (B, L, num_labels), or of the requested columns only; in training with labels a language model's are computed when
    they are read. past_key_values: with use_cache. hidden (B, L, D), pooled (B, D): of some classes, without labels.
    hidden_states, in text-to-text models encoder_hidden_states and decoder_hidden_states: with output_hidden_states,
    for N blocks N + 1 tensors (B, L, D), the input of each block and the final norm's output.
    """

    loss: Tensor | None = None
    logits: Logits = WHEN_READ
    past_key_values: SpectralCache | None = None
    hidden: Tensor | None = None
    pooled: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    metrics: dict[str, Tensor] | None = None
    hidden_states: HiddenStates | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None


def hidden_states_of(report: Report) -> dict[str, Any]:
    """A report's hidden states as fields of an output, by name."""
    stacks: dict[str, tuple[Tensor, ...]] = {}
    for name, x in report.hidden_states.items():
        path = name.rpartition(".")[0]
        stacks[path] = (*stacks.get(path, ()), x)
    fields: dict[str, Any] = {}
    for path, states in stacks.items():
        if path in ("", "encoder", "decoder"):
            fields[f"{path}_hidden_states".removeprefix("_")] = states
        else:
            fields.setdefault("hidden_states", {})[path.removeprefix("encoders.")] = states
    return fields


def when_read(
    logits: Callable[[], Tensor] | None, model: nn.Module, device: str, kept: slice | Tensor = slice(None)
) -> Callable[[], Tensor] | None:
    """A function for the logits of a training step, to be called later under the autocast mode of now.

    device: the type of the device that computes them. kept: of which columns. In float32 where autocast is on, as mixed
    precision hands out what a model returns. Raises UnsupportedInputError once a parameter has changed.
    """
    if logits is None:
        return None
    parameters = list(model.parameters())
    versions = [parameter._version for parameter in parameters]
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device)

    def compute() -> Tensor:
        if [parameter._version for parameter in parameters] != versions:
            raise UnsupportedInputError(
                "the logits of a training step are computed when they are first read, and the weights have changed "
                "since. Read outputs.logits before the optimizer's step, or call the model without labels."
            )
        with torch.autocast(device, dtype=dtype, enabled=autocast):
            made = logits()[:, kept]
        return made.float() if autocast else made

    return compute
