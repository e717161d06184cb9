"""The contract of a front end: it maps raw inputs (token ids, images, audio) to features (B, L, D)."""

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
    """x: (B, L, D). rows: the real tokens of each row, if lengths were given.

    grid: (rows, columns) with rows * columns = L if features are those of a plane, row by row; real tokens are then
    whole rows of the plane.
    """

    x: Tensor
    rows: Rows | None = None
    grid: Grid | None = None


class FrontEnd(Part[LayerContext, C]):
    """Base of front ends.

    takes_lengths: whether inputs may be padded on the right. feature_size: approximate root mean square of features at
    initialisation.
    """

    context_class = LayerContext
    must_return = (("forward", FrontEndOutput), ("example", Tensor))
    takes_lengths: ClassVar[bool] = True
    feature_size: float = 1.0

    @abstractmethod
    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> FrontEndOutput:
        """inputs: (B, ...). lengths: (B,), real entries of the last axis; the rest is ignored.

        Raises UnsupportedInputError, which names the expected inputs, for another type, shape or dtype.
        """

    @abstractmethod
    def example(self, batch: int) -> Tensor:
        """Random valid inputs, for conformance checks and tracing."""

    def check_lengths(self, inputs: Tensor, lengths: Tensor | None) -> None:
        """Raise UnsupportedInputError unless there is one length per row, within the input's last axis."""
        if lengths is None:
            return
        name = type(self).__name__
        if not self.takes_lengths:
            raise UnsupportedInputError(f"{name} takes no lengths: its inputs cannot be padded. Leave lengths out.")
        if lengths.shape != inputs.shape[:1] or lengths.is_floating_point():
            raise UnsupportedInputError(
                f"{name} got {inputs.shape[0]} rows and lengths {describe(lengths)}. Give one integer per row."
            )
        if lengths.numel() and readable(lengths):
            low, high = int(lengths.min()), int(lengths.max())
            if low < 0 or high > inputs.shape[-1]:
                raise UnsupportedInputError(
                    f"{name}: lengths must be from 0 to {inputs.shape[-1]}, the size of the inputs' last axis; got "
                    f"{low} to {high}."
                )


class FrontEndConfig(PartConfig):
    """Base of the configs of front ends."""

    must_return = (("build", FrontEnd),)

    modality: ClassVar[Modality]
    """The kind of input; a model for one modality accepts front ends of this modality only."""

    part_class: ClassVar[Any] = FrontEnd

    def build(self, context: LayerContext) -> FrontEnd:
        return self.part_class(context, self)
