"""Bytes as tokens: no vocabulary to train, none to ship, and every text has exactly one encoding."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Final

from spectral_models.data.documents import DataError


class ByteTokenizer:
    """Token b is byte b of the text's UTF-8 form.

    The NUL byte ends a document: corpora refuse text that contains it, so token 0 means nothing else.
    """

    vocab_size: Final = 256
    eos_token_id: Final = 0

    def encode(self, text: str | bytes) -> list[int]:
        """The tokens of a text, or of bytes that need not be text."""
        return list(text.encode() if isinstance(text, str) else text)

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of tokens; ``errors`` says what becomes of bytes that are not UTF-8, as in ``bytes.decode``."""
        return _bytes(ids).decode(errors=errors)

    def stream(self, errors: str = "replace") -> TextStream:
        """A decoder for tokens that arrive one by one."""
        return TextStream(errors)


class TextStream:
    """Turns tokens into text as they arrive, holding bytes back until their character is complete.

    The pieces joined, with ``finish()`` last, are what ``decode`` gives for all tokens at once.
    """

    def __init__(self, errors: str = "replace") -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def push(self, token: int) -> str:
        """The characters that this token completes: often one, sometimes none, after a broken one several."""
        return self._decoder.decode(_bytes([token]))

    def finish(self) -> str:
        """What an unfinished last character becomes. The stream can be used for another text afterwards."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _bytes(ids: Iterable[int]) -> bytes:
    tokens = [int(token) for token in ids]
    try:
        return bytes(tokens)
    except ValueError:
        wrong = next(token for token in tokens if not 0 <= token < 256)
        raise DataError(
            f"token {wrong} is not a byte: the byte tokenizer knows 0 to 255. "
            "A model that is used with it has vocab_size: 256."
        ) from None
