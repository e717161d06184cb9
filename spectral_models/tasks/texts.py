"""What tasks on text share: tokenizers that fit a model's vocabulary, and corpora as windows."""

from __future__ import annotations

import hashlib

from torch.utils.data import default_collate

from spectral_models.config import ModelConfig
from spectral_models.data import ContiguousWindows, DataConfig, RandomWindows, Tokenizer, load_corpus
from spectral_models.data.corpus import Corpus, measured_tokens
from spectral_models.data.documents import read_documents
from spectral_models.data.tokenizer import require_vocabulary
from spectral_models.data.tokenizers import TokenizerConfig
from spectral_models.inputs import InputSpec, TokenInput
from spectral_models.tasks.task import Fingerprint, Task, specs_of


def vocabulary_of(model: ModelConfig) -> int:
    """The smallest vocabulary among a model's inputs of tokens: what a tokenizer may have at most."""
    return min(spec.vocab_size for spec in specs_of(model) if isinstance(spec, TokenInput))


def vocabulary_reasons(model: ModelConfig, tokenizer: TokenizerConfig) -> list[str]:
    """Why a tokenizer that is not made yet cannot fit the model's vocabulary."""
    if tokenizer.type == "file":
        return []
    needed = 256 if tokenizer.type == "bytes" else tokenizer.vocab_size or 257
    sizes = [spec.vocab_size for spec in _specs(model) if isinstance(spec, TokenInput)]
    size = min(sizes, default=needed)
    if size >= needed:
        return []
    return [f"the tokenizer {tokenizer.type!r} needs a vocab_size of at least {needed}; the model's is {size}"]


def text_reasons(model: ModelConfig, tokenizer: TokenizerConfig, max_length: int) -> list[str]:
    """Why a model cannot read texts that are cut after ``max_length`` tokens of that tokenizer."""
    limits = {spec.max_length for spec in _specs(model) if isinstance(spec, TokenInput)} - {None, max_length}
    found = [
        f"data.max_length is {max_length}, and the model's max_length {limit}; leave the model's out, training writes "
        "the data's there"
        for limit in limits
    ]
    return found + vocabulary_reasons(model, tokenizer)


def _specs(model: ModelConfig) -> tuple[InputSpec, ...]:
    try:
        return specs_of(model)
    except Exception:  # a part that cannot be built on the meta device, or at all: build_model says why
        return ()


class CorpusTask(Task):
    """Base of tasks that train on random windows of a corpus and measure consecutive windows of what it holds out.

    windows: the held-out ones.
    """

    def __init__(self, model: ModelConfig, data: DataConfig, tokenizer: Tokenizer | None, split: str | None) -> None:
        self.model, self.data = model, data
        self.train = None
        self.corpus: Corpus | None = None
        size = vocabulary_of(model)
        if split is None:
            self.corpus = load_corpus(data, vocab_size=size, tokenizer=tokenizer)
            tokenizer = self.corpus.tokenizer
            tokens, self.text, text_bytes = (
                self.corpus.validation,
                self.corpus.validation_text,
                self.corpus.validation_bytes,
            )
        else:
            if tokenizer is None:
                tokenizer = data.tokenizer.build((), vocab_size=size)
            self.text = bytes(read_documents(data).text)
            tokens, text_bytes = measured_tokens(self.text, tokenizer)
        require_vocabulary(tokenizer, size, "the model's vocab_size")
        self.tokenizer = tokenizer
        context = min(data.context, max(1, len(tokens) - 1))  # a longer window would be padding
        self.windows = ContiguousWindows(tokens, context, text_bytes)

    collate = staticmethod(default_collate)

    def fingerprint(self) -> Fingerprint:
        assert self.corpus is not None
        parts = {"training": self.corpus.train, "held out": self.corpus.validation}
        return {
            name: {"count": len(tokens), "what": "tokens", "sha256": hashlib.sha256(tokens.numpy().data).hexdigest()}
            for name, tokens in parts.items()
        }

    def random_windows(self, batch_size: int, steps: int, seed: int) -> RandomWindows:
        """Windows to train on, a step's behind another's."""
        assert self.corpus is not None
        return RandomWindows(self.corpus.train, self.data.context, steps * batch_size, seed)

    def measured_on(self) -> str:
        count, context = len(self.windows.tokens) - 1, self.windows.context
        return f"{self.windows.text_bytes:,} bytes in {count:,} tokens, in windows of {context}"
