"""Whether the Triton kernels can run here, and the reasons if they cannot."""

from __future__ import annotations

import importlib.util
import os

import torch

LEAST_CAPABILITY = (8, 0)
"""Ampere: TF32 products, and the on-chip memory below."""
SHARED_BYTES = 99 << 10
"""On-chip memory that a kernel may use: what every architecture from Ampere on offers one block. A test compiles every
kernel and checks it."""


def interpreting() -> bool:
    """Whether Triton's interpreter runs the kernels on the CPU: TRITON_INTERPRET=1, set before the first launch."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def missing(device: str) -> list[str]:
    """Why the kernels cannot run on a type of device ("cuda", "cpu"); empty if they can."""
    if importlib.util.find_spec("triton") is None:
        return ["triton is not installed"]
    if interpreting():
        return []
    if not torch.cuda.is_available():
        return ["no CUDA device"]
    if device != "cuda":
        return [f"the input is on {device}, not on a CUDA device"]
    if torch.version.hip is not None:
        return ["the device is AMD's; the kernels are compiled and checked for NVIDIA's"]
    reasons = []
    properties = torch.cuda.get_device_properties()
    if (properties.major, properties.minor) < LEAST_CAPABILITY:
        found = f"{properties.major}.{properties.minor}"
        reasons.append(f"compute capability {found} of {properties.name}; at least 8.0 is needed")
    shared = getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block)
    if shared < SHARED_BYTES:
        reasons.append(f"{shared} bytes of shared memory in a block of {properties.name}; {SHARED_BYTES} are needed")
    return reasons


# What torch.compiler.assume_constant_result sets, without importing the compiler: a device does not change while a
# model is traced.
missing._dynamo_marked_constant = True  # type: ignore[attr-defined]
