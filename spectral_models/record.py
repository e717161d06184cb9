"""config.json of a checkpoint: schema, framework version, the model's config, and the providers of its parts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spectral_core import ConfigError, PluginError, __version__
from spectral_core.plugins import HOST
from spectral_models.assembly import components_of, parse_model
from spectral_models.config import ModelConfig
from spectral_models.errors import CheckpointError
from spectral_models.quantization import SCHEME
from spectral_models.registries import MODELS, architecture_of
from spectral_models.seal import read_json
from spectral_models.shim import auto_map

SCHEMA_VERSION = 4
"""Schemas 1 and 2 omit the default block, and their defaults differ; neither scales embeddings. Up to schema 3, the
``fft`` of a model did not apply to models inside it, and was ``auto`` by default; from 4 on it replaces theirs."""
_GATED = {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant"}}, "feedforward": {"type": "swiglu"}}
_HOLOGRAPHIC = {"mixer": {"type": "holographic"}, "feedforward": {"type": "swiglu"}}
_DEFAULTS: dict[int, dict[str, Any]] = {1: {"block": _GATED}, 2: {"layers": [_GATED, _HOLOGRAPHIC]}}
"""By schema, the default blocks of decoders."""
CONFIG = "config.json"


def make_record(config: ModelConfig) -> dict[str, Any]:
    """The contents of config.json."""
    architecture = architecture_of(config)
    return {
        "model_type": "spectral",
        **({} if architecture is None else {"architectures": [architecture]}),
        "auto_map": auto_map(architecture),
        "schema_version": SCHEMA_VERSION,
        "framework_version": __version__,
        "spectral": config.model_dump(mode="json"),
        "components": [asdict(component) for component in components_of(config)],
    }


def read_record(directory: Path) -> dict[str, Any]:
    """The contents of config.json. Raises CheckpointError for another schema."""
    record = read_json(directory / CONFIG)
    if "schema_version" not in record:
        raise CheckpointError(f"{directory / CONFIG} is not a checkpoint's config.")
    _check_schema(record, directory)
    return record


def _check_schema(record: Mapping[str, Any], source: object) -> None:
    if record.get("schema_version") not in range(1, SCHEMA_VERSION + 1):
        raise CheckpointError(
            f"{source} has schema version {record.get('schema_version')!r}; this release ({__version__}) reads "
            f"1 to {SCHEMA_VERSION}. Install release {record.get('framework_version', 'unknown')}, which wrote it."
        )


def config_of(record: Mapping[str, Any], source: object, overrides: Mapping[str, Any] | None = None) -> ModelConfig:
    """The model's config in a record, with values replaced. The providers of replaced parts need not be installed.

    source: the checkpoint's name in errors. Raises CheckpointError for a newer schema and for a config that no longer
    validates; PluginError, naming the package to install, if a part's provider is missing.
    """
    _check_schema(record, source)
    try:
        recorded = {(part["kind"], part["name"]): part for part in record["components"]}
        data = dict(record["spectral"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"the config of {source} is damaged. Use another checkpoint.") from None
    data = _as_now(data, record["schema_version"])
    try:
        config = parse_model(data, overrides)
    except ConfigError as error:
        for part in recorded.values():
            _require(part, source)
        if overrides:
            raise
        problems = "; ".join(str(error).splitlines())
        raise CheckpointError(f"the config of {source} no longer validates: {problems}") from error
    for component in components_of(config):
        part = recorded.get((component.kind, component.name), {})
        before = part.get("provider", component.provider), part.get("version", component.version)
        if before != (component.provider, component.version):
            warnings.warn(
                f"{source} was saved with {before[0]} {before[1]}; {component.kind} {component.name!r} now comes "
                f"from {component.provider} {component.version}.",
                stacklevel=3,
            )
    return config


def _require(part: Mapping[str, str], source: object) -> None:
    """Raise PluginError naming the package to install, unless the part of a checkpoint is registered here."""
    registry = HOST.registries.get(part["kind"])
    if registry is None or part["name"] not in registry:
        failed = [str(failure) for failure in HOST.failures() if failure.distribution == part["provider"]]
        state = f"installed but {failed[0]}" if failed else "not installed here"
        raise PluginError(
            f"{source} uses the {part['kind']} {part['name']!r} of the package {part['provider']} {part['version']}, "
            f"which is {state}. Run: pip install '{part['provider']}=={part['version']}'"
            + (f" ({HOST.restriction})" if HOST.restriction else "")
        )


def int8_of(record: Mapping[str, Any], directory: Path) -> list[str]:
    """The names of int8 layers in config.json. Raises CheckpointError for another kind of quantisation."""
    if "quantization" not in record:
        return []
    try:
        scheme, layers = record["quantization"]["scheme"], [str(layer) for layer in record["quantization"]["layers"]]
    except (KeyError, TypeError):
        raise CheckpointError(f"{directory / CONFIG} is damaged. Use another checkpoint.") from None
    if scheme != SCHEME:
        raise CheckpointError(
            f"{directory} is quantised as {scheme!r}; this release ({__version__}) reads {SCHEME!r}. Install release "
            f"{record.get('framework_version', 'unknown')}, which wrote it."
        )
    return layers


def _as_now(data: Any, schema: int) -> Any:
    """Translates a config of an earlier schema, and nested ones, to the current schema."""
    if not isinstance(data, Mapping) or schema == SCHEMA_VERSION:
        return data
    current = {key: _as_now(value, schema) for key, value in data.items()}
    variant = MODELS.configs().get(str(data.get("type")), ModelConfig)
    if variant.model_fields["fft"].default is None and current.get("fft") in ("auto", {"type": "auto"}):
        current["fft"] = None
    if schema not in _DEFAULTS:
        return current
    if "embed_scale" in variant.model_fields or data.get("type") == "tokens":
        current.setdefault("embed_scale", 1.0)
    stack = ("block", "layers")
    if variant.decoder and variant.model_fields.keys() >= set(stack) and not any(data.get(name) for name in stack):
        current |= _DEFAULTS[schema]
    return current
