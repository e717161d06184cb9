"""Our own layer parts, registered through the hook third parties use."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookimpl

_PARTS = (
    ("mixer", "gated_convolution", "mixers.gated_convolution:GatedConvolutionConfig",
     "Gates around a long convolution: causal in decoders, two-sided in encoders."),
    ("mixer", "multiscale", "mixers.multiscale:MultiscaleConfig",
     "Long convolutions of block sums at several resolutions, fused per token and channel."),
    ("mixer", "holographic", "mixers.holographic:HolographicConfig",
     "Gated delta rule, or linear attention, on keys of unit-modulus phases; O(1) state."),
    ("mixer", "spectral_gating", "mixers.spectral_gating:SpectralGatingConfig",
     "Gates on the spectrum: of the past window (causal) or of the row (bidirectional)."),
    ("mixer", "spectral_product", "mixers.spectral_product:SpectralProductConfig",
     "Convolves two streams of the input with each other: a data-dependent causal kernel."),
    ("mixer", "fourier", "mixers.fourier:FourierConfig",
     "Parameter-free 2-D DFT over time and channels; encoders only."),
    ("filter", "resonant", "filters.resonant:ResonantConfig",
     "Damped complex modes: FFT in training, O(1) recurrence in decoding."),
    ("filter", "spectrum", "filters.spectrum:SpectrumConfig",
     "Magnitude and phase on a frequency grid, projected to causal support."),
    ("filter", "implicit", "filters.implicit:ImplicitConfig", "A sine network of t, decayed."),
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
     "A learned set of frequencies, the same for every input, of a fixed share of the bins."),
    ("sparsity", "adaptive", "sparsity.adaptive:AdaptiveConfig",
     "The bins that matter most in each input by a learned score, of a fixed share of the bins."),
    ("sparsity", "energy", "sparsity.energy:EnergyConfig",
     "The smallest set of bins that holds a share of the energy."),
    ("fusion", "cross_modal", "fusion.cross_modal:CrossModalConfig",
     "Any of several named modalities, fused on one of them by bands of frequencies."),
    ("fusion", "source_product", "fusion.source_product:SourceProductConfig",
     "Reads a whole source by place and content from its spectrum; strictly causal in the target."),
    ("feedforward", "mlp", "feedforward.mlp:MLPConfig", "Two linear layers with GELU."),
    ("feedforward", "swiglu", "feedforward.swiglu:SwiGLUConfig", "Gated linear unit with SiLU."),
    ("feedforward", "moe", "feedforward.moe:MoEConfig",
     "Experts chosen per token, with load-balancing and router-z losses."),
    ("position", "none", "positions.none:NoPositionConfig", "Features are left as they are."),
    ("position", "rope", "positions.rope:RopeConfig",
     "Turns the channel pairs of every mixer's input in proportion to the position."),
    ("position", "learned", "positions.learned:LearnedConfig", "A free vector for each of max_seq_len positions."),
    ("position", "sinusoidal", "positions.sinusoidal:SinusoidalConfig",
     "Sines and cosines of the place, in one or two dimensions."),
    ("frontend", "tokens", "frontends.tokens:TokensConfig",
     "Embeds token ids, factorised where it is narrower than the model."),
    ("frontend", "patches", "frontends.patches:PatchesConfig", "Cuts images into square patches, on a grid."),
    ("frontend", "mel", "frontends.mel:MelConfig", "Mel spectrogram of audio, one token a frame or band."),
)  # fmt: skip

_TARGETS = (target.partition(":") for _, _, target, _ in _PARTS)
CLASSES = {config.removesuffix("Config"): f"spectral_layers.{module}" for module, _, config in _TARGETS}
"""The classes of parts, as their configs are called, and the modules that hold them."""


@hookimpl
def spectral_register_layers(register: Registrar) -> None:
    for kind, name, target, summary in _PARTS:
        register(kind, name, f"spectral_layers.{target}", summary=summary)
