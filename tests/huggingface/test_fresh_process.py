"""A checkpoint loads by its own files in a process that never imported us; without our package it says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from spectral_models import build_model, save_checkpoint
from spectral_models.data import ByteTokenizer
from spectral_models.integrations import huggingface as hf
from spectral_models.shim import BASE, SHIM, TEXT, auto_map, in_shim

SCRIPT = """
import json, sys
import transformers
from transformers import AutoModel, pipeline

found = {}
for path, name in json.loads(sys.argv[1]).items():
    assert "spectral_models" not in sys.modules or found, "imported too early"
    auto = getattr(transformers, name)
    model = auto.from_pretrained(path, trust_remote_code=True)
    model.save_pretrained(path + "-again")
    found[path] = [type(model).__name__, type(AutoModel.from_pretrained(path, trust_remote_code=True)).__name__]
write = pipeline("text-generation", model=sys.argv[2], trust_remote_code=True)
print(json.dumps([found, write("def ", max_new_tokens=4)]))
"""


def test_every_auto_class_loads_what_either_side_wrote(kinds, tmp_path):
    checkpoints = {}
    for index, (name, kind) in enumerate(kinds.items()):
        if index % 2:
            kind.model().save_pretrained(tmp_path / name)
        else:
            save_checkpoint(kind.model().model, tmp_path / name)
        checkpoints[str(tmp_path / name)] = kind.auto.__name__
    text = save_checkpoint(build_model({"hidden_dim": 8, "num_layers": 1}), tmp_path / "t", tokenizer=ByteTokenizer())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(checkpoints), str(text)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr
    found, written = json.loads(done.stdout.splitlines()[-1])
    assert found == {str(tmp_path / name): [kind.cls.__name__, BASE] for name, kind in kinds.items()}
    assert written[0]["generated_text"].startswith("def ")
    for name in kinds:  # transformers copies no modules of ours into what it saves
        again = tmp_path / f"{name}-again"
        assert [path.name for path in again.glob("*.py")] == [SHIM]
        assert (again / SHIM).read_text() == TEXT
        assert json.loads((again / "config.json").read_text())["auto_map"] == auto_map(kinds[name].cls.__name__)


def test_the_shim_has_every_name_that_a_checkpoint_asks_for(kinds, tmp_path):
    names: dict = {}
    exec(TEXT, names)  # noqa: S102
    for kind in kinds.values():
        for auto, of in auto_map(kind.cls.__name__).items():
            assert of == in_shim(of.rpartition(".")[2])
            assert names[of.rpartition(".")[2]] is getattr(hf, of.rpartition(".")[2])
            assert auto in ("AutoConfig", "AutoModel", kind.auto.__name__)
    kinds["pictures"].model().save_pretrained(tmp_path)
    reads = json.loads((tmp_path / "preprocessor_config.json").read_text())["auto_map"]
    assert reads == {"AutoImageProcessor": in_shim("SpectralImageProcessor")}
    assert names["SpectralImageProcessor"] is hf.SpectralImageProcessor


def test_where_the_package_is_missing_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "spectral_models.integrations.huggingface", None)
    with pytest.raises(
        ImportError, match=r"^this checkpoint is a model of spectral-networks, .* Run: pip install"
    ) as e:
        exec(TEXT, {})  # noqa: S102
    assert "\n" not in str(e.value)


def test_a_class_of_a_users_own_leaves_no_copies_either(kinds, tmp_path):
    mine = type("Mine", (hf.SpectralForCausalLM,), {})
    mine.register_for_auto_class("AutoModelForCausalLM")
    mine.wrap(kinds["causal"].model().model).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("*.py")] == [SHIM]
    with torch.no_grad():
        kinds["causal"].auto.from_pretrained(tmp_path)
