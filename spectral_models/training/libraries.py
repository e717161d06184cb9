"""Imports the libraries that training needs, so that a missing one is reported before a run begins.

transformers imports torchao if it is installed, which warns about kernels that it cannot load.
"""

from __future__ import annotations

from spectral_models.quiet import quietly

with quietly("torchao", "torch.utils._pytree"):
    import accelerate  # noqa: F401
    import transformers.trainer  # noqa: F401
