"""The base of encoders: every token depends on the whole row, and a row is pooled into one vector."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import UnsupportedInputError
from spectral_core.backends.base import transform_dtype
from spectral_core.config import OneOf, part
from spectral_core.trees import tree
from spectral_kernels.tracing import readable
from spectral_layers import POSITIONS, FrontEndConfig, PositionConfig, Report, Rotation, Rows
from spectral_layers.frontends.base import FrontEndOutput, Modality
from spectral_layers.positions.base import Grid, positions_of
from spectral_layers.rows import last
from spectral_models.config import ModelConfig
from spectral_models.inputs import Shape
from spectral_models.registries import MODELS
from spectral_models.variants.stack import Layout, StackConfig, StackedModel

Pooling = Literal["mean", "max", "cls", "last"]


@tree
@dataclass
class EncoderOutput(Report):
    """hidden: (B, L, D), arbitrary at padding. pooled: (B, D). mask: (B, L), True at real tokens; None if all are.

    logits: (B, L, V), of an encoder with a head over its vocabulary. losses, metrics: named by layer.
    """

    hidden: Tensor
    pooled: Tensor
    mask: Tensor | None
    logits: Tensor | None = None


class Encoder(StackedModel):
    """Base of encoders. A variant defines ``forward(inputs, attention_mask=None)``, which calls :meth:`encode`."""

    config: EncoderConfig

    heads: ClassVar[tuple[str, ...]] = ("head", "cls")

    def __init__(self, config: EncoderConfig, frontend: FrontEndConfig) -> None:
        super().__init__(config, frontend)
        self.cls: nn.Parameter | None = None
        if config.pooling == "cls":
            self.cls = nn.Parameter(torch.empty(config.hidden_dim).normal_(std=self.frontend.feature_size))

    @property
    def length_limit(self) -> int | None:
        """The longest sequence all parts can take, in addition to a ``cls`` token; None for no limit."""
        limits = [mixer.length_limit - (self.cls is not None) for mixer in self.mixers() if mixer.length_limit]
        return min(filter(None, [*limits, self.position.length_limit]), default=None)

    def outputs(self) -> tuple[str, ...]:
        return "pooled", "hidden"

    def small_input(self) -> Shape:
        """The shape of a small input, without the batch axis."""
        with torch.random.fork_rng(devices=[]):
            return tuple(self.frontend.example(1).shape[1:])

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """The names of ``forward``'s arguments other than inputs and attention mask."""
        return tuple(inspect.signature(cls.forward).parameters)[3:]

    def refuse_unknown(self, options: Iterable[str]) -> None:
        """Raise UnsupportedInputError for options that ``forward`` does not have."""
        for name in options:
            if name not in self.options():
                raise UnsupportedInputError(
                    f"the encoder's type is {self.config.type!r}, and it has no option {name!r}; it has "
                    f"{', '.join(self.options()) or 'none'}. Leave it out."
                )

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> EncoderOutput:
        """Front end, position, blocks, norm and pooling.

        inputs: a batch whose rows begin at index 0; floating-point inputs are cast to the model's dtype. lengths: (B,),
        the number of real values on the last axis. Raises UnsupportedInputError for inputs that do not fit, rows
        without a token and rows over a declared limit, and for pixels and samples that are not finite or too large.
        """
        if inputs.is_floating_point():
            assert isinstance(self.norm.weight, Tensor)
            inputs = inputs.to(self.norm.weight.dtype)
        features = self.frontend(inputs, lengths)
        x, rows, grid = self._refuse_extremes(features, inputs), features.rows, features.grid
        if rows is not None and not torch.compiler.is_exporting():
            if empty := (rows.lengths == 0).nonzero().flatten().tolist():
                raise UnsupportedInputError(
                    f"rows {empty} are empty, and there is nothing in them to encode. Leave empty texts and recordings "
                    "out of the batch, or give each at least one token."
                )
            rows = rows.if_ragged(x.shape[1])
        positions = positions_of(x, rows, None)
        self.position.check_limit(positions)
        x = self.position.embed(x, positions, grid)
        rotation = self.position.rotation(positions, x.dtype, grid)
        mask = None if rows is None else rows.mask(x.shape[1])
        if self.cls is not None:
            x, rows, rotation = _prepended(self.cls, x, rows, rotation)
        passed = self.through_blocks(x, self.layouts(grid, x, rows, rotation))
        x = self.norm(passed.x)
        if self.cls is not None:
            pooled, x = x[:, 0], x[:, 1:]
            passed.hidden_states = {name: tokens[:, 1:] for name, tokens in passed.hidden_states.items()}
        else:
            pooled = pool(x, rows, self.config.pooling)
        return EncoderOutput(x, pooled, mask) + passed

    def _refuse_extremes(self, features: FrontEndOutput, inputs: Tensor) -> Tensor:
        """The features (B, L, D), all finite and small enough for a norm's sum of squares.

        Raises UnsupportedInputError for others. On accelerators, in traces and under torch.func, where reading values
        would synchronise or fail, those become NaN instead; otherwise a norm would silently turn them into 0.
        """
        x = features.x
        if not inputs.is_floating_point():
            return x
        limit = min(torch.finfo(x.dtype).max / 4, (torch.finfo(transform_dtype(x.dtype)).max / 4 / x.shape[-1]) ** 0.5)
        fits = x.detach().abs() <= limit  # false for NaN
        if features.rows is not None:
            fits = fits | ~features.rows.mask(x.shape[1])[..., None]
        if not readable(x):
            return x.masked_fill(~fits, torch.nan)
        if not fits.all() and all(parameter.isfinite().all() for parameter in self.frontend.parameters()):
            rows = (~fits.flatten(1).all(1)).nonzero().flatten().tolist()
            raise UnsupportedInputError(
                f"rows {rows} hold values that are not finite or too large: inputs run from {float(inputs.min()):g} to "
                f"{float(inputs.max()):g}, and pixels and samples are about -1 to 1. Scale them, or leave the rows out."
            )
        return x

    def layouts(self, grid: Grid | None, x: Tensor, rows: Rows | None, rotation: Rotation | None) -> Sequence[Layout]:
        """The layouts of x (B, L, D) for :meth:`through_blocks`: here one sequence. grid: of x, if it is a plane."""
        return [Layout(rows, rotation)]


