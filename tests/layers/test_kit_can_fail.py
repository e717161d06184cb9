"""Each check of the kit fails on a part that breaks its promise: a kit that cannot fail proves nothing.

The faults are those published models, caches and hand-written decoders have in practice. ``Honest`` keeps every
promise by the plainest means, so that what a twin adds is all that is wrong with it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spectral_core import UnsupportedInputError, convolve, fft_backend
from spectral_layers import (
    FeedForward,
    FeedForwardConfig,
    FeedForwardOutput,
    FilterConfig,
    FrontEnd,
    FrontEndConfig,
    FrontEndOutput,
    Gate,
    GateConfig,
    GateContext,
    Mixer,
    MixerConfig,
    MixerOutput,
    Modulation,
    Position,
    PositionConfig,
    Rotation,
    Rows,
    Sparsity,
    SparsityConfig,
)
from spectral_layers.feedforward.moe import MoE
from spectral_layers.filters.base import Filter
from spectral_layers.filters.resonant import Resonant
from spectral_layers.filters.spectrum import Spectrum
from spectral_layers.gates.band import Band, BandConfig
from spectral_layers.mixers.gated_convolution import GatedConvolution
from spectral_layers.mixers.spectral_gating import SpectralGating
from spectral_layers.part import NoOptions
from spectral_layers.rows import span
from spectral_layers.sparsity.base import selection
from spectral_layers.sparsity.top_k import top_k
from spectral_layers.state import Journal, State
from spectral_layers.testing import (
    FEEDFORWARD_CHECKS,
    FILTER_CHECKS,
    FRONTEND_CHECKS,
    GATE_CHECKS,
    MIXER_CHECKS,
    POSITION_CHECKS,
    SPARSITY_CHECKS,
    FeedForwardCase,
    FilterCase,
    FrontEndCase,
    GateCase,
    MixerCase,
    PositionCase,
    SparsityCase,
    pairs,
)

DIM, BLOCK = 8, 8
FFT = fft_backend("auto")


class Honest(Mixer):
    """y[t] = W (x[t] + x[t-1] / 2 + x[t-2] / 4): an integer's worth of memory, and nothing to get wrong."""

    def setup(self, config: Any, context: Any) -> None:
        super().setup(config, context)
        self.proj = nn.Linear(context.hidden_dim, context.hidden_dim)

    def mix(self, x, rows, state, return_state):
        past = x.new_zeros(x.shape[0], x.shape[2], 2) if state is None else state["past"].to(x.dtype)
        joined = torch.cat([past, x.transpose(1, 2)], -1)
        y = joined[..., 2:] + joined[..., 1:-1] / 2 + joined[..., :-2] / 4
        y = self.proj(y.transpose(1, 2))
        made = None
        if return_state:
            ends = x.shape[1] if rows is None else rows.lengths
            made = self.new_state(x, rows, state, {"past": span(joined, ends, 2)})
        return MixerOutput(y, made)


class LeaksAThousandth(Honest):
    """Lets a thousandth of the next token through."""

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        output.y = output.y + 1e-3 * F.pad(x[:, 1:], (0, 0, 0, 1))
        return output


class SeesTheNextAt(Honest):
    """Lets one token see the next, as the last of a block may; a fast path without a state."""

    streams = False

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        here = torch.arange(x.shape[1])[:, None] == self.token
        output.y = output.y + here * F.pad(x[:, 1:], (0, 0, 0, 1))
        return output


class SeesTheLastIn(Honest):
    """Lets all tokens see the mean of all, in one setting only."""

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        here = {
            "float32": x.dtype == torch.float32,
            "training": self.training,
            "gradients": torch.is_grad_enabled(),
            "large batches": x.shape[0] >= 8,
            "single rows": x.shape[0] == 1,
            "powers of two": x.shape[1] == 128,
        }
        if here[self.setting]:
            output.y = output.y + 0.1 * x.mean(1, keepdim=True)
        return output


class GatesTheWholeSpectrum(Honest):
    """The usual spectral language model: a gate computed from the spectrum of all tokens, future ones included."""

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        gain = torch.sigmoid(torch.fft.rfft(x, dim=1).abs().mean(1, keepdim=True))
        output.y = output.y * gain
        return output


class NormalisesOverTime(Honest):
    """A norm whose statistics run over the sequence."""

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        output.y = output.y / (1 + output.y.square().mean(1, keepdim=True))
        return output


class CutsTheSpectrumOfItsKernel(Honest):
    """Zeroes bins of a kernel's spectrum and does not project it back to lags >= 0: the kernel reaches the future."""

    def mix(self, x, rows, state, return_state):
        taps = torch.exp(-torch.arange(16.0, dtype=x.dtype))
        spectrum = torch.fft.rfft(taps, n=32)
        spectrum[5:] = 0
        kernel = torch.fft.irfft(spectrum, n=32).roll(16)
        y = convolve(x.transpose(1, 2), kernel.expand(self.hidden_dim, -1), mode="centered", backend=self.fft)
        output = super().mix(x, rows, state, return_state)
        output.y = output.y + y.transpose(1, 2)
        return output


class Bidirectional(Honest):
    """Honest about it, too: each row is summed over its own length."""

    def mix(self, x, rows, state, return_state):
        mask = x.new_ones(x.shape[:2]) if rows is None else rows.mask(x.shape[1]).to(x.dtype)
        total = (x * mask[..., None]).sum(1, keepdim=True) / mask.sum(1).clamp(min=1)[:, None, None]
        return MixerOutput(self.proj(x + total))


class PoolsPadding(Bidirectional):
    """A mean over the width of the batch instead of the row's length."""

    def mix(self, x, rows, state, return_state):
        return super().mix(x, None, state, return_state)


