"""What the program of each variant takes and gives: tensors, in the order of their names."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from spectral_core import ConfigError
from spectral_core.errors import suggestion
from spectral_layers import Rows
from spectral_models.arguments import whole
from spectral_models.export.inputs import Input, Pictures, Shape, Size, input_of
from spectral_models.model import SpectralModel
from spectral_models.variants.classifier import Classifier
from spectral_models.variants.encoder import TextEncoder
from spectral_models.variants.encoding import Encoder
from spectral_models.variants.language_model import LanguageModel
from spectral_models.variants.multimodal import Multimodal
from spectral_models.variants.seq2seq import Seq2Seq

_MOST_LENGTH, _MOST_SIDE = 1 << 20, 1 << 13
Lengths = int | Mapping[str, int] | None
"""Of all inputs that have a length, or by an input's name; None, and names left out, take the default."""


class Program(nn.Module):
    """Base of programs: a model behind a call of positional tensors.

    takes: the inputs by name, but for the attention_mask. outputs: names of what it gives.
    masked: whether a mask of the first input may stand behind that.
    """

    masked: ClassVar[bool] = False

    def __init__(
        self, model: SpectralModel, takes: Mapping[str, Input], outputs: tuple[str, ...] = ("logits",)
    ) -> None:
        super().__init__()
        self.model = model
        self.takes = takes
        self.outputs = outputs

    @abstractmethod
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in the order of their names."""

    def shapes(self, length: Lengths, size: Size | None) -> dict[str, Shape]:
        """Of each input behind the batch: what was asked for, or the default.

        Raises ConfigError for a length or a size that no input has, and for pictures of any size without one.
        """
        kind = self.model.config.type
        lines = [name for name, taken in self.takes.items() if taken.line]
        named = length if isinstance(length, Mapping) else {} if length is None else dict.fromkeys(lines, length)
        if length is not None and not lines:
            raise ConfigError(f"a {kind} of pictures has no input with a length; give a size.")
        for name in named:
            if name not in lines:
                raise ConfigError(
                    f"a program of this {kind} has no input {name!r} with a length.{suggestion(name, lines)} "
                    f"Inputs with a length: {', '.join(lines)}."
                )
        sizes = [taken.image_size for taken in self.takes.values() if isinstance(taken, Pictures)]
        if size is not None and not sizes:
            raise ConfigError(f"a {kind} takes no pictures, so its programs have no size; give a length.")
        if size is not None and None not in sizes and size not in sizes:
            made_for = " and ".join(f"{height} x {width}" for height, width in filter(None, sizes))
            raise ConfigError(f"this model takes pictures of {made_for}, not of {size[0]} x {size[1]}. Give no size.")
        named = {name: whole("length", given, least=1, most=_MOST_LENGTH) for name, given in named.items()}
        size = size and (whole("height", size[0], most=_MOST_SIDE), whole("width", size[1], most=_MOST_SIDE))
        return {name: taken.shape(named.get(name), size) for name, taken in self.takes.items()}

    def sample(self, shapes: Mapping[str, Shape], batch: int, *, masked: bool) -> dict[str, Tensor]:
        """Random inputs by name. Of the rows of a masked batch the first is full, and the others grow shorter."""
        generator = torch.Generator().manual_seed(batch)
        made: dict[str, Tensor] = {}
        for name, taken in self.takes.items():
            first = not made
            made[name] = taken.sample((batch, *shapes[name]), generator)
            if masked and self.masked and first and taken.line:
                (length,) = shapes[name]
                lengths = torch.tensor([max(1, length // (row + 1)) for row in range(batch)])
                made["attention_mask"] = Rows(lengths).mask(length).long()
        return made


class LanguageProgram(Program):
    """input_ids to logits. No mask: what stands behind a token does not change it."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(model, _alone(model))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.model(*inputs).logits,)


class EncoderProgram(Program):
    """What the encoder takes, to pooled, hidden (zero at padding), and the logits of a head if there is one."""

    masked = True

    def __init__(self, model: Encoder) -> None:
        headed = isinstance(model, TextEncoder) and model.head is not None
        super().__init__(model, _alone(model), ("pooled", "hidden", "logits") if headed else ("pooled", "hidden"))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        output = self.model(*inputs)
        hidden = output.hidden if output.mask is None else output.hidden.masked_fill(~output.mask[..., None], 0.0)
        return (output.pooled, hidden) if output.logits is None else (output.pooled, hidden, output.logits)


class ClassifierProgram(Program):
    """What its encoder takes, to logits."""

    masked = True

    def __init__(self, model: Classifier) -> None:
        super().__init__(model, _alone(model.encoder))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.model(*inputs).logits,)


class Seq2SeqProgram(Program):
    """What its encoder takes, and decoder_input_ids, to the logits of the target, which needs no mask."""

    masked = True

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__(model, {**_alone(model.encoder), "decoder_input_ids": input_of(model.decoder)})

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        source, *mask, target = inputs
        return (self.model(source, target, *mask).logits,)


class MultimodalProgram(Program):
    """What the encoder of each modality takes, by the modality's name, to logits. All are there and no row is padded:

    which modalities a row has, and how long they are, is what fusions group rows by, and no shape of a program.
    """

    def __init__(self, model: Multimodal) -> None:
        super().__init__(model, {name: input_of(encoder) for name, encoder in model.encoders.items()})
        if not self.takes.keys().isdisjoint(self.outputs):
            raise ConfigError("a modality called 'logits' cannot be exported: the program's output has that name.")

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.model(dict(zip(self.takes, inputs, strict=True))).logits,)


def program_of(model: SpectralModel) -> Program:
    """The model as a program. Raises ConfigError for variants that have none."""
    if isinstance(model, LanguageModel):
        return LanguageProgram(model)
    if isinstance(model, Encoder):
        return EncoderProgram(model)
    if isinstance(model, Classifier):
        return ClassifierProgram(model)
    if isinstance(model, Seq2Seq):
        return Seq2SeqProgram(model)
    if isinstance(model, Multimodal):
        return MultimodalProgram(model)
    raise ConfigError(
        f"a {model.config.type} cannot be exported: only language_model, classifier, seq2seq, multimodal and the "
        "encoders can. Export the models it is made of."
    )


def _alone(reader: SpectralModel) -> dict[str, Input]:
    """An input under the name of its kind."""
    taken = input_of(reader)
    return {taken.name: taken}
