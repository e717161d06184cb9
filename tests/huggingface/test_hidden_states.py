"""Hidden states of every layer, for every variant, by the classes of tasks and by AutoModel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, pipeline

from spectral_core import UnsupportedInputError
from spectral_layers.report import with_hidden_states
from spectral_models import CheckpointError, build_model, save_checkpoint
from spectral_models.checkpoint import WEIGHTS
from spectral_models.data import ByteTokenizer
from spectral_models.integrations import huggingface as hf
from spectral_models.record import CONFIG
from spectral_models.registries import MODELS
from spectral_models.seal import MARKER, write_marker
from spectral_models.variants.stack import StackedModel


def inputs(kind: Any) -> dict[str, Tensor]:
    batch = kind.batch()
    labels = batch.pop("labels")
    if kind.cls is hf.SpectralForSeq2SeqLM:
        batch["decoder_input_ids"] = F.pad(labels[:, :-1], (1, 0))
    return batch


def stacks(output: Any) -> dict[str, tuple[Tensor, ...]]:
    return {name: output[name] for name in output if name.endswith("hidden_states")}


def observed(model: torch.nn.Module) -> tuple[list[list[Tensor]], list[Any]]:
    """What each block of each stack is called with, by hooks; and their handles."""

    def remembering(states: list[Tensor]) -> Any:
        return lambda _, args: states.extend(x for x in args[:1] if isinstance(x, Tensor))

    stacks = [module for module in model.modules() if isinstance(module, StackedModel)]
    seen: list[list[Tensor]] = [[] for _ in stacks]
    handles = [
        block.register_forward_pre_hook(
            lambda _, args, states=states: states.extend(a for a in args[:1] if isinstance(a, Tensor))
        )
        for stack, states in zip(stacks, seen, strict=True)
        for block in stack.blocks
    ]
    return seen, handles


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_every_layer_reports_what_it_reads(kind, labels, training):
    model = kind.model().train(training)
    batch = {**inputs(kind), **({"labels": kind.batch()["labels"]} if labels else {})}
    plain = model(**batch)
    assert not stacks(plain)
    seen, handles = observed(model.model)
    output = model(**batch, output_hidden_states=True)
    for handle in handles:
        handle.remove()
    found = [list(states) for states in stacks(output).values()]
    assert len(found) == len(seen) == (2 if kind.cls is hf.SpectralForSeq2SeqLM else 1)
    for states, calls in zip(found, seen, strict=True):
        assert len(states) == 3
        for state, call in zip(states[:2], calls, strict=True):
            if state.shape == call.shape:  # separable blocks read lines of a plane
                assert torch.equal(state, call)
    assert torch.equal(output.logits, plain.logits)
    model.config.output_hidden_states = True
    assert stacks(model(**batch)).keys() == stacks(output).keys()
    assert not stacks(model(**batch, output_hidden_states=False))


def test_auto_model_holds_every_kind(kind, tmp_path):
    save_checkpoint(kind.model().model, tmp_path)
    model = AutoModel.from_pretrained(tmp_path)
    assert type(model) is hf.SpectralHFModel
    held, expected = model.model.state_dict(), kind.model().model.state_dict()
    assert all(torch.equal(held[name], tensor) for name, tensor in expected.items())
    with torch.no_grad():
        output = model(**inputs(kind), output_hidden_states=True)
        of_task = kind.model()(**inputs(kind), output_hidden_states=True)
    states = stacks(output)
    assert states.keys() == stacks(of_task).keys()
    for name in states:
        assert all(torch.equal(one, other) for one, other in zip(states[name], stacks(of_task)[name], strict=True))
    last = states.get("decoder_hidden_states", states.get("hidden_states"))[-1]
    assert torch.equal(output.last_hidden_state, last)
    assert ("pooler_output" in output) is model.model.config.pools
    with torch.no_grad():
        assert not stacks(model(**inputs(kind)))
        assert torch.equal(model(**inputs(kind), return_dict=False)[0], last)
    with pytest.raises(UnsupportedInputError, match=r"inputs are .*; got none|give input_ids or"):
        model()


def test_auto_model_makes_no_weight_up(kinds, tmp_path):
    save_checkpoint(kinds["masked"].model().model, tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    del weights["head.proj.weight"]
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    write_marker(tmp_path, MARKER, [CONFIG, WEIGHTS])
    with pytest.raises(CheckpointError, match=r"missing: model\.head\.proj\.weight"):
        AutoModel.from_pretrained(tmp_path)


def every_variant() -> dict[str, dict[str, Any]]:
    """The smallest of each registered variant that is ours, those without a class of a task among them."""
    small = {"hidden_dim": 32, "num_layers": 2}
    encoder = {"type": "encoder", "pooling": "cls", **small}
    image = {"type": "vision_encoder", "mixing": "separable", "image_size": [8, 8], **small}
    mel = {"type": "mel", "sample_rate": 4000, "n_fft": 64, "n_mels": 6, "bands": 3}
    image["frontend"] = {"type": "patches", "size": 4, "channels": 1}
    found: dict[str, dict[str, Any]] = {
        "language_model": small,
        "encoder": encoder,
        "vision_encoder": image,
        "audio_encoder": {**small, "frontend": mel},
        "classifier": {"encoder": encoder},
        "token_classifier": {"encoder": encoder},
        "seq2seq": {"encoder": encoder, **small},
        "multimodal": {"hidden_dim": 32, "encoders": {"text": encoder, "picture": image}},
    }
    assert found.keys() == {name for name in MODELS.names() if "/" not in name}
    return {name: {"type": name, **config} for name, config in found.items()}


@pytest.mark.parametrize("name", every_variant())
def test_auto_model_holds_every_variant(name, tmp_path):
    torch.manual_seed(0)
    model = build_model(every_variant()[name]).eval()
    save_checkpoint(model, tmp_path)
    found = AutoModel.from_pretrained(tmp_path)
    specs = model.input_specs()
    given = {spec.name: spec.example(2, torch.Generator().manual_seed(0)) for spec in specs}
    with torch.no_grad():
        output, plain = found(**given, output_hidden_states=True), model.run(given)
    last = output.last_hidden_state
    if name == "multimodal":
        assert last.keys() == {"text", "picture"} == output.hidden_states.keys()
        assert all(len(states) == 3 for states in output.hidden_states.values())
    else:
        assert last.shape == (2, last.shape[1], 32)
    if hasattr(plain, "hidden"):
        assert torch.equal(last, plain.hidden)
    if hasattr(plain, "pooled"):
        assert torch.equal(output.pooler_output, plain.pooled)


@pytest.mark.parametrize("name", ["causal", "masked", "text", "tokens", "seq2seq"])
def test_padding_stands_where_it_stood(name, kinds):
    """Hidden states of a padded row are those of the row alone, at its tokens."""
    kind = kinds[name]
    model, batch = hf.SpectralHFModel.wrap(kind.model().model).eval(), inputs(kind)
    mask = torch.ones(4, 12, dtype=torch.long)
    mask[0, :5] = 0
    with torch.no_grad():
        padded = model(**batch, attention_mask=mask, output_hidden_states=True)
        alone = {key: x[:1] for key, x in batch.items()}
        alone["input_ids"] = alone["input_ids"][:, 5:]
        expected = model(**alone, output_hidden_states=True)
    for which, states in stacks(padded).items():
        start = 0 if which.startswith("decoder") else 5
        for state, of_row in zip(states, stacks(expected)[which], strict=True):
            torch.testing.assert_close(state[:1, start:], of_row, rtol=1e-4, atol=1e-5)


def test_generate_gives_them_step_by_step(kinds):
    options = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    options.update(output_hidden_states=True, return_dict_in_generate=True)
    model, ids = kinds["causal"].model(), kinds["causal"].batch()["input_ids"]
    made = model.generate(ids, **options)
    whole = model(made.sequences, output_hidden_states=True).hidden_states
    for layer in range(3):
        stepwise = torch.cat([step[layer] for step in made.hidden_states], 1)
        torch.testing.assert_close(stepwise, whole[layer][:, :-1], rtol=1e-4, atol=1e-5)
    model = kinds["seq2seq"].model()
    made = model.generate(ids, **options)
    assert [len(made.encoder_hidden_states), len(made.decoder_hidden_states[0])] == [3, 3]


def test_recomputed_blocks_report_the_same(kind):
    model = kind.model().train()
    expected = stacks(model(**kind.batch(), output_hidden_states=True))
    model.activation_checkpointing_enable()
    found = stacks(model(**kind.batch(), output_hidden_states=True))
    for name, states in expected.items():
        assert all(torch.equal(one, other) for one, other in zip(states, found[name], strict=True))


def test_the_scope_ends_with_the_call(kinds):
    model = kinds["causal"].model()
    with pytest.raises(UnsupportedInputError, match="token ids run"):
        model(torch.tensor([[99]]), output_hidden_states=True)
    ids = torch.arange(4)[None]
    assert not model.model(ids).hidden_states
    with with_hidden_states("last"):
        assert list(model.model(ids).hidden_states) == ["2"]


def test_a_pipeline_extracts_features(tmp_path):
    saved = save_checkpoint(build_model({"hidden_dim": 8, "num_layers": 1}), tmp_path / "m", tokenizer=ByteTokenizer())
    found = pipeline("feature-extraction", model=str(saved))("abc")
    assert torch.tensor(found).shape == (1, 3, 8)
