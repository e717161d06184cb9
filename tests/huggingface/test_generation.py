"""Hugging Face's generate() with our state for its cache: every way of decoding, each token computed once."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    PreTrainedTokenizerFast,
    pipeline,
)

from spectral_core import ConfigError, UnsupportedInputError
from spectral_models.data import ByteTokenizer
from spectral_models.data.subwords import learn_bpe
from spectral_models.integrations.huggingface import (
    SpectralCache,
    SpectralForCausalLM,
    SpectralForSeq2SeqLM,
    byte_tokenizer,
)
from spectral_models.integrations.huggingface.cache import CachedGenerationMixin

NEW = 12


@pytest.fixture
def wrapped(language_model):
    return SpectralForCausalLM.wrap(language_model)


@pytest.fixture
def prompt() -> Tensor:
    return torch.randint(1, 256, (3, 7), generator=torch.Generator().manual_seed(1))


def generated(model: SpectralForCausalLM, prompt: Tensor, **options) -> Tensor:
    torch.manual_seed(0)
    return model.generate(prompt, **{"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, **options})


def test_greedy_is_our_own_token_for_token(wrapped, prompt):
    found = generated(wrapped, prompt)
    assert torch.equal(found, wrapped.model.generate(prompt, max_new_tokens=NEW))
    assert len(set(found[:, 7:].flatten().tolist())) > 12, "a model that repeats itself would agree with anything"


def test_each_token_is_computed_once(wrapped, prompt):
    read: list[int] = []
    wrapped.model.frontend.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].shape[1]))
    generated(wrapped, prompt)
    assert read == [7, *[1] * (NEW - 1)]
    read.clear()
    generated(wrapped, prompt, use_cache=False)
    assert read == [7 + step for step in range(NEW)], "without the cache all is read again"


def test_prompts_padded_on_the_left_go_on_as_each_by_itself(wrapped, prompt):
    lengths = (7, 4, 1)
    padded, mask = torch.zeros_like(prompt), torch.zeros_like(prompt)
    for row, length in enumerate(lengths):
        padded[row, 7 - length :] = prompt[row, :length]
        mask[row, 7 - length :] = 1
    together = generated(wrapped, padded, attention_mask=mask)[:, 7:]
    for row, length in enumerate(lengths):
        assert torch.equal(together[row], generated(wrapped, prompt[row : row + 1, :length])[0, length:])
    in_chunks = generated(wrapped, padded, attention_mask=mask, prefill_chunk_size=3)[:, 7:]
    assert torch.equal(in_chunks, together)
    assert not torch.equal(generated(wrapped, padded, attention_mask=torch.ones_like(mask))[:, 7:], together)


WAYS = {
    "sampling": {"do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 0.95},
    "returned": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 4},
    "several of the beams": {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5, "early_stopping": True},
    "sampled beams": {"num_beams": 3, "do_sample": True},
    "no pair twice": {"no_repeat_ngram_size": 2, "bad_words_ids": [[7], [65, 66]]},
    "prefilled in chunks": {"prefill_chunk_size": 3},
    "guided": {"guidance_scale": 1.5},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_state_is_what_reading_all_again_gives(wrapped, prompt, way):
    options = dict(WAYS[way])
    found = generated(wrapped, prompt, **options)
    options.pop("prefill_chunk_size", None)
    assert torch.equal(found, generated(wrapped, prompt, **options, use_cache=False))
    assert found.shape == (3 * options.get("num_return_sequences", 1), 7 + NEW)


def test_beams_need_the_states_reordered(wrapped, prompt, monkeypatch):
    """The can-fail twin of the test above; and beams find what is likelier than the greedy sequence."""

    def score(sequences: Tensor) -> Tensor:
        with torch.no_grad():
            steps = wrapped(sequences).logits.log_softmax(-1)[:, 6:-1]
        return steps.gather(2, sequences[:, 7:, None])[..., 0].sum(1)

    found = generated(wrapped, prompt, num_beams=8)
    assert (score(found) >= score(generated(wrapped, prompt))).all()
    assert (score(found) > score(generated(wrapped, prompt)) + 0.1).any()
    monkeypatch.setattr(SpectralCache, "reorder_cache", lambda self, beam_idx: None)
    assert not torch.equal(generated(wrapped, prompt, num_beams=8), found)


def test_hugging_faces_processors_hold(wrapped, prompt):
    found = generated(wrapped, prompt, no_repeat_ngram_size=2)
    for row in found.tolist():
        pairs = list(pairwise(row))
        assert len(pairs) == len(set(pairs))
    first = int(generated(wrapped, prompt)[0, 7])
    stopped = generated(wrapped, prompt[:1], eos_token_id=first)
    assert stopped.shape == (1, 8)
    longer = generated(wrapped, prompt[:1], eos_token_id=first, min_new_tokens=5)
    assert longer.shape[1] >= 12
    assert first not in longer[0, 7:12]


def test_penalties_and_ends_are_ours_too(wrapped, prompt):
    ends = wrapped.model.generate(prompt, max_new_tokens=NEW)[0, 10].item()
    found = generated(wrapped, prompt, repetition_penalty=1.3, eos_token_id=ends)
    ours = wrapped.model.generate(prompt, max_new_tokens=NEW, repetition_penalty=1.3, stop_tokens=[ends])
    assert torch.equal(found, ours)


def test_a_cache_goes_on_where_it_ended(wrapped, prompt):
    begun = generated(wrapped, prompt, max_new_tokens=5, return_dict_in_generate=True)
    assert isinstance(begun.past_key_values, SpectralCache)
    assert begun.past_key_values.get_seq_length() == 7 + 4
    read: list[int] = []
    wrapped.model.frontend.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].shape[1]))
    whole = generated(wrapped, begun.sequences, max_new_tokens=NEW - 5, past_key_values=begun.past_key_values)
    assert read == [1] * (NEW - 5)
    assert torch.equal(whole, generated(wrapped, prompt))


def test_the_forward_pass_continues_a_cache(wrapped, prompt):
    with torch.no_grad():
        whole = wrapped(prompt).logits
        first = wrapped(prompt[:, :4], use_cache=True)
        rest = wrapped(prompt[:, 4:], past_key_values=first.past_key_values, logits_to_keep=2)
    assert wrapped(prompt).past_key_values is None, "no state is made unless one is asked for"
    torch.testing.assert_close(first.logits, whole[:, :4], rtol=1.3e-6, atol=2e-5)
    torch.testing.assert_close(rest.logits, whole[:, -2:], rtol=1e-4, atol=1e-4)
    assert rest.past_key_values.state.position.tolist() == [7, 7, 7]


def test_what_is_no_cache_of_ours_is_refused(wrapped, prompt):
    with pytest.raises(UnsupportedInputError, match=r"past_key_values is a SpectralCache, .* got DynamicCache"):
        wrapped(prompt, past_key_values=DynamicCache())
    with pytest.raises(ConfigError, match="cache_implementation 'static': there are no keys and values"):
        generated(wrapped, prompt, cache_implementation="static")


def test_continuous_batching_is_refused(wrapped, prompt):
    with pytest.raises(ConfigError, match="continuous batching pages keys and values"):
        wrapped.generate_batch([prompt[0].tolist()])


def test_what_the_mixin_says_holds():
    """PreTrainedModel has defaults for some of its names."""
    for cls in (SpectralForCausalLM, SpectralForSeq2SeqLM):
        for name, value in vars(CachedGenerationMixin).items():
            assert name.startswith("__") or getattr(cls, name) is value, name


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"prefill_chunk_size": 3}, {"do_sample": True}])
@pytest.mark.parametrize("learned", [False, True])
def test_a_string_stops(wrapped, prompt, options, learned):
    """The text up to where it first has the string; a tokenizer of bytes, and one of ours that was learned."""
    tokenizer = byte_tokenizer()
    if learned:
        learnt = learn_bpe(["a text of some bytes, from which nothing is merged"], 257)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(learnt.files()["tokenizer.json"]))
    free = generated(wrapped, prompt[:1], **options)
    texts = [tokenizer.decode(free[0, 7 : 7 + count], skip_special_tokens=False) for count in range(1, NEW + 1)]
    count = next(
        count for count in range(4, NEW + 1) if texts[count - 1][-1].isprintable() and texts[count - 1][-1] != "�"
    )
    sign = texts[count - 1][-1]
    stopped = generated(wrapped, prompt[:1], stop_strings=[sign], tokenizer=tokenizer, **options)
    again = {name: value for name, value in options.items() if name != "prefill_chunk_size"}
    again = generated(wrapped, prompt[:1], stop_strings=[sign], tokenizer=tokenizer, use_cache=False, **again)
    assert torch.equal(stopped, again)
    if "num_beams" not in options:  # of beams, one that goes on may be likelier
        first = next(count for count, text in enumerate(texts, start=1) if sign in text)
        assert torch.equal(stopped, free[:, : 7 + first])


def test_a_pipeline_stops_at_a_string(wrapped):
    write = pipeline("text-generation", model=wrapped, tokenizer=byte_tokenizer())
    whole = write("hello", max_new_tokens=NEW, do_sample=False, return_full_text=False)[0]["generated_text"]
    sign = next(character for character in whole[3:] if character != "�")
    made = write("hello", max_new_tokens=NEW, do_sample=False, return_full_text=False, stop_sequence=sign)
    assert made[0]["generated_text"] == whole[: whole.index(sign) + 1]


def test_a_pipeline_loads_from_a_directory(wrapped, tmp_path):
    """Model, tokenizer and what ends a text, all from files."""
    wrapped.generation_config = GenerationConfig(eos_token_id=0, pad_token_id=0)
    wrapped.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    write = pipeline("text-generation", model=str(tmp_path))
    texts = ["Zürich ist", "a"]
    found = write(texts, max_new_tokens=NEW, do_sample=False, batch_size=2, return_full_text=True)
    bytes_ = ByteTokenizer()
    for text, made in zip(texts, found, strict=True):
        ours = wrapped.model.generate(torch.tensor([bytes_.encode(text)]), max_new_tokens=NEW, stop_tokens=[0])
        expected = bytes_.decode(token for token in ours[0].tolist() if token not in (0, 255))  # end and mask left out
        assert made[0]["generated_text"] == expected
        assert expected.startswith(text)
        assert len(expected) > len(text)
