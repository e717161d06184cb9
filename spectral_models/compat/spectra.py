"""The original's transforms, gates and selectors, on the spectra of features (B, L, D).

All see the whole of what they are given, so they belong in encoders. In a decoder their mixer keeps them causal:
``spectral_gating``, with gates ``advanced`` and sparsity ``adaptive``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectral_core import FFTBackend, Spectrum, UnsupportedInputError, fft_backend
from spectral_core.axes import describe
from spectral_layers import GateContext, Modulation, SpectralView
from spectral_layers.gating.advanced import AdvancedConfig
from spectral_layers.sparsity.adaptive import AdaptiveConfig


class OptimizedFFT(nn.Module):
    """Orthonormal real transforms along time, (B, L, D) to F = L // 2 + 1 bins and back, by ``fft: auto``.

    ``inverse(forward(x), L)`` is x, and energies are equal (Parseval), in any length and by every backend. Without
    parameters. dim: if given, what D must be. use_hierarchical: False takes plain torch.fft.
    """

    def __init__(
        self,
        dim: int | None = None,
        max_seq_len: int | None = None,
        chunk_size: int = 8192,
        use_hierarchical: bool = True,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.max_seq_len = max_seq_len
        self.chunk_size = chunk_size if max_seq_len is None else min(chunk_size, max_seq_len)
        self.fft: FFTBackend = fft_backend("auto" if use_hierarchical else "torch")

    def forward(self, x: Tensor) -> Spectrum:
        """x: (B, L, D) real, L >= 1. Returns real and imaginary parts, (B, F, D) each, in float32 at least."""
        if x.dim() != 3 or x.is_complex() or x.shape[1] < 1 or self.dim not in (None, x.shape[2]):
            wanted = "D" if self.dim is None else f"D = {self.dim}"
            raise UnsupportedInputError(f"{type(self).__name__} transforms real (B, L, {wanted}); got {describe(x)}.")
        if self.max_seq_len is not None and x.shape[1] > self.max_seq_len:
            raise UnsupportedInputError(
                f"{type(self).__name__} was built for max_seq_len = {self.max_seq_len}; got {x.shape[1]} tokens."
            )
        return Spectrum(
            *(part.transpose(1, 2) * x.shape[1] ** -0.5 for part in self.fft.rfft(x.transpose(1, 2), x.shape[1]))
        )

    def inverse(self, spectrum: Spectrum, length: int) -> Tensor:
        """Back to (B, length, D); a spectrum by itself does not say whether the length was odd."""
        if spectrum.real.shape[1] != length // 2 + 1:
            raise UnsupportedInputError(
                f"{spectrum.real.shape[1]} bins are no spectrum of {length} samples, which has {length // 2 + 1}."
            )
        scaled = Spectrum(*(part.transpose(1, 2) * length**0.5 for part in spectrum))
        return self.fft.irfft(scaled, length).transpose(1, 2)


class HierarchicalFFT(OptimizedFFT):
    """The same by ``fft: hierarchical`` with that chunk size.

    The original cut its input into windowed chunks that could not be put together again. Here chunks are how the
    backend works through long convolutions, ``convolve(u, kernel, backend=transform.fft)``, no number
    depends on them.
    """

    def __init__(self, dim: int | None = None, max_seq_len: int | None = None, chunk_size: int = 8192) -> None:
        super().__init__(dim, max_seq_len, chunk_size)
        self.fft = fft_backend("hierarchical", chunk_size=self.chunk_size)


class _OnSpectra(nn.Module):
    """What scales and turns bins, in heads, of spectra as :class:`OptimizedFFT` makes them."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise UnsupportedInputError(f"num_heads = {num_heads} does not divide dim = {dim}.")
        self.dim = dim
        self.context = GateContext(num_heads, dim // num_heads)

    def modulation(self, view: SpectralView) -> Modulation:
        raise NotImplementedError

    def forward(self, spectrum: Spectrum | Tensor) -> Spectrum:
        """Real and imaginary parts, (B, F, dim) each, to such; bins are evenly spaced from 0 to 0.5 cycles a token."""
        name = type(self).__name__
        if isinstance(spectrum, Tensor):
            raise UnsupportedInputError(
                f"{name} takes real and imaginary parts, Spectrum(z.real, z.imag), as HierarchicalFFT gives; got "
                f"{describe(spectrum)}."
            )
        real, imag = spectrum
        if real.dim() != 3 or real.shape[2] != self.dim or real.shape != imag.shape:
            raise UnsupportedInputError(
                f"{name} takes parts (B, F, {self.dim}); got {describe(real)} and {describe(imag)}."
            )
        frequency = torch.linspace(0, 0.5, real.shape[1], dtype=real.dtype, device=real.device)
        view = SpectralView(self._in_heads(real), self._in_heads(imag), frequency)
        done = self.modulation(view).applied(view)
        return Spectrum(*(part.flatten(1, 2).transpose(1, 2) for part in (done.real, done.imag)))

    def _in_heads(self, part: Tensor) -> Tensor:
        """(B, F, dim) -> (B, H, C, F)."""
        return part.transpose(1, 2).unflatten(1, (self.context.heads, -1))


class AdvancedSpectralGating(_OnSpectra):
    """Our gate ``advanced``: gains and phases by bands of three resolutions, the coarsest of num_freq_bands.

    dropout: share of bands dropped in training. It starts near the identity.
    """

    def __init__(self, dim: int, num_heads: int = 8, num_freq_bands: int = 4, dropout: float = 0.1) -> None:
        super().__init__(dim, num_heads)
        resolutions = (num_freq_bands, 2 * num_freq_bands, 4 * num_freq_bands)
        config: AdvancedConfig = AdvancedConfig.parse({"resolutions": resolutions, "dropout": dropout})
        self.gate = config.build(self.context)

    def modulation(self, view: SpectralView) -> Modulation:
        found: Modulation = self.gate(view)
        return found


class AdaptiveFrequencySelector(_OnSpectra):
    """Our sparsity ``adaptive``: the bins that score highest stay, a share of base_sparsity; the others are 0.

    Scores are learned on num_freq_bands bands; in training bins are drawn by them. O(F log F) for each head.
    """

    def __init__(self, dim: int, base_sparsity: float = 0.15, num_heads: int = 8, num_freq_bands: int = 4) -> None:
        super().__init__(dim, num_heads)
        config: AdaptiveConfig = AdaptiveConfig.parse({"share": base_sparsity, "bands": num_freq_bands})
        self.selector = config.build(self.context)

    def modulation(self, view: SpectralView) -> Modulation:
        found: Modulation = self.selector(view)
        return found
