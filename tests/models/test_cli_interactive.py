"""``spectral generate --interactive``: lines and answers are one text, read once."""

from __future__ import annotations

import io
import signal

import pytest
import torch

from spectral_models import build_model, load_checkpoint, save_checkpoint
from spectral_models.generation.session import Session
from spectral_models.variants.language_model import LanguageModel

MODEL = {"hidden_dim": 32, "num_layers": 2, "layers": ["hybrid"]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(MODEL, tie_embeddings=False)
    with torch.no_grad():
        model.head.weight[[*range(33), *range(127, 256)]] = 0.0  # answers are letters, and no document ends
    return save_checkpoint(model, tmp_path_factory.mktemp("interactive") / "model")


@pytest.fixture
def talk(spectral, checkpoint, monkeypatch):
    """What answers the lines of a pipe: ``talk("a line\\n", ...)``."""

    def run(lines, *options, model=checkpoint):
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return spectral("generate", model, "--interactive", "--temperature", 0, "--max-new-tokens", 6, *options)

    return run


def continued(checkpoint, text, count=6):
    model = load_checkpoint(checkpoint)
    ids = torch.tensor([list(text.encode())])
    return bytes(model.generate(ids, max_new_tokens=count)[0, ids.shape[1] :].tolist()).decode()


def test_an_answer_is_in_the_context_of_all_that_was_said(talk, checkpoint):
    first = continued(checkpoint, "one\n")
    second = continued(checkpoint, f"one\n{first}\ntwo\n")
    ended = talk("one\ntwo\n")
    assert ended.code == 0
    assert ended.out == f"{first}\n{second}\n", "answers only, each ending its line"
    assert ended.err == ""
    assert second != continued(checkpoint, "two\n"), "the context must matter"


def test_nothing_is_read_twice(talk, monkeypatch):
    read = []
    forward = LanguageModel.forward

    def counting(self, input_ids, *arguments, **options):
        read.append(input_ids.shape[1])
        return forward(self, input_ids, *arguments, **options)

    monkeypatch.setattr(LanguageModel, "forward", counting)
    talk("one\ntwo\n")
    # A line, five answers of its own; then the sixth with a line end and the next line, and so on.
    assert read == [4, 1, 1, 1, 1, 1, 6, 1, 1, 1, 1, 1]


def test_reset_forgets_and_quit_ends(talk):
    one, two, both = talk("one\n").out, talk("two\n").out, talk("one\n/reset\ntwo\n/quit\none\n").out
    assert both == one + two


def test_a_backslash_keeps_the_line_open_and_a_prompt_comes_first(talk, checkpoint):
    assert talk("def \\\n").out == continued(checkpoint, "def ") + "\n"
    assert talk("", "--prompt", "def ").out == continued(checkpoint, "def ") + "\n"
    assert talk("\\\n").out == continued(checkpoint, "\0") + "\n", "an empty text begins behind the end of another"
    assert talk("").out == ""


def test_bytes_that_are_no_text_are_read_as_they_are(talk, checkpoint):
    ids = torch.tensor([[255, 10]])
    expected = load_checkpoint(checkpoint).generate(ids, max_new_tokens=6)[0, 2:]
    assert talk("\udcff\n").out == bytes(expected.tolist()).decode(errors="replace") + "\n"


def test_ctrl_c_stops_the_answer_and_nothing_else(talk, checkpoint, monkeypatch):
    draws = []
    draw = Session.draw

    def interrupted(self):
        draws.append(draw(self))
        if len(draws) == 3:
            signal.raise_signal(signal.SIGINT)
        return draws[-1]

    monkeypatch.setattr(Session, "draw", interrupted)
    before = signal.getsignal(signal.SIGINT)
    ended = talk("one\ntwo\n")
    assert ended.code == 0
    first = continued(checkpoint, "one\n", 3)
    assert ended.out == f"{first}\n{continued(checkpoint, f'one{chr(10)}{first}{chr(10)}two{chr(10)}')}\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_the_command(talk, monkeypatch):
    def pressed_twice(self):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Session, "draw", pressed_twice)
    assert talk("one\n").code == 130


def test_the_end_of_a_document_ends_the_answer(talk, monkeypatch):
    monkeypatch.setattr(Session, "draw", lambda self: 0)
    assert talk("one\ntwo\n").out == "\n\n"


def test_a_text_over_the_models_limit_is_an_error_and_the_loop_goes_on(talk, tmp_path):
    limited = save_checkpoint(build_model(MODEL, position="learned", max_seq_len=12), tmp_path / "limited")
    ended = talk("a line of sixteen\n/reset\none\n", model=limited)
    assert ended.code == 1, "a script is told that a line has no answer"
    assert talk("one\n", model=limited).code == 0
    assert "limited to 12 tokens" in ended.err
    assert "/reset begins a new text" in ended.err
    assert len(ended.out.encode(errors="surrogateescape")) >= 6


def test_a_terminal_is_asked_line_by_line(talk, spectral, checkpoint, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    typed = iter(["one", KeyboardInterrupt, "two", EOFError])
    asked = []

    def ask(prompt):
        asked.append(prompt)
        line = next(typed)
        if isinstance(line, str):
            return line
        raise line

    piped = talk("one\ntwo\n").out
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", ask)
    ended = spectral("generate", checkpoint, "--interactive", "--temperature", 0, "--max-new-tokens", 6)
    assert ended.code == 0
    assert asked == ["> "] * 4
    first, second = piped.splitlines(keepends=True)
    assert ended.out == f"{first}\n{second}\n", "Ctrl-C and Ctrl-D go to the next line"
    assert "/quit" in ended.err


@pytest.mark.parametrize("option", [("--top-p", "2"), ("--repetition-penalty", "0")])
def test_options_out_of_range_are_refused_at_the_beginning(talk, option):
    talk("one\n", *option).refused("must be above 0")


@pytest.mark.parametrize("options", [("--prompt-lookup-num-tokens", 5), ("--assistant", "itself")])
def test_drafts_change_no_answer(talk, checkpoint, options):
    lines = "one one one\none one\n/reset\none\n"
    plain = talk(lines, "--max-new-tokens", 20)
    found = talk(lines, "--max-new-tokens", 20, *(checkpoint if option == "itself" else option for option in options))
    assert found == plain
    assert len(plain.out) > 20
