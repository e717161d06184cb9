"""Outputs as trees of tensors to PyTorch: torch.export, torch.func and DDP look into what is registered here."""

from __future__ import annotations

from typing import TypeVar

from torch.utils import _pytree

Output = TypeVar("Output")


def tree(dataclass: type[Output]) -> type[Output]:
    """Class decorator: the fields of a dataclass are its branches, under their names."""
    _pytree.register_dataclass(dataclass, serialized_type_name=f"{dataclass.__module__}.{dataclass.__qualname__}")
    return dataclass
