"""Hugging Face's assisted generation through the cache: the tokens of plain decoding, whoever drafts them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from spectral_core import ConfigError, StateError
from spectral_layers.testing.cases import MixerCase
from spectral_models import build_model
from spectral_models.integrations.huggingface import SpectralCache, SpectralForCausalLM, byte_tokenizer

NEW = 24


def gpt2(vocab_size: int = 256) -> GPT2LMHeadModel:
    torch.manual_seed(3)
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 256}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, bos_token_id=0, eos_token_id=0, **sizes))
    with torch.no_grad():
        model.transformer.wte.weight.mul_(40)
    return model.double().eval()


MEMORY = {"type": "holographic", "phases": 4, "head_dim": 8, "decay": "per_token", "update": "delta"}
MODEL = {"hidden_dim": 16, "num_layers": 2, "layers": ["dense", {"mixer": MEMORY}]}


@pytest.fixture
def wrapped():
    """With weights that tell tokens apart, or it would say one token again and again."""
    model = MixerCase.randomised(lambda: build_model(MODEL, tie_embeddings=False))
    with torch.no_grad():
        model.head.weight.mul_(5)
    return SpectralForCausalLM.wrap(model)


@pytest.fixture
def helper():
    torch.manual_seed(1)
    return SpectralForCausalLM.wrap(build_model({"hidden_dim": 16, "num_layers": 1, "block": "dense"})).double().eval()


@pytest.fixture
def prompt() -> Tensor:
    return torch.randint(1, 256, (1, 9), generator=torch.Generator().manual_seed(1)).repeat(1, 3)


def generated(model, prompt: Tensor, **options):
    torch.manual_seed(0)
    return model.generate(prompt, **{"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, **options})


DRAFTED = {
    "lookup": {"prompt_lookup_num_tokens": 7},
    "lookup of long matches": {"prompt_lookup_num_tokens": 30, "max_matching_ngram_size": 5},
    "assistant": {"assistant_model": "helper"},
    "itself": {"assistant_model": "wrapped"},
    "theirs": {"assistant_model": "theirs"},
    "their tokens": {"assistant_model": "other", "tokenizer": "bytes", "assistant_tokenizer": "bytes"},
}


@pytest.fixture
def drafted(wrapped, helper):
    """The options of a way, with models and tokenizers for their names."""
    named = {"helper": helper, "wrapped": wrapped, "theirs": gpt2(), "other": gpt2(260), "bytes": byte_tokenizer()}
    return lambda way: {name: named[value] if isinstance(value, str) else value for name, value in DRAFTED[way].items()}


@pytest.mark.filterwarnings("ignore")  # transformers warns about its own calls
@pytest.mark.parametrize("way", DRAFTED)
def test_greedy_is_plain_greedy(wrapped, prompt, drafted, way):
    for text in (prompt, prompt[:, :1]):
        assert torch.equal(generated(wrapped, text, **drafted(way)), generated(wrapped, text))
    penalised = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 4}
    if way != "their tokens":
        assert torch.equal(
            generated(wrapped, prompt, **penalised, **drafted(way)), generated(wrapped, prompt, **penalised)
        )


def test_the_check_sees_a_cache_that_takes_nothing_back(wrapped, prompt, monkeypatch):
    """The can-fail twin of the test above."""
    monkeypatch.setattr(SpectralCache, "crop", lambda self, columns: self.settle())
    with pytest.raises(AssertionError):
        assert torch.equal(generated(wrapped, prompt, prompt_lookup_num_tokens=7), generated(wrapped, prompt))


def test_ours_drafts_for_theirs(helper, prompt):
    theirs = gpt2()
    assert torch.equal(generated(theirs, prompt, assistant_model=helper), generated(theirs, prompt))


def test_drafts_are_verified_together_and_the_prompt_is_read_once(wrapped, prompt):
    def again(_: int, ids: Tensor) -> list[int]:
        return [int(prompt[0, len(ids) % 9])]

    read: list[int] = []
    wrapped.model.frontend.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].shape[1]))
    found = generated(wrapped, prompt, prompt_lookup_num_tokens=7, prefix_allowed_tokens_fn=again)
    assert torch.equal(found, prompt.repeat(1, 3)[:, : 27 + NEW])
    assert read == [26, 8, *[8] * (NEW // 8 - 1)]


def test_a_cache_that_took_tokens_back_goes_on(wrapped, prompt):
    plain = generated(wrapped, prompt)
    for first in range(5, 12, 2):
        begun = generated(
            wrapped, prompt, max_new_tokens=first, prompt_lookup_num_tokens=7, return_dict_in_generate=True
        )
        cache = begun.past_key_values
        assert cache.get_seq_length() == begun.sequences.shape[1] - 1
        more = generated(wrapped, begun.sequences, past_key_values=cache, max_new_tokens=NEW - first)
        assert torch.equal(more, plain)
        assert not cache.recording


@torch.no_grad()
def test_forward_goes_on_after_a_crop(wrapped, prompt):
    """All logits, the last ones or columns of them, with a mask and without."""
    whole = wrapped(prompt).logits
    for mask in (None, torch.ones_like(prompt)):
        for kept, expected in ((0, whole[:, 17:]), (2, whole[:, -2:]), (torch.tensor([0, 3]), whole[:, [17, 20]])):
            cache = SpectralCache()
            wrapped(prompt[:, :12], past_key_values=cache)
            cache.activate_past_recording()
            wrapped(torch.cat([prompt[:, 12:17], prompt[:, :6]], 1), past_key_values=cache)
            cache.crop(-6)
            assert cache.get_seq_length() == 17
            found = wrapped(prompt[:, 17:], mask, past_key_values=cache, logits_to_keep=kept).logits
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
            cache.crop(0)
            with pytest.raises(StateError, match="cannot take back 1 tokens: 0 were read"):
                cache.crop(-1)


def test_padding_on_the_left_is_no_text(wrapped, prompt):
    padded, mask = F.pad(prompt, (5, 0)), F.pad(torch.ones_like(prompt), (5, 0))
    found = generated(wrapped, padded, attention_mask=mask, prompt_lookup_num_tokens=7)
    assert torch.equal(found[:, 5:], generated(wrapped, prompt))


def test_sampled_drafts_are_possible(wrapped, helper, prompt):
    for options in ({"prompt_lookup_num_tokens": 7}, {"assistant_model": helper}):
        found = generated(wrapped, prompt, do_sample=True, top_k=1, **options)
        assert torch.equal(found, generated(wrapped, prompt)), "of the likeliest alone, sampling is greedy"


REFUSED = {
    "early exit": ({"assistant_early_exit": 1}, ConfigError, "not trained to end early"),
    "no cache": ({"prompt_lookup_num_tokens": 3, "use_cache": False}, ConfigError, "needs use_cache"),
    "two prompts": ({"prompt_lookup_num_tokens": 3, "rows": 2}, ValueError, "batch_size = 1"),
    "beams": ({"prompt_lookup_num_tokens": 3, "num_beams": 2}, ConfigError, "num_beams searches several"),
    "an assistant's beams": ({"assistant_model": "other", "num_beams": 2}, ConfigError, "num_beams searches several"),
    "other tokens": ({"assistant_model": "other"}, ValueError, "different tokenizers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_drafted_is_one_error(wrapped, prompt, case):
    options, error, message = REFUSED[case]
    options = {name: gpt2(260) if value == "other" else value for name, value in options.items()}
    with pytest.raises(error, match=message):
        generated(wrapped, prompt.expand(options.pop("rows", 1), -1), **options)


def test_a_source_and_its_target_are_refused(kinds):
    model = kinds["seq2seq"].model()
    source = kinds["seq2seq"].batch(1)["input_ids"]
    for options in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": model}):
        with pytest.raises(ConfigError, match="takes nothing back"):
            model.generate(source, max_new_tokens=3, **options)
