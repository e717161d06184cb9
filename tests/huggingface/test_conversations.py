"""Messages in the text-generation pipeline: by the tokenizer's template, and from one cache."""

from __future__ import annotations

import pytest
import torch
from transformers import pipeline

from spectral_core import UnsupportedInputError
from spectral_models import build_model, save_checkpoint
from spectral_models.data import ByteTokenizer
from spectral_models.data.chat import render
from spectral_models.integrations.huggingface import SpectralCache


@pytest.fixture
def write(tmp_path):
    """A pipeline from a directory, whose answers are letters that never end."""
    torch.manual_seed(0)
    model = build_model({"hidden_dim": 32, "num_layers": 2}, tie_embeddings=False)
    with torch.no_grad():
        model.head.weight[[*range(33), *range(127, 256)]] = 0.0
    save_checkpoint(model, tmp_path, tokenizer=ByteTokenizer())
    return pipeline("text-generation", model=str(tmp_path), max_new_tokens=6, do_sample=False)


def test_a_conversation_goes_on_from_one_cache(write):
    """Each turn reads the new tokens alone, and answers as the whole conversation does."""
    read: list[int] = []
    write.model.model.frontend.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].shape[1]))
    for options in ({}, {"prompt_lookup_num_tokens": 4}):
        cache, messages, before = SpectralCache(), [], 0
        for line in ("hello", "and", "more of it"):
            messages.append({"role": "user", "content": line})
            anew = write(messages)[0]["generated_text"]
            read.clear()
            found = write(messages, past_key_values=cache, **options)[0]["generated_text"]
            assert found == anew
            total = len(render(ByteTokenizer().chat_template, messages, ByteTokenizer.special_tokens))
            if not options:
                assert read == [total - before, 1, 1, 1, 1, 1]
            before, messages = total + 5, found
            assert cache.get_seq_length() == before


def test_a_cache_that_has_read_another_text_is_one_error(write):
    cache = SpectralCache()
    found = write([{"role": "user", "content": "hello"}], past_key_values=cache)[0]["generated_text"]
    found[-1]["content"] = found[-1]["content"].lower() + "!"
    with pytest.raises(UnsupportedInputError, match="has read are not the first of these input ids"):
        write([*found, {"role": "user", "content": "and"}], past_key_values=cache)
