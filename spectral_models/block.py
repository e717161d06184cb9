"""The residual block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spectral_core import ConfigError
from spectral_core.trees import tree
from spectral_layers import LayerContext, Report, Rotation, Rows, State
from spectral_layers.feedforward.base import FeedForwardOutput
from spectral_layers.segments import tokenwise
from spectral_models.config import BlockConfig

NORMS: dict[str, type[nn.Module]] = {"rms_norm": nn.RMSNorm, "layer_norm": nn.LayerNorm}


@tree
@dataclass
class BlockOutput(Report):
    """x: (B, L, D). losses, metrics: named by ``mixer`` or ``feedforward``."""

    x: Tensor
    state: State | None


class Block(nn.Module):
    """x + mixer(rotation(norm(x))), then x + feedforward(norm(x)); the rotation is the position's, if it has one."""

    def __init__(self, config: BlockConfig, context: LayerContext, *, path: str) -> None:
        super().__init__()
        norm = NORMS[config.norm]
        self.mixer_norm = norm(context.hidden_dim)
        self.feedforward_norm = norm(context.hidden_dim)
        with under(f"{path}.mixer"):
            self.mixer = config.mixer.build(context)
        with under(f"{path}.feedforward"):
            self.feedforward = config.feedforward.build(context)
        self.feedforward_chunk = config.feedforward_chunk
        if config.feedforward_chunk is not None and not self.feedforward.divisible:
            raise _LocatedError(
                f"{path}.feedforward_chunk",
                f"{config.feedforward.type} computes losses or metrics over all tokens and needs them in one call. "
                "Leave feedforward_chunk null.",
            )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        rows: Rows | None = None,
        state: State | None = None,
        return_state: bool = False,
        rotation: Rotation | None = None,
    ) -> BlockOutput:
        normed = self.mixer_norm(x)
        if rotation is not None:
            normed = rotation(normed)
        mixed = self.mixer(normed, rows=rows, state=state, return_state=return_state)
        x = x + self.dropout(mixed.y)
        fed = self._feed(x, rows)
        x = x + self.dropout(fed.y)
        return BlockOutput(x, mixed.state) + mixed.under("mixer") + fed.under("feedforward")

    def _feed(self, x: Tensor, rows: Rows | None) -> FeedForwardOutput:
        """feedforward(norm(x)), in chunks of ``feedforward_chunk`` tokens of a row, or of as many as fit the cache."""
        if not self.feedforward.divisible:
            return self.feedforward(self.feedforward_norm(x), rows=rows)
        again = self.feedforward_chunk is not None and torch.is_grad_enabled()
        run = partial(checkpoint, self._fed, use_reentrant=False) if again else self._fed
        return FeedForwardOutput(tokenwise(run, x, most=self.feedforward_chunk))

    def _fed(self, x: Tensor) -> Tensor:
        y: Tensor = self.feedforward(self.feedforward_norm(x)).y
        return y


class _LocatedError(ConfigError):
    """A ConfigError with the path of the config that it is about."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


@contextmanager
def under(path: str) -> Iterator[None]:
    """Prefixes ConfigErrors raised inside with the path of a config; nested calls add up to the whole path."""
    try:
        yield
    except _LocatedError as error:
        raise _LocatedError(f"{path}.{error.path}", error.message) from error
    except ConfigError as error:
        raise _LocatedError(path, str(error)) from error
