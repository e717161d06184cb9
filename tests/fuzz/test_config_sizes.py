"""Every number in a config has a largest value, and a model with it is validated without its memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

import pytest

from spectral_core import ConfigError
from spectral_core.config import Config
from spectral_core.plugins import BUILTIN_PROVIDER, HOST
from spectral_models.assembly import count_parameters, load_config
from spectral_models.training import config as training

assert training, "its configs are tested too, by being subclasses"

INSIDE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "mixer": lambda part: {"block": {"mixer": part}},
    "filter": lambda part: {"block": {"mixer": {"type": "gated_convolution", "filter": part}}},
    "gate": lambda part: {"block": {"mixer": {"type": "spectral_gating", "gates": [part]}}},
    "sparsity": lambda part: {"block": {"mixer": {"type": "spectral_gating", "sparsity": part}}},
    "feedforward": lambda part: {"block": {"feedforward": part}},
    "fft": lambda part: {"fft": part},
    "position": lambda part: {"position": part, "max_seq_len": 1 << 32},
    "fusion": lambda part: {"type": "seq2seq", "fusion": part},
    "frontend": lambda part: {"type": "audio_encoder" if part["type"] == "mel" else "vision_encoder", "frontend": part},
    "model": lambda part: part,
}
"""The smallest model with a part of each kind."""


def configs() -> list[type[Config]]:
    """All configs of ours."""
    for registry in HOST.registries.values():
        registry.configs()
    found: list[type[Config]] = []
    pending = [Config]
    while pending:
        below = pending.pop().__subclasses__()
        pending += below
        found += [config for config in below if config.__module__.startswith("spectral_")]
    return sorted(set(found), key=lambda config: f"{config.__module__}.{config.__qualname__}")


def numbers(node: Any) -> Iterator[dict[str, Any]]:
    """The parts of a JSON Schema that numbers and lists are held to."""
    if isinstance(node, list):
        for member in node:
            yield from numbers(member)
    elif isinstance(node, dict):
        if node.get("type") in ("integer", "number", "array"):
            yield node
        for key in ("anyOf", "items", "prefixItems", "additionalProperties"):
            yield from numbers(node.get(key))


def largest(node: dict[str, Any]) -> float | None:
    if node["type"] == "array":
        return node.get("maxItems")
    return node.get("maximum", node.get("exclusiveMaximum"))


@pytest.mark.parametrize("config", configs(), ids=lambda config: config.__qualname__)
def test_every_number_and_list_has_a_largest_value(config: type[Config]) -> None:
    for name, field in config.model_json_schema().get("properties", {}).items():
        for node in numbers(field):
            assert largest(node) is not None, (name, node)


def test_a_number_without_one_would_be_found() -> None:
    class Open(Config):
        many: tuple[int, ...] = ()

    nodes = list(numbers(Open.model_json_schema()["properties"]["many"]))
    assert [largest(node) for node in nodes] == [None, None]


def sizes() -> list[tuple[str, dict[str, Any], str]]:
    """Models with one number at its largest, and what a larger one is refused with."""
    found = []
    for kind, registry in HOST.registries.items():
        for entry in registry:
            if entry.provider != BUILTIN_PROVIDER:
                continue
            for name, field in entry.load().model_json_schema().get("properties", {}).items():
                found += [
                    (kind, {"type": entry.name, name: node["maximum"]}, name)
                    for node in (field, *field.get("anyOf", ()))
                    if node.get("type") in ("integer", "number") and "maximum" in node
                ]
    return found


def test_the_largest_numbers_take_no_memory_and_larger_ones_are_refused(
    rounds: Callable[[int], int], bounded: Callable[..., AbstractContextManager[None]]
) -> None:
    known = sizes()
    counted = 0
    chosen = random.Random(0).sample(known, min(len(known), rounds(250)))  # noqa: S311
    for kind, part, name in chosen:
        config = HOST.registries[kind].get(part["type"]).load()
        others = {"encoders": {"text": "encoder", "sound": "audio_encoder"}} if part["type"] == "multimodal" else {}
        with bounded(seconds=2.0), suppress(ConfigError):  # some fit no other number: heads that do not divide a width
            counted += count_parameters(load_config(INSIDE[kind]({**part, **others}))) > 0
        with pytest.raises(ConfigError, match=rf"{name}: Input should be less than or equal"):
            config.parse({**part, **others, name: 2 * part[name]})
    assert counted > len(chosen) / 2
