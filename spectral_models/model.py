"""The base of model variants."""

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
    """Base of model variants: a model with its config. A checkpoint holds both.

    A variant defines

    - ``forward(*inputs, attention_mask=None)``: tensors with the batch first, in the order of :meth:`input_specs`, and
      a mask (B, L), nonzero at real tokens, if the first input has ``masked``. It returns a dataclass, preferably a
      :class:`Report` marked with ``tree``, whose fields include the tensors that :meth:`outputs` names. Rows of a batch
      must not depend on each other, nor on padding. With ``decoder`` in the config, logits at t depend on tokens up to
      t only.
    - :meth:`input_specs` and :meth:`outputs`, which export, commands, inspection and the causality check use, instead
      of the class.
    - :meth:`loss`, if it learns from labels.

    Its config (:class:`ModelConfig`) declares whether it decodes, labels or pools, and ``build_fft()`` makes the
    backend of its operators. ``gradient_checkpointing`` is passed on to :meth:`submodels`; a variant with blocks must
    apply it to these.

    Any module may have ``earlier_names``: earlier names of its weights, or of submodules, in checkpoints, with the
    current names, both relative to the module. Subclasses inherit them.

    heads: names of submodules and parameters that belong to a task. They are initialised anew where a model of another
    task, or with other labels, takes over this one's weights. origin: the checkpoint whose weights training began with,
    as in config.json; None for random weights.
    streams: whether a decoder continues a state, which ``forward(tokens, state=..., return_state=True)`` returns. If it
    reads a source, ``prepare(source)`` returns the first state, and forward then takes None for the source.
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
        """The outermost models inside this one, by path."""

        def inside(module: nn.Module, path: str) -> Iterator[tuple[str, SpectralModel]]:
            for name, child in module.named_children():
                if isinstance(child, SpectralModel):
                    yield f"{path}{name}", child
                else:
                    yield from inside(child, f"{path}{name}.")

        return dict(inside(self, ""))

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the backward pass recomputes blocks instead of storing activations. Setting it sets submodels too."""
        return self._gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        self._gradient_checkpointing = value
        for model in self.submodels().values():
            model.gradient_checkpointing = value

    def entering(self, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Refuse a call while weights are on the meta device, where PyTorch's linear layers would return noise.

        Not checked: calls with a state, and models with hooks that may load the weights.
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
        """The inputs, in the order of forward's arguments; empty if not declared.

        A decoder's own tokens come last, after a source.
        """
        return ()

    @property
    def only_input(self) -> InputSpec | None:
        """The input of a model with one input; None if there are several, or none is declared."""
        specs = self.input_specs()
        return specs[0] if len(specs) == 1 else None

    @property
    def continues_text(self) -> bool:
        """Whether the model reads tokens only, and its logits predict the next token after each."""
        spec = self.only_input
        return self.config.decoder and spec is not None and spec.kind == "tokens"

    @property
    def output_embedding(self) -> nn.Module | None:
        """The linear head over the vocabulary, with a ``weight`` (V, D) and a ``bias``, which may be None; or None."""
        return None

    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors in forward's output that an exported program returns; empty if not declared.

        logits: (B, num_labels) of rows, or (B, L, V) of tokens. pooled: (B, D). hidden: (B, L, D), with a ``mask``
        (B, L) that is True at real tokens, or None if all are. Other names are documented by their class.
        """
        return ()

    def loss(self, *inputs: Any, **options: Any) -> StepLoss:
        """The training loss: see :mod:`spectral_models.loss`. Raises UnsupportedInputError if the class has none."""
        raise UnsupportedInputError(f"a {self.config.type} has no loss: its class defines none.")

    def run(self, inputs: Mapping[str, Tensor], attention_mask: Tensor | None = None) -> Any:
        """Call the model with inputs by name, all of :meth:`input_specs` in order. attention_mask: of the first."""
        options = {} if attention_mask is None else {"attention_mask": attention_mask}
        return self(*inputs.values(), **options)
