"""Chat templates: conversations as texts, in Jinja, as Hugging Face's tokenizers have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from spectral_models.errors import DataError

if TYPE_CHECKING:
    import jinja2

Message = Mapping[str, str]
"""``{"role": "user", "content": "..."}``."""

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + '\n' + message['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)
"""A role on a line of its own, then what was said, ended by the token that ends a document."""


def render(template: str, messages: Sequence[Message], tokens: Mapping[str, str]) -> str:
    """The text of a conversation, up to where the model is to answer.

    tokens: the special tokens that the template may name, as ``eos_token``. Templates run in Jinja's sandbox. Raises
    DataError for a template that cannot be rendered, or that refuses the messages.
    """
    try:
        return _compiled(template).render(messages=list(messages), add_generation_prompt=True, **tokens)
    except Exception as error:  # a template is code, of others
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(f"the tokenizer's chat template cannot be rendered: {reason}. Repair chat_template.") from error


@lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # the user's day
    return environment.from_string(template)
