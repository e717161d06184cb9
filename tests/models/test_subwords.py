"""Byte-pair encodings learned from text, Hugging Face tokenizers, and what checkpoints keep of them."""

from __future__ import annotations

import json
import math
import random

import pytest
import tokenizers
import torch
import yaml
from typer.testing import CliRunner

from spectral_core.errors import ConfigError
from spectral_models import build_model, load_tokenizer, save_checkpoint
from spectral_models.checkpoint import CheckpointError
from spectral_models.cli.commands import app
from spectral_models.data import ByteTokenizer, ContiguousWindows, DataConfig, DataError, SubwordTokenizer, load_corpus
from spectral_models.data.subwords import learn_bpe, read_tokenizer
from spectral_models.data.tokenizer import require_vocabulary
from spectral_models.evaluation import bits_per_byte
from spectral_models.training import load_run
from spectral_models.training.run import train

LINES = [f"line {i}: the quick brown fox {i * i % 97} jumps over été 世界\n" for i in range(300)]
TEXTS = [
    *("", " ", "the quick brown fox", "  two  spaces\t\r\n", "héllo – 世界 🙂\n", "\ufffd\ufffd x", "<|endoftext|>"),
    "no such words: žluťoučký kůň",
]


@pytest.fixture(scope="module")
def bpe() -> SubwordTokenizer:
    return learn_bpe(LINES, 400)