def pool(x: Tensor, rows: Rows | None, pooling: Pooling) -> Tensor:
    """(B, L, D) -> (B, D): the mean or the maximum over a row's real tokens, or its last one."""
    if pooling == "last":
        return last(x, rows, 1)[:, 0]
    if rows is None:
        return x.mean(1) if pooling == "mean" else x.amax(1)
    real = rows.mask(x.shape[1])[..., None]
    if pooling == "max":
        return x.masked_fill(~real, -torch.inf).amax(1)
    return x.masked_fill(~real, 0.0).sum(1) / rows.lengths[:, None]


def _prepended(
    first: Tensor, x: Tensor, rows: Rows | None, rotation: Rotation | None
) -> tuple[Tensor, Rows | None, Rotation | None]:
    """Features after one more token in each row, which has no position and no rotation."""
    x = torch.cat([first.to(x.dtype).expand(x.shape[0], 1, -1), x], 1)
    if rows is not None:
        rows = Rows(rows.lengths + 1)
    if rotation is not None:
        rotation = Rotation(F.pad(rotation.cos, (0, 0, 1, 0), value=1.0), F.pad(rotation.sin, (0, 0, 1, 0)))
    return x, rows, rotation


class EncoderConfig(StackConfig):
    """Base of the configs of encoders. modality: what they read."""

    modality: ClassVar[Modality]
    pools: ClassVar[bool] = True

    position: Annotated[PositionConfig, OneOf(POSITIONS)] = part("sinusoidal")
    """Encoding of token positions, on a sequence or on a plane."""
    pooling: Pooling = "mean"
    """How a row becomes a vector: the mean or maximum of its tokens, the last one, or a learned one in front (cls)."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("classification", "regression")

    def for_task(self, task: str) -> ModelConfig:
        """A classifier, of rows or of tokens, that contains the encoder."""
        name = "token_classifier" if task == "token_classification" else "classifier"
        return MODELS.get(name).load().parse({"type": name, "encoder": self.model_dump()}).for_task(task)

    def build(self) -> Encoder:
        raise NotImplementedError(f"{type(self).__name__} must define build()")


def _is_an_encoder(config: ModelConfig) -> ModelConfig:
    if not isinstance(config, EncoderConfig):
        fitting = [name for name, other in MODELS.configs().items() if issubclass(other, EncoderConfig)]
        raise ValueError(f"{config.type!r} is not an encoder. Encoders: {', '.join(fitting)}")  # noqa: TRY004
    return config


AnyEncoder = Annotated[EncoderConfig, OneOf(MODELS), AfterValidator(_is_an_encoder)]
"""A field for any registered encoder."""
