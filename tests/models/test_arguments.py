"""Numbers that cannot be meant: refused in one line, before a model is read or anything is allocated."""

from __future__ import annotations

import pytest
import torch

from spectral_core import ConfigError, UnsupportedInputError
from spectral_models import build_model, save_checkpoint
from spectral_models.arguments import real, whole
from spectral_models.benchmarks.settings import Settings
from spectral_models.data import ContiguousWindows
from spectral_models.evaluation import bits_per_byte
from spectral_models.export import export_model
from spectral_models.inspection.reader import inspect_model

HUGE = 10**12
MODEL = {"hidden_dim": 16, "num_layers": 1}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(MODEL).eval()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    return save_checkpoint(model, tmp_path_factory.mktemp("arguments") / "model")


@pytest.mark.parametrize("value", [1.0, True, "1", None, [], torch.ones(2), 1j])
def test_what_is_no_whole_number_is_named_with_its_type(value):
    with pytest.raises(ConfigError, match=rf"steps must be a whole number, at least 1; got .*{type(value).__name__}"):
        whole("steps", value, least=1)


@pytest.mark.parametrize("value", ["1", True, None, [], torch.ones(2), 1j, 10**400])
def test_what_is_no_number_is_named_with_its_type(value):
    with pytest.raises(ConfigError, match=rf"rate must be a number, above 0; got .*{type(value).__name__}"):
        real("rate", value, above=0)


def test_a_number_of_thousands_of_digits_or_a_long_text_is_cut():
    for value in (10**6000, "x" * 10**6, [1] * 10**5):
        for check in (whole, real):
            with pytest.raises(ConfigError) as raised:
                check("steps", value, **({"most": 5} if check is whole else {}))
            assert len(str(raised.value)) < 200


LINES = [
    (["evaluate", "--context", "100000000"], 2),
    (["evaluate", "--batch-size", HUGE], 2),
    (["inspect", "--layers", "0-99999999999"], 1),
    (["inspect", "--layers", "9" * 5000], 1),
    (["inspect", "--layers", "0-99999"], 1),
    (["inspect", "--length", "100000000000"], 1),
    (["export", "OUT", "--length", "100000000000"], 1),
    (["export", "OUT", "--length", "9" * 5000], 1),
    (["export", "OUT", "--length", f"input_ids={HUGE}"], 1),
    (["generate", "--max-new-tokens", HUGE], 2),
    (["generate", "--seed", 10**30], 2),
    (["generate", "--top-p", "nan"], 1),
    (["generate", "--temperature", "inf"], 1),
    (["generate", "--repetition-penalty", "nan"], 1),
]


@pytest.mark.parametrize(("line", "status"), LINES, ids=lambda value: str(value)[:40])
def test_absurd_numbers_of_commands_are_one_line(spectral, checkpoint, tmp_path, line, status):
    command, *options = line
    ended = spectral(command, checkpoint, *(tmp_path / "made.pt2" if each == "OUT" else each for each in options))
    assert ended.code == status, ended
    assert ended.err.startswith("error: ")
    assert len(ended.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [0, -1, HUGE, 1.5, True, "8", [1]])
def test_absurd_numbers_of_functions_are_one_error(model, tmp_path, value):
    windows = ContiguousWindows(torch.arange(50), 10)
    calls = [
        lambda: inspect_model(model, length=value),
        lambda: export_model(model, tmp_path / "made.pt2", format="torch", length=value),
        lambda: Settings(batch=value),
        lambda: Settings(channels=value),
        lambda: Settings(lengths=(value,)),
        lambda: Settings(rounds=value),
        *([] if value == HUGE else [lambda: bits_per_byte(model, windows, batch_size=value)]),
        *([] if value == 0 else [lambda: inspect_model(model, layers=[value])]),
    ]
    for call in calls:
        with pytest.raises(ConfigError):
            call()
    with pytest.raises(UnsupportedInputError, match="state"):
        model(torch.ones(1, 3, dtype=torch.long), state=value)


def test_layers_without_end_are_refused_at_the_first_that_is_missing(model):
    with pytest.raises(ConfigError, match="there is no layer 1: this model's are 0 to 0"):
        inspect_model(model, layers=range(HUGE))


def test_a_context_longer_than_the_text_is_one_window_of_it(spectral, checkpoint, tmp_path):
    (tmp_path / "text.txt").write_text("some text\n" * 30)
    ended = spectral("evaluate", checkpoint, "--data", tmp_path / "text.txt", "--context", 1 << 24)
    assert ended.code == 0
    assert "in windows of 300" in ended.out