class DropsTokensOfAChunk(Honest):
    """A decode step that takes a chunk's last token for the whole chunk."""

    def mix(self, x, rows, state, return_state):
        if state is None or x.shape[1] == 1:
            return super().mix(x, rows, state, return_state)
        last = super().mix(x[:, -1:], None, state, return_state)
        last.y = last.y.expand(-1, x.shape[1], -1)
        return last


class CountsBlocksFromTheCall(Honest):
    """Renews something every ``BLOCK`` tokens of a call, not of the sequence."""

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        phase = torch.arange(x.shape[1]) // BLOCK % 2
        output.y = output.y * (1 + phase[:, None])
        return output


class RemembersPadding(Honest):
    """The last two columns of the batch, whatever stands in them."""

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, None, state, return_state)
        if output.state is not None and rows is not None:
            position = self.position(x, state) + rows.lengths
            output.state = State(type(self).__name__, position, output.state.tensors)
        return output


class CountsPadding(Honest):
    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        if output.state is not None and rows is not None:
            output.state.position = self.position(x, state) + x.shape[1]
        return output


class AveragesTheBatch(Honest):
    """Batch normalisation."""

    def mix(self, x, rows, state, return_state):
        return super().mix(x - 0.01 * x.mean(0, keepdim=True), rows, state, return_state)


class DoesNotConsume(Honest):
    """Overrides forward, and with it what guards a state."""

    def forward(self, x, *, rows=None, state=None, return_state=False):
        return self.mix(x, rows, state, return_state)


class SharesWithClones(Honest):
    """A step that works in place, and clones that share its memory."""

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        made = output.state
        if made is not None:
            if state is not None:
                made.tensors["past"] = state["past"].copy_(made["past"])
            made.clone = lambda: State(made.owner, made.position, made.tensors)
        return output


class SavesViews(Honest):
    """A state whose save() is its own memory."""

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        if output.state is not None:
            state = output.state
            state.save = lambda: {"SavesViews:position": state.position, "SavesViews:past": state["past"].mT}
        return output


class RewindsByOneTooFew(Honest):
    def rewind(self, state, tokens):
        return super().rewind(state, max(0, tokens - 1))


class RewindsToTheStart(Honest):
    """Takes the older snapshot for the answer."""

    def rewind(self, state, tokens):
        journal = state._journal
        assert isinstance(journal, Journal)
        return journal.older.clone()


class AcceptsAnyState(Bidirectional):
    def forward(self, x, *, rows=None, state=None, return_state=False):
        return self.mix(x, rows, None, False)


class ReturnsFloat32(Honest):
    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        output.y = output.y.float()
        return output


class ReturnsALossPerToken(Honest):
    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        output.losses["balance"] = output.y.mean(-1)
        return output


class CountsItsCalls(Honest):
    def mix(self, x, rows, state, return_state):
        self.calls = self.__dict__.get("calls", 0) + 1
        output = super().mix(x, rows, state, return_state)
        output.y = output.y * self.calls
        return output


class WorksInPlace(Honest):
    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        if not x.requires_grad:
            x.mul_(2)
        return output


class DividesByItsNorm(Honest):
    """x / ||x||: not a number at zero."""

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        output.y = output.y + x / x.norm(dim=-1, keepdim=True)
        return output


class Detached(Honest):
    """A parameter that the forward uses and the gradient never reaches."""

    def setup(self, config, context):
        super().setup(config, context)
        self.scale = nn.Parameter(torch.ones(1))

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        output.y = output.y * self.scale.detach()
        return output


class RoundsAngles(Honest):
    """Angles in half precision under autocast."""

    def mix(self, x, rows, state, return_state):
        output = super().mix(x, rows, state, return_state)
        output.y = torch.cos(1000 * output.y)
        return output


