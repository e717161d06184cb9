"""``spectral generate``: continue a prompt, printed as it is drawn."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import typer
from torch import Tensor

from spectral_core import ConfigError
from spectral_models.checkpoint import load_checkpoint, load_tokenizer
from spectral_models.variants.language_model import LanguageModel


def generate(
    checkpoint: Path = typer.Argument(help="A checkpoint's directory, or a run's."),
    prompt: str = typer.Option("", help="Text to continue. Empty begins a new document."),
    max_new_tokens: int = typer.Option(256, min=1, help="Tokens to draw at most."),
    temperature: float = typer.Option(0.8, min=0.0, help="0 takes the likeliest token each time."),
    top_k: int = typer.Option(None, min=1, help="Draw among the k likeliest only."),
    top_p: float = typer.Option(None, help="Draw among the smallest set holding this probability."),
    repetition_penalty: float = typer.Option(1.0, help="Above 1 makes repeated tokens less likely."),
    seed: int = typer.Option(0, min=0, max=(1 << 63) - 1, help="The same seed draws the same text."),
    fft: str = typer.Option(None, help="FFT backend, instead of the checkpoint's."),
) -> None:
    """Continue a prompt with a trained language model. Each token is computed once; the state carries the past."""
    overrides = {} if fft is None else {"fft": fft}
    model = load_checkpoint(checkpoint, **overrides)
    if not isinstance(model, LanguageModel):
        raise ConfigError(f"{checkpoint} holds a {model.config.type}, which does not generate text.")
    tokenizer = load_tokenizer(checkpoint)
    stream = tokenizer.stream()

    def show(token: Tensor) -> None:
        if int(token) != tokenizer.eos_token_id:
            _print(stream.push(int(token)))

    ids = tokenizer.encode(os.fsencode(prompt))
    _print(tokenizer.decode(ids))
    model.generate(
        torch.tensor([ids or [tokenizer.eos_token_id]]),  # a document begins after the end of another
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop_tokens=[tokenizer.eos_token_id],
        generator=torch.Generator().manual_seed(seed),
        on_token=show,
    )
    _print(stream.finish() + "\n")


def _print(text: str) -> None:
    """The text itself: rich would expand tabs and drop control characters."""
    typer.echo(text, nl=False)
    sys.stdout.flush()
