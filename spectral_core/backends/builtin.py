"""Our own FFT backends, registered through the hook third parties use."""

from __future__ import annotations

from spectral_core.plugins import Registrar, hookimpl


@hookimpl
def spectral_register_fft_backends(register: Registrar) -> None:
    here = "spectral_core.backends"
    register("fft", "auto", f"{here}.auto:AutoFFTConfig", summary="Chooses a backend for each request, and says why.")
    register("fft", "torch", f"{here}.torch_fft:TorchFFTConfig", summary="torch.fft on whole tensors: the reference.")
    register("fft", "direct", f"{here}.direct:DirectConfig", summary="Short kernels by the direct sum.")
    register(
        "fft",
        "hierarchical",
        f"{here}.hierarchical:HierarchicalFFTConfig",
        summary="Exact transforms in cache-sized blocks of channels.",
    )
    register("fft", "triton", f"{here}.triton:TritonFFTConfig", summary="Fused CUDA kernels, from Ampere on.")
    register("fft", "xla", f"{here}.xla:XlaFFTConfig", summary="Real matrix products: for TPUs and exporters.")
