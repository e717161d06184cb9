"""Gates and a sparsity on the spectrum of the whole row in an encoder, of a window of past tokens in a decoder."""

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
    """Gates on the spectrum: of the past window (causal) or of the row (bidirectional)."""

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
    """Causal: tokens between renewals of the gate."""
    window: Length = 64
    """Causal: tokens before the block that the gate sees, and taps of its kernel; with a sparsity the kernel has twice
    as many. Even, at least a block."""

    @model_validator(mode="after")
    def _fits(self) -> SpectralGatingConfig:
        if self.window % 2 or self.window < self.block:
            raise ValueError(f"window must be even and at least block = {self.block}; got {self.window}")
        return self


class SpectralGating(Mixer[SpectralGatingConfig]):
    """y = W_o (silu(a) * (gated(v) + skip * v)), with a, v projections of x and gated(v) as follows.

    Bidirectional: the gates see the spectrum of each row without its padding, and scale its bins. O(L log L) per
    channel.

    Causal: for every block of ``block`` tokens the gates see the spectrum of the ``window`` tokens strictly before
    it. Their gain becomes a causal minimum-phase kernel of ``window`` taps, which filters the block by overlap-save.
    Whatever a gate computes, no token influences the gate of its own block; the filter reads the present and the past.
    The first block has an all-zero view, so that the gates' parameters have gradients for any length. O(L window/block
    log window) per channel. A gate's phase is realised approximately (:func:`minimum_phase`). Decoding: constant time
    and memory; blocks are counted from each row's first token.

    A sparsity sees the spectrum after the gates. In an encoder the bins that it drops are zero. A causal kernel cannot
    be zero on a band, so in a decoder the kernel has twice ``window`` taps and the gain that is attainable with them
    (:func:`attainable`, also for the energy out of band); metrics are of the kernel's own response. A mixer with a
    sparsity takes 1.1 times as long in an encoder, 2 times in a decoder (``benchmarks/sparsity.py``).
    """

    def setup(self, config: SpectralGatingConfig, context: LayerContext) -> None:
        super().setup(config, context)
        dim = context.hidden_dim
        self.heads = context.heads(config.head_dim)
        given = GateContext(self.heads, config.head_dim)
        gates = [gate.build(given) for gate in config.gates]
        sparsity = None if config.sparsity is None else config.sparsity.build(given)
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
        made = None
        if self.causal:
            y, modulation, joined, offset = self._causal(value, rows, state)
            if return_state:
                made = self._remember(x, rows, state, joined, offset)
        else:
            y, modulation = self._bidirectional(value, rows)
        y = (y + self.skip[:, None] * value) * F.silu(post)
        return MixerOutput(self.out_proj(y.transpose(1, 2)), made) + modulation

    @torch.no_grad()
    def response(self, x: Tensor) -> Response:
        """The gains asked for and realised on x (B, L, D) without padding, for inspection; in a decoder per block."""
        _, value = self.in_proj(x).transpose(1, 2).chunk(2, 1)
        blocks = 1
        if self.causal:
            inputs, _, blocks = self._placed(value, None)
            modulation, view, kernel = self._designed(self._segments(inputs, slice(0, blocks)).flatten(0, 1))
        else:
            view = self._view(value)
            modulation = self.modulation(view)
        gain = torch.ones_like(view.real) if modulation.gain is None else modulation.gain.expand_as(view.real)
        wished = over_channels(gain, blocks)
        if not self.causal:
            return Response(view.frequency, wished, view.frequency, wished)
        made = gain_of(kernel, view.frequency.numel(), self.fft).expand(*view.real.shape[:3], -1)
        made = over_channels(made, blocks)
        return Response(view.frequency, wished, torch.linspace(0, 0.5, made.shape[-1]).to(view.frequency), made)

    def modulation(self, view: SpectralView) -> Modulation:
        """The modulations of all gates and the sparsity for one view, composed."""
        gated, kept, _ = self._answers(view)
        return gated if kept is None else gated.then(_named(kept, "sparsity"))

    def _answers(self, view: SpectralView) -> tuple[Modulation, Modulation | None, SpectralView]:
        """The composed modulation of the gates, that of the sparsity, and the view that the sparsity saw.

        Losses and metrics of gates are prefixed by the gate's index, since two may be of one kind.
        """
        rounded = view.to(self.skip.dtype)
        gated = reduce(Modulation.then, (_named(gate(rounded), f"gates.{i}") for i, gate in enumerate(self.gates)))
        if self.sparsity is None:
            return gated, None, view
        seen = gated.applied(view)
        return gated, self.sparsity(seen), seen

    def _view(self, x: Tensor) -> SpectralView:
        """The orthonormal spectrum of (B, D, n), in heads, in float32 at least.

        Gates see it in the dtype of their parameters; a sparsity in this one, since rounding could change which bins it
        keeps.
        """
        n, dtype = x.shape[-1], torch.promote_types(self.skip.dtype, torch.float32)
        real, imag = ((part * n**-0.5).unflatten(1, (self.heads, -1)).to(dtype) for part in self.fft.rfft(x, n))
        return SpectralView(real, imag, torch.arange(n // 2 + 1, device=x.device, dtype=dtype) / n)

    def _bidirectional(self, value: Tensor, rows: Rows | None) -> tuple[Tensor, Modulation]:
        if rows is None:
            modulation = self.modulation(self._view(value))
            fields = (modulation.gain, modulation.phase)
            gain, phase = (None if field is None else self._full(field, value.shape[0]) for field in fields)
            return modulate(value, gain, phase, backend=self.fft), modulation
        y = torch.zeros_like(value)
        parts = []
        for length in rows.lengths.unique().tolist():
            if length == 0:
                continue
            here = (rows.lengths == length).nonzero()[:, 0]
            part, modulation = self._bidirectional(value[here, :, :length], None)
            y = y.index_put((here,), F.pad(part, (0, value.shape[-1] - length)).to(y.dtype))
            parts.append((here.numel(), modulation))
        return y, _averaged(parts)

    def _full(self, field: Tensor, batch: int) -> Tensor:
        """A field of gates, or a kernel, broadcast to heads and channels: (B, D, F)."""
        shape = (batch, self.heads, self.hidden_dim // self.heads, field.shape[-1])
        return field.expand(shape).flatten(1, 2)

    def _causal(
        self, value: Tensor, rows: Rows | None, state: State | None
    ) -> tuple[Tensor, Modulation, Tensor, Tensor]:
        length = value.shape[-1]
        inputs, offset, blocks = self._placed(value, state)
        real = _real_blocks(rows, offset, blocks, self.block)
        parts: list[tuple[int, Modulation]] = []

        def filtered() -> Iterator[Tensor]:
            tokens = segment_tokens(value)
            # In training a sparsity draws its bins for all blocks at once.
            groups = [slice(0, blocks)]
            if tokens is not None and not self.training:
                count = max(1, tokens // self.block)
                groups = [slice(start, min(blocks, start + count)) for start in range(0, blocks, count)]
            for here in groups:
                segments = self._segments(inputs, here)
                used = segments.flatten(0, 1)  # each block a sample: (B * blocks, D, taps + block)
                chosen = None if real is None else real[:, here].flatten().nonzero()[:, 0]
                if chosen is not None:
                    if not chosen.numel():
                        yield value.new_zeros(*value.shape[:2], (here.stop - here.start) * self.block)
                        continue
                    used = used[chosen]
                modulation, _, kernel = self._designed(used)
                parts.append((used.shape[0], modulation))
                kernel = self._full(kernel, used.shape[0]).to(used.dtype)
                y = convolve(used, kernel, mode="circular", backend=self.fft)[..., self.taps :]
                if chosen is not None:
                    y = y.new_zeros(segments.shape[:2].numel(), *y.shape[1:]).index_put((chosen,), y)
                yield y.unflatten(0, segments.shape[:2]).transpose(1, 2).flatten(-2)

        y = joined(filtered(), blocks * self.block, dim=2)
        if varies(length):
            y = F.pad(y, (0, 1))  # or the slice is all of y in multiples of a block, which would need another graph
        y = y[..., :length] if state is None else span(y, offset, length)
        return y, parts[0][1] if len(parts) == 1 else _averaged(parts), inputs, offset

    def _placed(self, value: Tensor, state: State | None) -> tuple[Tensor, Tensor, int]:
        """The inputs from which segments are cut, the (B,) offset of each row's next token in its block, the blocks.

        The inputs are (B, D, taps + blocks * block) or end inside the last block.
        """
        batch, dim, length = value.shape
        taps, block = self.taps, self.block
        # A row's buffer begins ``taps`` tokens before the block of its next token.
        if state is None:
            past = value.new_zeros(batch, dim, taps)
            offset = torch.zeros(batch, dtype=torch.long, device=value.device)
            inputs = torch.cat([past, value], -1)
        else:
            offset = state.position % block
            inputs = append(state["inputs"].to(value.dtype), value, taps + offset)
        reach = length if state is None else length + block - 1
        return inputs, offset, -(-reach // block)

    def _segments(self, inputs: Tensor, here: slice) -> Tensor:
        """Those blocks, each after the ``taps`` tokens before it: (B, blocks, D, taps + block)."""
        block, blocks, width = self.block, here.stop - here.start, self.taps + self.block
        more = -(-width // block) - 1  # further blocks that a segment overlaps
        inputs = inputs[..., here.start * block :]
        short = (blocks + more) * block - inputs.shape[-1]  # negative padding cuts
        grid = F.pad(inputs, (0, short)).unflatten(-1, (blocks + more, block)).transpose(1, 2)
        pieces = [grid[:, j : j + blocks, :, : width - j * block] for j in range(more + 1)]
        return torch.cat(pieces, -1)

    def _designed(self, segments: Tensor) -> tuple[Modulation, SpectralView, Tensor]:
        """For each segment the modulation, the view of its window, and the kernel: (B, H, 1 or C, taps)."""
        view = self._view(segments[..., self.taps - self.window : self.taps])
        gated, kept, seen = self._answers(view)
        both = gated if kept is None else gated.then(kept)

        def spread(field: Tensor) -> Tensor:
            # A gate's field may be in half precision (under autocast), and one value for all bins.
            dtype = torch.promote_types(field.dtype, torch.float32)
            return field.to(dtype).expand(*field.shape[:-1], view.frequency.numel())

        gain = spread(view.real.new_ones(1) if both.gain is None else both.gain)
        phase = None if both.phase is None else spread(both.phase)
        if kept is None:
            return gated, view, minimum_phase(gain, self.taps, self.fft, phase=phase)
        kernel = minimum_phase(attainable(gain, self.taps, self.fft), self.taps, self.fft, phase=phase)
        return gated.then(_named(realised(kernel, gated, kept, seen, self.fft), "sparsity")), view, kernel

    def _remember(self, x: Tensor, rows: Rows | None, state: State | None, joined: Tensor, offset: Tensor) -> State:
        advance = torch.full_like(offset, x.shape[1]) if rows is None else rows.lengths
        drop = (offset + advance) // self.block * self.block
        return self.new_state(x, rows, state, {"inputs": span(joined, drop, self.taps + self.block)})


def _real_blocks(rows: Rows | None, offset: Tensor, blocks: int, block: int) -> Tensor | None:
    """(B, blocks) bool: the blocks with tokens of their row; gates do not run on the others, which are padding.

    None when all blocks have some, and when none has: gates always run, so that their parameters have gradients.
    """
    if rows is None:
        return None
    begins = torch.arange(blocks, device=offset.device) * block
    real = begins < (offset + rows.lengths)[:, None]
    return None if bool(real.all()) or not bool(real.any()) else real


def _named(answer: Modulation, path: str) -> Modulation:
    return Modulation(answer.gain, answer.phase) + answer.under(path)


def _averaged(parts: list[tuple[int, Modulation]]) -> Modulation:
    """Losses and metrics of groups of rows, weighted by their rows."""
    total = sum(count for count, _ in parts)
    losses: dict[str, Tensor] = {}
    metrics: dict[str, Tensor] = {}
    for count, modulation in parts:
        for sums, found in ((losses, modulation.losses), (metrics, modulation.metrics)):
            for name, scalar in found.items():
                sums[name] = sums.get(name, 0) + scalar * (count / total)
    return Modulation(losses=losses, metrics=metrics)
