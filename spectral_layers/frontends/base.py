"""The contract of a front end: it turns what a user has (token ids, images, audio) into features (B, L, D)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from spectral_core.axes import describe
from spectral_core.config import PartConfig
from spectral_core.errors import UnsupportedInputError
from spectral_core.trees import tree
from spectral_kernels.tracing import readable
from spectral_layers.context import LayerContext
from spectral_layers.part import C, Part
from spectral_layers.positions.base import Grid
from spectral_layers.rows import Rows

Modality = Literal["text", "image", "audio"]


@tree
@dataclass
class FrontEndOutput:
    """x: (B, L, D). rows: how much of each row is real, if lengths were given.

    grid: (rows, columns), rows * columns = L, where the features tile a plane row by row; then what is real of them
    are whole rows of the plane.
    """

    x: Tensor
    rows: Rows | None = None
    grid: Grid | None = None


class FrontEnd(Part[LayerContext, C]):
    """Base of front ends.

    takes_lengths: whether inputs may be padded on the right. feature_size: the root of the mean square that features
    begin with, about.
    """

    context_class = LayerContext
    must_return = (("forward", FrontEndOutput), ("example", Tensor))
    takes_lengths: ClassVar[bool] = True
    feature_size: float = 1.0

    @abstractmethod
    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> FrontEndOutput:
        """inputs: a batch, rows first. lengths: (B,), how much of the last axis is real; what lies behind is ignored.

        Raises UnsupportedInputError, saying what would fit, for inputs of another kind, shape or dtype.
        """

    @abstractmethod
    def example(self, batch: int) -> Tensor:
        """Random inputs that fit, for conformance checks and tracing."""

    def check_lengths(self, inputs: Tensor, lengths: Tensor | None) -> None:
        """Raise UnsupportedInputError unless there is one length for each row, within the input's last axis."""
        if lengths is None:
            return
        name = type(self).__name__
        if not self.takes_lengths:
            raise UnsupportedInputError(f"{name} takes no lengths: its inputs have no padding.")
        if lengths.shape != inputs.shape[:1] or lengths.is_floating_point():
            raise UnsupportedInputError(
                f"{name} was given {inputs.shape[0]} rows and lengths {describe(lengths)}; rows have one integer each."
            )
        if lengths.numel() and readable(lengths):
            low, high = int(lengths.min()), int(lengths.max())
            if low < 0 or high > inputs.shape[-1]:
                raise UnsupportedInputError(
                    f"{name}: lengths run from 0 to {inputs.shape[-1]}, the width of the batch; got {low} to {high}."
                )


class FrontEndConfig(PartConfig):
    """Names a front end and its options."""

    must_return = (("build", FrontEnd),)

    modality: ClassVar[Modality]
    """What goes in: models for one kind of input take its front ends only."""

    part_class: ClassVar[Any] = FrontEnd

    def build(self, context: LayerContext) -> FrontEnd:
        return self.part_class(context, self)
