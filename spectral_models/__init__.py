"""Models assembled from validated configs: build, train, save, generate."""

import typing

if typing.TYPE_CHECKING:
    from spectral_models.assembly import build_model, list_models, load_config
    from spectral_models.checkpoint import load_checkpoint, load_tokenizer, save_checkpoint
    from spectral_models.config import BlockConfig, ModelConfig, list_blocks
    from spectral_models.errors import CheckpointError
    from spectral_models.registries import MODELS
else:

    def __getattr__(name: str) -> object:
        """Imports the public names at first use, so that the command can handle Ctrl-C while torch is imported."""
        from importlib import import_module

        import_module("spectral_core")  # before torch and pydantic, which it keeps importable
        if name in __all__:
            for module in ("assembly", "checkpoint", "config", "errors", "registries"):
                found = vars(import_module(f"{__name__}.{module}"))
                globals().update({each: found[each] for each in found.keys() & set(__all__)})
            return globals()[name]
        if not name.startswith("_"):
            try:
                return import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{__name__}.{name}":
                    raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "MODELS",
    "BlockConfig",
    "CheckpointError",
    "ModelConfig",
    "build_model",
    "list_blocks",
    "list_models",
    "load_checkpoint",
    "load_config",
    "load_tokenizer",
    "save_checkpoint",
]