class Through(nn.Module):
    """A layer by its matrix, and not by its call."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return F.linear(x, self.layer.weight, self.layer.bias)


class KeepsItsTranspose(nn.Linear):
    """Lays its matrix out once, for speed."""

    def forward(self, x):
        if torch.is_grad_enabled():
            return super().forward(x)
        kept = self.__dict__.setdefault("kept", {})
        if x.dtype not in kept:
            kept[x.dtype] = self.weight.T.contiguous()
        return x @ kept[x.dtype] + self.bias


class ReadsItsWeightFromOutside(Honest):
    def setup(self, config: Any, context: Any) -> None:
        super().setup(config, context)
        self.proj = Through(self.proj)


class KeepsItsMatrix(Honest):
    def setup(self, config: Any, context: Any) -> None:
        super().setup(config, context)
        self.proj = KeepsItsTranspose(context.hidden_dim, context.hidden_dim)


class ReadsWhatItDrew(Honest):
    """Scales by the size of its weights at the start, which only building with memory knows."""

    def setup(self, config, context):
        super().setup(config, context)
        self.scale = self.proj.weight.norm().item()


class StaysOnTheCpu(Honest):
    """A parameter that names its device."""

    def setup(self, config, context):
        super().setup(config, context)
        self.proj.weight = nn.Parameter(torch.randn(self.proj.weight.shape, device="cpu"))


class FailsOnNothing(Honest):
    def mix(self, x, rows, state, return_state):
        assert x.max() < 1e9
        return super().mix(x, rows, state, return_state)


class Unlimited(Honest):
    """Says it is limited, and is not."""

    length_limit = 20

    def check_limit(self, length, state):
        pass


class LimitsEachCall(Honest):
    """Forgets what came before the call."""

    length_limit = 20

    def check_limit(self, length, state):
        super().check_limit(length, None)


class KeepsSegments(Honest):
    """Keeps packed documents apart by a mask over its taps."""

    keeps_segments = True

    def mix(self, x, rows, state, return_state):
        if rows is None or rows.segments is None:
            return super().mix(x, rows, state, return_state)
        y = x.clone()
        for lag, weight in ((1, 0.5), (2, 0.25)):
            same = rows.segments[:, lag:] == rows.segments[:, :-lag]
            y[:, lag:] += weight * x[:, :-lag] * same[..., None]
        return MixerOutput(self.proj(y))


class SaysItKeepsSegments(Honest):
    keeps_segments = True


class BatchPooling(Gate):
    """A gate that normalises over its batch, as BatchNorm would. In a causal mixer the batch holds later blocks."""

    def setup(self, config: Any, context: Any) -> None:
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, view):
        relative = view.magnitude / view.magnitude.mean(0, keepdim=True)
        return Modulation(gain=torch.sigmoid(self.weight * relative))


class RawAngle(Gate):
    """The phase by atan2 of the fields themselves: its gradient is NaN where they underflow."""

    def setup(self, config: Any, context: Any) -> None:
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, view):
        return Modulation(phase=self.weight * torch.atan2(view.imag, view.real))


class RawRoot(RawAngle):
    """The magnitude by a root without smoothing: its gradient is infinite at zero."""

    def forward(self, view):
        return Modulation(gain=self.weight**2 * torch.sqrt(view.real.square() + view.imag.square()))


class Signed(RawAngle):
    def forward(self, view):
        return Modulation(gain=self.weight * torch.cos(20 * view.frequency) * torch.ones_like(view.real))


class PerBin(Gate):
    """One parameter per bin: it serves one span only."""

    def setup(self, config: Any, context: Any) -> None:
        self.weight = nn.Parameter(torch.ones(9))

    def forward(self, view):
        return Modulation(gain=self.weight.exp())


class Float64Field(RawAngle):
    def forward(self, view):
        return Modulation(gain=(self.weight**2 * view.magnitude).double())


class LossPerSample(RawAngle):
    def forward(self, view):
        return Modulation(gain=self.weight**2 * view.magnitude, losses={"sparsity": view.magnitude.mean((1, 2, 3))})


class Strongest(Sparsity):
    """Honest: a quarter of the bins, by a learned power of their strength."""

    def setup(self, config: Any, context: Any) -> None:
        self.weight = nn.Parameter(torch.ones(1))

    def scores(self, view):
        return self.weight * view.relative_magnitude.mean(2).log()

    def forward(self, view):
        return selection(top_k(self.scores(view), 0.25, temperature=1.0, draw=self.training), view)


class SoftMask(Strongest):
    """A sigmoid instead of a choice."""

    def forward(self, view):
        return selection(torch.sigmoid(self.scores(view)), view)


class AnswersNothing(Strongest):
    def forward(self, view):
        return Modulation()


class Threshold(Strongest):
    """Keeps what exceeds a level: of silence, nothing."""

    def forward(self, view):
        kept = (view.magnitude.mean(2) > 0.1).to(view.real.dtype)
        return selection(kept + 0 * self.weight, view)


class HardTopK(Strongest):
    """A choice without a stand-in: no gradient reaches the scores."""

    def forward(self, view):
        return selection(top_k(self.scores(view), 0.25, temperature=1.0, draw=False).detach(), view)


class HardInTraining(Strongest):
    """A gradient in evaluation only."""

    def forward(self, view):
        answer = super().forward(view)
        return Modulation(answer.gain.detach(), metrics=answer.metrics) if self.training else answer


class DrawsInEvaluation(Strongest):
    def forward(self, view):
        return selection(top_k(self.scores(view), 0.25, temperature=1.0, draw=True), view)


class DrawsAndDrops(Strongest):
    """Draws noise in evaluation, and makes nothing of it."""

    def forward(self, view):
        torch.rand(1)
        return super().forward(view)


class ReportsTheWish(Strongest):
    """Reports the share it was configured with."""

    def forward(self, view):
        answer = super().forward(view)
        return Modulation(
            answer.gain, metrics={**answer.metrics, "kept_share": torch.tensor(0.25, dtype=torch.float64)}
        )


class CountsBothSignsOnce(Strongest):
    """Forgets that a bin inside stands for two frequencies."""

    def forward(self, view):
        answer = super().forward(view)
        energy = view.magnitude.square().sum(2)
        share = ((energy * answer.gain[:, :, 0]).sum(-1) / energy.sum(-1)).mean().detach()
        return Modulation(answer.gain, metrics={**answer.metrics, "kept_energy": share})


class ReportsNothing(Strongest):
    def forward(self, view):
        return Modulation(super().forward(view).gain)


class ComparesInPairs(Strongest):
    """The rank of a bin by comparing it with every other: bins x bins."""

    def forward(self, view):
        scores = self.scores(view)
        rank = (scores[..., None, :] > scores[..., :, None]).sum(-1)
        soft = torch.sigmoid(scores)
        kept = (rank < max(1, scores.shape[-1] // 4)).to(scores.dtype)
        return selection(kept + soft - soft.detach(), view)


class RanksTheBatch(Strongest):
    """The strongest bins of the whole batch. In a causal mixer the batch holds later blocks."""

    def scores(self, view):
        return super().scores(view) - 2 * view.magnitude.mean((0, 2), keepdim=True)[:, :, 0].log()


class DependsOnTheLength(Filter):
    """A tap at t / L: another length, another kernel."""

    def setup(self, config: Any, context: Any) -> None:
        channels = context.channels
        self.rate = nn.Parameter(torch.ones(channels, 1))

    def kernel(self, length):
        return torch.exp(-self.rate * torch.arange(length, dtype=self.rate.dtype) / length)


class CutsItsSpectrum(Spectrum):
    """Zeroes bins of a grid as long as the kernel asked for: lags change with the length."""

    def kernel(self, length):
        spectrum = torch.fft.rfft(super().kernel(length), n=2 * length)
        keep = torch.arange(spectrum.shape[-1]) < max(1, length // 4)
        return torch.fft.irfft(spectrum * keep, n=2 * length)[..., :length]


class CallsAnFFT(Filter):
    """Its spectrum goes through torch.fft, whatever the model's backend."""

    def setup(self, config: Any, context: Any) -> None:
        channels = context.channels
        self.spectrum = nn.Parameter(torch.ones(channels, 301))

    def kernel(self, length):
        return torch.fft.irfft(self.spectrum, n=600)[:, :length]


