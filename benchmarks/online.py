"""Time per token of exact online convolution against the direct sum, by position, and the worst single token.

Decodes as many tokens as the prefill had, one at a time: from one growth of the buffers to the next, every tile on
the way. ``cold`` is the slowest token of a first round, which makes the filter's spectra. Two more rounds follow; a
token's time is the lesser of the two. ``online`` is their mean over the tokens, ``median`` their median, ``worst``
their maximum. ``direct`` is the median of the direct sum halfway, its inputs and its reversed kernel in place, so that
it copies nothing. Before any time is printed, the last output is held against a float64 direct sum.

    python benchmarks/online.py                     # all lengths; about two minutes
    python benchmarks/online.py --lengths 1024 4096
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from spectral_core import fft_backend
from spectral_layers import FilterContext
from spectral_layers.filters.implicit import ImplicitConfig
from spectral_layers.online import OnlineConvolution, OnlineFilter, OnlineProduct

CHANNELS, ROUNDS, DIRECT_TOKENS = 256, 3, 41
FFT = fft_backend("auto")

Decoder = Callable[[Tensor], OnlineConvolution]


def decode(make: Decoder, u: Tensor, prefill: int) -> tuple[Tensor, list[float]]:
    """The last output, and each token's seconds."""
    online, seconds = make(u[..., :prefill]), []
    tokens = u[..., prefill:].permute(2, 0, 1)[..., None].contiguous()
    y = u
    for offset, token in enumerate(tokens):
        position = torch.tensor([prefill + offset])
        start = time.perf_counter()
        y = online.extend(token, position, None)
        seconds.append(time.perf_counter() - start)
    return y[..., -1], seconds


def summed(u: Tensor, turned: Tensor) -> Tensor:
    """The direct sum of one output: the inputs against the kernel in reverse."""
    return torch.einsum("bdt,bdt->bd", u, turned)


def direct(u: Tensor, turned: Tensor, length: int) -> float:
    """Median seconds of a token by the direct sum around that position."""
    seconds = []
    for offset in range(-(DIRECT_TOKENS // 2), DIRECT_TOKENS // 2 + 1):
        count = length + offset
        start = time.perf_counter()
        summed(u[..., :count], turned[..., turned.shape[-1] - count :])
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(name: str, make: Decoder, u: Tensor, value: Tensor, kernel: Tensor, prefill: int) -> tuple[float, float]:
    """Prints a row; returns the mean time of a token by tiles and by the direct sum, in milliseconds."""
    turned = kernel.flip(-1)
    expected = summed(value.double(), turned.double())
    rounds = []
    for _ in range(ROUNDS):
        y, seconds = decode(make, u, prefill)
        error = float((y - expected).abs().max() / expected.abs().max())
        if not error < 1e-5:
            sys.exit(f"{name}: off by {error:.1e} at {2 * prefill}; no time is printed for a wrong result")
        rounds.append(seconds)
    # The machine's own hiccups do not come back at the same token.
    steady = [min(times) * 1e3 for times in zip(*rounds[1:], strict=True)]
    mean = statistics.fmean(steady)
    plain = direct(value, turned, prefill * 3 // 2) * 1e3
    print(
        f"{name:17} {prefill:7,} → {2 * prefill:7,} {plain:9.3f} {mean:8.3f} {plain / mean:8.1f} "
        f"{statistics.median(steady):8.3f} {max(steady):8.1f} {max(rounds[0]) * 1e3:8.1f} {error:9.0e}",
        flush=True,
    )
    return mean, plain


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384, 65536])
    lengths = parser.parse_args().lengths
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, batch 1, {CHANNELS} channels, ms")
    print(
        f"{'':17} {'positions':>17} {'direct':>9} {'online':>8} {'× faster':>8} {'median':>8} {'worst':>8} "
        f"{'cold':>8} {'error':>9}"
    )
    for name in ("implicit", "spectral_product"):
        means = []
        for length in lengths:
            torch.manual_seed(0)
            value = torch.randn(1, CHANNELS, 2 * length)
            if name == "implicit":
                made = ImplicitConfig(timescale=2.0 * length).build(FilterContext(CHANNELS)).eval()
                kernel = made.kernel(2 * length)[None].contiguous()
                make: Decoder = partial(OnlineFilter.after, made, FFT, rows=None)
                means.append(measure(name, make, value, value, kernel, length))
            else:
                # The mixer's kernel: bounded values under decays from 3 to 1024 tokens.
                rate = torch.logspace(-3.0, -0.5, CHANNELS)[:, None]
                kernel = torch.tanh(torch.randn(1, CHANNELS, 2 * length)) * torch.exp(-rate * torch.arange(2 * length))
                make = partial(OnlineProduct.after, FFT, rows=None)
                means.append(measure(name, make, torch.cat([value, kernel], 1), value, kernel, length))
        longer = lengths[-1] / lengths[0]
        grown, plain = (last / first for first, last in zip(means[0], means[-1], strict=True))
        print(
            f"{name}: {longer:g} times the length costs {grown:.2f} times as much a token; directly {plain:.1f} times"
        )


if __name__ == "__main__":
    main()
