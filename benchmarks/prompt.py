"""What does a token cost behind a long prompt, beside a transformer with a KV cache, and what is kept for it?

The models of ``models.py``. The transformer's keys and values stand in one preallocated tensor per layer, already
turned; a token adds its own and attends to all by ``scaled_dot_product_attention``. Both read the prompt first; then
tokens are decoded in turns of a few. Before any time is printed, the logits of decoded tokens are held against a
pass over everything.

    python benchmarks/prompt.py                       # 16,384 tokens; half a minute
    python benchmarks/prompt.py --prompt 1024
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import baselines
import torch
from models import MODEL, THREADS, TRANSFORMER, models
from records import Records
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_layers import State
from spectral_layers.positions.base import Rotation, angles
from spectral_models.benchmarks.measure import paired_ratio, spread

CHECKED, TOKENS = 8, 10


class KeyValueCache:
    """Decodes a stack of attention blocks: keys and values of up to ``room`` tokens, for each layer (2, H, room, C)."""

    def __init__(self, model: nn.Module, room: int) -> None:
        self.model = model
        self.length = 0
        mixer = model.blocks[0].mixer
        self.heads = mixer.heads
        width = mixer.hidden_dim // mixer.heads
        self.kept = [torch.empty(2, mixer.heads, room, width) for _ in model.blocks]
        theta = angles(torch.arange(room)[None], width // 2, baselines.ROPE_BASE)
        self.cos, self.sin = theta.cos().float(), theta.sin().float()

    def __call__(self, ids: Tensor) -> Tensor:
        """Logits (1, L, V) of the next tokens (1, L): the whole prompt first, then one at a time."""
        start, self.length = self.length, self.length + ids.shape[1]
        turn = Rotation(self.cos[:, start : self.length], self.sin[:, start : self.length])
        x = self.model.frontend(ids).x
        for block, kept in zip(self.model.blocks, self.kept, strict=True):
            projected = block.mixer.in_proj(block.mixer_norm(x))[0]
            query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)
            kept[0, :, start : self.length] = turn(key[None])[0]
            kept[1, :, start : self.length] = value
            keys, values = kept[:, None, :, : self.length]
            y = F.scaled_dot_product_attention(turn(query[None]), keys, values, is_causal=start == 0)
            x = x + block.mixer.out_proj(y.transpose(1, 2).flatten(-2))
            x = x + block.feedforward(block.feedforward_norm(x)).y
        logits: Tensor = self.model.frontend.logits(self.model.norm(x))
        return logits

    @property
    def bytes(self) -> int:
        """Of the tokens so far; the room ahead does not count."""
        return sum(kept[:, :, : self.length].numel() * kept.element_size() for kept in self.kept)


class Streaming:
    """Decodes one of our models by its state."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.state: State | None = None

    def __call__(self, ids: Tensor) -> Tensor:
        output = self.model(ids, state=self.state, return_state=True)
        self.state = output.state
        logits: Tensor = output.logits
        return logits

    @property
    def bytes(self) -> int:
        assert self.state is not None
        return sum(tensor.untyped_storage().nbytes() for tensor in self.state.save().values())


def milliseconds(decode: Callable[[Tensor], Tensor], token: Tensor) -> float:
    start = time.perf_counter()
    for _ in range(TOKENS):
        decode(token)
    return (time.perf_counter() - start) / TOKENS * 1e3


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    baselines.register()
    ids = torch.randint(0, MODEL["vocab_size"], (1, args.prompt + CHECKED))
    decoders: dict[str, KeyValueCache | Streaming] = {}
    first: dict[str, int] = {}
    for name, model in models().items():
        room = args.prompt + CHECKED + (args.rounds + 1) * TOKENS
        decoder = KeyValueCache(model, room) if name == TRANSFORMER else Streaming(model)
        decoder(ids[:, : args.prompt])
        first[name] = decoder.bytes
        decoded = torch.cat([decoder(ids[:, t : t + 1]) for t in range(args.prompt, ids.shape[1])], 1)
        whole = model(ids).logits[:, args.prompt :]
        off = float((decoded - whole).abs().max() / whole.abs().max())
        if not off < 1e-3:
            sys.exit(f"{name}: decoding and a full pass differ by {off:.1e}; no time is taken of a wrong result")
        decoders[name] = decoder
    token = ids[:, -1:]
    taken: dict[str, list[float]] = {name: [] for name in decoders}
    for turn in range(args.rounds + 1):
        for name, decoder in decoders.items():
            time_taken = milliseconds(decoder, token)
            if turn:  # the first is a warm-up
                taken[name].append(time_taken)
    records = Records(args.out / "prompt.json", ("name", "prompt"))
    print("| model | ms a token | transformer takes | kept after the prompt | after the last token |")
    print("|---|---|---|---|---|")
    for name, decoder in decoders.items():
        time_taken, ratio = spread(taken[name]), paired_ratio(taken[TRANSFORMER], taken[name])
        row = {
            "name": name,
            "prompt": args.prompt,
            "milliseconds": time_taken.median,
            "milliseconds_low": time_taken.low,
            "milliseconds_high": time_taken.high,
            "transformer_takes": ratio.median,
            "transformer_takes_low": ratio.low,
            "transformer_takes_high": ratio.high,
            "bytes_after_prompt": first[name],
            "bytes_after_last": decoder.bytes,
        }
        if not records.has(name=name, prompt=args.prompt):
            records.add(row)
        print(
            f"| {name} | {time_taken.median:.2f} ({time_taken.low:.2f} to {time_taken.high:.2f}) "
            f"| {ratio.median:.1f} × ({ratio.low:.1f} to {ratio.high:.1f}) "
            f"| {first[name] / 2**20:.2f} MiB | {decoder.bytes / 2**20:.2f} MiB |"
        )


if __name__ == "__main__":
    main()