class PowersOfComplexNumbers(Filter):
    """A mode as a complex number to the power of the lag, as it stands in papers."""

    def setup(self, config: Any, context: Any) -> None:
        channels = context.channels
        self.angle = nn.Parameter(torch.linspace(0.0, 3.0, channels))

    def kernel(self, length):
        pole = torch.polar(torch.full_like(self.angle, 0.99), self.angle)
        return (pole[:, None] ** torch.arange(length)).real


class CachesForGood(Resonant):
    """Forgets that parameters learn."""

    def kernel(self, length):
        if torch.is_grad_enabled():
            return super().kernel(length)
        made = self.__dict__.setdefault("kept", {})
        if length not in made:
            made[length] = super().kernel(length)
        return made[length]


class CachesItsSpectrumForGood(Resonant):
    def prepared(self, length, fft):
        made = self.__dict__.setdefault("kept", {})
        if length not in made:
            made[length] = super().prepared(length, fft)
        return made[length]


class WatchesVersions(Resonant):
    """A kernel until a parameter's address or version changes: a write through ``.data`` changes neither."""

    def kernel(self, length):
        stamp = (length, *(number for p in self.parameters() for number in (p.data_ptr(), p._version)))
        made = self.__dict__.setdefault("kept", {})
        if torch.is_grad_enabled():
            return super().kernel(length)
        if stamp not in made:
            made[stamp] = super().kernel(length)
        return made[stamp]


class RoundsItsTable(Filter):
    """A fixed table as a buffer that is not saved, in the dtype it was built in."""

    def setup(self, config: Any, context: Any) -> None:
        channels = context.channels
        self.weight = nn.Parameter(torch.ones(channels, 1))
        self.register_buffer("table", torch.arange(600.0).add(1).rsqrt(), persistent=False)

    def kernel(self, length):
        return self.weight * self.table[:length]


class HoldsARoundedTable(RoundsItsTable):
    """No buffer, so that ``to_empty`` leaves it alone, and yet in the dtype it was built in."""

    def setup(self, config: Any, context: Any) -> None:
        super().setup(config, context)
        del self.table
        with torch.device("cpu"):
            self.table = torch.arange(600.0).add(1).rsqrt()


class ReadsAWeightFromOutside(Filter):
    """A layer's matrix as a table: the layer is not called."""

    def setup(self, config: Any, context: Any) -> None:
        channels = context.channels
        self.layer = nn.Linear(300, channels)

    def kernel(self, length):
        return F.pad(self.layer.weight, (0, 300))[:, :length]


class StepsOutside(Resonant):
    """A method that others call, that reads parameters, and is no entry."""

    def prepared(self, length, fft):
        return torch.stack([self._weights()[..., 0].sum(-1)] * length, -1)


class SynthesisedUnderAutocast(Filter):
    def setup(self, config: Any, context: Any) -> None:
        channels = context.channels
        self.weight = nn.Parameter(torch.ones(channels, 4))

    def kernel(self, length):
        lag = torch.arange(length, dtype=self.weight.dtype)
        return self.weight @ torch.stack([torch.exp(-lag / 10**n) for n in range(4)])


class DetachedFrequency(Resonant):
    def _powers(self, times):
        kept = self._parameters["frequency"]
        self._parameters["frequency"] = nn.Parameter(kept.detach())
        try:
            return super()._powers(times)
        finally:
            self._parameters["frequency"] = kept


class SupportTooShort(Spectrum):
    def setup(self, config: Any, context: Any) -> None:
        super().setup(config, context)
        self.support = 32


class LimitTooLong(Spectrum):
    def setup(self, config: Any, context: Any) -> None:
        super().setup(config, context)
        self.length_limit = 600

    def kernel(self, length):
        return super().kernel(64)[:, :length]


class CarriesOneTokenLate(Resonant):
    def carry(self, memory, length):
        return super().carry(memory, length + 1)[..., 1:]


class Float32Phases(Resonant):
    """A kernel of cos(omega t) in float32, unreduced: at 50 thousand tokens the phase is off by 1e-2."""

    def kernel(self, length):
        t = torch.arange(length, dtype=torch.float32)
        phase = self.frequency[..., None] * t
        size = torch.exp(-self.log_decay.exp()[..., None] * t)
        weights = self._weights()[..., None]
        return (size * (weights[:, :, 0] * phase.cos() - weights[:, :, 1] * phase.sin())).sum(1)


class TokenMixing(FeedForward):
    """A feed-forward with a statistic over time."""

    def setup(self, config: Any, context: Any) -> None:
        dim = context.hidden_dim
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, *, rows=None):
        return FeedForwardOutput(self.proj(x) - 0.01 * x.mean(1, keepdim=True))


class ReadsItsMatrix(TokenMixing):
    """The weight of a linear layer in a product of one's own: adapters put on the layer do nothing."""

    def forward(self, x, *, rows=None):
        return FeedForwardOutput(F.linear(2 * x, self.proj.weight, self.proj.bias))


class Normalised(TokenMixing):
    def forward(self, x, *, rows=None):
        return FeedForwardOutput(self.proj(x / x.norm(dim=-1, keepdim=True)))


class Narrowing(TokenMixing):
    def forward(self, x, *, rows=None):
        return FeedForwardOutput(self.proj(x).float())


class BalancesEachPart(MoE):
    """Experts in parts would be balanced within each part."""

    divisible = True


class BalancesPadding(MoE):
    def forward(self, x, *, rows=None):
        return super().forward(x)


class DetachedRouterLoss(MoE):
    def _report(self, scores, probability, counts):
        return super()._report(scores.detach(), probability.detach(), counts)


class CountsFromTheCall(Position):
    """Places from the start of the call, as if every call began a row: decoding always stands at 0."""

    def embed(self, x, positions, grid=None):
        return x + torch.arange(x.shape[1], dtype=x.dtype)[:, None] / 7


