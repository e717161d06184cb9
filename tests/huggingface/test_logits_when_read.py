"""In training with labels logits are computed when they are read: by every way of reading, with the right gradients."""

from __future__ import annotations

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from transformers import Trainer, TrainingArguments

from spectral_core import UnsupportedInputError
from spectral_models.integrations.huggingface import SpectralForCausalLM, SpectralForMaskedLM, SpectralForSeq2SeqLM

CHUNKED = ("causal", "masked", "seq2seq")


@pytest.fixture(params=CHUNKED)
def kind(request, kinds):
    return kinds[request.param]


READ = {
    "attribute": lambda output: output.logits,
    "key": lambda output: output["logits"],
    "get": lambda output: output.get("logits"),
    "place": lambda output: output[1],
    "slice": lambda output: output[:2][1],
    "tuple": lambda output: output.to_tuple()[1],
    "dict": lambda output: dict(output)["logits"],
    "rebuilt from items, as mixed precision does": lambda output: type(output)(dict(output.items())).logits,
    "rebuilt from leaves, as DDP and FSDP do": lambda output: pytree.tree_map(lambda leaf: leaf, output).logits,
    "gathered, as DataParallel does": lambda output: type(output)((key, output[key]) for key in output).logits,
}


def test_every_way_of_reading_gives_what_forward_gives(kind):
    model, batch = kind.model().train(), kind.batch()
    assert list(model(**batch))[:2] == ["loss", "logits"]
    expected = kind.logits(model)
    model.train()
    for way, read in READ.items():
        found = read(model(**batch))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, msg=way)
    loss, logits, *_ = model(**batch, return_dict=False)
    assert torch.equal(logits, found)
    assert loss.requires_grad
    assert model(**batch).get("nothing", 5) == 5
    with pytest.raises(KeyError):
        model(**batch)["nothing"]


def test_nothing_computes_logits_that_nobody_reads(kind):
    model, batch = kind.model().train(), kind.batch()
    output = model(**batch)
    assert output["loss"] is output.loss
    pytree.tree_map(lambda leaf: leaf, output)
    type(output)(dict(output.items()))
    assert callable(dict.get(output, "logits")), "only the function is there"
    first = output.logits
    assert output.logits is first, "once read, they stay"
    assert dict.get(output, "logits") is first


def test_rows_stand_where_they_stood(kinds):
    """Of padded rows, as in evaluation; and of the columns that are asked for."""
    model, ids = kinds["causal"].model(), kinds["causal"].batch()["input_ids"]
    mask = torch.ones_like(ids)
    mask[0, :5] = mask[1, :2] = 0
    with torch.no_grad():
        whole = model(ids, mask).logits
    found = model.train()(ids, mask, labels=ids)
    torch.testing.assert_close(found.logits[mask.bool()], whole[mask.bool()], rtol=1e-5, atol=1e-6)
    last = model(ids, labels=ids, logits_to_keep=3).logits
    assert torch.equal(last, model(ids, labels=ids).logits[:, -3:])


def test_a_loss_of_ones_own_trains_as_the_models_own(kinds, tmp_path):
    """Trainer's ``compute_loss``, overridden, with the labels left in; the gradients are those of the plain loss."""
    kind = kinds["causal"]

    class Own(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(**inputs)
            logits = outputs.logits[:, :-1]
            loss = F.cross_entropy(logits.flatten(0, 1), inputs["labels"][:, 1:].flatten())
            return (loss, outputs) if return_outputs else loss

    weights = []
    for cls in (Own, Trainer):
        model = kind.model()
        for layer in model.model.blocks:
            part = layer.feedforward  # its losses are means over a batch
            part.config = part.config.model_copy(update={"balance_weight": 0.0, "z_weight": 0.0})
        rows = [dict(zip(kind.batch(), row, strict=True)) for row in zip(*kind.batch().values(), strict=True)]
        options = {"max_steps": 2, "per_device_train_batch_size": 4, "optim": "sgd", "learning_rate": 0.5}
        quiet = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
        arguments = TrainingArguments(str(tmp_path), dataloader_pin_memory=False, **options, **quiet)
        training = cls(model, arguments, train_dataset=rows, eval_dataset=rows)
        training.train()
        assert training.evaluate()["eval_loss"] > 0
        weights.append(model.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_gradients_through_logits_are_those_of_the_loss(kind):
    model, batch = kind.model().train(), kind.batch()
    gradients = []
    for read in (False, True):
        model.zero_grad()
        output = model(**batch)
        loss = output.loss
        if read:
            shifted = (slice(None, -1), slice(1, None)) if kind.cls is SpectralForCausalLM else (slice(None),) * 2
            logits, labels = output.logits[:, shifted[0]], batch["labels"][:, shifted[1]]
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten()) + sum(output.losses.values())
        loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")  # of torch's rms_norm
def test_mixed_precision_reads_under_the_autocast_of_the_call(kind):
    model, batch = kind.model().train(), kind.batch()

    def half(**inputs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(**inputs)

    found = convert_outputs_to_fp32(half)(**batch).logits
    inputs = {model.main_input_name: batch[model.main_input_name]}
    if kind.cls is SpectralForSeq2SeqLM:
        inputs["decoder_input_ids"] = model.model.decoder_inputs(batch["labels"])
    with torch.no_grad():
        expected = half(**inputs).logits
    assert found.dtype == torch.float32
    assert expected.dtype == torch.bfloat16 or kind.cls is SpectralForMaskedLM, "its head ends in a float32 bias"
    torch.testing.assert_close(found, expected.float(), rtol=0.02, atol=0.02)


def test_logits_of_weights_that_have_changed_are_refused(kind):
    model, batch = kind.model().train(), kind.batch()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    read, unread = model(**batch), model(**batch)
    before = read.logits
    (read.loss + unread.loss).backward()
    unread.to_tuple()  # after backward they may still be read
    unread = model(**batch)
    optimizer.step()
    assert read.logits is before
    with pytest.raises(UnsupportedInputError, match=r"the weights have changed since\. Read outputs\.logits before"):
        _ = unread.logits
