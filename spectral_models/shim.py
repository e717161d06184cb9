"""What a checkpoint carries so that Hugging Face's Auto classes load it in a process that never imported this package.

Beside the weights lies a file of Python that re-exports our classes, and ``auto_map`` in config.json names them in it.
With ``trust_remote_code=True`` transformers imports that file; without, it says that this is wanted.
"""

from __future__ import annotations

SHIM = "modeling_spectral_networks.py"
TEXT = '''"""Loads this checkpoint with trust_remote_code=True. It has no code of its own: that is the package's."""

try:
    from spectral_models.integrations.huggingface import *  # noqa: F403
except ModuleNotFoundError as error:
    raise ImportError(
        f"this checkpoint is a model of spectral-networks, which is not installed here ({error}). "
        "Run: pip install 'spectral-networks[train]'"
    ) from None
'''
BASE = "SpectralHFModel"
"""The class of AutoModel: of any model, without a task."""


def auto_map(architecture: str | None) -> dict[str, str]:
    """Our classes by the Auto classes that find them. architecture: the class of the model's task, if it has one."""
    classes = {"AutoConfig": "SpectralHFConfig", "AutoModel": BASE}
    if architecture is not None:
        classes[f"AutoModel{architecture.removeprefix('Spectral')}"] = architecture
    return {auto: in_shim(name) for auto, name in classes.items()}


def in_shim(name: str) -> str:
    """A class as an ``auto_map`` names it."""
    return f"{SHIM.removesuffix('.py')}.{name}"