class FirstRowForAll(Position):
    """Takes the first row's places for all rows."""

    def embed(self, x, positions, grid=None):
        return x + (positions[:1, :, None] / 7).to(x.dtype)


class SeesTheNextToken(Position):
    def embed(self, x, positions, grid=None):
        return x + 1e-3 * F.pad(x[:, 1:], (0, 0, 0, 1))


class AddsInFloat32(Position):
    def embed(self, x, positions, grid=None):
        return x + torch.cos(positions[..., None].float())


class AddsInPlace(Position):
    def embed(self, x, positions, grid=None):
        return x.add_(torch.cos(positions[..., None].double()).to(x.dtype))


class Grows(Position):
    """A decay beside the angle, as length-extrapolating variants have."""

    def rotation(self, positions, dtype, grid=None):
        size, theta = torch.exp(-positions[..., None].to(dtype) / 100), positions[..., None].to(dtype)
        return Rotation(size * theta.cos(), size * theta.sin())


class AnglesInTheModelsDtype(Position):
    """As most implementations take them: in a float32 model, a float32 index times a float32 frequency."""

    def rotation(self, positions, dtype, grid=None):
        theta = positions[..., None].to(dtype) * 10_000.0 ** (-torch.arange(4, dtype=dtype) / 4)
        return Rotation(theta.cos(), theta.sin())


class WrapsItsTable(Position):
    """Begins anew behind its last vector, instead of saying that there is none."""

    length_limit = 16

    def setup(self, config: Any, context: Any) -> None:
        self.table = nn.Parameter(torch.zeros(16, 1))

    def embed(self, x, positions, grid=None):
        return x + self.table[positions % 16]


class DetachedTable(WrapsItsTable):
    def embed(self, x, positions, grid=None):
        return x + self.table.detach()[positions % 16] + 0 * self.table.sum()


