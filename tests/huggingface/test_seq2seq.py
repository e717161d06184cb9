"""Sequence to sequence through Hugging Face's generate(): the source read once, our state for the cache."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

from spectral_core import UnsupportedInputError
from spectral_models.integrations.huggingface import SpectralForSeq2SeqLM, byte_tokenizer

NEW = 10


@pytest.fixture
def model(kinds) -> SpectralForSeq2SeqLM:
    """With weights that tell tokens and sources apart."""
    made = kinds["seq2seq"].model()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1 + 0.5 * torch.randn_like(parameter))
        for model in (made.model.decoder, made.model.encoder):
            model.frontend.embedding.weight.normal_(std=1 / model.frontend.embed_scale)
        for block in made.model.decoder.blocks:
            block.fusion.out_proj.weight.normal_()
    return made


@pytest.fixture
def source() -> Tensor:
    return torch.randint(2, 40, (3, 8), generator=torch.Generator().manual_seed(1))


def generated(model: SpectralForSeq2SeqLM, source: Tensor, **options) -> Tensor:
    torch.manual_seed(0)
    return model.generate(source, **{"max_new_tokens": NEW, "do_sample": False, **options})


def test_greedy_is_our_own_and_reads_the_source_once(model, source):
    read: list[str] = []
    model.model.encoder.register_forward_hook(lambda *_: read.append("source"))
    model.model.decoder.register_forward_hook(lambda _, inputs, __: read.append(f"{inputs[0].shape[1]} of the target"))
    found = generated(model, source, min_new_tokens=NEW)
    assert read == ["source", *["1 of the target"] * NEW]
    assert (found[:, 0] == 0).all(), "the start token"
    assert len({tuple(row) for row in found.tolist()}) == 3, "targets depend on their sources"
    ours = model.model.generate(source, max_new_tokens=NEW)
    stopped = generated(model, source)[:, 1:]
    assert torch.equal(stopped, ours)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 4, "length_penalty": 0.7},
        {"num_beams": 3, "num_return_sequences": 2, "early_stopping": True},
        {"do_sample": True, "num_return_sequences": 2},
        {"no_repeat_ngram_size": 1},
    ],
)
def test_the_state_is_what_reading_all_again_gives(model, source, options):
    assert torch.equal(generated(model, source, **options), generated(model, source, **options, use_cache=False))


def test_beams_are_our_own(model, source):
    found = generated(model, source, num_beams=4, min_new_tokens=0)[:, 1:]
    ours = model.model.generate(source, max_new_tokens=NEW, num_beams=4)
    assert torch.equal(found, ours)


@pytest.mark.parametrize("left", [True, False])
def test_padding_of_a_source_changes_no_target(model, source, left):
    lengths = (8, 5, 2)
    padded, mask = torch.zeros_like(source), torch.zeros_like(source)
    for row, length in enumerate(lengths):
        place = slice(8 - length, None) if left else slice(length)
        padded[row, place], mask[row, place] = source[row, :length], 1
    together = generated(model, padded, attention_mask=mask, min_new_tokens=NEW)
    for row, length in enumerate(lengths):
        alone = generated(model, source[row : row + 1, :length], min_new_tokens=NEW)
        assert torch.equal(together[row], alone[0])


def test_labels_make_the_target_as_collators_do(model):
    collate = DataCollatorForSeq2Seq(byte_tokenizer(), model=model)
    batch = collate([{"input_ids": [5, 6, 7], "labels": [7, 6, 5, 1]}, {"input_ids": [8, 9], "labels": [9, 8, 1]}])
    assert batch["decoder_input_ids"].tolist() in ([[0, 7, 6, 5], [0, 9, 8, 1]], [[0, 7, 6, 5], [0, 0, 9, 8]])
    whole = model(**batch).loss
    batch.pop("decoder_input_ids")
    assert torch.equal(model(**batch).loss, whole)
    trained = model.train()(**batch)
    assert callable(dict.get(trained, "logits")), "in training the loss is made in chunks"
    torch.testing.assert_close(trained.loss - sum(trained.losses.values()), whole, rtol=1e-5, atol=1e-6)
    for options, message in (({"use_cache": True}, "labels go without a cache"), ({"labels": None}, "no target: give")):
        with pytest.raises(UnsupportedInputError, match=message):
            model(**batch | options)


def test_a_trainer_generates_and_pads_what_it_judges(model, tmp_path):
    """Seq2SeqTrainer without a tokenizer asks the config what to pad with; it trains and evaluates by generating."""
    rows = [{"input_ids": [5, 6, 7], "labels": [7, 6, 5, 1]}, {"input_ids": [8, 9], "labels": [9, 8, 1]}]
    quiet = {"report_to": [], "use_cpu": True, "disable_tqdm": True}
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path),
        predict_with_generate=True,
        generation_max_length=NEW,
        dataloader_pin_memory=False,
        max_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="no",
        **quiet,
    )
    collate = DataCollatorForSeq2Seq(byte_tokenizer(), model=model)
    shapes = []
    training = Seq2SeqTrainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=rows,
        eval_dataset=rows,
        compute_metrics=lambda found: shapes.append(found.predictions.shape) or {},
    )
    training.train()
    assert len(shapes) == 2
    found = training.predict(rows).predictions
    for row, made in zip(rows, found, strict=True):
        alone = model.generate(torch.tensor([row["input_ids"]]), max_length=NEW, do_sample=False)[0].tolist()
        assert made.tolist() == alone + [0] * (len(made) - len(alone))
