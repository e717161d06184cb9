"""``spectral generate``: continue a prompt, printed as it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from spectral_core import ConfigError
from spectral_models.checkpoint import load_checkpoint, load_tokenizer
from spectral_models.cli.console import show
from spectral_models.cli.conversation import answer, converse
from spectral_models.cli.inputs import batches, read_items
from spectral_models.cli.turns import Chat, Text, Turns
from spectral_models.data import Tokenizer
from spectral_models.data.byte_files import TOKENIZER
from spectral_models.data.tokenizer import TextStream
from spectral_models.generation import generate as continue_text
from spectral_models.generation.drafts import drafter_of
from spectral_models.generation.sampling import Sampling
from spectral_models.generation.session import Session
from spectral_models.generation.settings import MOST_NEW_TOKENS
from spectral_models.inputs import TokenInput
from spectral_models.model import SpectralModel


def generate(
    checkpoint: Path = typer.Argument(help="A checkpoint's directory, or a run's."),
    prompt: str = typer.Option(
        "", help="Text to continue; empty, the default, begins a new document. Of a seq2seq the source."
    ),
    file: Path | None = typer.Option(
        None,
        help="For a seq2seq: a source on each line, text or path of an image or WAV file; - for the standard input.",
    ),
    max_new_tokens: int = typer.Option(256, min=1, max=MOST_NEW_TOKENS, help="Tokens to draw at most."),
    temperature: float = typer.Option(0.8, min=0.0, help="0 takes the likeliest token each time."),
    top_k: int = typer.Option(None, min=1, help="Draw among the k likeliest only. All by default."),
    top_p: float = typer.Option(
        None, help="Draw among the smallest set holding this probability, above 0 to 1. All by default."
    ),
    repetition_penalty: float = typer.Option(1.0, help="Above 1 makes repeated tokens less likely."),
    seed: int = typer.Option(0, min=0, max=(1 << 63) - 1, help="The same seed draws the same text."),
    fft: str = typer.Option(None, help="FFT backend, instead of the checkpoint's."),
    prompt_lookup_num_tokens: int = typer.Option(
        None, min=1, help="Draft so many tokens at most from the text itself, for the model to verify in one call."
    ),
    assistant: Path | None = typer.Option(
        None, help="Checkpoint of a smaller language model with the same tokenizer, which drafts tokens."
    ),
    interactive: bool = typer.Option(
        False, "--interactive", "-i", help="Answer line after line, each in the context of all before it."
    ),
    chat: bool = typer.Option(
        False, help="Lines, or the prompt, are messages of a user: written by the tokenizer's chat template."
    ),
) -> None:
    """Continue a prompt with a language model, or turn sources into targets with a seq2seq, as they are drawn.

    Each token is computed once; the state carries the past. With --interactive,
    the lines you type and the answers are one text, of which nothing is read
    twice. A line that ends in a backslash goes without its line end. /reset
    With --chat they are messages, as the chat template of the tokenizer has them. /reset
    forgets the text; Ctrl-C stops an answer; /quit or Ctrl-D ends. Drafts change the
    time, and nothing else.

      spectral generate runs/mine --prompt "def " --temperature 0.5

      spectral generate runs/mine --interactive

      spectral generate runs/translation --file sentences.txt --temperature 0
    """
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty)
    model = load_checkpoint(checkpoint, **({} if fft is None else {"fft": fft}))
    options: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "prompt_lookup_num_tokens": prompt_lookup_num_tokens,
        "assistant": None if assistant is None else _assistant(assistant, load_tokenizer(checkpoint), checkpoint),
    }
    if model.config.reads_source and model.streams:
        if interactive:
            raise ConfigError(f"{checkpoint} reads sources, one by itself: give --prompt, or --file - for lines.")
        items = read_items([prompt] if prompt else [], file)
        _targets(model, load_tokenizer(checkpoint), items, {**options, "max_new_tokens": max_new_tokens}, seed)
        return
    if not (model.continues_text and model.streams):
        raise ConfigError(
            f"{checkpoint} holds a model of type {model.config.type}: generate takes a language_model, a seq2seq, or "
            "another decoder that keeps a state. Label by spectral classify, embed by spectral embed."
        )
    if file is not None:
        raise ConfigError("--file holds sources, and a language model continues one text: give it as --prompt.")
    tokenizer = load_tokenizer(checkpoint)
    if interactive or chat:
        spec, generator = model.only_input, torch.Generator().manual_seed(seed)
        assert isinstance(spec, TokenInput)
        drafter = partial(drafter_of, prompt_lookup_num_tokens, options["assistant"], spec.vocab_size)

        def session() -> Session:
            return Session(model, sampling=sampling, generator=generator, drafter=drafter())

        def begin() -> Turns:
            return Chat(session, tokenizer) if chat else Text(session, tokenizer)

        if not interactive:
            answer(begin(), prompt, max_new_tokens)
        elif not converse(begin, prompt, max_new_tokens):
            raise typer.Exit(1)
        return
    ids = tokenizer.encode(prompt.encode(errors="surrogateescape"))
    show(tokenizer.decode(ids))
    stream = tokenizer.stream()
    continue_text(
        model,
        torch.tensor([ids or [tokenizer.eos_token_id]]),  # a document begins after the end of another
        max_new_tokens=max_new_tokens,
        stop_tokens=[tokenizer.eos_token_id],
        generator=torch.Generator().manual_seed(seed),
        on_token=_shown(tokenizer, stream),
        **options,
    )
    show(stream.finish() + "\n")


def _assistant(path: Path, tokenizer: Tokenizer, checkpoint: Path) -> SpectralModel:
    """The model that drafts, which must read the same tokens."""
    other = load_tokenizer(path)
    if type(other) is not type(tokenizer) or other.files().get(TOKENIZER) != tokenizer.files().get(TOKENIZER):
        raise ConfigError(f"the assistant {path} has another tokenizer than {checkpoint}. Give one that shares it.")
    return load_checkpoint(path)


def _targets(model: Any, tokenizer: Tokenizer, sources: list[str], options: dict[str, Any], seed: int) -> None:
    """The target of each source on a line of its own."""
    generator = torch.Generator().manual_seed(seed)
    for source in sources:
        (batch,) = batches(model, tokenizer, [source], model.input_specs()[0])
        (inputs,), stream = batch.inputs.values(), tokenizer.stream()
        model.generate(inputs, batch.attention_mask, generator=generator, on_token=_shown(tokenizer, stream), **options)
        show(stream.finish() + "\n")


def _shown(tokenizer: Tokenizer, stream: TextStream) -> Callable[[Tensor], None]:
    """Shows each token but the end as it is drawn."""

    def show_token(token: Tensor) -> None:
        if int(token) != tokenizer.eos_token_id:
            show(stream.push(int(token)))

    return show_token
