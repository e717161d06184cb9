"""The base of all model variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from spectral_core import UnsupportedInputError
from spectral_layers.entry import Entered

if TYPE_CHECKING:
    from spectral_models.config import ModelConfig


class SpectralModel(Entered):
    """A model that knows the config it was built from; checkpoints are its weights and that config.

    earlier_names: what weights were called in checkpoints of before, and are called now.
    """

    earlier_names: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self._gradient_checkpointing = False

    def submodels(self) -> dict[str, SpectralModel]:
        """The models this one contains, by path, without the models inside those."""

        def inside(module: nn.Module, path: str) -> Iterator[tuple[str, SpectralModel]]:
            for name, child in module.named_children():
                if isinstance(child, SpectralModel):
                    yield f"{path}{name}", child
                else:
                    yield from inside(child, f"{path}{name}.")

        return dict(inside(self, ""))

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the backward pass recomputes blocks instead of storing their activations; set for submodels too."""
        return self._gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        self._gradient_checkpointing = value
        for model in self.submodels().values():
            model.gradient_checkpointing = value

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
