"""Our own layer parts, registered through the hook third parties use."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookimpl

_PARTS = (
    ("mixer", "gated_convolution", "mixing.gated_convolution:GatedConvolutionConfig",
     "Gates around a long causal convolution: the default for language models."),
    ("mixer", "holographic", "mixing.holographic:HolographicConfig",
     "Associative memory of phase-coded keys bound to values; O(1) state."),
    ("mixer", "spectral_gating", "mixing.spectral_gating:SpectralGatingConfig",
     "Gates on the spectrum: of the past window (causal) or of the row (bidirectional)."),
    ("mixer", "spectral_product", "mixing.spectral_product:SpectralProductConfig",
     "Convolves two streams of the input with each other: a data-dependent causal kernel."),
    ("mixer", "fourier", "mixing.fourier:FourierConfig",
     "Parameter-free 2-D DFT over time and channels; encoders only."),
    ("filter", "resonant", "filters.resonant:ResonantConfig",
     "Damped complex modes: FFT in training, O(1) recurrence in decoding."),
    ("filter", "spectrum", "filters.spectrum:SpectrumConfig",
     "Magnitude and phase on a frequency grid, projected to causal support."),
    ("filter", "implicit", "filters.implicit:ImplicitConfig", "A sine network of t, decayed."),
    ("gate", "magnitude", "gating.magnitude:MagnitudeConfig", "Gain of each bin from its own relative magnitude."),
    ("gate", "band", "gating.band:BandConfig", "Gain of each band from the energies of all bands, per head."),
    ("fusion", "cross_modal", "fusion.cross_modal:CrossModalConfig",
     "Any of several named modalities, fused on one of them by bands of frequencies."),
    ("fusion", "source_product", "fusion.source_product:SourceProductConfig",
     "Reads a whole source by place and content from its spectrum; strictly causal in the target."),
    ("feedforward", "mlp", "feedforward.mlp:MLPConfig", "Two linear layers with GELU."),
    ("feedforward", "swiglu", "feedforward.swiglu:SwiGLUConfig", "Gated linear unit with SiLU."),
    ("feedforward", "moe", "feedforward.moe:MoEConfig", "Experts chosen per token, with a load-balancing loss."),
)  # fmt: skip


@hookimpl
def spectral_register_layers(register: Registrar) -> None:
    for kind, name, target, summary in _PARTS:
        register(kind, name, f"spectral_layers.{target}", summary=summary)
