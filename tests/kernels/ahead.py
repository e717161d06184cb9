"""Kernels compiled for a GPU that is not here: what each needs, one JSON object a line.

``python tests/kernels/ahead.py 80:4096,90:4096 ieee,tf32,tf32x3``

Compiled without a device, by the compiler a device would use: cubin and on-chip memory are what would run there.
"""

from __future__ import annotations

import inspect
import json
import resource
import sys
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from spectral_kernels.factors import ACROSS, ON_CHIP
from spectral_kernels.gated_convolution import kernels, passes
from spectral_kernels.launch import columns, options
from spectral_kernels.modulation import kernels as modulation

INTEGERS = {
    *("BATCH", "DIM", "L", "K", "N", "FROM", "SPLITS", "START", "CHUNK", "CHUNKS", "TILES"),
    *("NA", "NB", "NC", "GB", "GD", "GF", "PB", "PD", "PF"),
}
SIGNALS = {"U", "PRE", "POST", "GRAD", "OUT", "TO_U", "TO_PRE", "TO_POST", "FACTOR", "X", "GATE", "TO_X"}
FLAGS = {
    "PER_ROW": False,
    "HAS_PRE": True,
    "HAS_POST": True,
    "HAS_SKIP": True,
    "HAS_FACTOR": True,
    "HAS_GATE": True,
    "HAS_GAIN": True,
    "HAS_PHASE": True,
    "TO_KERNEL": True,
    "WIDE": False,
}
ELEMENT = {"ieee": "fp32", "tf32": "bf16", "tf32x3": "fp16"}


def kernels_of(module: Any) -> list[Any]:
    named = [value for name, value in vars(module).items() if not name.startswith("_")]
    return [value for value in named if hasattr(value, "arg_names") and value.__module__ == module.__name__]


def sizes_of(kernel: Any, points: int, precision: str) -> dict[str, Any]:
    """A tile of that many points; of 256 chunks, the smallest of 16, where a kernel works across them."""
    if "R" in kernel.arg_names:
        across = ACROSS[16 if points == min(ON_CHIP) else 256]
        return {"A": across.a, "B": across.b, "R": columns(across, points), "PRECISION": precision}
    return {**dict(zip("ABC", ON_CHIP[points], strict=True)), "PRECISION": precision}


def spent() -> float:
    """Processor time of this process and of the assemblers it has started."""
    return sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def measure(kernel: Any, sizes: dict[str, Any], capability: int, flags: dict[str, bool]) -> dict[str, Any]:
    constants = {name: value for name, value in {**flags, **sizes}.items() if name in kernel.arg_names}
    signature = {}
    for name in inspect.signature(kernel.fn).parameters:
        if name in constants:
            signature[name] = "constexpr"
        elif name in INTEGERS:
            signature[name] = "i32"
        else:
            signature[name] = f"*{ELEMENT[sizes['PRECISION']] if name in SIGNALS else 'fp32'}"
    started = spent()
    compiled = compile(
        ASTSource(kernel, signature, constexprs=constants),
        target=GPUTarget("cuda", capability, 32),
        options=options(constants),
    )
    return {
        "kernel": kernel.__name__, "capability": capability, "shared": compiled.metadata.shared,
        "cubin": len(compiled.asm["cubin"]), "seconds": round(spent() - started, 1), **sizes,
    }  # fmt: skip


def main(targets: str, precisions: str) -> None:
    """targets: as 80:4096,90:256, capability and points of a tile; of 256 points, with every flag the other way."""
    for module in (kernels, passes, modulation):
        for kernel in kernels_of(module):
            for target in targets.split(","):
                capability, points = map(int, target.split(":"))
                flags = {name: flag != (points == min(ON_CHIP)) for name, flag in FLAGS.items()}
                for precision in precisions.split(","):
                    made = measure(kernel, sizes_of(kernel, points, precision), capability, flags)
                    sys.stdout.write(f"{json.dumps(made)}\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
