"""The sequence-to-sequence model: logits of a target's next tokens from a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import FFT_BACKENDS, FFTBackendConfig, StateError, UnsupportedInputError
from spectral_core.axes import describe
from spectral_core.config import OneOf, part, problem
from spectral_core.renamed import Renamed
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
from spectral_models.variants.language_model import LanguageModelOutput

_TokenId = Annotated[int, Field(ge=0, le=1 << 32)]
_TOKENS = ("decoder_start_token_id", "eos_token_id", "pad_token_id")


class Seq2Seq(SpectralModel):
    """An encoder of the source, and a strictly causal decoder with a fusion of the encoded source in each block.

    The source is encoded once: the decoder's initial state holds all that its fusions read of it.
    """

    config: Seq2SeqConfig
    streams: ClassVar[bool] = True

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__(config)
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
    ) -> LanguageModelOutput:
        """Logits at every target token, each from the whole source and from its own and earlier target tokens only.

        input_ids: the source, (B, S) integers or another input of the encoder; None with a state, which contains it.
        decoder_input_ids: the target, (B, L) integers below vocab_size, beginning with the start token. Both masks are
        nonzero at real tokens, with padding on either side; logits at padding are arbitrary. state: the tokens continue
        its targets. A full pass, any chunks and single tokens give the same logits. options: other arguments of the
        encoder, such as the ``sample_rate`` of audio. Raises UnsupportedInputError for inputs that do not fit,
        StateError for a state that does not.
        """
        state, report = self._encoded(input_ids, decoder_input_ids, attention_mask, state, options)
        output = self.decoder(decoder_input_ids, decoder_attention_mask, state=state, return_state=return_state)
        return LanguageModelOutput(output.logits, output.state) + report + output.under("decoder")

    def _encoded(
        self, source: Tensor | None, target: Tensor, mask: Tensor | None, state: State | None, options: dict[str, Any]
    ) -> tuple[State, Report]:
        """The state for the targets to continue, and the encoder's losses and metrics."""
        if state is not None:
            if source is not None or mask is not None or options:
                raise StateError(
                    "a state contains its source: with a state give input_ids None, and nothing else of a source."
                )
            return state, Report()
        if source is None:
            raise UnsupportedInputError(
                "a target needs a source: give input_ids, or a state from prepare(input_ids) or from an earlier call "
                "with return_state."
            )
        if source.shape[:1] != target.shape[:1]:
            raise UnsupportedInputError(
                f"each target has its source; got input_ids {describe(source)}, decoder_input_ids {describe(target)}."
            )
        self.encoder.refuse_unknown(options)
        encoded = self.encoder(source, mask, **options)
        return self.read(encoded), encoded.under("encoder")

    @entry
    def prepare(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> State:
        """The state before the first target token, which contains the encoded source."""
        self.encoder.refuse_unknown(options)
        return self.read(self.encoder(input_ids, attention_mask, **options))

    @entry
    def read(self, encoded: EncoderOutput) -> State:
        """As :meth:`prepare`, from the encoder's output."""
        x = encoded.hidden if self.bridge is None else self.bridge(encoded.hidden)
        return self.decoder.prepare(Stream.of(x, encoded.mask))

    def decoder_inputs(self, labels: Tensor) -> Tensor:
        """The decoder's inputs for labels (B, L): the start token, then all labels but the last.

        Labels of -100 become the pad token. ``labels != -100`` may be given as their mask; logits at real tokens do not
        depend on it.
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
        """Cross-entropy of the labels, in chunks: the logits of all target tokens are never in memory at once.

        labels: (B, L), the target with its end token; IGNORE (-100) is left out. decoder_input_ids: by default
        :meth:`decoder_inputs` of the labels. step_count: see :meth:`StepLoss.of`. Other arguments are those of
        :meth:`forward`. Raises UnsupportedInputError for labels that do not fit, and as :meth:`forward` does.
        """
        if decoder_input_ids is None:
            decoder_input_ids = self.decoder_inputs(labels)
        state, report = self._encoded(input_ids, decoder_input_ids, attention_mask, state, options)
        found = self.decoder.loss(decoder_input_ids, labels, decoder_attention_mask, state=state)
        report += found.under("decoder")
        return StepLoss.of(found.nats, found.count, report.losses, report.metrics, step_count, found.logits) + report

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        """Sources → targets (B, new), without the start token, with pad tokens after the end token.

        options: of :func:`spectral_models.generation.generate`, and other arguments of the encoder.
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
    """A target sequence from a source. Options other than ``encoder`` describe the decoder."""

    earlier_options: ClassVar[Mapping[str, Renamed]] = {
        "start_token_id": Renamed("decoder_start_token_id"),
        "end_token_id": Renamed("eos_token_id"),
    }
    reads_source: ClassVar[bool] = True
    tasks: ClassVar[tuple[str, ...]] = ("seq2seq_lm",)

    type: Literal["seq2seq"] = "seq2seq"
    fft: Annotated[FFTBackendConfig, OneOf(FFT_BACKENDS)] | None = None
    """FFT backend of every spectral operator, the encoder's too. Null keeps the encoder's own, and means ``auto`` for
    the decoder. A named backend never falls back to another."""
    encoder: AnyEncoder = part("encoder")
    """The encoder of the source. Its width may differ from the decoder's."""
    decoder_start_token_id: _TokenId = 0
    """First token of every decoder input; not part of generated targets."""
    eos_token_id: _TokenId = 0
    """Last token of a target."""
    pad_token_id: _TokenId = 0
    """Token after the end of a target in a batch. Any token will do, since masks and labels mark padding."""

    @model_validator(mode="after")
    def _fusion_and_tokens_fit(self) -> Seq2SeqConfig:
        if "causal" not in self.fusion.directions:
            fitting = [name for name, config in FUSIONS.configs().items() if "causal" in config.directions]
            raise problem(
                ("fusion",),
                f"{self.fusion.type!r} lets every token of the target depend on later ones, and a decoder is causal. "
                f"Causal fusions: {', '.join(fitting)}.",
            )
        for name in _TOKENS:
            if getattr(self, name) >= self.vocab_size:
                raise problem((name,), f"a token is below vocab_size, {self.vocab_size}; got {getattr(self, name)}.")
        return self

    def reader(self) -> Reader | None:
        return self.encoder.reader()

    def with_data(self, *, eos_token_id: int | None = None, **inputs: Any) -> Seq2SeqConfig:
        """The start and the pad token change with the end token if they are equal to it."""
        same = [name for name in _TOKENS if getattr(self, name) == self.eos_token_id and eos_token_id is not None]
        return self.model_copy(
            update={"encoder": self.encoder.with_data(**inputs), **dict.fromkeys(same, eos_token_id)}
        )

    def build(self) -> Seq2Seq:
        return Seq2Seq(self)
