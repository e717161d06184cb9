"""Embeddings in place of token ids: the same logits, gradients to them, and prompts that PEFT learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from torch.nn import functional as F

from spectral_core import StateError, UnsupportedInputError
from spectral_models import build_model
from spectral_models.integrations import huggingface as hf
from spectral_models.integrations.huggingface import SpectralForCausalLM

# Of peft 0.21 under transformers 5.23.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

READERS = ["causal", "masked", "seq2seq", "text", "tokens"]
GREEDY: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}


def left_padded() -> torch.Tensor:
    mask = torch.ones(4, 12, dtype=torch.long)
    mask[0, :5] = 0
    mask[2, :1] = 0
    return mask


def without_labels(kind: Any) -> dict[str, torch.Tensor]:
    batch = kind.batch()
    labels = batch.pop("labels")
    if kind.cls is hf.SpectralForSeq2SeqLM:
        batch["decoder_input_ids"] = F.pad(labels[:, :-1], (1, 0))
    return batch


@pytest.mark.parametrize(("name", "base"), [*((name, False) for name in READERS), ("causal", True), ("seq2seq", True)])
@pytest.mark.parametrize("padded", [False, True])
def test_embeddings_stand_for_their_ids(name, padded, base, kinds):
    model, batch = kinds[name].model(), without_labels(kinds[name])
    if base:
        model = hf.SpectralHFModel.wrap(model.model).eval()
    if padded:
        batch["attention_mask"] = left_padded()
    expected = model(**batch)
    ids = batch.pop("input_ids")
    embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
    output = model(inputs_embeds=embeds, **batch)
    assert torch.equal(output[0], expected[0])
    output[0].square().sum().backward()
    assert embeds.grad is not None
    assert embeds.grad.abs().sum() > 0
    for given in ({}, {"input_ids": ids, "inputs_embeds": embeds}):
        with pytest.raises(UnsupportedInputError, match="give input_ids or inputs_embeds, one of the two"):
            model(**given, **batch)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", READERS)
def test_their_loss_is_that_of_their_ids(name, training, kinds):
    model, batch = kinds[name].model().train(training), kinds[name].batch()
    expected = model(**batch).loss
    embeds = model.get_input_embeddings()(batch.pop("input_ids"))
    torch.testing.assert_close(model(inputs_embeds=embeds, **batch).loss, expected)


def test_a_narrow_embedding_is_projected(tmp_path):
    model = SpectralForCausalLM.wrap(build_model({"hidden_dim": 16, "num_layers": 1, "embed_dim": 4})).eval()
    ids = torch.arange(9)[None]
    embeds = model.get_input_embeddings()(ids)
    assert embeds.shape == (1, 9, 4)
    assert torch.equal(model(inputs_embeds=embeds).logits, model(ids).logits)
    with pytest.raises(UnsupportedInputError, match=r"input_ids are \(B, L\) integers"):
        model(inputs_embeds=torch.zeros(1, 9, 16))


@pytest.mark.parametrize("name", ["pictures", "sound"])
def test_models_without_tokens_take_none(name, kinds):
    with pytest.raises(UnsupportedInputError, match="inputs_embeds"):
        kinds[name].model()(**without_labels(kinds[name]), inputs_embeds=torch.zeros(4, 12, 16))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"use_cache": False}, {"prefill_chunk_size": None}])
@pytest.mark.parametrize("padded", [False, True])
def test_generation_continues_embeddings(padded, options, kinds):
    """Behind them come ids, which the cache's state continues."""
    model, ids = kinds["causal"].model(), kinds["causal"].batch()["input_ids"]
    mask = left_padded() if padded else torch.ones_like(ids)
    expected = model.generate(ids, attention_mask=mask, **GREEDY, **options)
    embeds = model.get_input_embeddings()(ids)
    found = model.generate(inputs_embeds=embeds, attention_mask=mask, **GREEDY, **options)
    assert torch.equal(found, expected[:, 12:])
    source = kinds["seq2seq"].model()
    embeds = source.get_input_embeddings()(ids)
    expected = source.generate(ids, attention_mask=mask, **GREEDY, **options)
    assert torch.equal(source.generate(inputs_embeds=embeds, attention_mask=mask, **GREEDY, **options), expected)


def test_a_state_is_rewound_to_embeddings_and_no_further(kinds):
    """It repeats ids only."""
    model = kinds["causal"].model().model
    ids = kinds["causal"].batch()["input_ids"]
    with torch.no_grad():
        state = model(ids[:, :4], return_state=True).state
        state.reserve(rewind=8)
        state = model(model.frontend.embedding(ids[:, 4:8]), state=state, return_state=True).state
        state = model(ids[:, 8:], state=state, return_state=True).state
        back = model.rewind(state, 4)
        expected = model(ids).logits[:, 8:]
        torch.testing.assert_close(model(ids[:, 8:], state=back).logits, expected, rtol=1e-4, atol=1e-5)
        state = model(ids[:, :4], return_state=True).state
        state.reserve(rewind=8)
        state = model(model.frontend.embedding(ids[:, 4:8]), state=state, return_state=True).state
        with pytest.raises(StateError, match="cannot rewind by 1 tokens: 0 of 8 reserved"):
            model.rewind(state, 1)


TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "text": "SEQ_CLS"}


@pytest.mark.parametrize("tuning", [PromptTuningConfig, PromptEncoderConfig])
@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_learned(name, tuning, kinds, tmp_path):
    """The base stays as it was; generation reads the learned prompt too."""
    kind = kinds[name]
    base, batch = kind.model(), kind.batch()
    torch.manual_seed(0)
    adapted = get_peft_model(base, tuning(task_type=TASKS[name], num_virtual_tokens=3)).train()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 0.1)
    losses = []
    for _ in range(4):
        loss = adapted(**batch).loss
        loss.backward()
        assert all(parameter.grad is not None for parameter in trained)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    fresh = kind.model()
    assert all(torch.equal(x, y) for x, y in zip(base.parameters(), fresh.parameters(), strict=True))
    adapted.eval().save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(fresh, tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, adapted(**batch).logits)
    if name != "text":
        ids, mask = batch["input_ids"], torch.ones_like(batch["input_ids"])
        with torch.no_grad():
            # PEFT keeps two prompts for a model of text to text, and reads the first of them.
            prompt = adapted.get_prompt(4)[:, :3]
            embeds = torch.cat([prompt, base.get_input_embeddings()(ids)], 1)
        expected = base.generate(inputs_embeds=embeds, **GREEDY)
        found = adapted.generate(input_ids=ids, attention_mask=mask, **GREEDY)
        assert torch.equal(found[:, -expected.shape[1] :], expected)


@pytest.mark.parametrize("name", ["causal", "seq2seq"])
def test_prefixes_of_keys_and_values_are_refused(name, kinds):
    adapted = get_peft_model(kinds[name].model(), PrefixTuningConfig(task_type=TASKS[name], num_virtual_tokens=3))
    with pytest.raises(UnsupportedInputError, match="past_key_values is a SpectralCache"):
        adapted(**kinds[name].batch())
