"""The interface of tokenizers, and the byte tokenizer."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from spectral_models.data.byte_files import END, MASK, byte_files
from spectral_models.data.chat import TEMPLATE
from spectral_models.errors import DataError

_BATCH = 1 << 19  # characters


class Tokenizer(ABC):
    """Text to token ids from 0 to vocab_size - 1, and back.

    For language models ``decode(encode(text)) == text``; a corpus refuses a tokenizer that loses some of it.

    chat_template: Jinja that renders conversations (:mod:`spectral_models.data.chat`), or None. special_tokens:
    their texts by Hugging Face's names, such as ``eos_token``, which the template may write.
    """

    chat_template: str | None = None
    special_tokens: Mapping[str, str] = MappingProxyType({})

    @property
    @abstractmethod
    def vocab_size(self) -> int: ...

    @property
    @abstractmethod
    def eos_token_id(self) -> int:
        """The token that ends a document; encoded texts never contain it. Raises DataError if there is none."""

    @property
    def mask_token_id(self) -> int | None:
        """The token that replaces hidden ones; encoded texts never contain it. None if there is none."""
        return None

    @abstractmethod
    def encode(self, text: str | bytes) -> list[int]:
        """The tokens of a text, without special tokens around it."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text."""
        return [self.encode(text) for text in texts]

    def encode_each(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """The tokens of each text, computed in batches of bounded size to save memory."""
        batch: list[str] = []
        size = 0
        for text in texts:
            batch.append(text)
            size += len(text)
            if size >= _BATCH:
                yield from self.encode_batch(batch)
                batch, size = [], 0
        yield from self.encode_batch(batch)

    def encode_chat(self, text: str) -> list[int]:
        """The tokens of a rendered conversation, in which special tokens are themselves."""
        return self.encode(text)

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; bytes that are not UTF-8 become U+FFFD."""

    @abstractmethod
    def stream(self) -> TextStream:
        """A decoder for tokens that arrive one by one."""

    def spellings(self) -> list[str]:
        """Of each id, the token as text; what tokenizers with the same meaning of ids have in common."""
        return [self.decode([token]) for token in range(self.vocab_size)]

    def files(self) -> dict[str, str]:
        """The files to save in a checkpoint, contents by name."""
        return {}


class TextStream(ABC):
    """Decodes tokens as they arrive, and holds back incomplete characters.

    The joined pieces, including ``finish()``, equal ``decode`` of all tokens.
    """

    @abstractmethod
    def push(self, token: int) -> str:
        """The characters that this token completes, if any."""

    @abstractmethod
    def finish(self) -> str:
        """The replacement of an incomplete last character. Afterwards the stream can decode another text."""


class ByteTokenizer(Tokenizer):
    """Token b is byte b of the text in UTF-8.

    The NUL byte ends a document. Corpora refuse text that contains it, so token 0 has no other meaning.
    """

    vocab_size = 256
    eos_token_id = 0
    mask_token_id = 255  # no byte of UTF-8
    special_tokens = MappingProxyType({"eos_token": END, "pad_token": END, "mask_token": MASK})

    def __init__(self, chat_template: str = TEMPLATE) -> None:
        self.chat_template: str = chat_template

    def encode(self, text: str | bytes) -> list[int]:
        """The tokens of a text, or of bytes that need not be text."""
        return list(text.encode() if isinstance(text, str) else text)

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of tokens. errors: as in ``bytes.decode``."""
        return _bytes(ids).decode(errors=errors)

    def stream(self, errors: str = "replace") -> TextStream:
        return ByteStream(errors)

    def files(self) -> dict[str, str]:
        """Files for Hugging Face's tools; this class does not read them."""
        return byte_files(self.chat_template)


class ByteStream(TextStream):
    """Holds bytes back until their character is complete."""

    def __init__(self, errors: str) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def push(self, token: int) -> str:
        return self._decoder.decode(_bytes([token]))

    def finish(self) -> str:
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def require_vocabulary(tokenizer: Tokenizer, vocab_size: int, path: str) -> None:
    """Raise DataError if the tokenizer has more than vocab_size tokens. path: the option's path in the config."""
    if vocab_size < tokenizer.vocab_size:
        raise DataError(
            f"{path} is {vocab_size}, and the tokenizer has {tokenizer.vocab_size} tokens. "
            f"Set {path}: {tokenizer.vocab_size}, or give another tokenizer."
        )


def _bytes(ids: Iterable[int]) -> bytes:
    tokens = [int(token) for token in ids]
    try:
        return bytes(tokens)
    except ValueError:
        wrong = next(token for token in tokens if not 0 <= token < 256)
        raise DataError(
            f"token {wrong} is not a byte: the byte tokenizer has tokens 0 to 255. Its models have vocab_size: 256."
        ) from None
