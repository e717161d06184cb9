"""What users may import from the models: a name more or less is a decision; and what importing them does not load."""

from __future__ import annotations

import subprocess
import sys
import types

import spectral_models

MODELS = {
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
}
FORBIDDEN = ("transformers", "accelerate", "datasets", "matplotlib", "triton", "typer", "rich", "tensorboard")


def test_the_package_exports_exactly_this() -> None:
    assert set(spectral_models.__all__) == MODELS
    assert spectral_models.build_model is not None, "the first use of a name imports all"
    members = vars(spectral_models).items()
    assert {name for name, value in members if name[0] != "_" and not isinstance(value, types.ModuleType)} == MODELS


def test_a_checkpoint_error_is_a_value_error() -> None:
    assert issubclass(spectral_models.CheckpointError, ValueError)


def test_importing_and_building_load_no_optional_library() -> None:
    """One fresh process: what torch itself loads does not count; importing colorsys shows that the proof can fail."""
    script = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        f"loaded = lambda: [name for name in {FORBIDDEN!r} + ('colorsys',) if name in set(sys.modules) - before]\n"
        "import spectral_models\n"
        "spectral_models.build_model({'vocab_size': 3, 'hidden_dim': 4, 'num_layers': 1})\n"
        "print(loaded())\n"
        "import colorsys\n"
        "print(loaded())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "['colorsys']"]


def test_every_name_and_module_is_there_in_whatever_order_they_are_imported() -> None:
    """Names are imported at their first use, so that the command answers Ctrl-C while torch is loaded."""
    script = (
        "import sys, spectral_models\n"
        "assert 'torch' not in sys.modules\n"
        "from spectral_models import registries, cli, generation\n"
        "assert spectral_models.data.ByteTokenizer and not hasattr(spectral_models, 'nothing')\n"
        "from spectral_models import *\n"
        "assert all(globals()[name] is getattr(spectral_models, name) for name in spectral_models.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
