"""The sequence-to-sequence model: a source in, the logits of a target's next tokens out, without attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import FFT_BACKENDS, FFTBackendConfig, StateError, UnsupportedInputError
from spectral_core.axes import describe
from spectral_core.config import OneOf, part, problem
from spectral_core.renamed import Renamed
from spectral_core.trees import tree
from spectral_layers import FUSIONS, Report, State, Stream
from spectral_layers.entry import entry
from spectral_models.block import under
from spectral_models.data.readers import Reader
from spectral_models.generation import generate
from spectral_models.inputs import InputSpec
from spectral_models.loss import IGNORE, StepLoss
from spectral_models.model import SpectralModel
from spectral_models.variants.conditioning import SourceDecoder, SourceDecoderConfig
from spectral_models.variants.encoding import AnyEncoder, EncoderOutput

_TokenId = Annotated[int, Field(ge=0, le=1 << 32)]


@tree
@dataclass
class Seq2SeqOutput(Report):
    """logits: (B, L, V), of the target's next tokens. state: what continues the targets, if asked for.

    losses, metrics: named by half and layer.
    """

    logits: Tensor
    state: State | None


class Seq2Seq(SpectralModel):
    """An encoder that sees the whole source, and a strictly causal decoder that reads it by fusion in each block.

    The source is encoded once: what the decoder's fusions read of it is in the state that every target begins with.
    """

    streams: ClassVar[bool] = True

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__(config)
        self.config: Seq2SeqConfig
        with under("encoder"):
            self.encoder = config.encoder.build()
        self.bridge: nn.Linear | None = None
        if config.encoder.hidden_dim != config.hidden_dim:
            self.bridge = nn.Linear(config.encoder.hidden_dim, config.hidden_dim, bias=False)
        self.decoder = SourceDecoder(config)

    def forward(
        self,
        input_ids: Tensor | None,
        decoder_input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        *,
        state: State | None = None,
        return_state: bool = False,
        **options: Any,
    ) -> Seq2SeqOutput:
        """Logits at every target token, each from the whole source and from its own and earlier target tokens only.

        input_ids: the source, (B, S) integers, or whatever else the encoder reads; None with a state, which knows it.
        decoder_input_ids: the target, (B, L) integers below vocab_size, from the start token on. The masks of both
        are nonzero at real tokens, with padding on either side; logits at padding are arbitrary. A full pass, any
        chunks and single tokens give the same logits. options: what else the encoder takes: an ``audio_encoder``
        a ``sample_rate``. Raises UnsupportedInputError for inputs that do not fit, StateError for a state that does
        not.
        """
        state, report = self._begun(input_ids, decoder_input_ids, attention_mask, state, options)
        output = self.decoder(decoder_input_ids, decoder_attention_mask, state=state, return_state=return_state)
        return Seq2SeqOutput(output.logits, output.state) + report + output.under("decoder")

    def _begun(
        self,
        input_ids: Tensor | None,
        decoder_input_ids: Tensor,
        attention_mask: Tensor | None,
        state: State | None,
        options: dict[str, Any],
    ) -> tuple[State, Report]:
        """The state that targets continue, and the report of encoding their sources."""
        if state is not None:
            if input_ids is not None or attention_mask is not None or options:
                raise StateError(
                    "a state knows its source: beside it give input_ids None, and nothing else about a source."
                )
            return state, Report()
        if input_ids is None:
            raise UnsupportedInputError(
                "a target needs a source: give input_ids, or the state of a source, which prepare(input_ids) or an "
                "earlier call with return_state gives."
            )
        if input_ids.shape[:1] != decoder_input_ids.shape[:1]:
            raise UnsupportedInputError(
                f"each target has its source; got input_ids {describe(input_ids)} and decoder_input_ids "
                f"{describe(decoder_input_ids)}."
            )
        self.encoder.refuse_unknown(options)
        encoded = self.encoder(input_ids, attention_mask, **options)
        return self.read(encoded), encoded.under("encoder")

    @entry
    def prepare(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> State:
        """The state of targets of no tokens yet: the source encoded, and all that is ever read of it."""
        self.encoder.refuse_unknown(options)
        return self.read(self.encoder(input_ids, attention_mask, **options))

    @entry
    def read(self, encoded: EncoderOutput) -> State:
        """The same, of a source that is encoded."""
        x = encoded.hidden if self.bridge is None else self.bridge(encoded.hidden)
        return self.decoder.prepare(Stream.of(x, encoded.mask))

    def decoder_inputs(self, labels: Tensor) -> Tensor:
        """(B, L) labels as what the decoder is fed to learn them: the start token, then all but the last.

        Labels of -100 become the pad token. ``labels != -100`` is the mask, if parts are to know of padding on the
        right; the logits do not depend on it.
        """
        if labels.dim() != 2:
            raise UnsupportedInputError(f"labels are (B, L), a row for each target; got {describe(labels)}.")
        shifted = F.pad(labels[:, :-1], (1, 0), value=self.config.decoder_start_token_id)
        return shifted.masked_fill(shifted == IGNORE, self.config.pad_token_id)

    @entry
    def loss(
        self,
        input_ids: Tensor | None,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        *,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        state: State | None = None,
        step_count: Tensor | int | None = None,
        **options: Any,
    ) -> StepLoss:
        """How badly the labels were predicted, in chunks: the logits of all target tokens never exist at once.

        labels: (B, L), the target itself, its end token included; IGNORE (-100) counts for nothing.
        decoder_input_ids: what the decoder is fed at their places, unless it is :meth:`decoder_inputs` of them.
        step_count: see :meth:`StepLoss.of`; all else as forward takes it. Raises UnsupportedInputError for labels that
        do not fit, and as :meth:`forward`.
        """
        if decoder_input_ids is None:
            decoder_input_ids = self.decoder_inputs(labels)
        state, report = self._begun(input_ids, decoder_input_ids, attention_mask, state, options)
        found = self.decoder.loss(decoder_input_ids, labels, decoder_attention_mask, state=state)
        report += found.under("decoder")
        return StepLoss.of(found.nats, found.count, report.losses, report.metrics, step_count, found.logits) + report

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        """Sources → targets (B, new): what follows the start token, up to the end token, then padding.

        See :func:`spectral_models.generation.generate` for the options; what else the encoder takes may be among them.
        """
        of_source = {name: options.pop(name) for name in self.encoder.options() if name in options}
        state = self.prepare(input_ids, attention_mask, **of_source)
        start = torch.full_like(state.position[:, None], self.config.decoder_start_token_id)
        options = {"stop_tokens": (self.config.eos_token_id,), "pad_token_id": self.config.pad_token_id, **options}
        return generate(self.decoder, start, state=state, **options)[:, 1:]

    def input_specs(self) -> tuple[InputSpec, ...]:
        source = self.encoder.input_specs()
        target = replace(self.decoder.input_specs()[0], name="decoder_input_ids")
        return (*source, target) if source else ()

    def outputs(self) -> tuple[str, ...]:
        return ("logits",)


class Seq2SeqConfig(SourceDecoderConfig):
    """One sequence to another. The encoder has a config of its own; all else describes the decoder."""

    earlier_options: ClassVar[Mapping[str, Renamed]] = {
        "start_token_id": Renamed("decoder_start_token_id"),
        "end_token_id": Renamed("eos_token_id"),
    }
    reads_source: ClassVar[bool] = True

    type: Literal["seq2seq"] = "seq2seq"
    fft: Annotated[FFTBackendConfig, OneOf(FFT_BACKENDS)] | None = None
    """FFT backend of every spectral operator, the encoder's too. Null leaves the encoder its own, and is ``auto`` for
    the decoder. A named backend never falls back to another."""
    encoder: AnyEncoder = part("encoder")
    """What reads the source, in both directions. Its width may be another than the decoder's."""
    decoder_start_token_id: _TokenId = 0
    """What a target begins with; not part of what is generated."""
    eos_token_id: _TokenId = 0
    """What ends a target."""
    pad_token_id: _TokenId = 0
    """What stands behind the end of a target in a batch. Tokens of any meaning may stand there: masks tell."""

    @model_validator(mode="after")
    def _fusion_and_tokens_fit(self) -> Seq2SeqConfig:
        if "causal" not in self.fusion.directions:
            fitting = [name for name, config in FUSIONS.configs().items() if "causal" in config.directions]
            raise problem(
                ("fusion",),
                f"{self.fusion.type!r} lets every token of the target see all of it, and a decoder may not see the "
                f"future. Causal fusions: {', '.join(fitting)}.",
            )
        for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
            if getattr(self, name) >= self.vocab_size:
                raise problem(
                    (name,),
                    f"a token is below vocab_size, {self.vocab_size}; got {getattr(self, name)}.",
                )
        return self

    def reader(self) -> Reader | None:
        return self.encoder.reader()

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("seq2seq_lm",)

    def with_data(self, *, eos_token_id: int | None = None, **inputs: Any) -> Seq2SeqConfig:
        """The start and the pad token change with the end token where they are the same."""
        tokens = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
        same = [name for name in tokens if getattr(self, name) == self.eos_token_id and eos_token_id is not None]
        return self.model_copy(
            update={"encoder": self.encoder.with_data(**inputs), **dict.fromkeys(same, eos_token_id)}
        )

    def build(self) -> Seq2Seq:
        return Seq2Seq(self)
