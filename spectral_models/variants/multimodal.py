"""The multimodal model: logits of labels from several named encoders, fused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from spectral_core import UnsupportedInputError
from spectral_core.axes import describe
from spectral_core.config import OneOf, Width, part, problem
from spectral_core.errors import shown, suggestion
from spectral_layers import FEEDFORWARDS, FUSIONS, FeedForwardConfig, FusionConfig, LayerContext, Report, Stream
from spectral_models.block import NORMS, under
from spectral_models.data.readers import Reader
from spectral_models.inputs import InputSpec
from spectral_models.variants.encoding import AnyEncoder, Encoder, EncoderOutput, pool
from spectral_models.variants.labelling import ClassifierOutput, Labeller, LabellerConfig


class Multimodal(Labeller):
    """logits = W dropout(pooled) + b, from the modalities m that are present:

    x_m = P_m encoder_m(input_m), y_m = fusion(x, m), z_m = y_m + feedforward(norm(y_m)),
    pooled = mean over m of pool(norm(z_m)).

    P_m projects from the encoder's width to the model's; it is the identity if they are equal. Tokens of all modalities
    are fused before pooling. Each modality is the fusion's target once, with the same fusion and feed-forward, so any
    may be missing, and M modalities cost M fusions. Padding does not affect the logits.

    Losses and metrics are named by path: ``encoders.audio.layers.0.…``, ``fusion.audio.…`` (audio as the target).
    """

    config: MultimodalConfig

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__(config)
        dim, norm = config.hidden_dim, NORMS[config.norm]
        self.encoders = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        for name, encoder in config.encoders.items():
            with under(f"encoders.{name}"):
                self.encoders[name] = encoder.build()
            if encoder.hidden_dim != dim:
                self.projections[name] = nn.Linear(encoder.hidden_dim, dim, bias=False)
        # Sorted, so that a fusion's weights do not depend on the order of the config's keys.
        context = LayerContext(dim, causal=False, fft=config.build_fft(), streams=tuple(sorted(config.encoders)))
        with under("fusion"):
            self.fusion = config.fusion.build(context)
        with under("feedforward"):
            self.feedforward = config.feedforward.build(context)
        self.feedforward_norm = norm(dim)
        self.norm = norm(dim)
        self.make_head(dim)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        attention_mask: Mapping[str, Tensor] | None = None,
        **options: Mapping[str, Any],
    ) -> ClassifierOutput:
        """inputs: inputs of the encoders by modality, with the same batch size; any may be missing, but not all.

        attention_mask, options: other arguments of the encoders, by modality too: ``sample_rate={"audio": 16_000}``.
        Raises UnsupportedInputError for names that are no modality, no modality at all, batches of different sizes,
        and, with the modality's name in front, for inputs that its encoder refuses.
        """
        options = options if attention_mask is None else {"attention_mask": attention_mask, **options}
        self._check(inputs, options)
        streams, report = {}, Report()
        for name in (name for name in self.encoders if name in inputs):
            arguments = {key: of[name] for key, of in options.items() if name in of}
            try:
                self._encoder(name).refuse_unknown(arguments.keys() - {"attention_mask"})
                encoded: EncoderOutput = self.encoders[name](inputs[name], **arguments)
            except UnsupportedInputError as error:
                raise UnsupportedInputError(f"{name}: {error}") from error
            report += encoded.under(f"encoders.{name}")
            x = self.projections[name](encoded.hidden) if name in self.projections else encoded.hidden
            streams[name] = Stream.of(x, encoded.mask)
        pooled = []
        for name, stream in streams.items():
            fused = self.fusion(streams, name)
            fed = self.feedforward(self.feedforward_norm(fused.y), rows=stream.rows)
            report += fused.under(f"fusion.{name}") + fed.under(f"feedforward.{name}")
            pooled.append(pool(self.norm(fused.y + fed.y), stream.rows, self.config.pooling))
        mean = torch.stack(pooled).mean(0)
        return ClassifierOutput(self.logits(mean), mean) + report

    def input_specs(self) -> tuple[InputSpec, ...]:
        """The encoders' inputs by modality, without masks: :meth:`run` takes one for the first input only."""
        inputs = {name: self._encoder(name).only_input for name in self.encoders}
        if None in inputs.values():
            return ()
        return tuple(replace(spec, name=name, masked=False) for name, spec in inputs.items() if spec is not None)

    def run(self, inputs: Mapping[str, Tensor], attention_mask: Tensor | None = None) -> ClassifierOutput:
        output: ClassifierOutput = self(inputs, attention_mask)
        return output

    def _encoder(self, name: str) -> Encoder:
        encoder = self.encoders[name]
        assert isinstance(encoder, Encoder)
        return encoder

    def _check(self, inputs: Mapping[str, Tensor], options: Mapping[str, Mapping[str, Any]]) -> None:
        known = ", ".join(self.encoders)
        for key, by_name in {"inputs": inputs, **options}.items():
            if not isinstance(by_name, Mapping):
                raise UnsupportedInputError(
                    f"{key} come by modality, as a mapping from names to values; got {type(by_name).__name__}. "
                    f"Modalities: {known}."
                )
            for name in by_name:
                if name not in self.encoders:
                    raise UnsupportedInputError(
                        f"{key}: no modality is called {name!r}.{suggestion(str(name), list(self.encoders))} "
                        f"Modalities: {known}; any of them may be left out."
                    )
                if name not in inputs:
                    raise UnsupportedInputError(f"{key} are given for {name!r}, whose input is not.")
        for name, x in inputs.items():
            if not isinstance(x, Tensor):
                raise UnsupportedInputError(
                    f"inputs: {name!r} is {type(x).__name__}, not a tensor. Leave a modality that is missing out."
                )
        if not inputs:
            raise UnsupportedInputError(f"no modality is given. Give one at least of {known}.")
        first, *others = inputs.values()
        if any(x.shape[:1] != first.shape[:1] for x in others):
            sizes = ", ".join(f"{name} {describe(x)}" for name, x in inputs.items())
            raise UnsupportedInputError(f"modalities belong together row by row, and batches differ in size: {sizes}.")


