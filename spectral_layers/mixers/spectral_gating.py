"""Gates and a sparsity on a spectrum: of the whole row in an encoder, of a window of past tokens in a decoder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import convolve, modulate
from spectral_core.config import Length, OneOf, Width, part
from spectral_kernels.tracing import varies
from spectral_layers.context import GateContext, LayerContext
from spectral_layers.gates.base import GateConfig, Modulation, SpectralView
from spectral_layers.initialisation import init_input_projections, init_output_projections
from spectral_layers.minimum_phase import attainable, minimum_phase
from spectral_layers.mixers.base import Direction, Mixer, MixerConfig, MixerOutput
from spectral_layers.mixers.response import Response, gain_of, over_channels, realised
from spectral_layers.registries import GATES, SPARSITIES
from spectral_layers.rows import Rows, append, span
from spectral_layers.segments import joined, segment_tokens
from spectral_layers.sparsity.base import SparsityConfig
from spectral_layers.state import State


class SpectralGatingConfig(MixerConfig):
    """Gates on the spectrum of a window of past tokens (causal) or of the row (bidirectional)."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "bidirectional"})

    type: Literal["spectral_gating"] = "spectral_gating"
    gates: tuple[Annotated[GateConfig, OneOf(GATES)], ...] = Field(
        default=(part("magnitude"),), min_length=1, max_length=16
    )
    """Gates, applied one after the other: gains multiply, phases add."""
    sparsity: Annotated[SparsityConfig, OneOf(SPARSITIES)] | None = None
    """Selects the bins that pass, from the spectrum after the gates; null passes all."""
    head_dim: Width = 32
    """Channels per head."""
    block: Length = 32
    """Causal: tokens per block; gates are evaluated once per block."""
    window: Length = 64
    """Causal: tokens before the block that gates see, and taps of the kernel; with a sparsity the kernel has twice as
    many taps. Even, at least ``block``."""

    @model_validator(mode="after")
    def _fits(self) -> SpectralGatingConfig:
        if self.window % 2 or self.window < self.block:
            raise ValueError(f"window must be even and at least block = {self.block}; got {self.window}")
        return self


