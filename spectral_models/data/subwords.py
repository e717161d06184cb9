"""Subword tokenizers: byte-pair encodings learned from a text, or any Hugging Face tokenizer.

They need the ``tokenizers`` library, which is imported on first use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from spectral_models.data.byte_files import END, SETTINGS, TOKENIZER, says_bytes
from spectral_models.data.chat import TEMPLATE
from spectral_models.data.tokenizer import ByteTokenizer, TextStream, Tokenizer
from spectral_models.errors import CheckpointError, DataError, needs_extra
from spectral_models.seal import read_json

if TYPE_CHECKING:
    import tokenizers

_EOS = "<|endoftext|>"
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
CHAT_TEMPLATE = "chat_template.jinja"
_UNKNOWN = "\ufffd"
_GROWTH = 1000
_LARGEST = 256 << 20
"""Limit on the bytes of a tokenizer.json; the largest in use have 40 million."""


class SubwordTokenizer(Tokenizer):
    """A tokenizer of the ``tokenizers`` library, without its templates: no special tokens are added around a text.

    Special tokens in a text are encoded as ordinary text. Unknown ids, which a model with a larger vocabulary may
    generate, decode to U+FFFD.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        eos: str | None = None,
        *,
        chat_template: str | None = None,
        special_tokens: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """eos: the tokenizer's token that ends a document; None if it has none.

        special_tokens: those that the chat template may write; eos is one of them.
        """
        if not inner.get_vocab_size(with_added_tokens=True):
            raise DataError("the tokenizer has no tokens at all. Give another.")
        if (growth := _growth(inner.normalizer)) > _GROWTH:
            raise DataError(f"the tokenizer may turn one character into {growth:,}. Give one that does not grow texts.")
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True
        if eos is not None and inner.token_to_id(eos) is None:
            raise DataError(f"the tokenizer has no token {eos[:80]!r} to end a document. Give one that it has: eos.")
        self._inner = inner
        self._eos = eos
        self.chat_template = chat_template
        self.special_tokens = {**special_tokens, **({} if eos is None else {"eos_token": eos})}

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._inner.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def eos_token_id(self) -> int:
        if self._eos is None:
            raise DataError(
                "the tokenizer does not say which token ends a document. Name it in the run's data config: "
                "tokenizer: {type: file, path: ..., eos: TOKEN}."
            )
        token = self._inner.token_to_id(self._eos)
        assert token is not None
        return token

    @property
    def mask_token_id(self) -> int | None:
        """``[MASK]`` or ``<mask>``; in byte-level encodings byte 255, which UTF-8 never contains."""
        from tokenizers.decoders import ByteLevel

        names = ["[MASK]", "<mask>"] + ["\xff"] * isinstance(self._inner.decoder, ByteLevel)
        tokens = map(self._inner.token_to_id, names)
        return next((token for token in tokens if token is not None), None)

    def encode(self, text: str | bytes) -> list[int]:
        return self.encode_batch([_text(text)])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        with _answering("the tokenizer cannot read the text"):
            return [encoding.ids for encoding in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_chat(self, text: str) -> list[int]:
        with _answering("the tokenizer cannot read the text"):
            self._inner.encode_special_tokens = False
            try:
                ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
            finally:
                self._inner.encode_special_tokens = True
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens, without special tokens."""
        pieces: list[str] = []
        known: list[int] = []
        with _answering("the tokenizer cannot write the text"):
            for token in map(int, ids):
                if self._inner.id_to_token(token) is None:
                    pieces += [self._inner.decode(known), _UNKNOWN]
                    known = []
                else:
                    known.append(token)
            return "".join([*pieces, self._inner.decode(known)])

    def stream(self) -> TextStream:
        return SubwordStream(self)

    def spellings(self) -> list[str]:
        return [self._inner.id_to_token(token) or "" for token in range(self.vocab_size)]

    def files(self) -> dict[str, str]:
        """The files that transformers' AutoTokenizer reads too."""
        settings: dict[str, str] = {"tokenizer_class": "PreTrainedTokenizerFast", **self.special_tokens}
        if self.chat_template is not None:
            settings["chat_template"] = self.chat_template
        return {TOKENIZER: self._inner.to_str(), SETTINGS: json.dumps(settings, indent=2) + "\n"}


class SubwordStream(TextStream):
    """Returns text once it no longer ends in U+FFFD. Decodes the preceding tokens again, as context."""

    def __init__(self, tokenizer: SubwordTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0  # number of tokens whose text was returned

    def push(self, token: int) -> str:
        self._ids.append(int(token))
        text = self._rest()
        if not text or text.endswith(_UNKNOWN):
            return ""
        del self._ids[: self._shown]
        self._shown = len(self._ids)
        return text

    def finish(self) -> str:
        rest = self._rest()
        self._ids, self._shown = [], 0
        return rest

    def _rest(self) -> str:
        before = self._tokenizer.decode(self._ids[: self._shown])
        return self._tokenizer.decode(self._ids)[len(before) :]


def learn_bpe(texts: Iterable[str], vocab_size: int) -> SubwordTokenizer:
    """A byte-level byte-pair encoding of at most ``vocab_size`` tokens, learned from texts.

    Every byte is a token, so no text is unknown and ``decode(encode(text)) == text``. Token 0 ends a document.
    Sennrich, Haddow & Birch, "Neural machine translation of rare words with subword units", 2016; over bytes as in
    Radford et al., "Language models are unsupervised multitask learners", 2019.
    """
    tokenizers = _library()
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_EOS],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return SubwordTokenizer(inner, _EOS, chat_template=TEMPLATE)


def read_tokenizer(path: Path, eos: str | None = None) -> Tokenizer:
    """A Hugging Face tokenizer from a ``tokenizer.json`` or its directory; a ByteTokenizer for files of one.

    eos: the token that ends a document; by default the one in ``tokenizer_config.json`` beside the file.
    """
    file = path / TOKENIZER if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"there is no tokenizer at {file}. Give a tokenizer.json or a directory that holds one; transformers' "
            "AutoTokenizer writes one: AutoTokenizer.from_pretrained(NAME).save_pretrained(DIRECTORY)."
        )
    if (size := file.stat().st_size) > _LARGEST:
        raise DataError(f"{file} has {size:,} bytes; a tokenizer may have {_LARGEST:,}. Give another.")
    named, template = _named(file.with_name(SETTINGS), eos)
    if eos in (None, END) and says_bytes(file.read_text(encoding="utf-8", errors="replace")):
        return ByteTokenizer(template or TEMPLATE)
    library = _library()
    with _answering(f"{file} is not a tokenizer of the tokenizers library"):
        inner = library.Tokenizer.from_file(str(file))
    return SubwordTokenizer(inner, eos or named.get("eos_token"), chat_template=template, special_tokens=named)


