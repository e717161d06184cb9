"""``spectral bench``: measures the operators on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import typer
from rich.console import Console

from spectral_core import ConfigError
from spectral_models.benchmarks import report
from spectral_models.benchmarks.environment import environment
from spectral_models.benchmarks.fft import measure
from spectral_models.benchmarks.problem import DTYPES, WORKLOADS, Workload
from spectral_models.benchmarks.rows import Row
from spectral_models.benchmarks.settings import LENGTHS, QUICK_LENGTHS, QUICK_SECONDS, Settings
from spectral_models.cli.console import errors, out
from spectral_models.cli.outputs import check_output
from spectral_models.errors import needs_extra

app = typer.Typer(no_args_is_help=True)


def _shown(lengths: Sequence[int]) -> str:
    return ", ".join(f"{length:,}" for length in lengths)


@app.callback()
def bench() -> None:
    """Measure operators on this machine; operators with wrong results are not timed."""


@app.command()
def fft(
    backends: list[str] = typer.Option([], "--backend", help="An FFT backend; all, if none is given. Repeatable."),
    lengths: list[int] = typer.Option([], "--length", help=f"Tokens: {_shown(LENGTHS)} by default. Repeatable."),
    dtypes: list[str] = typer.Option(["float32"], "--dtype", help=f"{', '.join(DTYPES)}. Repeatable."),
    workloads: list[str] = typer.Option([], "--workload", help=f"{', '.join(WORKLOADS)}: all by default. Repeatable."),
    batch: int = typer.Option(1, help="Rows of the signal."),
    channels: int = typer.Option(768, help="Channels of the signal."),
    rounds: int = typer.Option(None, help="Timed rounds: 9 by default, 5 with --quick."),
    device: str = typer.Option(None, help="cpu, cuda or cuda:N; by default the GPU, if there is one."),
    memory: bool = typer.Option(False, "--memory", help="Also peak memory, each in a separate process: slow."),
    quick: bool = typer.Option(False, "--quick", help=f"About a minute: {_shown(QUICK_LENGTHS)} tokens, 5 rounds."),
    out_dir: Path = typer.Option(None, "--out", help="Also write fft.json, fft.csv and fft.png to this directory."),
) -> None:
    """Causal convolution: every backend beside plain torch.fft and causal attention.

    Results are first compared with float64. The workloads forward and
    forward+backward get a precomputed kernel spectrum; training includes the
    synthesis of a resonant filter's kernel, its transform, the convolution, and
    all gradients back to the filter's parameters. Times are medians over rounds
    in which all operators take turns; ratios to plain are computed per round. A
    table goes to the standard output.

      spectral bench fft --quick

      spectral bench fft --backend hierarchical --length 16384 --out results
    """
    settings = Settings(
        backends=tuple(dict.fromkeys(backends)),
        lengths=tuple(sorted(set(lengths))) or (QUICK_LENGTHS if quick else LENGTHS),
        dtypes=tuple(dict.fromkeys(dtypes)),
        workloads=cast(tuple[Workload, ...], tuple(dict.fromkeys(workloads))) or WORKLOADS,
        batch=batch,
        channels=channels,
        rounds=rounds if rounds is not None else 5 if quick else 9,
        seconds=QUICK_SECONDS if quick and rounds is None else None,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        memory=memory,
        attention_limit=4096 if quick else 16384,
    )
    if out_dir is not None:
        with needs_extra("--out draws a plot with", "train"):  # before minutes of measuring
            import matplotlib.figure  # noqa: F401
        check_output(out_dir)
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out {out_dir} cannot be made a directory: {error.strerror}.") from None
    machine = environment(settings.device)
    rows: list[Row] = []
    interrupted = False
    try:
        for row in measure(settings, errors.print):
            rows.append(row)  # noqa: PERF402 - what was measured before Ctrl-C is kept
    except KeyboardInterrupt:
        interrupted = True
        errors.print("interrupted; these are the results so far")
    _show(rows, settings, machine)
    if out_dir is not None:
        _write(rows, settings, machine, out_dir)
    if interrupted:
        raise typer.Exit(130)


def _show(rows: Sequence[Row], settings: Settings, machine: dict[str, Any]) -> None:
    console = out if out.is_terminal else Console(width=100, highlight=False, markup=False)
    threads = f", threads: {machine['threads']}" if settings.device == "cpu" else ""
    console.print(
        f"{machine['device_name']} ({settings.device}{threads}), torch {machine['torch']}, Python {machine['python']}, "
        f"spectral-networks {machine['spectral_networks']}, {machine['date']}\n"
    )
    for part in report.tables(rows, settings):
        console.print(part)


def _write(rows: Sequence[Row], settings: Settings, machine: dict[str, Any], directory: Path) -> None:
    from spectral_models.benchmarks.plot import plot_ratios

    (directory / "fft.json").write_text(report.to_json(rows, settings, machine), encoding="utf-8")
    (directory / "fft.csv").write_text(report.to_csv(rows), encoding="utf-8")
    title = f"Causal convolution, batch {settings.batch}, {settings.channels} channels, {machine['device_name']}"
    plot_ratios(rows, directory / "fft.png", title=title)
    names = ("fft.json", "fft.csv", "fft.png")
    out.print(f"written: {', '.join(str(directory / name) for name in names)}", soft_wrap=True)
