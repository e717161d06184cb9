"""What source_product reads of a source, and that a decoder with it alone reverses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import ConfigError, UnsupportedInputError, fft_backend
from spectral_layers import LayerContext, Rows, Stream
from spectral_layers.fusion.source_product import SourceProduct, SourceProductConfig
from spectral_layers.mixers.gated_convolution import GatedConvolutionConfig
from spectral_layers.mixers.spectral_gating import SpectralGatingConfig

FFT = fft_backend("torch")
DIM, HEAD, PHASES = 16, 4, 8


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build() -> SourceProduct:
    return SourceProductConfig(head_dim=HEAD, phases=PHASES).build(LayerContext(DIM, True, FFT)).double()


@torch.no_grad()
def transparent() -> SourceProduct:
    """Reads by place alone, and shows what it reads: y - x is r, in the source's normalised channels."""
    fusion = build()
    for projection in (fusion.key_proj, fusion.query_proj, fusion.gate_proj):
        projection.weight.zero_()
    fusion.gate_proj.bias.fill_(1.2784645427610738)  # silu of it is 1
    for projection in (fusion.value_proj, fusion.out_proj):
        projection.weight.copy_(torch.eye(DIM))
    return fusion


@pytest.mark.parametrize("length", [1, 5, 2 * PHASES])
def test_places_are_read_exactly_from_both_ends(length: int) -> None:
    fusion, source, x = transparent(), noise(2, 2 * PHASES, DIM), noise(2, length, DIM, seed=1)
    rows = Rows(torch.tensor([length, length]))
    read = fusion({"x": Stream(x, kind="causal"), "source": Stream(source, rows)}, "x").y - x
    values = fusion.source_norm(source[:, :length])
    heads = dict(zip(("content", "end", "again", "start"), read.unflatten(-1, (4, HEAD)).unbind(-2), strict=True))
    shown = dict(zip(heads, values.unflatten(-1, (4, HEAD)).unbind(-2), strict=True))
    torch.testing.assert_close(heads["start"], shown["start"])
    torch.testing.assert_close(heads["end"], shown["end"].flip(1))
    torch.testing.assert_close(heads["content"], shown["content"].sum(1, keepdim=True).expand(-1, length, -1))


def test_longer_sources_fold_as_documented() -> None:
    fusion, source, x = transparent(), noise(1, 2 * PHASES + 1, DIM), noise(1, 1, DIM, seed=1)
    read = (fusion({"x": Stream(x), "source": Stream(source)}, "x").y - x)[0, 0, -HEAD:]
    values = fusion.source_norm(source)[0, :, -HEAD:]
    torch.testing.assert_close(read, values[0] - values[2 * PHASES])


