"""A model as a program: a module called with positional tensors, by the model's declared inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spectral_core import ConfigError
from spectral_core.errors import suggestion
from spectral_layers import Rows
from spectral_models.arguments import whole
from spectral_models.inputs import ImageInput, Shape, Size
from spectral_models.model import SpectralModel

_MOST_LENGTH, _MOST_SIDE = 1 << 20, 1 << 13
Lengths = int | Mapping[str, int] | None
"""One length for all inputs that have one, or lengths by name; None, and absent names, mean the default."""


class Program(nn.Module):
    """The model's ``run`` with positional tensors: its inputs in order, an attention_mask after the first if masked.

    outputs: their names; hidden is zero at padding. Raises ConfigError for a model that does not declare inputs and
    outputs, and for a name that is both.
    """

    def __init__(self, model: SpectralModel) -> None:
        super().__init__()
        self.model = model
        self.inputs = {spec.name: spec for spec in model.input_specs()}
        self.outputs = model.outputs()
        kind = model.config.type
        if not (self.inputs and self.outputs):
            missing = "input_specs" if not self.inputs else "outputs"
            raise ConfigError(
                f"a {kind} cannot be exported: it declares no {missing}(). Export the models it is made of, or let "
                f"its class define {missing}()."
            )
        for name in self.outputs:
            if name in self.inputs:
                raise ConfigError(
                    f"this {kind} has an input called {name!r} and cannot be exported: the program's output has that "
                    "name. Call the modality something else."
                )

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in the order of their names."""
        mask = None
        if len(given) > len(self.inputs):
            first, mask, *others = given
            given = (first, *others)
        output = self.model.run(dict(zip(self.inputs, given, strict=True)), mask)
        found = {name: getattr(output, name) for name in self.outputs}
        if "hidden" in found and output.mask is not None:
            found["hidden"] = output.hidden.masked_fill(~output.mask[..., None], 0.0)
        return tuple(found.values())

    def shapes(self, length: Lengths, size: Size | None) -> dict[str, Shape]:
        """The shape of each input without the batch, by the given length and size or by default.

        Raises ConfigError for a length or size that no input has, and for images of any size if no size is given.
        """
        kind = self.model.config.type
        lines = [name for name, spec in self.inputs.items() if spec.has_length]
        named = length if isinstance(length, Mapping) else {} if length is None else dict.fromkeys(lines, length)
        if length is not None and not lines:
            raise ConfigError(f"a {kind} of images has no input with a length; give a size.")
        for name in named:
            if name not in lines:
                raise ConfigError(
                    f"a program of this {kind} has no input {name!r} with a length.{suggestion(name, lines)} "
                    f"Inputs with a length: {', '.join(lines)}."
                )
        sizes = [spec.size for spec in self.inputs.values() if isinstance(spec, ImageInput)]
        if size is not None and not sizes:
            raise ConfigError(f"a {kind} takes no images, so its programs have no size; give a length.")
        if size is not None and None not in sizes and size not in sizes:
            made_for = " and ".join(f"{height} x {width}" for height, width in filter(None, sizes))
            raise ConfigError(f"this model takes images of {made_for}, not of {size[0]} x {size[1]}. Give no size.")
        named = {name: whole("length", given, least=1, most=_MOST_LENGTH) for name, given in named.items()}
        size = size and (whole("height", size[0], most=_MOST_SIDE), whole("width", size[1], most=_MOST_SIDE))
        return {name: spec.shape(named.get(name), size) for name, spec in self.inputs.items()}

    def sample(self, shapes: Mapping[str, Shape], batch: int, *, masked: bool) -> dict[str, Tensor]:
        """Random inputs by name. In a masked batch the first row is full and each further one shorter."""
        generator = torch.Generator().manual_seed(batch)
        made: dict[str, Tensor] = {}
        for name, spec in self.inputs.items():
            first = not made
            made[name] = spec.sample((batch, *shapes[name]), generator)
            if masked and spec.masked and first:
                length = shapes[name][0]
                lengths = torch.tensor([max(1, length // (row + 1)) for row in range(batch)])
                made["attention_mask"] = Rows(lengths).mask(length).long()
        return made
