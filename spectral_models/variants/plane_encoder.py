"""Encoders of what lies on a plane, and their mixing: along one sequence, or along one axis after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import model_validator
from torch import Tensor

from spectral_core import ConfigError
from spectral_core.config import OneOf, part, problem
from spectral_layers import FRONTENDS, POSITIONS, FrontEndConfig, PositionConfig, Rotation, Rows
from spectral_layers.positions.base import Grid
from spectral_models.variants.encoding import Encoder, EncoderConfig
from spectral_models.variants.plane import Lines
from spectral_models.variants.stack import Way


class PlaneEncoder(Encoder):
    """Base of encoders whose tokens may tile a plane (R, C), R C = L.

    sequence: every mixer sees the whole plane, row by row: O(R C log(R C)) each.
    separable: every other block goes along the rows, C tokens each, the others along the columns, R tokens each:
    O(R C log C) and O(R C log R). Each block's mixer is the one of its config, and keeps its contract. Two blocks
    connect all places, as rows and then columns do in a two-dimensional Fourier transform.

    first_down: whether the first block goes along the columns.
    """

    first_down: ClassVar[bool] = False

    def __init__(self, config: PlaneEncoderConfig) -> None:
        super().__init__(config, config.frontend)
        self.config: PlaneEncoderConfig

    def ways(self, grid: Grid | None, x: Tensor, rows: Rows | None, rotation: Rotation | None) -> Sequence[Way]:
        if self.config.mixing == "sequence":
            return super().ways(grid, x, rows, rotation)
        if grid is None:
            raise ConfigError(
                f"mixing: separable goes along the axes of a plane, and the front end {self.config.frontend.type!r} "
                "gives a line. Use mixing: sequence, or a front end with a grid."
            )
        return [
            Lines.through(grid, down=down, batch=x.shape[0], rows=rows, rotation=rotation)
            for down in (self.first_down, not self.first_down)
        ]


class PlaneEncoderConfig(EncoderConfig):
    """What the configs of encoders on a plane share."""

    frontend: Annotated[FrontEndConfig, OneOf(FRONTENDS)]
    """What makes features of the input."""
    position: Annotated[PositionConfig, OneOf(POSITIONS)] = part("sinusoidal")
    """How tokens are told where on the plane they stand."""
    mixing: Literal["sequence", "separable"] = "sequence"
    """Mixers go through the plane row by row as one sequence, or take turns along its rows and its columns."""

    @model_validator(mode="after")
    def _plane_fits(self) -> PlaneEncoderConfig:
        taken = {name: getattr(config, "modality", None) for name, config in FRONTENDS.configs().items()}
        if taken[self.frontend.type] != self.modality:
            fitting = [name for name, modality in taken.items() if modality == self.modality]
            raise problem(
                ("frontend",),
                f"{self.frontend.type!r} takes {taken[self.frontend.type]}, and the {self.type} {self.modality}. "
                f"Front ends for it: {', '.join(fitting)}.",
            )
        if self.mixing == "separable" and self.pooling == "cls":
            raise problem(
                ("pooling",),
                "a 'cls' token stands on no row or column of the plane: use mean, max or last, or mixing: sequence.",
            )
        if self.mixing == "separable" and self.num_layers < 2:
            raise problem(("num_layers",), "separable mixing takes turns along two axes: it needs 2 layers or more.")
        return self
