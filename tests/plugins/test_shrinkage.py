"""A third party's gate, from ``pip install`` to a checkpoint, and what happens where it is missing."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONFIG = """
import json, sys
import torch
from spectral_core import ConfigError, PluginError
from spectral_core.plugins import HOST
from spectral_layers import GATES
from spectral_models import build_model, load_checkpoint, save_checkpoint

CONFIG = {
    "vocab_size": 16, "hidden_dim": 32, "num_layers": 1,
    "block": {
        "mixer": {"type": "spectral_gating", "gates": ["shrinkage/soft_threshold"], "block": 8, "window": 16},
        "feedforward": "mlp",
    },
}

def error_of(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return {"type": type(error).__name__, "message": str(error)}
"""

WITH_THE_PLUGIN = """
torch.manual_seed(0)
entry = GATES.get("shrinkage/soft_threshold")
model = build_model(CONFIG)
gate = model.blocks[0].mixer.gates[0]
before = gate.threshold.detach().clone()
tokens = torch.arange(48).remainder(7)[None].repeat(4, 1) + torch.arange(4)[:, None]
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
losses = []
for _ in range(12):
    loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
save_checkpoint(model, CHECKPOINT)
loaded = load_checkpoint(CHECKPOINT)
print(json.dumps({
    "names": GATES.names(), "provider": entry.provider, "version": entry.version,
    "failures": [str(failure) for failure in HOST.failures()],
    "losses": losses, "threshold_moved": (gate.threshold - before).abs().min().item(),
    "reloaded": torch.equal(loaded(tokens).logits, model.eval()(tokens).logits),
}))
"""

WITHOUT_IT = """
print(json.dumps({
    "names": GATES.names(),
    "load": error_of(load_checkpoint, CHECKPOINT),
    "build": error_of(build_model, CONFIG),
    "ours": list(build_model("tiny", num_layers=1, hidden_dim=32)(torch.zeros(1, 3, dtype=torch.long)).logits.shape),
    "failures": [str(failure) for failure in HOST.failures()],
}))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "first"


@pytest.fixture(scope="module")
def trained(python: Callable[..., dict[str, Any]], shrinkage: Path, checkpoint: Path) -> dict[str, Any]:
    return python(f"{CONFIG}\nCHECKPOINT = {str(checkpoint)!r}\n{WITH_THE_PLUGIN}", shrinkage)


def test_it_is_listed_with_its_provider_and_version(trained: dict[str, Any]) -> None:
    assert "shrinkage/soft_threshold" in trained["names"]
    assert "magnitude" in trained["names"]
    assert (trained["provider"], trained["version"]) == ("spectral-shrinkage", "0.1.0")
    assert trained["failures"] == []


def test_a_model_that_names_it_trains_and_comes_back_from_its_checkpoint(trained: dict[str, Any]) -> None:
    assert trained["losses"][-1] < 0.8 * trained["losses"][0]
    assert trained["threshold_moved"] > 1e-3, "the plugin's own parameter is trained too"
    assert trained["reloaded"]


@pytest.fixture(scope="module", params=["not installed", "switched off"])
def bereft(
    request: pytest.FixtureRequest,
    python: Callable[..., dict[str, Any]],
    shrinkage: Path,
    checkpoint: Path,
    trained: dict[str, Any],
) -> dict[str, Any]:
    """What a process says that has the checkpoint and not the plugin."""
    script = f"{CONFIG}\nCHECKPOINT = {str(checkpoint)!r}\n{WITHOUT_IT}"
    if request.param == "not installed":
        return python(script)
    return python(script, shrinkage, SPECTRAL_DISABLE_PLUGINS="1")


def test_without_it_a_checkpoint_names_the_package_to_install(bereft: dict[str, Any]) -> None:
    assert bereft["load"]["type"] == "PluginError"
    for said in ("gate 'shrinkage/soft_threshold'", "pip install 'spectral-shrinkage==0.1.0'"):
        assert said in bereft["load"]["message"]


def test_without_it_a_config_says_where_the_unknown_name_is_and_what_is_known(bereft: dict[str, Any]) -> None:
    assert bereft["build"]["type"] == "ConfigError"
    message = bereft["build"]["message"]
    assert message.startswith("block.mixer.gates.0: no gate is called 'shrinkage/soft_threshold'.")
    assert f"Known: {', '.join(bereft['names'])}" in message


def test_without_it_our_own_parts_work(bereft: dict[str, Any]) -> None:
    assert "magnitude" in bereft["names"]
    assert "shrinkage/soft_threshold" not in bereft["names"]
    assert bereft["ours"] == [1, 3, 256]
    assert bereft["failures"] == []


def install_by_hand(folder: Path, name: str, source: str) -> None:
    """What pip leaves behind of a package with one module and an entry point."""
    (folder / f"acme_{name}.py").write_text(textwrap.dedent(source))
    metadata = folder / f"acme_{name}-2.5.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 2.5\n")
    (metadata / "entry_points.txt").write_text(f"[spectral.plugins]\n{name} = acme_{name}\n")


def test_broken_plugins_are_reported_and_touch_nothing_else(
    python: Callable[..., dict[str, Any]], shrinkage: Path, checkpoint: Path, trained: dict[str, Any], tmp_path: Path
) -> None:
    install_by_hand(tmp_path, "absent", "import a_library_that_is_not_here")
    install_by_hand(
        tmp_path,
        "clumsy",
        """
        from spectral_core import hookimpl
        SPECTRAL_PLUGIN_API = 1

        @hookimpl
        def spectral_register_layers(register):
            register("gate", "clumsy/first", "acme_clumsy:First", summary="Never seen.")
            raise RuntimeError("no licence")
        """,
    )
    script = f"""{CONFIG}
print(json.dumps({{
    "names": GATES.names(),
    "failures": [str(failure) for failure in HOST.failures()],
    "build": error_of(build_model, CONFIG),
    "load": error_of(load_checkpoint, {str(checkpoint)!r}),
    "unknown": error_of(lambda: build_model(CONFIG, **{{"block.mixer.gates.0": "clumsy/first"}})),
}}))"""
    answer = python(script, tmp_path, shrinkage)
    assert len(answer["failures"]) == 2
    assert "'absent' (acme-absent) failed in import: ModuleNotFoundError" in answer["failures"][0]
    assert (
        "'clumsy' (acme-clumsy) failed in spectral_register_layers: RuntimeError: no licence" in answer["failures"][1]
    )
    assert "clumsy/first" not in answer["names"], "a hook that raises leaves nothing of its plugin behind"
    assert answer["build"] is None
    assert answer["load"] is None
    assert "no licence" in answer["unknown"]["message"], "who asks for its part is told why it is not there"