class Sound(FrontEnd):
    """Frames of four samples through a projection: an honest front end, but for what its twins add."""

    def setup(self, config: Any, context: Any) -> None:
        dim = context.hidden_dim
        self.proj = nn.Linear(4, dim)

    def example(self, batch):
        return torch.randn(batch, 32)

    def forward(self, inputs, lengths=None):
        if inputs.dim() != 2 or not inputs.is_floating_point():
            raise UnsupportedInputError("audio is (B, T) floats.")
        self.check_lengths(inputs, lengths)
        rows = None
        if lengths is not None:
            inputs = torch.where(Rows(lengths).mask(inputs.shape[1]), inputs, 0.0)
            rows = Rows((lengths + 3) // 4)
        return FrontEndOutput(self.features(F.pad(inputs, (0, -inputs.shape[1] % 4)).unflatten(1, (-1, 4))), rows)

    def features(self, frames):
        return self.proj(frames)


class LevelsTheBatch(Sound):
    """Divides by the loudest sample of the batch."""

    def features(self, frames):
        return self.proj(frames / frames.abs().max().clamp(min=1e-9)) if frames.numel() else super().features(frames)


class HearsPadding(Sound):
    def forward(self, inputs, lengths=None):
        output = super().forward(inputs)
        return FrontEndOutput(output.x, None if lengths is None else Rows((lengths + 3) // 4))


class MultipliesPaddingByZero(Sound):
    """Which leaves NaN as it is."""

    def forward(self, inputs, lengths=None):
        output = super().forward(inputs)
        if lengths is None:
            return output
        real = Rows(lengths).mask(inputs.shape[1])
        return FrontEndOutput(super().forward(inputs * real).x, Rows((lengths + 3) // 4))


class DividesByItsLevel(Sound):
    """Whose square is infinite long before the level is."""

    def features(self, frames):
        return self.proj(frames / (frames.square().sum(-1, keepdim=True) + 1e-6).sqrt()) - self.proj.bias


class DropsWhatIsNoNumber(Sound):
    def features(self, frames):
        return self.proj(frames.nan_to_num())


class CountsSamplesAsTokens(Sound):
    def forward(self, inputs, lengths=None):
        return FrontEndOutput(super().forward(inputs, lengths).x, None if lengths is None else Rows(lengths))


class LosesAPatch(Sound):
    def forward(self, inputs, lengths=None):
        output = super().forward(inputs, lengths)
        output.grid = (2, 3)
        return output


class EndsInsideARow(Sound):
    """A grid of two columns, and rows of any number of frames."""

    def forward(self, inputs, lengths=None):
        output = super().forward(inputs, lengths)
        if not output.x.shape[1] % 2:
            output.grid = (output.x.shape[1] // 2, 2)
        return output


class TakesRoots(Sound):
    def features(self, frames):
        return torch.sqrt(self.proj(frames).square() * frames.square().sum(-1, keepdim=True))


class DetachedFrames(Sound):
    def features(self, frames):
        return super().features(frames).detach() + 0 * self.proj.bias.sum()


class RoundsPowers(Sound):
    """The logarithm of a power that autocast has rounded, taken far from one."""

    def features(self, frames):
        return torch.sin(300 * self.proj(frames))


class CastsIntegers(Sound):
    def forward(self, inputs, lengths=None):
        return super().forward(inputs.to(self.proj.weight.dtype), lengths)


class TwinMixer(MixerConfig):
    type: str = "twin"

    def build(self, context: Any) -> Mixer:
        return TWINS[self.type](context)


class TwinFilter(FilterConfig):
    type: str = "twin"

    def build(self, context: Any) -> Filter:
        return TWINS[self.type](context)


class TwinGate(GateConfig):
    type: str = "twin"

    def build(self, context: Any) -> Gate:
        return TWINS[self.type](context)


class TwinSparsity(SparsityConfig):
    type: str = "twin"

    def build(self, context: Any) -> Sparsity:
        return TWINS[self.type](context)


class TwinFeedForward(FeedForwardConfig):
    type: str = "twin"

    def build(self, context: Any) -> FeedForward:
        return TWINS[self.type](context)


class TwinPosition(PositionConfig):
    type: str = "twin"

    def build(self, context: Any) -> Position:
        return TWINS[self.type](context)


class TwinFrontEnd(FrontEndConfig):
    modality = "audio"

    type: str = "twin"

    def build(self, context: Any) -> FrontEnd:
        return TWINS[self.type](context)


class DoublesItsBands(BandConfig):
    """Its gate made by keyword is another one."""

    def build(self, context: Any) -> Gate:
        return Band(context, bands=2 * self.bands)


class DoesNotSayWhatGoesIn(FrontEndConfig):
    type: str = "does_not_say_what_goes_in"

    def build(self, context: Any) -> FrontEnd:
        return Sound(context)


TWINS: dict[str, Any] = {}


def twin(kind: Any, *, causal: bool = True, **options: Any) -> Any:
    """The case of a faulty class, or of a function that builds a faulty part."""
    made = kind
    if isinstance(kind, type) and kind.config_class is not NoOptions:
        made = partial(kind, **options)
    elif options:
        made = type(kind.__name__, (kind,), options)
    name = f"{kind.__name__}-{sorted(options.items())}"
    TWINS[name] = made
    if isinstance(kind, type):
        if issubclass(kind, Filter):
            return FilterCase(TwinFilter(type=name))
        if issubclass(kind, Gate):
            return GateCase(TwinGate(type=name))
        if issubclass(kind, Sparsity):
            return SparsityCase(TwinSparsity(type=name))
        if issubclass(kind, Position):
            return PositionCase(TwinPosition(type=name))
        if issubclass(kind, FrontEnd):
            return FrontEndCase(TwinFrontEnd(type=name))
        if issubclass(kind, FeedForward):
            return FeedForwardCase(TwinFeedForward(type=name))
    return MixerCase(TwinMixer(type=name), causal=causal, hidden_dim=DIM, block=BLOCK)


def gating(context: Any, **parts: Any) -> Mixer:
    """Causal spectral gating with a gate or a sparsity of these classes."""
    options = {"sparsity": "energy"} if "sparsity" in parts else {}
    mixer = SpectralGating(context, head_dim=DIM // 2, block=BLOCK, window=2 * BLOCK, **options)
    given = GateContext(2, DIM // 2)
    if "gate" in parts:
        mixer.gates[0] = parts["gate"](given)
    else:
        mixer.sparsity = parts["sparsity"](given)
    return mixer


def gating_with(gate: type[Gate]) -> Any:
    """Causal spectral gating with that gate."""

    def build(context: Any) -> Mixer:
        return gating(context, gate=gate)

    build.__name__ = f"gating_with_{gate.__name__}"
    return build


def convolution_with(kind: type[Filter], **options: Any) -> Any:
    """A gated convolution with that filter."""

    def build(context: Any) -> Mixer:
        mixer = GatedConvolution(context)
        mixer.filter = kind(context.of_filter(), **options)
        mixer.length_limit = mixer.filter.length_limit
        return mixer

    build.__name__ = f"convolution_with_{kind.__name__}"
    return build


def gating_with_sparsity(sparsity: type[Sparsity]) -> Any:
    """Causal spectral gating, its gate a good one, with that sparsity."""

    def build(context: Any) -> Mixer:
        return gating(context, sparsity=sparsity)

    build.__name__ = f"gating_with_sparsity_{sparsity.__name__}"
    return build


RESONANT = {"modes": 4, "timescales": (2.0, 100.0)}
CHECKS: dict[str, Any] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        *MIXER_CHECKS,
        *FILTER_CHECKS,
        *GATE_CHECKS,
        *SPARSITY_CHECKS,
        *FEEDFORWARD_CHECKS,
        *POSITION_CHECKS,
        *FRONTEND_CHECKS,
    )
}
CAUGHT = [
    (twin(LeaksAThousandth), "no_output_sees_a_later_token"),
    *[(twin(SeesTheNextAt, token=token), "no_token_sees_the_next") for token in (0, 23, 47)],
    *[
        (twin(SeesTheLastIn, setting=setting), "no_setting_sees_a_later_token")
        for setting in ("float32", "training", "gradients", "large batches", "single rows", "powers of two")
    ],
    (twin(LeaksAThousandth), "the_jacobian_is_lower_triangular"),
    (twin(LeaksAThousandth), "a_prefix_gives_the_prefix_of_the_output"),
    (twin(GatesTheWholeSpectrum), "no_output_sees_a_later_token"),
    (twin(GatesTheWholeSpectrum), "the_jacobian_is_lower_triangular"),
    (twin(GatesTheWholeSpectrum), "chunks_equal_the_full_pass"),
    (twin(GatesTheWholeSpectrum), "right_padding_changes_nothing"),
    (twin(NormalisesOverTime), "no_output_sees_a_later_token"),
    (twin(CutsTheSpectrumOfItsKernel), "no_output_sees_a_later_token"),
    (twin(CutsTheSpectrumOfItsKernel), "the_jacobian_is_lower_triangular"),
    (twin(gating_with(BatchPooling)), "no_output_sees_a_later_token"),
    (twin(gating_with(BatchPooling)), "the_jacobian_is_lower_triangular"),
    (twin(gating_with(BatchPooling)), "rows_do_not_mix"),
    (twin(gating_with(RawRoot)), "gradients_at_any_scale"),
    (twin(convolution_with(DependsOnTheLength)), "a_prefix_gives_the_prefix_of_the_output"),
    (twin(convolution_with(DependsOnTheLength)), "chunks_equal_the_full_pass"),
    (twin(convolution_with(CutsItsSpectrum, size=200)), "chunks_equal_the_full_pass"),
    (twin(convolution_with(CarriesOneTokenLate, **RESONANT)), "chunks_equal_the_full_pass"),
    (twin(PoolsPadding, causal=False), "right_padding_changes_nothing"),
    (twin(PoolsPadding, causal=False), "left_padding_through_alignment"),
    (twin(DropsTokensOfAChunk), "chunks_equal_the_full_pass"),
    (twin(DropsTokensOfAChunk), "one_token_after_any_prefill"),
    (twin(CountsBlocksFromTheCall), "chunks_equal_the_full_pass"),
    (twin(CountsBlocksFromTheCall), "one_token_after_any_prefill"),
    (twin(CountsBlocksFromTheCall), "rows_continue_from_where_each_ended"),
    (twin(RemembersPadding), "padding_stays_out_of_the_state"),
    (twin(RemembersPadding), "rows_continue_from_where_each_ended"),
    (twin(CountsPadding), "rows_continue_from_where_each_ended"),
    (twin(AveragesTheBatch), "rows_do_not_mix"),
    (twin(DoesNotConsume), "a_state_is_continued_once_and_by_its_owner"),
    (twin(DoesNotConsume), "inputs_that_do_not_fit_are_refused"),
    (twin(DoesNotConsume), "packed_documents_are_refused"),
    (twin(SharesWithClones), "clones_and_selections_stand_alone"),
    (twin(SavesViews), "a_saved_state_continues"),
    (twin(RewindsByOneTooFew), "rewinding"),
    (twin(RewindsToTheStart), "rewinding"),
    (twin(AcceptsAnyState, causal=False), "a_mixer_without_a_state_refuses_one"),
    (twin(ReturnsFloat32), "shapes_and_dtypes"),
    (twin(ReturnsALossPerToken), "shapes_and_dtypes"),
    (twin(CountsItsCalls), "shapes_and_dtypes"),
    (twin(WorksInPlace), "shapes_and_dtypes"),
    (twin(DividesByItsNorm), "gradients_at_any_scale"),
    (twin(Detached), "gradients_at_any_scale"),
    (twin(RoundsAngles), "autocast_to_bfloat16"),
    (twin(GatesTheWholeSpectrum), "it_transforms_through_its_backend"),
    (twin(convolution_with(CallsAnFFT)), "it_transforms_through_its_backend"),
    (twin(convolution_with(PowersOfComplexNumbers)), "it_transforms_through_its_backend"),
    (twin(ReadsWhatItDrew), "it_builds_on_meta"),
    (twin(StaysOnTheCpu), "it_builds_on_meta"),
    (GateCase(DoublesItsBands()), "keywords_make_the_same_part"),
    (twin(Unlimited), "the_length_limit_is_kept"),
    (twin(LimitsEachCall), "the_length_limit_is_kept_across_calls"),
    (twin(SaysItKeepsSegments), "packed_documents_stay_apart"),
    (twin(BatchPooling), "samples_do_not_mix"),
    (twin(RawAngle), "gradients_of_a_gate_at_any_scale"),
    (twin(RawRoot), "gradients_of_a_gate_at_any_scale"),
    (twin(Signed), "gain_is_not_negative"),
    (twin(PerBin), "fields_fit_any_span"),
    (twin(Float64Field), "fields_fit_any_span"),
    (twin(LossPerSample), "losses_of_a_gate_are_scalars"),
    (twin(gating_with_sparsity(RanksTheBatch)), "no_output_sees_a_later_token"),
    (twin(gating_with_sparsity(RanksTheBatch)), "rows_do_not_mix"),
    (twin(gating_with_sparsity(DrawsInEvaluation)), "chunks_equal_the_full_pass"),
    (twin(gating_with_sparsity(HardTopK)), "gradients_at_any_scale"),
    (twin(RanksTheBatch), "samples_do_not_mix"),
    (twin(SoftMask), "each_bin_passes_or_does_not"),
    (twin(AnswersNothing), "each_bin_passes_or_does_not"),
    (twin(Threshold), "something_passes"),
    (twin(HardTopK), "gradients_of_a_gate_at_any_scale"),
    (twin(HardInTraining), "training_reaches_the_scores"),
    (twin(DrawsInEvaluation), "evaluation_draws_nothing"),
    (twin(DrawsAndDrops), "evaluation_draws_nothing"),
    (twin(ReportsTheWish), "metrics_are_those_of_the_gain"),
    (twin(CountsBothSignsOnce), "metrics_are_those_of_the_gain"),
    (twin(ReportsNothing), "metrics_are_those_of_the_gain"),
    (twin(ComparesInPairs), "memory_is_linear_in_bins"),
    (twin(DependsOnTheLength), "a_tap_depends_on_its_lag_alone"),
    (twin(CutsItsSpectrum, size=512), "a_tap_depends_on_its_lag_alone"),
    (twin(CallsAnFFT), "it_transforms_through_its_backend"),
    (twin(PowersOfComplexNumbers), "it_transforms_through_its_backend"),
    (twin(CachesForGood, **RESONANT), "nothing_is_remembered_of_the_weights"),
    (twin(CachesItsSpectrumForGood, **RESONANT), "nothing_is_remembered_of_the_weights"),
    (twin(WatchesVersions, **RESONANT), "nothing_is_remembered_of_the_weights"),
    (twin(convolution_with(CachesForGood, **RESONANT)), "nothing_is_remembered_of_the_weights"),
    (twin(convolution_with(WatchesVersions, **RESONANT)), "nothing_is_remembered_of_the_weights"),
    (twin(KeepsItsMatrix), "nothing_is_remembered_of_the_weights"),
    (twin(RoundsItsTable), "it_survives_meta_and_casts"),
    (twin(HoldsARoundedTable), "it_survives_meta_and_casts"),
    (twin(convolution_with(RoundsItsTable)), "it_survives_meta_and_casts"),
    (twin(ReadsAWeightFromOutside), "weights_are_read_in_their_modules_call"),
    (twin(StepsOutside, **RESONANT), "weights_are_read_in_their_modules_call"),
    (twin(ReadsItsWeightFromOutside), "weights_are_read_in_their_modules_call"),
    (twin(convolution_with(ReadsAWeightFromOutside)), "weights_are_read_in_their_modules_call"),
    (twin(SynthesisedUnderAutocast), "autocast_leaves_the_kernel_alone"),
    (twin(DetachedFrequency, **RESONANT), "every_parameter_of_a_filter_learns"),
    (twin(SupportTooShort, size=64), "taps_beyond_the_support_are_zero"),
    (twin(LimitTooLong, size=64), "the_kernel_reaches_the_limit"),
    (twin(CarriesOneTokenLate, **RESONANT), "recurrence_equals_convolution"),
    (twin(TokenMixing), "tokens_do_not_mix"),
    (twin(Normalised), "gradients_of_a_feedforward_at_any_scale"),
    (twin(ReadsItsMatrix), "gradients_of_a_feedforward_at_any_scale"),
    (twin(Narrowing), "a_feedforward_keeps_dtypes"),
    (twin(BalancesEachPart, experts=4, expansion=2.0), "a_divisible_feedforward_may_be_given_parts"),
    (twin(BalancesPadding, experts=4, expansion=2.0), "losses_of_a_feedforward_ignore_padding"),
    (twin(DetachedRouterLoss, experts=4, expansion=2.0), "losses_of_a_feedforward_teach"),
    (twin(AddsInFloat32), "a_position_keeps_shapes_and_dtypes"),
    (twin(AddsInPlace), "a_position_keeps_shapes_and_dtypes"),
    (twin(CountsFromTheCall), "a_place_is_an_absolute_index"),
    (twin(FirstRowForAll), "a_place_is_an_absolute_index"),
    (twin(SeesTheNextToken), "places_of_tokens_do_not_mix"),
    (twin(Grows), "rotations_keep_lengths"),
    (twin(AnglesInTheModelsDtype), "far_positions_are_exact"),
    (twin(WrapsItsTable), "the_limit_of_a_position_is_kept"),
    (twin(DetachedTable), "every_parameter_of_a_position_learns"),
    (twin(LosesAPatch), "features_fit_their_rows_and_grid"),
    (FrontEndCase(DoesNotSayWhatGoesIn()), "features_fit_their_rows_and_grid"),
    (twin(EndsInsideARow), "padding_of_inputs_changes_nothing"),
    (twin(LevelsTheBatch), "inputs_do_not_mix"),
    (twin(HearsPadding), "padding_of_inputs_changes_nothing"),
    (twin(MultipliesPaddingByZero), "padding_of_inputs_changes_nothing"),
    (twin(DividesByItsLevel), "extreme_inputs_do_not_vanish"),
    (twin(DropsWhatIsNoNumber), "extreme_inputs_do_not_vanish"),
    (twin(CountsSamplesAsTokens), "padding_of_inputs_changes_nothing"),
    (twin(TakesRoots), "gradients_of_a_front_end"),
    (twin(DetachedFrames), "gradients_of_a_front_end"),
    (twin(RoundsPowers), "a_front_end_under_autocast"),
    (twin(CastsIntegers), "inputs_of_another_kind_are_refused"),
]


@pytest.mark.parametrize(
    ("case", "check"), [pytest.param(*pair, id=f"{pair[0].config.type.split('-')[0]}-{pair[1]}") for pair in CAUGHT]
)
def test_the_check_catches_the_fault(case: Any, check: str) -> None:
    with pytest.raises(AssertionError) as caught:
        CHECKS[check](case)
    assert len(str(caught.value)) > 40, "a refusal that teaches nothing"
    assert case.config.type in str(caught.value) or "returned" in str(caught.value)


def test_every_check_has_a_fault_it_catches() -> None:
    # An empty batch fails by whatever error a part raises on it, and long recurrences have a test below.
    assert set(CHECKS) - {name for _, name in CAUGHT} == {"an_empty_batch", "float32_recurrence_keeps_up"}


@pytest.mark.parametrize("honest", [twin(Honest), twin(KeepsSegments), twin(Bidirectional, causal=False)], ids=str)
def test_the_twins_are_wrong_in_nothing_else(honest: MixerCase) -> None:
    for check, case in pairs(MIXER_CHECKS, [honest]):
        check(case)


def test_the_honest_sparsity_is_wrong_in_nothing() -> None:
    for check, case in pairs(SPARSITY_CHECKS, [twin(Strongest)]):
        check(case)
    for name in (
        "no_output_sees_a_later_token",
        "rows_do_not_mix",
        "chunks_equal_the_full_pass",
        "gradients_at_any_scale",
    ):
        CHECKS[name](twin(gating_with_sparsity(Strongest)))


def test_the_twins_of_front_ends_are_wrong_in_nothing_else() -> None:
    for check, case in pairs(FRONTEND_CHECKS, [twin(Sound)]):
        check(case)


def test_float32_phases_are_caught_when_modes_last() -> None:
    case = twin(Float32Phases, modes=4, timescales=(25_000.0, 100_000.0))
    with pytest.raises(AssertionError, match=r"the last of 50000 tokens, decoded in float32, are off by"):
        CHECKS["float32_recurrence_keeps_up"](FilterCase(case.config, channels=2, length=50_000))


def test_an_empty_batch_must_not_fail() -> None:
    with pytest.raises(RuntimeError, match="numel"):
        CHECKS["an_empty_batch"](twin(FailsOnNothing))


def test_messages_say_where_and_what_to_do() -> None:
    with pytest.raises(AssertionError, match=r"new tokens from 1 on move the output of token 0 already.*up to it\."):
        CHECKS["no_output_sees_a_later_token"](twin(LeaksAThousandth))
    with pytest.raises(AssertionError, match=r"inputs of size 0: the gradient of .* is not finite\. Roots and angles"):
        CHECKS["gradients_of_a_gate_at_any_scale"](twin(RawRoot))
