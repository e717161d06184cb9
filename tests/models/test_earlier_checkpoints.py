"""Checkpoints that release 0.1.0 saved load, and give the logits that they gave then.

``tests/data/release-0.1`` has a directory for each, and beside it the inputs and the logits of that release: every
variant, every filter, and the parts whose options or weights have been renamed since.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spectral_models import load_checkpoint

SAVED = Path(__file__).parents[1] / "data" / "release-0.1"
NAMES = sorted(path.name for path in SAVED.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_gives_the_logits_it_gave(name):
    saved = load_file(SAVED / f"{name}.safetensors")
    given = {key.removeprefix("given."): tensor for key, tensor in saved.items() if key.startswith("given.")}
    model = load_checkpoint(SAVED / name)
    with torch.no_grad():
        logits = (model(given) if name == "multimodal" else model(*given.values())).logits
    torch.testing.assert_close(logits, saved["logits"], rtol=1e-4, atol=1e-5)
    assert saved["logits"].std() > 0.05


def test_an_fft_that_was_the_decoder_s_alone_replaces_no_other():
    """Up to schema 3 ``fft: auto`` was written into every pair of encoder and decoder, and meant the decoder."""
    assert load_checkpoint(SAVED / "seq2seq").config.fft is None
    assert load_checkpoint(SAVED / "multimodal").config.fft is None
