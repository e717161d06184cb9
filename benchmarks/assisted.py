"""Does it pay to draft tokens? A preset continues a file of repetitive code, plainly and with drafts.

The preset and an assistant of two narrow layers are trained for a few minutes on the codecs of Python's standard
library, without the one that they continue. Before a time is printed, the tokens of every way are held against plain
greedy decoding. Then: what a call of n tokens takes, from which docs/decisions/0016 follows.

    OMP_NUM_THREADS=1 python benchmarks/assisted.py --work runs/assisted
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from records import Records
from torch import Tensor

from spectral_layers import State, fixed_weights
from spectral_models import load_checkpoint, load_config
from spectral_models.benchmarks.measure import paired_ratio, spread
from spectral_models.data import DataConfig
from spectral_models.generation.drafts import Assistant, PromptLookup
from spectral_models.training import RunConfig, TrainingConfig
from spectral_models.training.run import train
from spectral_models.variants.language_model import LanguageModel

CODECS = Path(sysconfig.get_path("stdlib")) / "encodings"
HELD_OUT = "cp1251.py"
PROMPT, NEW = slice(3500, 5500), 1000
"""Bytes of the file, in its table, and how many are to follow."""
CALLS = (1, 2, 4, 8, 16, 32)
TIE = 1e-4


def trained(name: str, work: Path, steps: int, **sizes: Any) -> LanguageModel:
    """A preset with other sizes, from ``work``, or trained there."""
    corpus, run = work / "codecs", work / "-".join([name, *map(str, sizes.values())])
    if not run.exists():
        corpus.mkdir(parents=True, exist_ok=True)
        for path in CODECS.glob("*.py"):
            if path.name != HELD_OUT:
                shutil.copy(path, corpus / f"{path.stem}.txt")
        config = RunConfig(
            model=load_config(name, **sizes),
            data=DataConfig(source=str(corpus), context=1024),
            training=TrainingConfig(steps=steps, batch_size=4, eval_every=steps, save_every=steps),
        )
        train(config, run)
    model = load_checkpoint(run)
    assert isinstance(model, LanguageModel)
    return model


def counted(model: LanguageModel, prompt: Tensor, options: dict[str, Any]) -> tuple[Tensor, int, int]:
    """The tokens, the model's calls after the prompt, and how many tokens were drafted."""
    calls, drafted = 0, 0
    drafter = Assistant if "assistant" in options else PromptLookup
    draft = drafter.draft

    def called(*_: object) -> None:
        nonlocal calls
        calls += 1

    def counting(self: Any, text: Tensor, count: int) -> Tensor:
        nonlocal drafted
        found = draft(self, text, count)
        drafted += found.shape[1]
        return found

    with model.register_forward_pre_hook(called), patch.object(drafter, "draft", counting):
        found = model.generate(prompt, max_new_tokens=NEW, **options)
    return found, calls - 1, drafted


def check(name: str, model: LanguageModel, plain: Tensor, found: Tensor) -> None:
    """Exit unless the tokens are equal, up to the first place where the two best logits are a tie."""
    differing = (plain != found)[0].nonzero()
    if differing.numel():
        at = int(differing[0])
        best = model.double()(plain[:, :at]).logits[0, -1].topk(2).values
        model.float()
        if best[0] - best[1] > TIE:
            sys.exit(f"{name}: other tokens than plain greedy decoding from {at} on; no time is printed for them")


def compared(model: LanguageModel, assistant: LanguageModel, rounds: int, records: Records) -> None:
    """A row for each way to decode; the ways take turns."""
    prompt = torch.tensor([list((CODECS / HELD_OUT).read_bytes()[PROMPT])])
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "prompt lookup, 10 tokens": {"prompt_lookup_num_tokens": 10},
        "prompt lookup, 32 tokens": {"prompt_lookup_num_tokens": 32},
        "assistant": {"assistant": assistant},
    }
    counts: dict[str, tuple[int, int]] = {}
    plain = model.generate(prompt, max_new_tokens=NEW)
    print(bytes(plain[0, -NEW : 300 - NEW].tolist()).decode(errors="replace"), "...\n")
    for name, options in ways.items():
        found, *counts[name] = counted(model, prompt, options)
        check(name, model, plain, found)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, options in ways.items():
            start = time.perf_counter()
            model.generate(prompt, max_new_tokens=NEW, **options)
            taken[name].append((time.perf_counter() - start) / NEW * 1e3)
    print("| decoding | ms a token, prompt included | plain takes | tokens a call | drafted tokens accepted |")
    print("|---|---|---|---|---|")
    for name in ways:
        here, ratio, (calls, drafted) = spread(taken[name]), paired_ratio(taken["plain"], taken[name]), counts[name]
        accepted = (NEW - 1 - calls) / drafted if drafted else 0.0
        print(
            f"| {name} | {here.median:.2f} ({here.low:.2f} to {here.high:.2f}) "
            f"| {ratio.median:.2f} × ({ratio.low:.2f} to {ratio.high:.2f}) "
            f"| {(NEW - 1) / calls:.1f} | {accepted:.0%} |"
        )
        row = {"name": name, "milliseconds": here.median, "plain_takes": ratio.median, "plain_takes_low": ratio.low}
        row |= {"plain_takes_high": ratio.high, "tokens_a_call": (NEW - 1) / calls, "accepted": accepted}
        if not records.has(name=name):
            records.add(row)


@torch.no_grad()
def calls(model: LanguageModel, rounds: int) -> None:
    """Milliseconds of one call that continues a state, by its tokens, and of a clone of the state."""
    ids = torch.randint(256, (1, PROMPT.stop))
    with fixed_weights(model):
        state = model(ids, return_state=True, logits_to_keep=1).state
        assert state is not None
        taken: dict[int, list[float]] = {count: [] for count in (0, *CALLS)}
        for turn in range(10 * rounds + 1):
            for count in taken:
                clone = state.clone()
                start = time.perf_counter()
                read(model, ids[:, :count], clone)
                if turn:
                    taken[count].append((time.perf_counter() - start) * 1e3)
    print("\n| tokens of a call | " + " | ".join(map(str, CALLS)) + " | none, a clone of the state |")
    print("|---" * (len(CALLS) + 2) + "|")
    print("| ms | " + " | ".join(f"{statistics.median(taken[count]):.2f}" for count in (*CALLS, 0)) + " |")


def read(model: LanguageModel, ids: Tensor, state: State) -> None:
    if ids.shape[1]:
        model(ids, state=state, return_state=True)
    else:
        state.clone()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", type=Path, default=Path("runs/assisted"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args(arguments)
    model = trained(args.preset, args.work, args.steps)
    assistant = trained(args.preset, args.work, args.steps, num_layers=2, hidden_dim=64)
    compared(model, assistant, args.rounds, Records(args.out / "assisted.json", ("name",)))
    calls(model, args.rounds)


if __name__ == "__main__":
    main()
