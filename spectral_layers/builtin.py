"""The built-in layer parts, registered through the same hook as those of plugins."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookimpl

_FOLDERS = {"mixer": "mixers", "filter": "filters", "gate": "gates", "sparsity": "sparsity", "fusion": "fusion",
            "feedforward": "feedforward", "position": "positions", "frontend": "frontends"}  # fmt: skip
_PARTS = (
    ("mixer", "gated_convolution", "GatedConvolution",
     "Gates around a long convolution: causal in decoders, two-sided in encoders."),
    ("mixer", "multiscale", "Multiscale",
     "Long convolutions of block sums at several resolutions, fused per token and channel."),
    ("mixer", "holographic", "Holographic",
     "Gated delta rule, or linear attention, with unit-modulus (phase) keys; O(1) state."),
    ("mixer", "spectral_gating", "SpectralGating",
     "Gates on the spectrum of a window of past tokens (causal) or of the row (bidirectional)."),
    ("mixer", "spectral_product", "SpectralProduct",
     "Convolves two streams of the input with each other: a data-dependent causal kernel."),
    ("mixer", "fourier", "Fourier", "Parameter-free 2-D DFT over time and channels; encoders only."),
    ("filter", "resonant", "Resonant", "Damped complex modes: FFT in training, O(1) recurrence in decoding."),
    ("filter", "spectrum", "Spectrum", "Magnitude and phase on a frequency grid, projected to causal support."),
    ("filter", "implicit", "Implicit", "A sine network of the lag, times a decay."),
    ("filter", "multiresolution", "Multiresolution", "A few taps per octave of lag."),
    ("filter", "partitioned", "Partitioned",
     "A spectrum per chunk of lags, with a decay over chunks for each frequency."),
    ("filter", "hankel", "Hankel", "Fixed eigenvectors of a Hankel matrix, mixed per channel."),
    ("gate", "magnitude", "Magnitude", "Gain of each bin from its own relative magnitude."),
    ("gate", "band", "Band", "Gain of each band from the energies of all bands, per head."),
    ("gate", "phase", "Phase", "Phase shift of each band, per head."),
    ("gate", "advanced", "Advanced",
     "Multiband gains and phases, coarse to fine, with thresholds, cross-head fusion, dropout and entropy."),
    ("sparsity", "fixed", "Fixed", "A learned set of frequencies, the same for every input; their share is fixed."),
    ("sparsity", "adaptive", "Adaptive", "The bins of highest learned score in each input; their share is fixed."),
    ("sparsity", "energy", "Energy", "The smallest set of bins that holds a share of the energy."),
    ("fusion", "cross_modal", "CrossModal",
     "Fuses any of several named modalities on one of them, per frequency band."),
    ("fusion", "source_product", "SourceProduct",
     "Reads a whole source by position and content from its spectrum; strictly causal in the target."),
    ("feedforward", "mlp", "MLP", "Two linear layers with GELU."),
    ("feedforward", "swiglu", "SwiGLU", "Gated linear unit with SiLU."),
    ("feedforward", "moe", "MoE", "Experts chosen per token, with load-balancing and router-z losses."),
    ("position", "none", "NoPosition", "No positions: features pass unchanged."),
    ("position", "rope", "Rope",
     "Rotates channel pairs of every mixer's input by angles proportional to the position."),
    ("position", "learned", "Learned", "A parameter vector for each of max_seq_len positions."),
    ("position", "sinusoidal", "Sinusoidal", "Sines and cosines of the position, in one or two dimensions."),
    ("frontend", "tokens", "Tokens", "Embeds token ids, with a factorised embedding if embed_dim is below hidden_dim."),
    ("frontend", "patches", "Patches", "Images in square patches, one token each, on a grid."),
    ("frontend", "mel", "Mel", "Mel spectrogram of audio, one token per frame or per band."),
)  # fmt: skip
"""Kind, name, class and summary of each part; the module is named as the part, the config as the class."""

CLASSES = {part: f"spectral_layers.{_FOLDERS[kind]}.{name}" for kind, name, part, _ in _PARTS}
"""Module of each part's class."""


@hookimpl
def spectral_register_layers(register: Registrar) -> None:
    for kind, name, part, summary in _PARTS:
        register(kind, name, f"{CLASSES[part]}:{part}Config", summary=summary)
