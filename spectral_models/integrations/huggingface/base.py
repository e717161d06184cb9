"""The class of AutoModel: any model of ours, with hidden states instead of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput

from spectral_core import UnsupportedInputError
from spectral_layers.report import with_hidden_states
from spectral_models.integrations.huggingface.config import SpectralHFConfig
from spectral_models.integrations.huggingface.forward import refuse
from spectral_models.integrations.huggingface.outputs import HiddenStates, hidden_states_of
from spectral_models.integrations.huggingface.pretrained import SpectralPreTrainedModel
from spectral_models.model import SpectralModel


@dataclass
class SpectralHiddenOutput(ModelOutput):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """last_hidden_state: (B, L, D), the final norm's output, arbitrary at padding; of text to text the decoder's.

    pooler_output: (B, D), of models that pool. hidden_states, encoder_hidden_states, decoder_hidden_states: as in
    :class:`SpectralOutput`. With an encoder for each modality, last_hidden_state and hidden_states are by modality.
    """

    last_hidden_state: Tensor | dict[str, Tensor] | None = None
    pooler_output: Tensor | None = None
    hidden_states: HiddenStates | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None


class SpectralHFModel(SpectralPreTrainedModel):
    """Any model, with a task or without one. Heads are loaded and saved too, so no weight is lost or initialised."""

    model_kind = None

    def __init__(self, config: SpectralHFConfig, model: SpectralModel | None = None) -> None:
        super().__init__(config, model)
        self.names = [spec.name for spec in self.model.input_specs()]
        self.main_input_name = next(iter(self.names), "input_ids")

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        *,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> Any:
        """inputs: by the names in :meth:`SpectralModel.input_specs`, such as pixel_values or a modality's name.

        attention_mask: of the first input; for a model with an encoder for each modality, a mapping by modality.
        """
        given = {name: inputs.pop(name) for name in self.names if name in inputs}
        refuse(inputs)
        if "input_ids" in self.names:
            given = {"input_ids": self.token_inputs(input_ids, inputs_embeds), **given}
        if not given or (self.model.config.reads_source and len(given) < len(self.names)):
            raise UnsupportedInputError(
                f"inputs are {', '.join(self.names)}; got {', '.join(given) or 'none of them'}."
            )
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        with with_hidden_states("all" if wanted else "last"):
            if self.model.streams and not self.model.config.reads_source:
                report = self.model(*given.values(), attention_mask=attention_mask, logits_to_keep=1)
            else:
                report = self.model.run(given, attention_mask)
        fields = hidden_states_of(report)
        states = fields.get("decoder_hidden_states", fields.get("hidden_states"))
        if not states:
            raise UnsupportedInputError(f"a {self.model.config.type} reports no hidden states, so it has no AutoModel.")
        if "encoder_hidden_states" in fields:
            fields["encoder_last_hidden_state"] = fields["encoder_hidden_states"][-1]
        pooled = getattr(report, "pooled", None)
        last = {name: of[-1] for name, of in states.items()} if isinstance(states, dict) else states[-1]
        if not wanted:
            fields = {name: x for name, x in fields.items() if not name.endswith("hidden_states")}
        output = SpectralHiddenOutput(last, pooled, **fields)
        return output.to_tuple() if return_dict is False else output
