"""Conversations by a chat template: Hugging Face's rendering, and one state that reads each token once."""

from __future__ import annotations

import io

import pytest
import torch
from tokenizers import Tokenizer as Inner
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from spectral_models import build_model, load_tokenizer, save_checkpoint
from spectral_models.cli.turns import Chat
from spectral_models.data import ByteTokenizer
from spectral_models.data.chat import TEMPLATE, render
from spectral_models.data.subwords import SubwordTokenizer, learn_bpe, read_tokenizer
from spectral_models.errors import DataError
from spectral_models.generation.sampling import Sampling
from spectral_models.generation.session import Session

MESSAGES = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Zürich?\n"},
    {"role": "assistant", "content": " A city."},
    {"role": "user", "content": "And <|endoftext|>?"},
]
CHATML = """{{ bos_token }}{% for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content | trim) + eos_token + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""


def chatml() -> SubwordTokenizer:
    """A tokenizer of another project, with special tokens of its own, and a template that strips."""
    inner = Inner.from_str(learn_bpe(["<some> text | of any kind, Zürich"], 280).files()["tokenizer.json"])
    inner.add_special_tokens(["<|im_start|>", "<|im_end|>", "<s>"])
    return SubwordTokenizer(inner, "<|im_end|>", chat_template=CHATML, special_tokens={"bos_token": "<s>"})


TOKENIZERS = {"bytes": ByteTokenizer, "learned": lambda: learn_bpe(["some text"], 260), "chatml": chatml}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def built(tokenizer):
    torch.manual_seed(0)
    model = build_model({"hidden_dim": 32, "num_layers": 2, "layers": ["hybrid"]}, vocab_size=tokenizer.vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.double().eval()


def test_the_checkpoint_has_the_template_and_hugging_face_renders_the_same(tokenizer, tmp_path):
    save_checkpoint(built(tokenizer), tmp_path / "model", tokenizer=tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    theirs.save_pretrained(tmp_path / "again")  # the template in a file of its own
    assert (tmp_path / "again" / "chat_template.jinja").exists()
    for place in ("model", "again"):
        found = read_tokenizer(tmp_path / place)
        text = render(found.chat_template, MESSAGES, found.special_tokens)
        assert text == theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
        ids = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"]
        assert found.encode_chat(text) == ids
        assert ids.count(found.eos_token_id) >= len(MESSAGES)
        assert (found.encode(text) == ids) == isinstance(found, ByteTokenizer), "elsewhere special tokens are text"


def test_a_tokenizer_without_a_template_is_one_error(tmp_path, spectral):
    plain = chatml()
    plain.chat_template = None
    save_checkpoint(built(plain), tmp_path / "model", tokenizer=plain)
    assert load_tokenizer(tmp_path / "model").chat_template is None
    spectral("generate", tmp_path / "model", "--chat", "--prompt", "hi").refused("has no chat template")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for", "cannot be rendered"),
        ("{{ raise_exception('no system message') }}", "no system message"),
        ("{{ messages[0].content.nothing.more }}", "has no attribute"),
        ("{{ 1 // 0 }}", "cannot be rendered"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_template_that_fails_is_one_error(template, message):
    with pytest.raises(DataError, match=message):
        render(template, MESSAGES, {})


def test_a_conversation_from_one_state_is_the_whole_read_anew(tokenizer):
    """After each turn, the state is that of all tokens at once; each was read once."""
    model, begun = built(tokenizer), []
    tokenizer.chat_template = TEMPLATE
    read: list[torch.Tensor] = []

    def begin():
        begun.append(Session(model, sampling=Sampling()))
        return begun[-1]

    chat = Chat(begin, tokenizer)
    for line in ("hello", "", "and more of it"):
        with model.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][0])):
            chat.ask(f"{line}\n")
            drawn = [chat.session.draw() for _ in range(8)]
        chat.answered(tokenizer.decode(drawn), ended=False)
        ids, state = torch.cat(read)[None], chat.session._text._rollback.state
        with torch.no_grad():
            anew = model(ids, return_state=True).state
        assert state.position.tolist() == [ids.shape[1]]
        for name, tensor in anew.save().items():
            torch.testing.assert_close(state.save()[name], tensor, rtol=1e-9, atol=1e-9)
        if isinstance(tokenizer, ByteTokenizer):
            text = render(TEMPLATE, chat.messages[:-1], tokenizer.special_tokens)
            assert tokenizer.decode([*ids[0].tolist(), drawn[-1]]) == text + chat.messages[-1]["content"]
    assert len(begun) == 1


def test_answers_are_those_of_the_whole_conversation(spectral, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = build_model({"hidden_dim": 32, "num_layers": 2, "layers": ["hybrid"]}, tie_embeddings=False)
    with torch.no_grad():
        model.head.weight[[*range(33), *range(127, 256)]] = 0.0  # answers are letters, which never end
    save_checkpoint(model, tmp_path / "model", tokenizer=ByteTokenizer())
    options = ["--temperature", 0, "--max-new-tokens", 6]
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n/reset\none\n"))
    talked = spectral("generate", tmp_path / "model", "--interactive", "--chat", *options).out.splitlines()
    messages = []
    for line, answer in zip(("one", "two"), talked, strict=False):
        messages.append({"role": "user", "content": line})
        ids = torch.tensor([ByteTokenizer().encode(render(TEMPLATE, messages, ByteTokenizer.special_tokens))])
        assert bytes(model.eval().generate(ids, max_new_tokens=6)[0, ids.shape[1] :].tolist()).decode() == answer
        messages.append({"role": "assistant", "content": answer})
    assert talked[2] == talked[0]
    assert talked[1] != talked[0]
    alone = spectral("generate", tmp_path / "model", "--chat", "--prompt", "one", *options)
    assert alone.out == f"{talked[0]}\n"


def test_a_template_that_changes_what_it_wrote_is_read_anew():
    tokenizer = chatml()
    model, begun = built(tokenizer), []

    def begin():
        begun.append(Session(model, sampling=Sampling()))
        return begun[-1]

    chat = Chat(begin, tokenizer)
    chat.ask("one\n")
    chat.session.draw()
    chat.answered("  stripped  ", ended=True)
    before = len(begun)
    chat.ask("two\n")
    assert len(begun) == before + 1
    text = render(CHATML, chat.messages, tokenizer.special_tokens)
    assert chat.session._unread == tokenizer.encode_chat(text)


def test_the_end_of_an_answer_is_read_once():
    tokenizer = ByteTokenizer()
    session = Session(built(tokenizer), sampling=Sampling())
    chat = Chat(lambda: session, tokenizer)
    chat.ask("one\n")
    session.draw()
    session._unread = [0]
    chat.answered("", ended=True)
    chat.ask("two\n")
    assert bytes(session._unread).decode() == "\0\nuser\ntwo\0\nassistant\n"


def test_hugging_faces_byte_tokenizer_has_it():
    from spectral_models.integrations.huggingface import byte_tokenizer

    found = byte_tokenizer()
    assert isinstance(found, PreTrainedTokenizerFast)
    assert found.chat_template == TEMPLATE
