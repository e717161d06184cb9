"""PEFT on the embedding: the head that shares its matrix shares the adapter, and merging changes no logit."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from spectral_models import build_model, load_checkpoint
from spectral_models.integrations.huggingface import SpectralForCausalLM, SpectralForMaskedLM

# Of peft 0.21 under transformers 5.23.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

IDS = torch.randint(1, 30, (2, 12), generator=torch.Generator().manual_seed(3))
SMALL = {"hidden_dim": 16, "num_layers": 1, "vocab_size": 30}
MODELS = {
    "tied": (SpectralForCausalLM, SMALL),
    "tied and factorised": (SpectralForCausalLM, {**SMALL, "embed_dim": 8}),
    "head of its own": (SpectralForCausalLM, {**SMALL, "tie_embeddings": False}),
    "masked": (SpectralForMaskedLM, {**SMALL, "type": "encoder", "masked_lm": True}),
}
ADAPTERS = {
    "LoRA": {"target_modules": ["in_proj", "embedding"]},
    "LoRA on the projection of the embedding": {"target_modules": r".*frontend\.proj|.*in_proj"},
    "DoRA": {"target_modules": ["embedding"], "use_dora": True},
    "tokens by name": {"target_modules": ["in_proj"], "trainable_token_indices": {"embedding": [1, 2]}},
    "tokens": {"target_modules": ["in_proj"], "trainable_token_indices": [1, 2]},
    "whole": {"target_modules": ["in_proj"], "modules_to_save": ["embedding"]},
    "all linear": {"target_modules": "all-linear"},
}


def base(name: str):
    cls, config = MODELS[name]
    torch.manual_seed(0)
    model = cls.wrap(build_model(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        *(("tied", adapter) for adapter in ADAPTERS if "projection" not in adapter),
        *(("tied and factorised", adapter) for adapter in ("LoRA", "LoRA on the projection of the embedding", "DoRA")),
        *((name, adapter) for name in ("head of its own", "masked") for adapter in ("LoRA", "tokens")),
    ],
)
def test_an_adapter_of_the_embedding_trains_reloads_and_merges(name, adapter, tmp_path):
    torch.manual_seed(1)
    adapted = get_peft_model(base(name), LoraConfig(r=2, **ADAPTERS[adapter]))
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 3e-3)
    losses = []
    for _ in range(3):
        loss = adapted.train()(input_ids=IDS, labels=IDS).loss
        loss.backward()
        assert all(parameter.grad is not None for parameter in trained)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    before, expected = logits(base(name)), logits(adapted)
    assert (expected - before).abs().max() > 1e-3
    with adapted.disable_adapter():
        torch.testing.assert_close(logits(adapted), before)
    adapted.save_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base(name), tmp_path / "adapter")), expected)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    saved = SpectralForCausalLM if MODELS[name][0] is SpectralForCausalLM else SpectralForMaskedLM
    torch.testing.assert_close(logits(saved.wrap(load_checkpoint(tmp_path / "merged"))), logits(merged))


@pytest.mark.parametrize("adapter", ["LoRA", "tokens"])
def test_the_tied_head_has_the_adapted_rows(adapter):
    """Logits are products with what the embedding gives for each token, adapter included."""
    torch.manual_seed(1)
    adapted = get_peft_model(base("tied"), LoraConfig(r=2, init_lora_weights=False, **ADAPTERS[adapter])).eval()
    if adapter == "tokens":
        with torch.no_grad():
            next(p for n, p in adapted.named_parameters() if "trainable_tokens_delta" in n).add_(1.0)
    model = adapted.base_model.model.model
    x = torch.randn(1, 3, 16)
    rows = model.frontend.embedding(torch.arange(30))
    torch.testing.assert_close(model.logits(x), x @ rows.T)
    plain = base("tied").model.frontend.embedding.weight
    assert ((rows - plain).abs().sum(1) > 1e-3).sum() == (30 if adapter == "LoRA" else 2)


def test_an_adapted_embedding_generates_as_merged():
    torch.manual_seed(1)
    config = LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False, **ADAPTERS["LoRA"])
    adapted = get_peft_model(base("tied"), config).eval()
    found = adapted.generate(input_ids=IDS, max_new_tokens=8, do_sample=False, pad_token_id=0)
    merged = adapted.merge_and_unload()
    assert torch.equal(found, merged.generate(IDS, max_new_tokens=8, do_sample=False, pad_token_id=0))
    assert torch.equal(found, merged.model.generate(IDS, max_new_tokens=8))
