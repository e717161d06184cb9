"""Our decoding state where Hugging Face keeps a cache of keys and values."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from spectral_layers import State


class SpectralCache:
    """Holds the state that the next call consumes; the call leaves the one it returned. Its size does not grow.

    length: columns read so far, padding included, as Hugging Face counts them. A row's own count is in the state.
    """

    is_compileable: ClassVar[bool] = False
    is_croppable: ClassVar[bool] = False

    def __init__(self) -> None:
        self.state: State | None = None
        self.length = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let row i go on from what row ``beam_idx[i]`` was."""
        if self.state is not None:
            self.state = self.state.select(beam_idx)
