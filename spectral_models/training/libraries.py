"""What training needs of other packages, imported before anything else: a missing one is reported before a run begins.

transformers imports torchao where it is installed, and torchao says which of its kernels are not for this machine.
"""

from __future__ import annotations

from spectral_models.quiet import quietly

with quietly("torchao", "torch.utils._pytree"):
    import accelerate  # noqa: F401
    import transformers.trainer  # noqa: F401
