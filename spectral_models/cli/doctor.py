"""``spectral doctor``: versions, devices, failures of plugins, and the choices of ``fft: auto``."""

from __future__ import annotations

import importlib.metadata
import logging
import platform

import torch
import typer
from rich.text import Text

from spectral_core import Request, UnsupportedInputError, fft_backend
from spectral_core.backends.auto import AutoFFT
from spectral_core.plugins import HOST
from spectral_models.cli.console import out
from spectral_models.registries import MODELS

_LIBRARIES = ("torch", "triton", "transformers", "accelerate", "datasets", "tensorboard", "matplotlib", "torch_xla")
_LENGTHS = (256, 8192, 65536)


def doctor() -> None:
    """Check the installation: versions, devices, FFT backends, plugins. Exits with 1 when a plugin failed.

    The lines "fft: auto" name the backend that fft: auto chooses for a length on
    this machine, and the reasons against the others. Plugins are named before
    they are imported: if this command crashes or hangs, the last one named is the
    cause.
    """
    logging.getLogger("spectral_core.discovery").setLevel(logging.INFO)
    assert MODELS  # importing the last of the registries declares them all
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    _line("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    _line("device", f"{device}, {name}")
    xla = _xla_devices()
    if xla is not None:
        _line("device", f"xla, {xla}")
    for library in ("spectral-networks", *_LIBRARIES):
        _line(library, _version(library))
    _line("components", ", ".join(f"{len(registry)} {kind}" for kind, registry in HOST.registries.items()))
    auto = fft_backend("auto")
    assert isinstance(auto, AutoFFT)
    for length in _LENGTHS:
        _line("fft: auto", f"{length} tokens: {_plan(auto, device, length)}")
    if xla is not None:  # the same plan at all lengths
        _line("fft: auto", f"on xla: {_plan(auto, 'xla', _LENGTHS[0])}")
    failures = HOST.failures()
    for failure in failures:
        _line("plugin", str(failure), style="red")
    if failures:
        raise typer.Exit(1)
    _line("plugins", "no failures")


def _xla_devices() -> str | None:
    """The devices of torch_xla; None if it is not installed."""
    try:
        from torch_xla import runtime

        return f"{runtime.addressable_runtime_device_count()} {runtime.device_type()}"
    except ModuleNotFoundError:
        return None
    except (ImportError, RuntimeError) as error:  # built for another torch, or no such device
        return f"unusable: {error}"


def _plan(auto: AutoFFT, device: str, length: int) -> str:
    """The plan, or why there is none: XLA is refused until the process sets the precision of products."""
    try:
        return str(auto.plan(Request("convolution", device, torch.float32, 1, 256, length, length, "causal", True)))
    except UnsupportedInputError as error:
        return str(error)


def _line(label: str, value: str, style: str = "") -> None:
    out.print(Text.assemble((f"{label:19}", f"bold {style}"), (value, style)), soft_wrap=True)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