class SpectralGating(Mixer[SpectralGatingConfig]):
    """y = W_o (silu(a) * (gated(v) + skip * v)), with a, v projections of x and gated(v) as follows.

    Bidirectional: gates see the spectrum of each row without its padding, and scale its bins. O(L log L) per channel.

    Causal: for every block of ``block`` tokens gates see the spectrum of the ``window`` tokens strictly before it.
    Their gain becomes a causal minimum-phase kernel of ``window`` taps, which filters the block by overlap-save. So no
    token affects the gate of its own block, whatever the gate computes, and the filter reads present and past tokens.
    The first block has an all-zero view, so that the gates' parameters have gradients for any length. O(L window/block
    log window) per channel. A gate's phase is realised approximately (:func:`minimum_phase`). Decoding: constant time
    and memory; blocks are counted from each row's first token.

    A sparsity sees the spectrum after the gates. In an encoder the bins that it drops are zero. A causal kernel cannot
    be zero on a band, so in a decoder the kernel has twice ``window`` taps and the nearest attainable gain
    (:func:`attainable`, which tabulates the energy out of band); metrics describe the kernel's own response. A mixer
    with a sparsity takes 1.1 times as long in an encoder, 2 times in a decoder (``benchmarks/sparsity.py``).
    """

    def setup(self, config: SpectralGatingConfig, context: LayerContext) -> None:
        super().setup(config, context)
        dim = context.hidden_dim
        self.heads = context.heads(config.head_dim)
        gate_context = GateContext(self.heads, config.head_dim)
        gates = [gate.build(gate_context) for gate in config.gates]
        sparsity = None if config.sparsity is None else config.sparsity.build(gate_context)
        self.block = config.block
        self.window = config.window
        self.taps = config.window if config.sparsity is None else 2 * config.window
        self.in_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        init_input_projections(self.in_proj)
        init_output_projections(self.out_proj)
        self.gates = nn.ModuleList(gates)
        self.sparsity = sparsity
        self.skip = nn.Parameter(torch.ones(dim))

    def mix(self, x: Tensor, rows: Rows | None, state: State | None, return_state: bool) -> MixerOutput:
        post, value = self.in_proj(x).transpose(1, 2).chunk(2, 1)
        next_state = None
        if self.causal:
            y, modulation, inputs, offset = self._causal(value, rows, state)
            if return_state:
                end = (offset + (x.shape[1] if rows is None else rows.lengths)) // self.block * self.block
                recent = span(inputs, end, self.taps + self.block)
                next_state = self.new_state(x, rows, state, {"inputs": recent})
        else:
            y, modulation = self._bidirectional(value, rows)
        y = (y + self.skip[:, None] * value) * F.silu(post)
        return MixerOutput(self.out_proj(y.transpose(1, 2)), next_state) + modulation

    @torch.no_grad()
    def response(self, x: Tensor) -> Response:
        """Requested and realised gains on x (B, L, D) without padding, for inspection; in a decoder per block."""
        _, value = self.in_proj(x).transpose(1, 2).chunk(2, 1)
        blocks = 1
        if self.causal:
            inputs, _, blocks = self._with_past(value, None)
            modulation, view, kernel = self._design(self._segments(inputs, slice(0, blocks)).flatten(0, 1))
        else:
            view = self._view(value)
            modulation = self.modulation(view)
        gain = torch.ones_like(view.real) if modulation.gain is None else modulation.gain.expand_as(view.real)
        wished = over_channels(gain, blocks)
        if not self.causal:
            return Response(view.frequency, wished, view.frequency, wished)
        gain = gain_of(kernel, view.frequency.numel(), self.fft).expand(*view.real.shape[:3], -1)
        frequency = torch.linspace(0, 0.5, gain.shape[-1]).to(view.frequency)
        return Response(view.frequency, wished, frequency, over_channels(gain, blocks))

    def modulation(self, view: SpectralView) -> Modulation:
        """The modulations of all gates and the sparsity for one view, composed."""
        gated, kept, _ = self._modulations(view)
        return gated if kept is None else gated.then(_prefixed(kept, "sparsity"))

    def _modulations(self, view: SpectralView) -> tuple[Modulation, Modulation | None, SpectralView]:
        """The composed modulation of the gates, that of the sparsity, and the sparsity's view.

        Losses and metrics of gates are prefixed by the gate's index, since two gates may be of one type.
        """
        rounded = view.to(self.skip.dtype)
        gated = reduce(Modulation.then, (_prefixed(gate(rounded), f"gates.{i}") for i, gate in enumerate(self.gates)))
        if self.sparsity is None:
            return gated, None, view
        seen = gated.applied(view)
        return gated, self.sparsity(seen), seen

    def _view(self, x: Tensor) -> SpectralView:
        """The orthonormal spectrum of (B, D, n), split into heads, in float32 at least.

        Gates see it in the dtype of their parameters, a sparsity uncast: rounding could change which bins it keeps.
        """
        n, dtype = x.shape[-1], torch.promote_types(self.skip.dtype, torch.float32)
        real, imag = ((part * n**-0.5).unflatten(1, (self.heads, -1)).to(dtype) for part in self.fft.rfft(x, n))
        return SpectralView(real, imag, torch.arange(n // 2 + 1, device=x.device, dtype=dtype) / n)

    def _bidirectional(self, value: Tensor, rows: Rows | None) -> tuple[Tensor, Modulation]:
        if rows is None:
            modulation = self.modulation(self._view(value))
            fields = (modulation.gain, modulation.phase)
            gain, phase = (None if field is None else self._per_channel(field, value.shape[0]) for field in fields)
            return modulate(value, gain, phase, backend=self.fft), modulation
        y = torch.zeros_like(value)
        parts = []
        for length, here in rows.by_length():
            part, modulation = self._bidirectional(value[here, :, :length], None)
            y = y.index_put((here,), F.pad(part, (0, value.shape[-1] - length)).to(y.dtype))
            parts.append((here.numel(), modulation))
        return y, _averaged(parts)

    def _per_channel(self, field: Tensor, batch: int) -> Tensor:
        """A gate's field or a kernel, (..., F), expanded to all channels: (B, D, F)."""
        shape = (batch, self.heads, self.hidden_dim // self.heads, field.shape[-1])
        return field.expand(shape).flatten(1, 2)

    def _causal(
        self, value: Tensor, rows: Rows | None, state: State | None
    ) -> tuple[Tensor, Modulation, Tensor, Tensor]:
        length = value.shape[-1]
        inputs, offset, blocks = self._with_past(value, state)
        real = _real_blocks(rows, offset, blocks, self.block)
        parts: list[tuple[int, Modulation]] = []

        def filtered() -> Iterator[Tensor]:
            tokens = segment_tokens(value)
            # In training all blocks are one group, since a sparsity draws its bins once for all of them.
            groups = [slice(0, blocks)]
            if tokens is not None and not self.training:
                count = max(1, tokens // self.block)
                groups = [slice(start, min(blocks, start + count)) for start in range(0, blocks, count)]
            for here in groups:
                segments = self._segments(inputs, here)
                used = segments.flatten(0, 1)  # blocks as samples: (B * blocks, D, taps + block)
                chosen = None if real is None else real[:, here].flatten().nonzero()[:, 0]
                if chosen is not None:
                    if not chosen.numel():
                        yield value.new_zeros(*value.shape[:2], (here.stop - here.start) * self.block)
                        continue
                    used = used[chosen]
                modulation, _, kernel = self._design(used)
                parts.append((used.shape[0], modulation))
                kernel = self._per_channel(kernel, used.shape[0]).to(used.dtype)
                y = convolve(used, kernel, mode="circular", backend=self.fft)[..., self.taps :]
                if chosen is not None:
                    y = y.new_zeros(segments.shape[:2].numel(), *y.shape[1:]).index_put((chosen,), y)
                yield y.unflatten(0, segments.shape[:2]).transpose(1, 2).flatten(-2)

        y = joined(filtered(), blocks * self.block, dim=2)
        if varies(length):
            y = F.pad(y, (0, 1))  # keeps the slice below a proper one: a full slice would need another graph
        y = y[..., :length] if state is None else span(y, offset, length)
        return y, parts[0][1] if len(parts) == 1 else _averaged(parts), inputs, offset

    def _with_past(self, value: Tensor, state: State | None) -> tuple[Tensor, Tensor, int]:
        """Past and new inputs, the (B,) offset of each row's first new token in its block, and the number of blocks.

        Inputs start ``taps`` tokens before the block of the first new token: (B, D, taps + blocks * block) or shorter.
        """
        batch, _, length = value.shape
        if state is None:
            offset = torch.zeros(batch, dtype=torch.long, device=value.device)
            return F.pad(value, (self.taps, 0)), offset, -(-length // self.block)
        offset = state.position % self.block
        inputs = append(state["inputs"].to(value.dtype), value, self.taps + offset)
        return inputs, offset, -(-(length + self.block - 1) // self.block)

    def _segments(self, inputs: Tensor, here: slice) -> Tensor:
        """The blocks ``here``, each preceded by its ``taps`` past tokens: (B, blocks, D, taps + block)."""
        block, blocks, width = self.block, here.stop - here.start, self.taps + self.block
        more = -(-width // block) - 1  # further blocks that a segment overlaps
        inputs = inputs[..., here.start * block :]
        missing = (blocks + more) * block - inputs.shape[-1]  # padding by a negative width truncates
        grid = F.pad(inputs, (0, missing)).unflatten(-1, (blocks + more, block)).transpose(1, 2)
        pieces = [grid[:, j : j + blocks, :, : width - j * block] for j in range(more + 1)]
        return torch.cat(pieces, -1)

    def _design(self, segments: Tensor) -> tuple[Modulation, SpectralView, Tensor]:
        """For each segment the modulation, the view of its window, and the kernel: (B, H, 1 or C, taps)."""
        view = self._view(segments[..., self.taps - self.window : self.taps])
        gated, kept, seen = self._modulations(view)
        both = gated if kept is None else gated.then(kept)

        def per_bin(field: Tensor) -> Tensor:
            # Under autocast a gate's field may be in half precision; it may also be one value for all bins.
            dtype = torch.promote_types(field.dtype, torch.float32)
            return field.to(dtype).expand(*field.shape[:-1], view.frequency.numel())

        gain = per_bin(view.real.new_ones(1) if both.gain is None else both.gain)
        phase = None if both.phase is None else per_bin(both.phase)
        if kept is None:
            return gated, view, minimum_phase(gain, self.taps, self.fft, phase=phase)
        kernel = minimum_phase(attainable(gain, self.taps, self.fft), self.taps, self.fft, phase=phase)
        return gated.then(_prefixed(realised(kernel, gated, kept, seen, self.fft), "sparsity")), view, kernel


def _real_blocks(rows: Rows | None, offset: Tensor, blocks: int, block: int) -> Tensor | None:
    """(B, blocks) bool: the blocks with real tokens; gates do not run on the others.

    None if all blocks have real tokens, or none has: gates always run, so that their parameters have gradients.
    """
    if rows is None:
        return None
    starts = torch.arange(blocks, device=offset.device) * block
    real = starts < (offset + rows.lengths)[:, None]
    return None if bool(real.all()) or not bool(real.any()) else real


def _prefixed(modulation: Modulation, path: str) -> Modulation:
    return Modulation(modulation.gain, modulation.phase) + modulation.under(path)


def _averaged(parts: list[tuple[int, Modulation]]) -> Modulation:
    """Losses and metrics of groups of rows, averaged with the numbers of rows as weights."""
    total = sum(count for count, _ in parts)
    average = Modulation()
    for count, modulation in parts:
        for sums, scalars in ((average.losses, modulation.losses), (average.metrics, modulation.metrics)):
            for name, scalar in scalars.items():
                sums[name] = sums.get(name, 0) + scalar * (count / total)
    return average