class MultimodalConfig(LabellerConfig):
    """Labels for rows of several modalities, each with an encoder; any modality may be missing."""

    type: Literal["multimodal"] = "multimodal"
    encoders: dict[str, AnyEncoder] = Field(max_length=16)
    """An encoder for each modality, by name. Their ``pooling`` is not used: fused tokens are pooled."""
    hidden_dim: Width = 256
    """Width of the fusion. Outputs of encoders of another width are projected to it."""
    fusion: Annotated[FusionConfig, OneOf(FUSIONS)] = part("cross_modal")
    """Combines all modalities at the tokens of one of them."""
    feedforward: Annotated[FeedForwardConfig, OneOf(FEEDFORWARDS)] = part("swiglu")
    """Applied to each fused token."""
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    """Normalisation in front of the feed-forward, and of pooling."""
    pooling: Literal["mean", "max", "last"] = "mean"
    """How a fused modality becomes a vector: the mean or maximum of its tokens, or the last one."""

    @field_validator("encoders")
    @classmethod
    def _names_are_valid(cls, encoders: dict[str, Any]) -> dict[str, Any]:
        if len(encoders) < 2:
            raise ValueError("two modalities or more are fused; a classifier has one encoder.")
        reserved = nn.ModuleDict()
        for name in encoders:
            if not name or "." in name or hasattr(reserved, name):
                raise ValueError(f"{shown(name)} cannot name a modality: it is empty, has a dot or is PyTorch's own.")
        return encoders

    @model_validator(mode="after")
    def _fusion_fits(self) -> MultimodalConfig:
        if "bidirectional" not in self.fusion.directions:
            fitting = [name for name, config in FUSIONS.configs().items() if "bidirectional" in config.directions]
            raise problem(
                ("fusion",),
                f"{self.fusion.type!r} is for decoders: it conditions a causal target on one source. Fusions of "
                f"modalities: {', '.join(fitting)}.",
            )
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        return () if self.problem_type == "regression" else ("multimodal_classification",)

    def readers(self) -> dict[str, Reader]:
        return {name: reader for name, encoder in self.encoders.items() if (reader := encoder.reader()) is not None}

    def with_data(
        self,
        *,
        labels: tuple[str, ...] | None = None,
        max_length: int | None = None,
        image_sizes: Mapping[str, tuple[int, int]] | None = None,
        **_: Any,
    ) -> MultimodalConfig:
        sizes = image_sizes or {}
        encoders = {
            name: encoder.with_data(max_length=max_length, image_size=sizes.get(name))
            for name, encoder in self.encoders.items()
        }
        return self.model_copy(update={"labels": labels, "encoders": encoders})

    def build(self) -> Multimodal:
        return Multimodal(self)
