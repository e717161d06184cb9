"""Builds models from presets, files, mappings and configs."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic_core import PydanticCustomError
from torch.overrides import TorchFunctionMode

from spectral_core import ConfigError, PluginError, SpectralError
from spectral_core.config import OneOf
from spectral_core.errors import shown, suggestion
from spectral_core.plain_data import from_json, from_yaml, is_file, read_text
from spectral_core.plugins import HOST
from spectral_models import causality
from spectral_models.causality import check_causality, is_decoder, is_foreign
from spectral_models.config import ModelConfig, parts_of
from spectral_models.model import SpectralModel
from spectral_models.overrides import override
from spectral_models.registries import MODELS

_PRESETS = resources.files("spectral_models") / "presets"


@dataclass(frozen=True, slots=True)
class Component:
    """A registered part of a model, and the package that provides it."""

    kind: str
    name: str
    provider: str
    version: str


def list_models(pattern: str = "*") -> list[str]:
    """Names of the presets that match a shell-style pattern."""
    names = [Path(item.name).stem for item in _PRESETS.iterdir() if item.name.endswith(".yaml")]
    return sorted(fnmatch.filter(names, pattern))


def load_config(source: str | Path | Mapping[str, Any] | ModelConfig, /, **overrides: Any) -> ModelConfig:
    """A validated model config from a preset's name, a YAML or JSON file, a mapping or a config.

    overrides: values to replace before validation, at dotted paths:
    ``load_config("tiny", hidden_dim=64, **{"layers.1.mixer.phases": 32})``.
    Raises ConfigError listing every problem with its path.
    """
    return parse_model(_data(source), overrides)


def parse_model(data: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> ModelConfig:
    """A validated model config, by default of a language_model. overrides: as in :func:`load_config`."""
    data = override({"type": "language_model", **data}, overrides or {}, Annotated[ModelConfig, OneOf(MODELS)])
    name = data["type"]
    if not isinstance(name, str):
        raise ConfigError(f"type: the name of a model variant, one of {', '.join(MODELS.names())}; got {shown(name)}.")
    config: ModelConfig = MODELS.get(name).load().parse(data)
    return config


def build_model(source: str | Path | Mapping[str, Any] | ModelConfig, /, **overrides: Any) -> SpectralModel:
    """The model that :func:`load_config` describes, freshly initialised.

    A decoder or a causal encoder with third-party parts is checked once for strict causality, on a small copy with
    random parameters, in some seconds (:func:`spectral_models.causality.check_causality`). Raises PluginError, naming
    the parts, if outputs depend on later tokens or other rows, if a part cannot be built, or if a part replaced this
    check. Raises ConfigError for a model that does not fit in memory.
    """
    config = load_config(source, **overrides)
    suspects = _third_parties(config)
    with _construction(suspects):
        for model in _causal_models(config) if suspects else ():
            HOST.guard.require_intact(f"one of {', '.join(suspects)}")
            check_causality(model, suspects=suspects)
            HOST.guard.require_intact(f"one of {', '.join(suspects)}")
        return config.build()


def _causal_models(config: ModelConfig) -> list[ModelConfig]:
    """The models to check: a decoder, with what it contains; of other models, the causal ones inside."""
    inside = [part for _, part in parts_of(config) if isinstance(part, ModelConfig)]
    return [config] if is_decoder(config) else [each for each in (config, *inside) if each.direction == "causal"]


def _third_parties(config: ModelConfig) -> list[str]:
    foreign = {part.type for _, part in [("", config), *parts_of(config)] if is_foreign(part)}
    return [f"{part.kind} {part.name!r} of {part.provider}" for part in components_of(config) if part.name in foreign]


@contextmanager
def _construction(suspects: list[str]) -> Iterator[None]:
    """Turns exceptions inside, while a model is built, into SpectralErrors. suspects: its third-party parts."""
    try:
        yield
    except (SpectralError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if _too_large(error):
            raise ConfigError(
                f"there is no memory for the model: {str(error).splitlines()[0]}. Lower hidden_dim, num_layers or "
                "vocab_size; spectral config list has the sizes of presets."
            ) from error
        if not suspects:
            raise
        raise PluginError(
            f"this model has third-party parts and could not be built: {type(error).__name__}: {error}. "
            f"Third-party parts: {', '.join(suspects)}."
        ) from error


def _too_large(error: BaseException) -> bool:
    """Whether the error is a failed allocation, or an overflow of a tensor's number of elements."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | TypeError) and any(
        sign in str(error) for sign in ("can't allocate memory", "Overflow when unpacking", "calculation overflowed")
    )


class _NoMetaInit(TorchFunctionMode):
    """Skips initialisation of meta tensors, which takes most of the time of a build."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """Models are built on the meta device, without memory: about a second at any size."""
    with torch.device("meta"), _NoMetaInit():
        yield


def count_parameters(config: ModelConfig) -> int:
    """The number of parameters of a config's model, without allocating them; shared ones count once.

    Raises ConfigError and PluginError as :func:`build_model` does.
    """
    return sum(parameter.numel() for parameter in build_without_memory(config).parameters())


def build_without_memory(config: ModelConfig) -> SpectralModel:
    """The model on the meta device. Raises ConfigError and PluginError as :func:`build_model` does."""
    with without_memory(), _construction(_third_parties(config)):
        return config.build()


def components_of(config: ModelConfig) -> list[Component]:
    """The registered parts of a config, with their providers and versions, sorted and unique."""
    found = set()
    for _, part in [("", config), *parts_of(config)]:
        for registry in HOST.registries.values():
            if isinstance(part, registry.base):
                entry = registry.get(part.type)
                found.add(Component(registry.kind, entry.name, entry.provider, entry.version))
    return sorted(found, key=lambda component: (component.kind, component.name))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file."""
    text = read_text(path, "the config")
    try:
        # Not all JSON is YAML: it may be indented with tabs.
        data = from_json(text) if path.suffix == ".json" else from_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"the config {path} {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"the config {path} must be a mapping of keys to values; got {type(data).__name__}.")
    return data


def _data(source: str | Path | Mapping[str, Any] | ModelConfig) -> Mapping[str, Any]:
    if isinstance(source, ModelConfig):
        try:
            return OneOf(MODELS).resolve(source).model_dump()
        except PydanticCustomError as error:
            raise ConfigError(str(error)) from None
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, str | Path):
        raise ConfigError(
            f"a model is given as a preset's name, the path of a config file, a mapping or a ModelConfig; got "
            f"{type(source).__name__}."
        )
    presets = list_models()
    if isinstance(source, str) and source in presets:
        return read_yaml(Path(str(_PRESETS / f"{source}.yaml")))
    path = Path(source)
    if path.suffix in (".yaml", ".yml", ".json") or is_file(path):
        return read_yaml(path)
    raise ConfigError(
        f"no preset is called {shown(str(source))}.{suggestion(str(source), presets)} Presets: {', '.join(presets)}. "
        "A config file ends in .yaml, .yml or .json."
    )


HOST.guard.watch(sys.modules[__name__], *causality.GUARDED)
