"""A config of ours in the making, and the record of how it was made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectral_models.config import BlockConfig, spelled_out

if TYPE_CHECKING:
    from spectral_models.compat.config import SpectralConfig


@dataclass(frozen=True)
class Step:
    """A field, its value, whether it was given, and what it became."""

    field: str
    value: Any
    given: bool
    became: str

    def __str__(self) -> str:
        value = getattr(self.value, "value", self.value)
        return f"{self.field} = {value}{'' if self.given else ' (default)'} → {self.became}"


@dataclass
class Draft:
    """config: what it is made of. type: of the model. data, blocks: what it will say, blocks with every default."""

    config: SpectralConfig
    type: str
    data: dict[str, Any]
    blocks: list[dict[str, Any]]

    @property
    def causal(self) -> bool:
        return self.type in ("language_model", "seq2seq")

    @property
    def text(self) -> bool:
        return self.type not in ("vision_encoder", "audio_encoder")

    @property
    def mixed_by(self) -> str:
        """What its blocks are called in reports."""
        return " and ".join(dict.fromkeys(block["mixer"]["type"] for block in self.blocks))

    def mixers(self, option: str) -> Iterator[dict[str, Any]]:
        """The mixers that have an option."""
        return (block["mixer"] for block in self.blocks if option in block["mixer"])

    def set(self, key: str, value: Any) -> str:
        self.data[key] = value
        return f"{key}: {value}"


def blocks_of(name: str) -> list[dict[str, Any]]:
    """A named block's data, every default written out."""
    return [BlockConfig.parse(block).model_dump() for block in spelled_out(name)]


def reads_both_ways(name: str) -> bool:
    """Whether an encoder may have the blocks of that name."""
    return all("bidirectional" in BlockConfig.parse(block).mixer.directions for block in spelled_out(name))