def _named(settings: Path, eos: str | None) -> tuple[dict[str, str], str | None]:
    """The special tokens that ``tokenizer_config.json`` names, and the chat template in it or in a file beside it."""
    try:
        found = read_json(settings) if settings.is_file() else {}
    except CheckpointError as error:
        if eos is None:
            raise DataError(f"{error} Or name eos yourself.") from None
        found = {}
    named: dict[str, str] = {}
    for name in _SPECIAL:
        token = found.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            named[name] = token
        elif token is not None and name == "eos_token" and eos is None:
            raise DataError(f"{settings} is damaged: its eos_token is no text. Repair it, or name eos yourself.")
    beside = settings.with_name(CHAT_TEMPLATE)
    template = beside.read_text(encoding="utf-8", errors="replace") if beside.is_file() else found.get("chat_template")
    return named, template if isinstance(template, str) else None  # several by name are for tools


def _growth(normalizer: Any) -> int:
    """Largest factor by which a normaliser may lengthen a text: the product over its steps."""
    growth = 1
    parts = [] if normalizer is None else [json.loads(normalizer.__getstate__())]
    while parts:
        part = parts.pop()
        parts += part.get("normalizers", ())
        growth *= max(1, len(part.get("content", "")) + len(part.get("prepend", "")))
    return growth


@contextmanager
def _answering(failure: str) -> Iterator[None]:
    """Turns exceptions of the library, plain Exceptions or Rust panics, into DataErrors.

    One cause of panics is a pattern that takes more than ten million steps on a text.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).partition("\n")[0][:300]
        raise DataError(f"{failure}: {reason}. Give another tokenizer.") from error


def _text(text: str | bytes) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 text: byte {text[error.start]:#04x} at offset {error.start}; this tokenizer reads only text."
        ) from None


def _library() -> Any:
    with needs_extra("a tokenizer of subwords needs", "train", DataError):
        import tokenizers
    return tokenizers
