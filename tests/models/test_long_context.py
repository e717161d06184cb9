"""The long-context benchmark at a small scale: its work is right, and it prints nothing for a wrong result."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("long_context")


def test_a_stream_ends_where_one_pass_does(script: ModuleType) -> None:
    """The preset itself, in float32, over several chunks whose ends are no block's."""
    whole = script.read("tiny", 700)
    streamed = script.stream("tiny", 700, chunk=150)
    assert (streamed - whole).abs().max() <= script.TOLERANCE * whole.abs().max()
    assert (script.stream("tiny", 699, chunk=150) - whole).abs().max() > 0.1 * whole.abs().max()


@pytest.mark.parametrize(("precision", "recompute"), [("float32", True), ("float32", False), ("bf16", True)])
def test_a_step_of_training_takes_the_loss_down(script: ModuleType, precision: str, recompute: bool) -> None:
    before, after = script.train("tiny", 300, precision=precision, recompute=recompute)
    assert after < before - 0.01
    assert 5.4 < before < 5.7, "log 256: nothing has been learned yet"


def test_a_process_tells_its_time_its_peak_and_what_it_found(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    script.process("tiny", "stream", "40")
    seconds, high, *logits = map(float, capsys.readouterr().out.split())
    assert seconds > 0
    assert 0.05 < high < 64
    torch.testing.assert_close(torch.tensor(logits), script.stream("tiny", 40))


@pytest.mark.parametrize("power", [1.0, 1.1, 2.0])
def test_the_exponent_is_that_of_a_power_law(script: ModuleType, power: float) -> None:
    assert script.exponent((16_384, 16_384**power), (200_000, 200_000**power)) == pytest.approx(power)


def test_lengths_take_turns_and_first_passes_do_not_count(script: ModuleType) -> None:
    seconds = script.growth("tiny", (20, 60), rounds=2)
    assert {count: len(found) for count, found in seconds.items()} == {20: 2, 60: 2}


def test_nothing_is_printed_for_a_wrong_result(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"read": [1.0, 1.0, 4.0, -8.0], "stream": [1.0, 1.0, 4.0, -8.1], "train": [1.0, 1.0, 5.5, 5.6]}
    monkeypatch.setattr(script, "alone", lambda what, *_: found[what])
    with pytest.raises(SystemExit, match=r"a stream of 200,000 tokens and one pass differ by 1\.2e-02"):
        script.report_reading("tiny", 1.0, ["read", "stream"])
    assert "stream" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"the loss from 5\.5 to 5\.6"):
        script.report_training("tiny", 1.0)
    assert capsys.readouterr().out == ""
    found["stream"][-1] = -8.001
    script.report_reading("tiny", 1.0, ["read", "stream"])
    assert "last logits within 1e-04 of one pass" in capsys.readouterr().out
