"""What it costs to bring a source of 16K tokens to a target of 16K: fusions of spectra against cross-attention.

Whole modules with their projections, in turn, so that noise hits all alike. Before any time is printed, each one's
output is held against float64: fusions as a whole, attention at three tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import fft_backend
from spectral_layers import Fusion, LayerContext, Stream
from spectral_layers.fusion.cross_modal import CrossModalConfig
from spectral_layers.fusion.source_product import SourceProductConfig
from spectral_models.benchmarks.measure import Stopwatch, paired_ratio, spread

LENGTH, DIM, HEADS = 16_384, 256, 4
ROUNDS = {"forward": 5, "forward+backward": 3}


class CrossAttention(nn.Module):
    """x + W_o softmax(q k / sqrt(C)) v: queries from the target, keys and values from the source."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(DIM, DIM, bias=False), nn.Linear(DIM, DIM, bias=False)
        self.key_value = nn.Linear(DIM, 2 * DIM, bias=False)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        split = (z.unflatten(-1, (HEADS, -1)).transpose(1, 2) for z in self.key_value(source).chunk(2, -1))
        query = self.query(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        return x + self.out(F.scaled_dot_product_attention(query, *split).transpose(1, 2).flatten(-2))


class Fused(nn.Module):
    """A fusion as a function of a target and a source."""

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        kind = "causal" if self.fusion.causal else "bidirectional"
        return self.fusion({"target": Stream(x, kind=kind), "source": Stream(source)}, "target").y


def contestants() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    bidirectional, causal = (LayerContext(DIM, causal, fft_backend("auto")) for causal in (False, True))
    return {
        "attention": CrossAttention(),
        "cross_modal": Fused(CrossModalConfig(modalities=("target", "source")).build(bidirectional)),
        "source_product": Fused(SourceProductConfig().build(causal)),
    }


@torch.no_grad()
def error(name: str, module: nn.Module, x: Tensor, source: Tensor) -> float:
    """Largest difference from float64 over the largest value added to the target."""
    some = [0, LENGTH // 3, LENGTH - 1] if name == "attention" else slice(None)
    added = module(x, source)[:, some] - x[:, some]
    x64 = x[:, some].double()
    exact = module.double()(x64, source.double()) - x64
    module.float()
    return float((added - exact).abs().max() / exact.abs().max())


def forward(module: nn.Module, x: Tensor, source: Tensor) -> Callable[[], object]:
    def run() -> Tensor:
        with torch.no_grad():
            return module(x, source)

    return run


def training(module: nn.Module, x: Tensor, source: Tensor) -> Callable[[], object]:
    x, source = x.clone().requires_grad_(), source.clone().requires_grad_()

    def run() -> None:
        module(x, source).sum().backward()

    return run


def main() -> None:
    modules = contestants()
    generator = torch.Generator().manual_seed(1)
    x, source = (torch.randn(1, LENGTH, DIM, generator=generator) for _ in range(2))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, batch 1, {LENGTH:,} tokens each,")
    print(f"width {DIM}, attention of {HEADS} heads; whole modules with their projections")
    for name, module in modules.items():
        off = error(name, module, x, source)
        if off > 1e-4:
            sys.exit(f"{name}: off by {off:.1e} of float64; no time is printed for a wrong result")
        print(f"{name:15} within {off:.0e} of float64, {sum(p.numel() for p in module.parameters()):,} parameters")
    for work, make in (("forward", forward), ("forward+backward", training)):
        tasks = {name: make(module, x, source) for name, module in modules.items()}
        seconds = Stopwatch(tasks).rounds(ROUNDS[work])
        for name, taken in seconds.items():
            time, ratio = spread(taken), paired_ratio(seconds["attention"], taken)
            print(
                f"{work:17} {name:15} {time.median * 1e3:8.0f} ms ({time.low * 1e3:.0f} to {time.high * 1e3:.0f}); "
                f"attention takes {ratio.median:.1f} × ({ratio.low:.1f} to {ratio.high:.1f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