@pytest.fixture(scope="module")
def lossy(tmp_path_factory):
    """A tokenizer that lowers case, as BERT's does, with a template that puts a token in front."""
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "[CLS]": 1, "fox": 2, "line": 3}, "[UNK]"))
    inner.normalizer = tokenizers.normalizers.Lowercase()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 1)])
    inner.enable_padding(length=8)
    inner.enable_truncation(2)
    folder = tmp_path_factory.mktemp("lossy")
    inner.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_exactly_and_never_holds_the_end_of_a_document(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert bpe.decode(torch.tensor(ids, dtype=torch.long)) == text
    assert bpe.encode(text.encode()) == ids
    assert bpe.eos_token_id not in ids
    assert all(0 <= token < bpe.vocab_size for token in ids)


def test_learning_shortens_its_own_text_and_does_it_the_same_way_each_time(bpe):
    assert bpe.vocab_size == 400
    text = "".join(LINES)
    assert len(bpe.encode(text)) < 0.4 * len(text.encode())
    assert bpe.files() == learn_bpe(iter(LINES), 400).files()
    assert bpe.encode_batch(LINES[:3]) == [bpe.encode(line) for line in LINES[:3]]


def test_streamed_pieces_join_to_what_decode_gives(bpe):
    """Also for tokens drawn at random, ids the tokenizer does not have among them: a new model emits little else."""
    draw = random.Random(0)  # noqa: S311
    for ids in [bpe.encode("".join(TEXTS)), *([draw.randrange(420) for _ in range(40)] for _ in range(50))]:
        stream = bpe.stream()
        for _ in range(2):
            pieces = [stream.push(token) for token in ids]
            assert "".join([*pieces, stream.finish()]) == bpe.decode(ids), "twice, with the same stream"
    assert "\ufffd" not in "".join(bpe.stream().push(token) for token in bpe.encode("ab世界é"))
    assert bpe.decode([5000]) == "\ufffd"


def test_any_hugging_face_tokenizer_is_read_without_its_template_padding_and_truncation(lossy):
    for path in (lossy, lossy / "tokenizer.json"):
        tokenizer = read_tokenizer(path)
        assert tokenizer.encode("line FOX fox") == [3, 2, 2]
        assert tokenizer.vocab_size == 4
        with pytest.raises(DataError, match=r"does not say which token ends a document.*eos: TOKEN"):
            _ = tokenizer.eos_token_id
    assert read_tokenizer(lossy, "[CLS]").eos_token_id == 1
    with pytest.raises(DataError, match=r"has no token '</s>'"):
        read_tokenizer(lossy, "</s>")


def test_what_is_no_tokenizer_is_refused(tmp_path, bpe):
    with pytest.raises(DataError, match=r"there is no tokenizer at .*nowhere"):
        read_tokenizer(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"is not a tokenizer of the tokenizers library"):
        read_tokenizer(tmp_path)
    with pytest.raises(DataError, match=r"not UTF-8 text: byte 0xff at offset 1"):
        bpe.encode(b"a\xff")
    with pytest.raises(DataError, match=r"model.vocab_size is 256, .*400 tokens. Set model.vocab_size: 400"):
        require_vocabulary(bpe, 256, "model.vocab_size")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tokenizer": "bpee"}, r"tokenizer: no tokenizer is called 'bpee'. Did you mean 'bpe'"),
        ({"tokenizer": 3}, r"tokenizer: no tokenizer is called None.*type: file, path: PATH"),
        ({"tokenizer": {"type": "bpe", "vocab_size": 256}}, r"tokenizer.vocab_size: .*257"),
        ({"tokenizer": {"type": "bpe", "size": 300}}, r"tokenizer.size: unknown key"),
        ({"tokenizer": "file"}, r"tokenizer.path: Field required"),
    ],
)
def test_a_wrong_tokenizer_config_is_refused_with_its_path(wrong, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig.parse(wrong)


def test_tokenizer_configs_are_kept_whole_and_described():
    config = DataConfig.parse({"tokenizer": "bpe"})
    assert config == DataConfig.parse(config.model_dump(mode="json"))
    assert config.model_dump(mode="json")["tokenizer"] == {"type": "bpe", "vocab_size": None}
    assert "BpeConfig" in json.dumps(DataConfig.model_json_schema())


# Corpora and bits per byte


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "lines.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES), encoding="utf-8")
    return path


def corpus(text, tokenizer, **options):
    config = DataConfig(source=str(text), tokenizer=tokenizer, context=16, validation_bytes=600)
    return load_corpus(config, **options)


def test_a_corpus_holds_the_same_text_whatever_its_tokens(text):
    plain, learned = corpus(text, "bytes"), corpus(text, "bpe", vocab_size=300)
    assert learned.tokenizer.vocab_size == 300, "null takes the model's vocab_size"
    assert learned.validation_text == plain.validation_text
    assert 590 <= len(plain.validation_text) <= 600
    plain.validation_text.decode()
    end = learned.tokenizer.eos_token_id
    documents = bytes(plain.train.tolist()).decode().split("\0")
    ids = learned.train.tolist()
    assert ids.count(end) == learned.train_documents == len(documents) - 1
    assert ids[: ids.index(end)] == learned.tokenizer.encode(documents[0])
    assert learned.train_bytes == plain.train_bytes == len(plain.train)
    assert (plain.validation_bytes, learned.validation_bytes) == (
        len(plain.validation_text) - 1,
        len(plain.validation_text),
    )


def test_a_tokenizer_is_learned_from_the_training_documents_alone(text, tmp_path):
    whole = corpus(text, {"type": "bpe", "vocab_size": 600})
    held_out = whole.validation_text.decode().split("\0")[0]
    changed = text.read_text(encoding="utf-8").replace(json.dumps(held_out), json.dumps("zzz " * 50))
    (tmp_path / "lines.jsonl").write_text(changed, encoding="utf-8")
    other = corpus(tmp_path / "lines.jsonl", {"type": "bpe", "vocab_size": 600})
    assert other.validation_text != whole.validation_text
    assert other.tokenizer.files() == whole.tokenizer.files()


def test_bits_per_byte_count_every_byte_however_few_tokens_it_takes(text):
    """By hand: all nats of all tokens, over the bytes of the held-out text."""
    learned = corpus(text, {"type": "bpe", "vocab_size": 400})
    torch.manual_seed(0)
    model = build_model({"vocab_size": 400, "hidden_dim": 16, "num_layers": 1, "block": {"feedforward": "mlp"}}).eval()
    with torch.no_grad():
        model.frontend.embedding.weight.mul_(20)
    windows = ContiguousWindows(learned.validation, 16, learned.validation_bytes)
    ids, nats = learned.validation.long(), []
    for start in range(0, len(ids) - 1, 16):
        window = ids[start : start + 17]
        with torch.no_grad():
            found = model(window[None, :-1]).logits[0].double().log_softmax(-1)
        nats += [-float(found[place, token]) for place, token in enumerate(window[1:].tolist())]
    assert len(nats) == len(ids) - 1 < 0.5 * len(learned.validation_text)
    wanted = math.fsum(nats) / math.log(2) / len(learned.validation_text)
    assert bits_per_byte(model, windows) == pytest.approx(wanted, rel=1e-6)
    assert learned.tokenizer.decode(ids[1:].tolist()) == learned.validation_text.decode().replace("\0", "")


def test_a_tokenizer_that_loses_text_is_refused_for_a_corpus(text, lossy):
    with pytest.raises(DataError, match=r"the tokenizer loses text: .*bits per byte would be too low.*bpe"):
        corpus(text, {"type": "file", "path": str(lossy), "eos": "[CLS]"})


# Checkpoints


def small_model(vocab_size):
    return build_model({"vocab_size": vocab_size, "hidden_dim": 8, "num_layers": 1})


def test_a_checkpoint_keeps_its_tokenizer(bpe, tmp_path):
    save_checkpoint(small_model(400), tmp_path / "model", tokenizer=bpe)
    found = load_tokenizer(tmp_path / "model")
    assert found.files() == bpe.files()
    assert found.encode("the quick 世界") == bpe.encode("the quick 世界")
    assert found.eos_token_id == 0
    assert load_tokenizer(tmp_path).vocab_size == 400, "a run's directory stands for its model"
    save_checkpoint(small_model(256), tmp_path / "model", tokenizer=ByteTokenizer())
    assert isinstance(load_tokenizer(tmp_path / "model"), ByteTokenizer), "a later save leaves nothing of an earlier"


def test_a_changed_tokenizer_is_noticed(bpe, tmp_path):
    save_checkpoint(small_model(400), tmp_path / "model", tokenizer=bpe)
    with (tmp_path / "model" / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(CheckpointError, match=r"tokenizer.json is truncated or changed"):
        load_tokenizer(tmp_path / "model")


def test_transformers_reads_the_tokenizer_of_a_checkpoint(bpe, tmp_path):
    from transformers import AutoTokenizer

    save_checkpoint(small_model(400), tmp_path / "model", tokenizer=bpe)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "model"))
    assert theirs("the quick 世界")["input_ids"] == bpe.encode("the quick 世界")
    assert theirs.eos_token_id == bpe.eos_token_id


