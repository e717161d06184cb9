"""How the lines of a user and the answers of a model become one text, of which the model reads each token once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from spectral_core import ConfigError
from spectral_models.data import Tokenizer
from spectral_models.data.chat import render
from spectral_models.generation.session import Session


class Turns(ABC):
    """begin: returns an empty session."""

    def __init__(self, begin: Callable[[], Session], tokenizer: Tokenizer) -> None:
        self.begin = begin
        self.tokenizer = tokenizer
        self.session = begin()

    @abstractmethod
    def ask(self, text: str) -> None:
        """Append what the user typed; ``session.draw`` then answers."""

    @abstractmethod
    def answered(self, text: str, *, ended: bool) -> None:
        """The answer that was drawn. ended: by the token that ends a document, which is not in it."""


class Text(Turns):
    """As on a terminal: each line as it is, the answer, and a line end if the answer has none."""

    def ask(self, text: str) -> None:
        ids = self.tokenizer.encode(text.encode(errors="surrogateescape"))
        if self.session.empty:
            ids = ids or [self.tokenizer.eos_token_id]  # a document begins after another's end
        self.session.append(ids)

    def answered(self, text: str, *, ended: bool) -> None:
        if not (ended or text.endswith("\n")):
            self.session.append(self.tokenizer.encode("\n"))


class Chat(Turns):
    """Messages, rendered by the tokenizer's chat template.

    The session goes on with the rendered text from where it ends. A template that changes what it rendered before (one
    that strips answers, say) needs a new session, which reads all again.
    """

    def __init__(self, begin: Callable[[], Session], tokenizer: Tokenizer) -> None:
        """Raises ConfigError for a tokenizer without a chat template."""
        if tokenizer.chat_template is None:
            raise ConfigError(
                "the checkpoint's tokenizer has no chat template. Leave out --chat, or write one into "
                "chat_template.jinja beside its tokenizer.json."
            )
        super().__init__(begin, tokenizer)
        self.messages: list[dict[str, str]] = []
        self._template = tokenizer.chat_template
        self._text = ""

    def ask(self, text: str) -> None:
        message = {"role": "user", "content": text.removesuffix("\n")}
        rendered = render(self._template, [*self.messages, message], self.tokenizer.special_tokens)
        self.messages.append(message)
        if not rendered.startswith(self._text):
            self.session, self._text = self.begin(), ""
        self.session.append(self.tokenizer.encode_chat(rendered[len(self._text) :]))
        self._text = rendered

    def answered(self, text: str, *, ended: bool) -> None:
        self.messages.append({"role": "assistant", "content": text})
        self._text += text + (self.tokenizer.special_tokens.get("eos_token", "") if ended else "")
