"""Configs every model shares: blocks, and the base of model variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field

from spectral_core import ConfigError
from spectral_core.config import Config, OneOf, PartConfig, part
from spectral_layers import FEEDFORWARDS, MIXERS, FeedForwardConfig, MixerConfig

if TYPE_CHECKING:
    from spectral_models.model import SpectralModel


class BlockConfig(Config):
    """One residual block: x + mixer(norm(x)), then x + feedforward(norm(x))."""

    mixer: Annotated[MixerConfig, OneOf(MIXERS)] = part("gated_convolution")
    """What mixes tokens along time."""
    feedforward: Annotated[FeedForwardConfig, OneOf(FEEDFORWARDS)] = part("swiglu")
    """What changes each token by itself."""
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    """Normalisation in front of both."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on what each adds to the residual stream, in training."""


class ModelConfig(PartConfig):
    """Names a model variant and everything it is made of; ``build()`` makes it."""

    decoder: ClassVar[bool] = False
    """Whether logits may depend on no later token; held by a check when parts come from third parties."""

    def build(self) -> SpectralModel:
        raise NotImplementedError(f"{type(self).__name__} must define build()")


def parts_of(config: Config, path: str = "") -> Iterator[tuple[str, PartConfig]]:
    """Every part named anywhere in a config, with its path: ``block.mixer.filter``."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        here = f"{path}.{name}" if path else name
        members = enumerate(value) if isinstance(value, tuple) else ((None, value),)
        for index, member in members:
            if isinstance(member, Config):
                there = here if index is None else f"{here}.{index}"
                if isinstance(member, PartConfig):
                    yield there, member
                yield from parts_of(member, there)


def override(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested config data with values replaced at dotted paths: ``{"block.mixer.filter.modes": 8}``.

    A bare name on the way (``mixer: holographic``) is opened into a part, null into an empty mapping. Keys themselves
    are checked later, by the config's validation; here only a path through something that has no keys is an error.
    """
    made: dict[str, Any] = dict(data)
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        made[head] = _replaced(made.get(head, {}), rest, value, path) if rest else value
    return made


def _replaced(node: Any, rest: str, value: Any, path: str) -> Any:
    if node is None or isinstance(node, str):
        node = {} if node is None else {"type": node}
    if isinstance(node, Mapping):
        return override(node, {rest: value})
    if isinstance(node, list | tuple):
        head, _, further = rest.partition(".")
        if not head.isdecimal() or int(head) >= len(node):
            raise ConfigError(f"{path}: {head!r} is not an index into a list of {len(node)}.")
        members = list(node)
        members[int(head)] = _replaced(members[int(head)], further, value, path) if further else value
        return members
    raise ConfigError(f"{path}: nothing can be set inside {node!r}.")


def parse_assignment(text: str) -> tuple[str, Any]:
    """``block.mixer.filter.modes=8`` → the path and the value, read as YAML."""
    path, equals, value = text.partition("=")
    if not (equals and path.strip()):
        raise ConfigError(f"cannot set {text!r}: write PATH=VALUE, as in block.mixer.filter.modes=8.")
    try:
        return path.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot set {path.strip()}: {value!r} is not YAML: {error}") from None
