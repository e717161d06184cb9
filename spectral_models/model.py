"""The base of all model variants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from spectral_core import UnsupportedInputError
from spectral_layers.entry import Entered

if TYPE_CHECKING:
    from spectral_models.config import ModelConfig


class SpectralModel(Entered):
    """A model that knows the config it was built from; checkpoints are its weights and that config.

    Any module in it may have ``earlier_names``: names that its weights, or the modules with its weights, had in earlier
    checkpoints, and those that they have now, both relative to itself. Subclasses inherit them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def entering(self, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Refuse a call while weights are on the meta device: PyTorch's linear layers would return noise.

        Calls behind a state, and models whose weights hooks bring in, are not checked.
        """
        on_meta = any(isinstance(given, Tensor) and given.is_meta for given in args)
        if options.get("state") is not None or on_meta or not any(tensor.is_meta for tensor in self.parameters()):
            return
        if any(module._forward_pre_hooks or "_hf_hook" in vars(module) for module in self.modules()):
            return
        names = [name for name, tensor in self.named_parameters() if tensor.is_meta]
        raise UnsupportedInputError(
            f"{len(names)} weights of this {self.config.type} hold no values yet (the first: {names[0]}): they are on "
            "the meta device. Load a checkpoint with load_checkpoint, or fill them by model.to_empty(device=...) and "
            "model.load_state_dict(...)."
        )

    def example_source(self, batch: int) -> tuple[Tensor, ...]:
        """What a decoder's call takes in front of its tokens, for checks: nothing, or an example of a source."""
        return ()
