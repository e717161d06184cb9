"""The benchmark harness: wrong results get no time, and what is written can be read. No time is asserted."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from typer.testing import CliRunner

from spectral_core import FFTBackend, FFTBackendConfig, Request, Spectrum, hookimpl
from spectral_core.errors import ConfigError, UnknownComponentError
from spectral_core.plugins import HOST, PLUGIN_API, Registrar
from spectral_core.testing import oracle_convolve, relative_error
from spectral_models.benchmarks import accuracy, memory
from spectral_models.benchmarks.accuracy import Reference
from spectral_models.benchmarks.contestants import Plain
from spectral_models.benchmarks.fft import measure
from spectral_models.benchmarks.measure import Spread, Stopwatch, paired_ratio, spread
from spectral_models.benchmarks.problem import WORKLOADS, Problem, Shape
from spectral_models.benchmarks.report import groups, to_csv, to_json
from spectral_models.benchmarks.rows import Row, costs
from spectral_models.benchmarks.settings import Settings
from spectral_models.cli.app import main
from spectral_models.cli.commands import app

TINY: dict[str, Any] = {"lengths": (48,), "channels": 64, "rounds": 2}
linux = pytest.mark.skipif(not memory.measurable("cpu"), reason="peaks on a CPU are read from /proc")
SHAPE = Shape(batch=2, channels=5, length=37, dtype="float32", device="cpu")


class Faulty(FFTBackend):
    """Plain transforms with one fault."""

    def __init__(self, fault: str) -> None:
        self.name = f"faulty/{fault}"
        self._fault = fault

    def unsupported_reasons(self, request: Request) -> list[str]:
        return ["only odd lengths", "it is Monday"] if self._fault == "choosy" else []

    def rfft(self, x: torch.Tensor, n: int) -> Spectrum:
        spectrum = torch.fft.rfft(x, n=n)
        return Spectrum(spectrum.real, spectrum.imag)

    def irfft(self, spectrum: Spectrum, n: int) -> torch.Tensor:
        if self._fault == "broken":
            raise ZeroDivisionError("no such plan")
        y = torch.fft.irfft(torch.complex(*spectrum), n=n)
        if self._fault == "wrong":
            return y * (1 + 1e-5)
        if self._fault == "gradient":  # right forward, wrong backward
            return y.detach() + 1.001 * (y - y.detach())
        return y


class WrongConfig(FFTBackendConfig):
    type: Literal["faulty/wrong"] = "faulty/wrong"

    def build(self) -> FFTBackend:
        return Faulty("wrong")


class GradientConfig(FFTBackendConfig):
    type: Literal["faulty/gradient"] = "faulty/gradient"

    def build(self) -> FFTBackend:
        return Faulty("gradient")


class ChoosyConfig(FFTBackendConfig):
    type: Literal["faulty/choosy"] = "faulty/choosy"

    def build(self) -> FFTBackend:
        return Faulty("choosy")


class BrokenConfig(FFTBackendConfig):
    type: Literal["faulty/broken"] = "faulty/broken"

    def build(self) -> FFTBackend:
        return Faulty("broken")


class RightConfig(FFTBackendConfig):
    type: Literal["faulty/right"] = "faulty/right"

    def build(self) -> FFTBackend:
        return Faulty("right")


@pytest.fixture
def faulty() -> Iterator[None]:
    """A plugin whose backends are wrong, each in its own way, and one that is right."""

    @hookimpl
    def spectral_register_fft_backends(register: Registrar) -> None:
        for config in (WrongConfig, GradientConfig, ChoosyConfig, BrokenConfig, RightConfig):
            register("fft", config.model_fields["type"].default, config, summary="For tests.")
        register("fft", "faulty/absent", "no_such_module_anywhere:Config", summary="For tests.")

    plugin = SimpleNamespace(
        SPECTRAL_PLUGIN_API=PLUGIN_API, spectral_register_fft_backends=spectral_register_fft_backends
    )
    HOST.register(plugin, namespace="faulty", distribution="faulty-backends")
    yield
    HOST.unregister("faulty")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: exit status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spectral", "bench", "fft", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def by_name(rows: list[Row], workload: str) -> dict[str, Row]:
    return {row.name: row for row in rows if row.workload == workload}


# accuracy


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_reference_agrees_with_the_definition(workload) -> None:
    """Against direct sums and their automatic gradients, which share no code with it."""
    problem = Problem.make(SHAPE)
    reference = Reference(problem, workload)
    u = problem.u.double().requires_grad_()
    module = problem.filter.double()
    kernel = module.kernel(SHAPE.length) if workload == "training" else problem.kernel.double()
    y = oracle_convolve(u, kernel)
    results = {
        "output": y.detach(),
        "input gradient": torch.autograd.grad(y, u, problem.cotangent, retain_graph=True)[0],
    }
    if workload == "training":
        for name, parameter in module.named_parameters():
            (gradient,) = torch.autograd.grad(y, parameter, problem.cotangent, retain_graph=True)
            results[f"{name} gradient"] = gradient
    errors = reference.errors(results)
    assert len(errors) == {"forward": 1, "forward+backward": 2, "training": 5}[workload]
    assert max(errors.values()) < 1e-11
    wrong = reference.errors({name: 1.001 * value for name, value in results.items()})
    assert min(wrong.values()) > 9e-4


def test_long_signals_are_compared_on_spread_channels(monkeypatch) -> None:
    monkeypatch.setattr(accuracy, "POINTS", 4)
    problem = Problem.make(replace(SHAPE, channels=9))
    reference = Reference(problem, "training")
    assert reference.channels.tolist() == [0, 3, 5, 8]
    assert max(reference.errors(Plain().task(problem, "training")()).values()) < 1e-5


def test_a_wrong_reference_does_not_pass_unnoticed(monkeypatch) -> None:
    monkeypatch.setattr(accuracy, "fast_length", lambda n: n // 2)  # too short: the end wraps onto the beginning
    with pytest.raises(AssertionError, match="reference is wrong"):
        Reference(Problem.make(SHAPE), "forward")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_right_backends_are_measured_in_every_dtype(dtype) -> None:
    rows = list(measure(Settings(backends=("torch", "hierarchical"), dtypes=(dtype,), **TINY)))
    assert {row.name for row in rows} == {"plain", "torch", "hierarchical", "attention"}
    for row in rows:
        assert row.status == "measured", row
        assert row.seconds is not None
        assert row.ratio is not None
        assert row.rounds == 2
        assert row.accuracy
    assert by_name(rows, "training")["plain"].ratio == Spread(1.0, 1.0, 1.0)
    assert "attention" not in by_name(rows, "training"), "it has no kernel to train"


@pytest.mark.usefixtures("faulty")
def test_wrong_backends_get_no_time() -> None:
    names = ("wrong", "gradient", "choosy", "broken", "absent", "right")
    rows = list(measure(Settings(backends=tuple(f"faulty/{name}" for name in names), **TINY)))
    for workload in WORKLOADS:
        found = by_name(rows, workload)
        gradient = "measured" if workload == "forward" else "inaccurate"
        assert {name: found[f"faulty/{name}"].status for name in names} == {
            "wrong": "inaccurate",
            "gradient": gradient,
            "choosy": "unsupported",
            "broken": "failed",
            "absent": "failed",
            "right": "measured",
        }
        assert found["faulty/right"].provider == "faulty-backends 0"
        assert found["faulty/choosy"].note == "only odd lengths; it is Monday"
        assert "ZeroDivisionError: no such plan" in found["faulty/broken"].note
        assert "no_such_module_anywhere" in found["faulty/absent"].note
        wrong = found["faulty/wrong"]
        assert "output is off by 1e-05" in wrong.note
        assert 0.9e-5 < (wrong.error or 0) < 1.1e-3
        for row in found.values():
            assert (row.seconds is not None) == (row.ratio is not None) == (row.status == "measured")
    assert "input gradient is off by 0.001" in by_name(rows, "training")["faulty/gradient"].note


def test_without_a_right_yardstick_nothing_is_measured(monkeypatch) -> None:
    monkeypatch.setattr(Plain, "apply", lambda self, u, prepared: u)
    rows = by_name(list(measure(Settings(backends=("torch",), workloads=("forward",), **TINY))), "forward")
    assert rows["plain"].status == "inaccurate"
    assert rows["torch"].status == "skipped"
    assert not any(row.seconds for row in rows.values())


# measuring


def test_turns_are_interleaved() -> None:
    order: list[str] = []
    watch = Stopwatch({"a": lambda: order.append("a"), "b": lambda: order.append("b")})
    watch._repeats = {"a": 1, "b": 1}
    order.clear()
    taken = watch.rounds(3)
    assert order == ["a", "b"] * 3
    assert [len(values) for values in taken.values()] == [3, 3]


def test_ratios_are_formed_round_by_round() -> None:
    weather = [1.0, 9.0, 3.0, 5.0, 2.0]
    assert paired_ratio([2 * value for value in weather], weather) == Spread(2.0, 2.0, 2.0)
    noisy = paired_ratio([1.0, 2.0, 3.0, 4.0, 100.0], [1.0] * 5)
    assert noisy.median == 3.0
    assert 1.0 <= noisy.low < 3.0 < noisy.high <= 100.0
    assert spread([1, 2, 3, 4, 5, 6]) == Spread(3.5, 2.0, 5.0)


def test_a_budget_keeps_three_rounds() -> None:
    settings = Settings(rounds=9, seconds=10.0)
    assert [settings.rounds_within(seconds) for seconds in (0.1, 2.0, 60.0)] == [9, 5, 3]
    assert Settings(rounds=9).rounds_within(60.0) == 9


def test_cost_compares_with_8192_tokens() -> None:
    def row(length: int, seconds: float) -> Row:
        return Row(
            workload="forward", dtype="float32", length=length, name="x", provider="", runs_as="x", status="measured",
            seconds=Spread(seconds, seconds, seconds),
        )  # fmt: skip

    ideal = 8 * 16 / 13  # 65,536 tokens against 8,192: 2^16 * 16 over 2^13 * 13
    (cost,) = costs([row(2048, 9.0), row(8192, 1.0), row(65536, 2 * ideal)])
    assert (cost.length, cost.growth) == (65536, pytest.approx(2.0))
    assert costs([row(2048, 9.0), row(8192, 1.0)]) == []


def test_what_does_not_fit_is_skipped_with_a_note(monkeypatch) -> None:
    monkeypatch.setattr(memory, "_free", lambda device: 1000)
    rows = list(measure(Settings(backends=("torch",), workloads=("forward",), **TINY)))
    assert [(row.name, row.status) for row in rows] == [("plain", "skipped"), ("torch", "skipped")]
    assert all("GiB are free" in row.note for row in rows)


def test_attention_stops_at_its_limit_and_needs_whole_heads() -> None:
    rows = list(measure(Settings(backends=("torch",), workloads=("forward",), attention_limit=47, **TINY)))
    assert by_name(rows, "forward")["attention"].status == "skipped"
    rows = list(measure(Settings(backends=("torch",), workloads=("forward",), lengths=(8,), channels=3, rounds=1)))
    assert "3 channels do not divide" in by_name(rows, "forward")["attention"].note


@linux
def test_peak_memory_is_what_plain_must_hold() -> None:
    """Its spectrum, product and padded signals are each twice the signal: about five signals at once."""
    shape = Shape(batch=1, channels=64, length=32768, dtype="float32", device="cpu")
    signal = 64 * 32768 * 4
    assert 3.5 * signal <= memory.extra_bytes("plain", shape, "forward") <= 9 * signal


@linux
def test_a_memory_process_that_dies_costs_only_its_number(monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    for row in measure(Settings(backends=("torch",), workloads=("training",), memory=True, **TINY)):
        assert row.status == "measured"
        assert row.extra_bytes is None
        assert row.note == "memory was not measured: exit status 1: no message"


# settings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lengths": (8, 0)}, "length must be at least 1; got 0"),
        ({"channels": -1}, "channels must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"dtypes": ("float23",)}, "'float23' is unknown. Did you mean 'float32'"),
        ({"workloads": ("trainin",)}, "Did you mean 'training'"),
        ({"device": "abacus"}, "give cpu, cuda"),
        ({"device": "cuda:99"}, "this machine has"),
        ({"lengths": ()}, "no lengths"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**fields)


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownComponentError, match="hierarchical"):
        Settings(backends=("hierarchicl",))


# the command


@pytest.mark.usefixtures("faulty")
def test_the_command_reports_to_people_and_programs(run, tmp_path: Path) -> None:
    code, shown, progress = run(
        *("--length", 48, "--length", 24, "--channels", 64, "--rounds", 2, "--out", tmp_path / "made"),
        *("--backend", "auto", "--backend", "faulty/wrong", "--backend", "faulty/choosy"),
    )
    assert code == 0, progress
    assert "checking against float64" in progress
    assert "checking" not in shown
    assert "auto (" in shown, "auto says who did the work"
    assert "inaccurate" in shown
    assert "only odd lengths" in shown
    table = shown.split("written:")[0].splitlines()
    assert max(len(line.rstrip()) for line in table if line.startswith(" ")) <= 100

    document = json.loads((tmp_path / "made" / "fft.json").read_text())
    assert {"torch", "python", "spectral_networks", "device_name", "threads", "date"} <= set(document["environment"])
    assert document["settings"]["lengths"] == [24, 48]
    assert len(document["rows"]) == 2 * (5 + 5 + 4)
    for row in document["rows"]:
        assert (row["seconds"] is None) == (row["status"] != "measured")

    lines = list(csv.DictReader((tmp_path / "made" / "fft.csv").read_text().splitlines()))
    assert len(lines) == len(document["rows"])
    for line in lines:
        assert (line["seconds"] == "") == (line["status"] != "measured")
        if line["seconds"]:
            assert float(line["seconds_p20"]) <= float(line["seconds"]) <= float(line["seconds_p80"])
    assert "auto" not in {line["runs_as"] for line in lines}
    assert (tmp_path / "made" / "fft.png").read_bytes().startswith(b"\x89PNG")


def test_errors_of_the_command_are_one_line(run, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    for arguments, message in (
        (["--backend", "tortch"], "torch"),
        (["--length", "-3"], "at least 1; got -3"),
        (["--out", tmp_path / "taken"], "cannot be made a directory"),
    ):
        code, _, said = run(*arguments)
        assert code == 1
        assert said.startswith("error: ")
        assert message in said


def test_a_missing_matplotlib_names_the_extra_before_measuring(run, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, shown, said = run("--length", 8, "--channels", 2, "--out", tmp_path / "made")
    assert code == 1
    assert "spectral-networks[train]" in said
    assert shown == ""
    assert not (tmp_path / "made").exists()


def test_what_was_measured_before_an_interrupt_is_kept(run, monkeypatch, tmp_path: Path) -> None:
    def interrupted(settings, progress):
        yield next(measure(settings, progress))
        raise KeyboardInterrupt

    monkeypatch.setattr("spectral_models.cli.bench.measure", interrupted)
    code, shown, said = run("--length", 8, "--channels", 2, "--rounds", 1, "--out", tmp_path)
    assert code == 130
    assert "interrupted" in said
    assert "plain" in shown
    assert len(json.loads((tmp_path / "fft.json").read_text())["rows"]) == 1


def test_help_lists_the_command() -> None:
    assert "fft" in CliRunner().invoke(app, ["bench", "--help"]).output


def test_infinite_errors_are_valid_json() -> None:
    check = accuracy.Accuracy(result="output", error=float("inf"), plain=1e-7, allowed=2e-7)
    row = Row(
        workload="forward", dtype="float32", length=8, name="x", provider="", runs_as="x", status="inaccurate",
        accuracy=(check,),
    )  # fmt: skip
    assert json.loads(to_json([row], Settings(), {}))["rows"][0]["accuracy"][0]["error"] is None
    assert to_csv([row]).count("\n") == 2
    assert groups([row]) == [(("forward", "float32"), [row])]
    assert relative_error(torch.ones(2), torch.ones(3)) == float("inf")
