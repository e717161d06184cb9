"""The built-in layer parts, registered through the same hook as those of plugins."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookimpl

_PARTS = (
    ("mixer", "gated_convolution", "mixers.gated_convolution:GatedConvolutionConfig",
     "Gates around a long convolution: causal in decoders, two-sided in encoders."),
    ("mixer", "multiscale", "mixers.multiscale:MultiscaleConfig",
     "Long convolutions of block sums at several resolutions, fused per token and channel."),
    ("mixer", "holographic", "mixers.holographic:HolographicConfig",
     "Gated delta rule, or linear attention, with unit-modulus (phase) keys; O(1) state."),
    ("mixer", "spectral_gating", "mixers.spectral_gating:SpectralGatingConfig",
     "Gates on the spectrum of a window of past tokens (causal) or of the row (bidirectional)."),
    ("mixer", "spectral_product", "mixers.spectral_product:SpectralProductConfig",
     "Convolves two streams of the input with each other: a data-dependent causal kernel."),
    ("mixer", "fourier", "mixers.fourier:FourierConfig",
     "Parameter-free 2-D DFT over time and channels; encoders only."),
    ("filter", "resonant", "filters.resonant:ResonantConfig",
     "Damped complex modes: FFT in training, O(1) recurrence in decoding."),
    ("filter", "spectrum", "filters.spectrum:SpectrumConfig",
     "Magnitude and phase on a frequency grid, projected to causal support."),
    ("filter", "implicit", "filters.implicit:ImplicitConfig", "A sine network of the lag, times a decay."),
    ("filter", "multiresolution", "filters.multiresolution:MultiresolutionConfig",
     "A few taps per octave of lag."),
    ("filter", "partitioned", "filters.partitioned:PartitionedConfig",
     "A spectrum per chunk of lags, with a decay over chunks for each frequency."),
    ("filter", "hankel", "filters.hankel:HankelConfig", "Fixed eigenvectors of a Hankel matrix, mixed per channel."),
    ("gate", "magnitude", "gates.magnitude:MagnitudeConfig", "Gain of each bin from its own relative magnitude."),
    ("gate", "band", "gates.band:BandConfig", "Gain of each band from the energies of all bands, per head."),
    ("gate", "phase", "gates.phase:PhaseConfig", "Phase shift of each band, per head."),
    ("gate", "advanced", "gates.advanced:AdvancedConfig",
     "Multiband gains and phases, coarse to fine, with thresholds, cross-head fusion, dropout and entropy."),
    ("sparsity", "fixed", "sparsity.fixed:FixedConfig",
     "A learned set of frequencies, the same for every input; their share is fixed."),
    ("sparsity", "adaptive", "sparsity.adaptive:AdaptiveConfig",
     "The bins of highest learned score in each input; their share is fixed."),
    ("sparsity", "energy", "sparsity.energy:EnergyConfig",
     "The smallest set of bins that holds a share of the energy."),
    ("fusion", "cross_modal", "fusion.cross_modal:CrossModalConfig",
     "Fuses any of several named modalities on one of them, per frequency band."),
    ("fusion", "source_product", "fusion.source_product:SourceProductConfig",
     "Reads a whole source by position and content from its spectrum; strictly causal in the target."),
    ("feedforward", "mlp", "feedforward.mlp:MLPConfig", "Two linear layers with GELU."),
    ("feedforward", "swiglu", "feedforward.swiglu:SwiGLUConfig", "Gated linear unit with SiLU."),
    ("feedforward", "moe", "feedforward.moe:MoEConfig",
     "Experts chosen per token, with load-balancing and router-z losses."),
    ("position", "none", "positions.none:NoPositionConfig", "No positions: features pass unchanged."),
    ("position", "rope", "positions.rope:RopeConfig",
     "Rotates channel pairs of every mixer's input by angles proportional to the position."),
    ("position", "learned", "positions.learned:LearnedConfig", "A parameter vector for each of max_seq_len positions."),
    ("position", "sinusoidal", "positions.sinusoidal:SinusoidalConfig",
     "Sines and cosines of the position, in one or two dimensions."),
    ("frontend", "tokens", "frontends.tokens:TokensConfig",
     "Embeds token ids, with a factorised embedding if embed_dim is below hidden_dim."),
    ("frontend", "patches", "frontends.patches:PatchesConfig", "Images in square patches, one token each, on a grid."),
    ("frontend", "mel", "frontends.mel:MelConfig", "Mel spectrogram of audio, one token per frame or per band."),
)  # fmt: skip

_TARGETS = (target.partition(":") for _, _, target, _ in _PARTS)
CLASSES = {config.removesuffix("Config"): f"spectral_layers.{module}" for module, _, config in _TARGETS}
"""Module of each part's class; the class is named as its config, without the suffix."""


@hookimpl
def spectral_register_layers(register: Registrar) -> None:
    for kind, name, target, summary in _PARTS:
        register(kind, name, f"spectral_layers.{target}", summary=summary)
