"""The XLA device of this process, multiplying float32 as such."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    import torch_xla
    from torch_xla import backends

    backends.set_mat_mul_precision("highest")
    return torch_xla.device()
