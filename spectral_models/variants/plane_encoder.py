"""The base of encoders of planes, such as images: mixing along one sequence, or along one axis at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import model_validator
from torch import Tensor

from spectral_core import ConfigError
from spectral_core.config import OneOf, problem
from spectral_layers import FRONTENDS, FrontEndConfig, Rotation, Rows
from spectral_layers.positions.base import Grid
from spectral_models.variants.encoding import Encoder, EncoderConfig
from spectral_models.variants.plane import Lines
from spectral_models.variants.stack import Layout


class PlaneEncoder(Encoder):
    """Base of encoders whose tokens tile a plane (R, C), R C = L.

    mixing: sequence: every block mixes the whole plane, row by row as one sequence: O(R C log(R C)).
    mixing: separable: blocks alternate between rows, C tokens each, and columns, R tokens each: O(R C log C) and
    O(R C log R). Two blocks connect all positions, as the two passes of a two-dimensional Fourier transform do.

    first_down: whether the first block mixes along the columns.
    """

    first_down: ClassVar[bool] = False
    config: PlaneEncoderConfig

    def __init__(self, config: PlaneEncoderConfig) -> None:
        super().__init__(config, config.frontend)

    def layouts(self, grid: Grid | None, x: Tensor, rows: Rows | None, rotation: Rotation | None) -> Sequence[Layout]:
        if self.config.mixing == "sequence":
            return super().layouts(grid, x, rows, rotation)
        if grid is None:
            raise ConfigError(
                f"mixing: separable needs features on a plane, and the front end {self.config.frontend.type!r} has "
                "no grid. Use mixing: sequence, or a front end with a grid."
            )
        return [
            Lines.of(grid, down=down, batch=x.shape[0], rows=rows, rotation=rotation)
            for down in (self.first_down, not self.first_down)
        ]


class PlaneEncoderConfig(EncoderConfig):
    """Base of the configs of encoders of planes."""

    frontend: Annotated[FrontEndConfig, OneOf(FRONTENDS)]
    """Maps the input to features."""
    mixing: Literal["sequence", "separable"] = "sequence"
    """Mix the plane row by row as one sequence, or alternately along its rows and along its columns."""

    @model_validator(mode="after")
    def _plane_fits(self) -> PlaneEncoderConfig:
        modalities = {name: getattr(config, "modality", None) for name, config in FRONTENDS.configs().items()}
        reads = modalities[self.frontend.type]
        if reads != self.modality:
            fitting = [name for name, modality in modalities.items() if modality == self.modality]
            raise problem(
                ("frontend",),
                f"{self.frontend.type!r} takes {reads}, and the {self.type} {self.modality}. "
                f"Front ends for it: {', '.join(fitting)}.",
            )
        if self.mixing == "separable" and self.pooling == "cls":
            raise problem(
                ("pooling",),
                "a 'cls' token stands on no row or column of the plane. Use mean, max or last, or mixing: sequence.",
            )
        if self.mixing == "separable" and self.num_layers < 2:
            raise problem(("num_layers",), "separable mixing alternates between two axes, and needs 2 layers or more.")
        return self