# A run


def test_a_run_learns_its_tokenizer_keeps_it_and_is_evaluated_with_it(text, tmp_path):
    """From the command line: train, evaluate to the same number, generate; resumed, the tokenizer stays."""
    run = {
        "model": {"vocab_size": 320, "hidden_dim": 16, "num_layers": 1, "block": {"feedforward": "mlp"}},
        "data": {"tokenizer": "bpe", "context": 16, "validation_bytes": 600, "source": str(text)},
        "training": {"steps": 4, "batch_size": 4, "eval_every": 4, "save_every": 2},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    command = ["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]
    trained = CliRunner().invoke(app, command)
    assert trained.exit_code == 0, trained.output
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["tokens"] == 320
    assert 1.5 < metrics["bytes_per_token"] < 10
    loss = next(row["loss"] for row in metrics["history"] if "loss" in row)
    assert loss == pytest.approx(math.log(320), rel=0.2), "the loss is in nats per token"
    assert metrics["bits_per_byte"] < 8, "few tokens for many bytes"
    for place in ("out", "out/model", "out/checkpoints/checkpoint-2"):
        assert load_tokenizer(tmp_path / place).files() == load_tokenizer(tmp_path / "out").files()
    evaluated = CliRunner().invoke(app, ["evaluate", str(tmp_path / "out")])
    assert evaluated.exit_code == 0, evaluated.output
    assert f"bits per byte  {metrics['bits_per_byte']:.4f}  (xz -9" in evaluated.stdout
    whole = CliRunner().invoke(app, ["evaluate", str(tmp_path / "out"), "--data", str(text), "--context", "8"])
    assert f"{sum(len(line.encode()) + 1 for line in LINES):,} bytes" in whole.stdout
    drawn = CliRunner().invoke(app, ["generate", str(tmp_path / "out"), "--prompt", "line 世", "--max-new-tokens", "5"])
    assert drawn.exit_code == 0, drawn.output
    assert drawn.stdout.startswith("line 世")


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(text, bpe, tmp_path):
    for name, content in bpe.files().items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    run = load_run(
        {
            "model": {"vocab_size": 399, "hidden_dim": 8, "num_layers": 1},
            "data": {"tokenizer": {"type": "file", "path": str(tmp_path)}, "source": str(text), "context": 16},
        }
    )
    with pytest.raises(DataError, match=r"the model's vocab_size is 399, and the tokenizer has 400 tokens"):
        train(run, tmp_path / "out")
