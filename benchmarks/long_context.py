"""What a long context costs a model: memory in one pass, in a stream and in training, and how its time grows.

Run: python benchmarks/long_context.py             # read, stream, train, growth; half an hour on two idle cores
     python benchmarks/long_context.py train       # one of them
     python benchmarks/long_context.py --scale 0.01

Each peak is the resident memory of a fresh process as the kernel accounts it (VmHWM, Linux): Python, torch and the
model included. Nothing is printed for a wrong result: the logits behind a stream are held against those of one pass,
and a step of training must take its loss down.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from spectral_layers import fixed_weights
from spectral_models import build_model
from spectral_models.generation import prefill
from spectral_models.generation.prefill import CHUNK
from spectral_models.variants.language_model import LanguageModel

READ = 200_000
STREAMED = (READ, 250_000, 500_000, 1_000_000)
TRAINED = 65_536
GROWTH = (16_384, 65_536, READ)
ROUNDS = 2
TOLERANCE = 1e-3
"""Of float32 logits, relative to the largest: a stream sums in another order than one pass."""


def made(preset: str) -> LanguageModel:
    torch.manual_seed(0)
    model = build_model(preset)
    assert isinstance(model, LanguageModel)
    return model.eval()


def tokens(model: LanguageModel, count: int) -> Tensor:
    return torch.randint(model.config.vocab_size, (1, count), generator=torch.Generator().manual_seed(count))


def peak() -> float:
    """The most resident memory this process had so far, in GiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**20


@torch.no_grad()
def read(preset: str, count: int) -> Tensor:
    """The last logits of one pass, which makes those of all tokens."""
    model = made(preset)
    return model(tokens(model, count)).logits[0, -1]


@torch.no_grad()
def stream(preset: str, count: int, chunk: int = CHUNK) -> Tensor:
    """The last logits of a prompt that is read in chunks."""
    model = made(preset)
    return prefill(model, tokens(model, count), chunk=chunk)[0][0]


def train(preset: str, count: int, *, precision: str = "float32", recompute: bool = True) -> tuple[float, float]:
    """The loss before and after one step on one sequence, forward, backward and AdamW, as a run does it."""
    model = made(preset).train()
    model.gradient_checkpointing = recompute
    ids = tokens(model, count + 1)
    inputs, labels = ids[:, :-1], ids[:, 1:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = model.loss(inputs, labels).loss
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        return float(loss), float(model.eval().loss(inputs, labels).loss)


@torch.no_grad()
def growth(preset: str, lengths: tuple[int, ...], rounds: int = ROUNDS) -> dict[int, list[float]]:
    """Seconds of forward passes by length, lengths in turn; kernels are ready, as in any pass but the first."""
    model = made(preset)
    batches = {count: tokens(model, count) for count in lengths}
    seconds: dict[int, list[float]] = {count: [] for count in lengths}
    with fixed_weights(model):
        for turn in range(rounds + 1):
            for count, batch in batches.items():
                start = time.perf_counter()
                model(batch)
                if turn:
                    seconds[count].append(time.perf_counter() - start)
    return seconds


def exponent(short: tuple[int, float], long: tuple[int, float]) -> float:
    """p in time ~ length^p, through two measurements."""
    return math.log(long[1] / short[1]) / math.log(long[0] / short[0])


def alone(what: str, preset: str, count: int, *options: str) -> list[float]:
    """What a fresh process of this file finds, and its peak."""
    command = [sys.executable, __file__, "--preset", preset, "--process", what, str(count), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return [float(value) for value in done.stdout.split()]


def process(preset: str, what: str, count: str, *options: str) -> None:
    """The other side of :func:`alone`."""
    start = time.perf_counter()
    if what == "train":
        found = list(train(preset, int(count), precision=options[0], recompute=options[1] == "recompute"))
    else:
        found = {"read": read, "stream": stream}[what](preset, int(count)).tolist()
    print(time.perf_counter() - start, peak(), *found)


def report_reading(preset: str, scale: float, parts: list[str]) -> None:
    whole: list[float] = []
    if "read" in parts:
        count = round(READ * scale)
        seconds, high, *whole = alone("read", preset, count)
        print(f"read    {count:>9,} tokens in one pass: peak {high:.2f} GiB, {seconds:.0f} s", flush=True)
    if "stream" not in parts:
        return
    for count in (round(length * scale) for length in STREAMED):
        seconds, high, *found = alone("stream", preset, count)
        note = ""
        if whole and count == round(READ * scale):
            error = max(abs(a - b) for a, b in zip(found, whole, strict=True)) / max(map(abs, whole))
            if not error <= TOLERANCE:
                sys.exit(f"a stream of {count:,} tokens and one pass differ by {error:.1e}")
            note = f"; last logits within {error:.0e} of one pass"
        print(f"stream  {count:>9,} tokens: peak {high:.2f} GiB, {seconds:.0f} s{note}", flush=True)


def report_training(preset: str, scale: float) -> None:
    count = round(TRAINED * scale)
    for options in (("float32", "recompute"), ("bf16", "recompute"), ("float32", "keep")):
        seconds, high, before, after = alone("train", preset, count, *options)
        if not after < before < 1.1 * math.log(256):
            sys.exit(f"a step of training took the loss from {before} to {after}")
        what = f"{options[0]}, blocks {'recomputed' if options[1] == 'recompute' else 'kept'}"
        print(f"train   {count:>9,} tokens, {what}: peak {high:.2f} GiB, {seconds:.0f} s", flush=True)


def report_growth(preset: str, scale: float) -> None:
    lengths = tuple(round(length * scale) for length in GROWTH)
    times = {count: statistics.median(seconds) for count, seconds in growth(preset, lengths).items()}
    for count, seconds in times.items():
        print(f"forward {count:>9,} tokens: {seconds:.2f} s, {1e6 * seconds / count:.1f} us a token")
    first, last = (lengths[0], times[lengths[0]]), (lengths[-1], times[lengths[-1]])
    print(f"exponent of the time from {first[0]:,} to {last[0]:,} tokens: {exponent(first, last):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ["read", "stream", "train", "growth"]
    parser.add_argument("parts", nargs="*", default=known, help=f"of {', '.join(known)}")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths")
    parser.add_argument("--process", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.process:
        process(args.preset, *args.process)
        return
    if unknown := set(args.parts) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    print(f"{args.preset}, torch {torch.__version__}, {torch.get_num_threads()} threads, float32, batch 1", flush=True)
    report_reading(args.preset, args.scale, args.parts)
    if "train" in args.parts:
        report_training(args.preset, args.scale)
    if "growth" in args.parts:
        report_growth(args.preset, args.scale)


if __name__ == "__main__":
    main()
