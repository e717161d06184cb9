"""The audio encoder: embeddings of the frequency bands of frames, and of recordings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import model_validator
from torch import Tensor

from spectral_core import UnsupportedInputError
from spectral_core.config import OneOf, problem
from spectral_layers import FRONTENDS, FrontEndConfig
from spectral_layers.frontends.base import Modality
from spectral_layers.frontends.mel import MelConfig
from spectral_layers.rows import aligned
from spectral_models.data.readers import AudioReader
from spectral_models.inputs import AudioInput
from spectral_models.variants.encoding import EncoderOutput
from spectral_models.variants.plane_encoder import PlaneEncoder, PlaneEncoderConfig


class AudioEncoder(PlaneEncoder):
    """Mel bands and their positions, blocks, norm, pooling.

    The plane has frames as rows and bands as columns. Separable mixing alternates between time, within each band, and
    frequency, within each frame; there a spectral mixer works on the spectrum of a log spectrum, the cepstrum. As a
    sequence, the plane is read frame by frame.
    """

    config: AudioEncoderConfig
    first_down: ClassVar[bool] = True

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, *, sample_rate: float | None = None
    ) -> EncoderOutput:
        """input_values: (B, T) samples, about -1 to 1. attention_mask: (B, T), nonzero at real samples.

        Padding may be on either side and does not affect the output. Real tokens of ``hidden`` begin at index 0 in
        every row. sample_rate: of the audio, if known. Raises UnsupportedInputError for a rate other than the model's,
        another kind of input and empty rows.
        """
        expected = self.config.reader().sample_rate
        if sample_rate is not None and expected is not None and sample_rate != expected:
            raise UnsupportedInputError(
                f"this model reads {expected:g} samples a second; the audio has {sample_rate:g}. Resample it, or build "
                "the model with that frontend.sample_rate."
            )
        if attention_mask is None:
            return self.encode(input_values)
        input_values, alignment = aligned(input_values, attention_mask, name="input_values")
        return self.encode(input_values, alignment.rows.lengths)

    def input_specs(self) -> tuple[AudioInput, ...]:
        rate = self.config.reader().sample_rate
        return (AudioInput("input_values", small=self.small_input(), masked=True, sample_rate=rate),)


class AudioEncoderConfig(PlaneEncoderConfig):
    """Audio to embeddings of frames' bands and of recordings, mixed along time and along frequency."""

    modality: ClassVar[Modality] = "audio"

    type: Literal["audio_encoder"] = "audio_encoder"
    frontend: Annotated[FrontEndConfig, OneOf(FRONTENDS)] = MelConfig(bands=8)
    """Maps audio to features."""
    mixing: Literal["sequence", "separable"] = "separable"
    """Mix alternately along time and along frequency, or frames and bands as one sequence."""

    @model_validator(mode="after")
    def _has_bands(self) -> AudioEncoderConfig:
        if self.mixing == "separable" and isinstance(self.frontend, MelConfig) and self.frontend.bands == 1:
            raise problem(
                ("frontend", "bands"),
                "with one band there is no frequency to mix along. Give several, or use mixing: sequence.",
            )
        return self

    def reader(self) -> AudioReader:
        """Reads WAV files at the front end's ``sample_rate``; at any rate if it has none."""
        return AudioReader(getattr(self.frontend, "sample_rate", None))

    def build(self) -> AudioEncoder:
        return AudioEncoder(self)
