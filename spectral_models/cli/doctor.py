"""``spectral doctor``: what this machine has, what the plugins did, what ``fft: auto`` would choose."""

from __future__ import annotations

import importlib.metadata
import platform

import torch
import typer

from spectral_core import Request, fft_backend
from spectral_core.backends.auto import AutoFFT
from spectral_core.plugins import HOST
from spectral_models.cli.console import out
from spectral_models.registries import MODELS

_LIBRARIES = ("torch", "triton", "transformers", "accelerate", "datasets", "tensorboard", "matplotlib", "torch_xla")
_LENGTHS = (256, 8192, 65536)


def doctor() -> None:
    """Check the installation. Exits with 1 when a plugin failed."""
    assert MODELS  # the last of the registries: importing it declares them all
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    out.print(f"[bold]python[/]        {platform.python_version()} on {platform.system()} {platform.machine()}")
    out.print(f"[bold]device[/]        {device}, {name}")
    for library in ("spectral-networks", *_LIBRARIES):
        out.print(f"[bold]{library:13}[/] {_version(library)}", highlight=False)
    counts = ", ".join(f"{len(registry)} {kind}" for kind, registry in HOST.registries.items())
    out.print(f"[bold]components[/]    {counts}", highlight=False)
    auto = fft_backend("auto")
    assert isinstance(auto, AutoFFT)
    for length in _LENGTHS:
        request = Request("convolution", device, torch.float32, 1, 256, length, length, "causal", True)
        out.print(f"[bold]fft: auto[/]     {length} tokens: {auto.plan(request)}", highlight=False)
    failures = HOST.failures()
    for failure in failures:
        out.print(f"[bold red]plugin[/]        {failure}", highlight=False)
    if failures:
        raise typer.Exit(1)
    out.print("[bold]plugins[/]       no failures")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