def test_the_state_is_as_large_for_any_source() -> None:
    fusion = build()
    for length in (3, 300):
        state = fusion.prepare({"source": Stream(noise(2, length, DIM))})
        assert state["memory"].shape == (2, DIM // HEAD, 2 * PHASES, HEAD)
        assert state.position.tolist() == [0, 0]


def test_phases_stay_exact_at_distant_positions() -> None:
    fusion = build()
    place = torch.tensor([0, 1, 2 * PHASES - 1])
    # Frequencies are odd multiples of pi / 2E: phases repeat after 4E tokens.
    far = place + 4 * PHASES * 10**6
    torch.testing.assert_close(
        torch.cos(fusion._position_phases(far)), torch.cos(fusion._position_phases(place)), atol=1e-6, rtol=0
    )


def test_one_source_is_asked_for() -> None:
    fusion, x = build(), Stream(noise(1, 5, DIM), kind="causal")
    for others in ({}, {"audio": Stream(noise(1, 5, DIM)), "text": Stream(noise(1, 5, DIM))}):
        with pytest.raises(UnsupportedInputError, match=r"one source; got (none|audio, text)\. .* with cross_modal"):
            fusion({"x": x, **others}, "x")
    with pytest.raises(ConfigError, match="head_dim 32 does not divide hidden_dim 48"):
        SourceProductConfig().build(LayerContext(48, True, FFT))


class MeanOfTheSource(nn.Module):
    """What one would condition on otherwise."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, source: Stream) -> Tensor:
        assert source.rows is not None
        real = source.rows.mask(source.x.shape[1])[..., None]
        return x + self.proj(torch.where(real, source.x, 0.0).sum(1) / real.sum(1))[:, None]


class Read(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fusion = SourceProductConfig(head_dim=16, phases=32).build(LayerContext(dim, True, FFT))

    def forward(self, x: Tensor, source: Stream) -> Tensor:
        y: Tensor = self.fusion({"target": Stream(x, kind="causal"), "source": source}, "target").y
        return y


class Reverser(nn.Module):
    """One bidirectional block over the source; two causal ones over the target, each told about the source."""

    def __init__(self, symbols: int, dim: int, told: type[nn.Module]) -> None:
        super().__init__()
        gating = SpectralGatingConfig(gates=("band",)).build(LayerContext(dim, False, FFT))  # type: ignore[arg-type]
        short = GatedConvolutionConfig.parse({"filter": {"type": "resonant", "modes": 8, "timescales": [2, 64]}})
        self.source_embedding, self.embedding = nn.Embedding(symbols + 1, dim), nn.Embedding(symbols + 1, dim)
        self.encoder = gating
        self.mixers = nn.ModuleList(short.build(LayerContext(dim, True, FFT)) for _ in range(2))
        self.told = nn.ModuleList(told(dim) for _ in range(2))
        self.norms = nn.ModuleList(nn.RMSNorm(dim) for _ in range(6))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim)) for _ in range(3)
        )
        self.head = nn.Linear(dim, symbols, bias=False)

    def forward(self, source: Tensor, rows: Rows, inputs: Tensor) -> Tensor:
        z = self.source_embedding(source)
        z = z + self.encoder(self.norms[0](z), rows=rows).y
        z = z + self.mlps[0](z)
        x = self.embedding(inputs)
        for i in range(2):
            x = x + self.mixers[i](self.norms[1 + i](x)).y
            x = self.told[i](x, Stream(z, rows))
            x = x + self.mlps[1 + i](self.norms[3 + i](x))
        return self.head(self.norms[5](x))


def batch(size: int, symbols: int, generator: torch.Generator) -> tuple[Tensor, Rows, Tensor, Tensor]:
    """Sources of 4 to 32 symbols, in four lengths, with their reversals as inputs (shifted) and labels."""
    lengths = torch.randint(4, 33, (4,), generator=generator).repeat_interleave(size // 4)
    width = int(lengths.max())
    rows = Rows(lengths)
    source = torch.where(rows.mask(width), torch.randint(symbols, (size, width), generator=generator), symbols)
    place = lengths[:, None] - 1 - torch.arange(width)
    output = source.gather(1, place.clamp(min=0))
    return source, rows, F.pad(output[:, :-1], (1, 0), value=symbols), torch.where(place >= 0, output, -100)


@pytest.mark.slow
@pytest.mark.parametrize("told", [Read, MeanOfTheSource])
def test_a_decoder_without_attention_reverses(told: type[nn.Module]) -> None:
    """At least 99 % of unseen sequences of 4 to 32 symbols come out whole; told the mean alone, none do."""
    symbols, steps = 32, 300
    torch.manual_seed(0)
    model = Reverser(symbols, 64, told)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        source, rows, inputs, labels = batch(32, symbols, generator)
        loss = F.cross_entropy(model(source, rows, inputs).flatten(0, 1), labels.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    unseen, whole = torch.Generator().manual_seed(2), []
    for _ in range(32):
        source, rows, inputs, labels = batch(32, symbols, unseen)
        with torch.no_grad():
            # Each symbol right given the right ones before it: greedy decoding then gives the whole sequence.
            right = (model.eval()(source, rows, inputs).argmax(-1) == labels) | (labels == -100)
        whole.append(right.all(1).double().mean().item())
    share = sum(whole) / len(whole)
    assert share >= 0.99 if told is Read else share <= 0.02, f"{share:.3f} of the sequences are right"
