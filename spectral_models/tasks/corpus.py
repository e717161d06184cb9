"""What tasks on a text corpus share: training on random windows, evaluation on consecutive ones."""

from __future__ import annotations

import hashlib

from torch.utils.data import default_collate

from spectral_models.config import ModelConfig
from spectral_models.data import ContiguousWindows, DataConfig, RandomWindows, Tokenizer, load_corpus
from spectral_models.data.corpus import Corpus, measured_tokens
from spectral_models.data.documents import read_documents
from spectral_models.data.tokenizer import require_vocabulary
from spectral_models.tasks.task import Fingerprint, Task
from spectral_models.tasks.vocabulary import vocabulary_of


class CorpusTask(Task):
    """Base of tasks that train on random windows of a corpus and are measured on consecutive windows of its rest.

    windows: the held-out ones. text: the bytes that they are made of. corpus: None if all of the source is held out.
    """

    def __init__(self, model: ModelConfig, data: DataConfig, tokenizer: Tokenizer | None, split: str | None) -> None:
        self.model, self.data, self.train = model, data, None
        self.corpus: Corpus | None = None
        size = vocabulary_of(model)
        if split is None:
            self.corpus = corpus = load_corpus(data, vocab_size=size, tokenizer=tokenizer)
            tokenizer, self.text = corpus.tokenizer, corpus.validation_text
            tokens, text_bytes = corpus.validation, corpus.validation_bytes
        else:
            tokenizer = tokenizer or data.tokenizer.build((), vocab_size=size)
            self.text = bytes(read_documents(data).text)
            tokens, text_bytes = measured_tokens(self.text, tokenizer)
        require_vocabulary(tokenizer, size, "the model's vocab_size")
        self.tokenizer: Tokenizer = tokenizer
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
        """The training windows of all steps, one step after another."""
        assert self.corpus is not None
        return RandomWindows(self.corpus.train, self.data.context, steps * batch_size, seed)

    def measured_on(self) -> str:
        count, context = len(self.windows.tokens) - 1, self.windows.context
        return f"{self.windows.text_bytes:,} bytes in {count:,} tokens, in windows of {context}"
