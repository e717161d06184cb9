"""A causal convolution of a million tokens, forward and backward: how long, and how much memory in all?

Run: python benchmarks/million.py --fft hierarchical
The peak is the whole process's resident memory: torch itself, signal, kernel, output and all gradients included.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from spectral_core import convolve, list_fft_backends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fft", default="hierarchical", choices=list_fft_backends())
    parser.add_argument("--tokens", type=int, default=1 << 20)
    parser.add_argument("--channels", type=int, default=64)
    args = parser.parse_args()
    torch.manual_seed(0)
    u = torch.randn(1, args.channels, args.tokens, requires_grad=True)
    kernel = (torch.randn(args.channels, args.tokens) / args.tokens**0.5).requires_grad_()
    print(f"{args.tokens} tokens x {args.channels} channels, float32, fft: {args.fft}, torch {torch.__version__}")
    report("inputs made", None)
    start = time.perf_counter()
    y = convolve(u, kernel, backend=args.fft)
    report("forward", start)
    start = time.perf_counter()
    y.backward(torch.ones(()).expand_as(y))
    report("backward, kernel gradient included", start)
    # The last gradient of a causal convolution against ones is its kernel's first tap; the first tap's is the sum of u.
    assert u.grad is not None
    assert kernel.grad is not None
    assert torch.allclose(u.grad[0, :, -1], kernel[:, 0], rtol=1e-3, atol=1e-5)
    assert torch.allclose(kernel.grad[:, 0], u[0].sum(-1), rtol=1e-3, atol=1.0)


def report(what: str, start: float | None) -> None:
    seconds = "" if start is None else f" {time.perf_counter() - start:.1f} s,"
    print(
        f"{what}:{seconds} peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB resident",
        flush=True,
    )


if __name__ == "__main__":
    main()
