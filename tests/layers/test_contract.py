"""A part of a third party that returns something else than it must is told what to return."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from spectral_core import FFT_BACKENDS, FFTBackend, PluginError
from spectral_core.contract import Contract
from spectral_core.plugins import HOST
from spectral_layers import (
    GATES,
    FeedForward,
    Filter,
    FrontEnd,
    Fusion,
    Gate,
    GateConfig,
    Mixer,
    Modulation,
    Position,
    Sparsity,
)
from spectral_layers.gates.magnitude import Magnitude

BASES = (FFTBackend, Mixer, Filter, Gate, Sparsity, Fusion, FeedForward, Position, FrontEnd)


VALUES = (torch.ones(2, 3), (1, 2), 3.0)


def promises() -> list[Any]:
    configs = (registry.base for registry in HOST.registries.values() if registry.kind != "model")
    return [
        pytest.param(base, name, expected, value, id=f"{base.__name__}.{name}-{type(value).__name__}")
        for base in (*BASES, *configs)
        for name, expected in base.must_return
        for value in VALUES
        if not isinstance(value, expected)
    ]


def returning(base: type[Any], method: str, value: object) -> Any:
    """A class as a third party would write it, whose method returns that value."""
    return type("Theirs", (base,), {"__module__": "acme", method: lambda self, *given, **named: value})


def unbuilt(kind: type[Any]) -> Any:
    """Of modules an instance without parts: their methods run through its call."""
    if not issubclass(kind, nn.Module):
        return None
    made = kind.__new__(kind)
    nn.Module.__init__(made)
    return made


@pytest.mark.parametrize(("base", "method", "expected", "value"), promises())
def test_what_comes_and_what_must_come_are_named(base: type[Any], method: str, expected: Any, value: object) -> None:
    theirs = returning(base, method, value)
    with pytest.raises(PluginError) as caught:
        getattr(theirs, method)(unbuilt(theirs))
    message = str(caught.value)
    assert message.startswith(f"Theirs.{method} must return ")
    wanted = expected[0] if isinstance(expected, tuple) else expected
    assert wanted.__name__ in message
    assert ("(2, 3) float32 on cpu" if isinstance(value, torch.Tensor) else type(value).__name__) in message


def test_every_kind_of_part_promises_something() -> None:
    assert FFT_BACKENDS, GATES
    for base in (*BASES, *(registry.base for registry in HOST.registries.values() if registry.kind != "model")):
        assert issubclass(base, Contract)
        assert base.must_return


def test_the_fields_to_fill_are_listed() -> None:
    with pytest.raises(
        PluginError, match=r"must return Modulation\(gain, phase, losses, metrics, hidden_states\); it returned"
    ):
        returning(Gate, "forward", torch.ones(2)).forward(None, None)
    with pytest.raises(PluginError, match="must return Rotation"):
        unbuilt(returning(Position, "rotation", 1)).rotation()
    assert unbuilt(returning(Position, "rotation", None)).rotation() is None


def test_what_is_right_passes_and_ours_are_left_as_written() -> None:
    answer = Modulation()
    assert returning(Gate, "forward", answer).forward(None) is answer
    assert not hasattr(Magnitude.forward, "__wrapped__")
    assert not hasattr(GATES.get("magnitude").load().build, "__wrapped__")
    assert hasattr(returning(GateConfig, "build", None).build, "__wrapped__")
