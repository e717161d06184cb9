"""The base of all model variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from spectral_core import UnsupportedInputError
from spectral_core.contract import Contract
from spectral_layers.entry import Entered

if TYPE_CHECKING:
    from spectral_models.config import ModelConfig
    from spectral_models.inputs import InputSpec
    from spectral_models.loss import StepLoss


class SpectralModel(Contract, Entered):
    """Base of model variants: a model that knows the config it was built from. Checkpoints are its weights and that.

    A variant defines

    - ``forward(*inputs, attention_mask=None)``: tensors with the batch first, in the order of :meth:`input_specs`, and
      a mask (B, L), nonzero at real tokens, if the first input has ``masked``. It returns a dataclass, best a
      :class:`Report` marked with ``tree``, with the tensors that :meth:`outputs` names as fields. Rows of a batch must
      not depend on each other, nor on padding. With ``decoder`` in the config, logits at t depend on tokens up to t.
    - :meth:`input_specs` and :meth:`outputs`: what goes in and what comes out, which export, commands, inspection and
      the causality check read instead of asking for the class.
    - :meth:`loss`, if it learns from labels.

    Its config (:class:`ModelConfig`) says what it decodes, labels and pools, and gives the backend of its operators by
    ``build_fft()``. Models inside it, at any depth, are found by :meth:`submodels`; ``gradient_checkpointing`` reaches
    them, and the blocks of a variant that has blocks must heed it.

    Any module in it may have ``earlier_names``: names that its weights, or the modules with its weights, had in earlier
    checkpoints, and those that they have now, both relative to itself. Subclasses inherit them.

    heads: names of submodules and parameters that belong to a task: they begin new where a model of another task, or of
    other labels, begins from this one's weights. origin: the checkpoint it began from, if any, as config.json has it.
    streams: whether a decoder continues a state: ``forward(tokens, state=..., return_state=True)`` gives one. If it
    reads a source, ``prepare(source)`` gives its first state, and forward then takes None for the source.
    """

    must_return = (("input_specs", tuple), ("outputs", tuple))
    streams: ClassVar[bool] = False
    heads: ClassVar[tuple[str, ...]] = ("head",)
    origin: Mapping[str, Any] | None = None

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

    def input_specs(self) -> tuple[InputSpec, ...]:
        """The inputs, in the order in which forward takes them; none where a class does not say.

        A decoder's own tokens come last, behind the source if it reads one.
        """
        return ()

    @property
    def only_input(self) -> InputSpec | None:
        """The input of a model that has one; None where there are several, or where a class does not say."""
        specs = self.input_specs()
        return specs[0] if len(specs) == 1 else None

    @property
    def continues_text(self) -> bool:
        """Whether logits are of the next token behind each of the input's, which are all that it reads."""
        spec = self.only_input
        return self.config.decoder and spec is not None and spec.kind == "tokens"

    def outputs(self) -> tuple[str, ...]:
        """What a program of the model gives, by names of tensors in forward's output; none where a class does not say.

        logits: (B, num_labels) of rows, or (B, L, V) of tokens. pooled: (B, D). hidden: (B, L, D), beside a ``mask``
        (B, L) that is True at real tokens, or None if all are. Others as the class documents them.
        """
        return ()

    def loss(self, *inputs: Any, **options: Any) -> StepLoss:
        """What training minimises: see :mod:`spectral_models.loss`. Raises UnsupportedInputError without one."""
        raise UnsupportedInputError(f"a {self.config.type} has no loss: its class defines none.")

    def run(self, inputs: Mapping[str, Tensor], attention_mask: Tensor | None = None) -> Any:
        """The output for inputs by name, all of :meth:`input_specs` in their order. attention_mask: of the first."""
        options = {} if attention_mask is None else {"attention_mask": attention_mask}
        return self(*inputs.values(), **options)
