"""Documents, their division, windows over them, and the recall task."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from spectral_core.errors import ConfigError, SpectralError
from spectral_models.data import (
    ContiguousWindows,
    Corpus,
    DataConfig,
    DataError,
    RandomWindows,
    load_corpus,
    mqar_batch,
    sequences_batch,
)
from spectral_models.data.corpus import split_documents
from spectral_models.data.documents import read_documents
from spectral_models.data.labelled import LabelledTextsConfig
from spectral_models.data.subwords import learn_bpe
from spectral_models.data.utf8 import pieces


class Document(NamedTuple):
    name: str
    content: bytes


def split(documents: list[Document], **options: Any) -> tuple[list[Document], list[Document]]:
    """Training documents and held-out ones."""
    train, held_out = split_documents(documents, **options)
    return [documents[index] for index in train], [documents[index] for index in held_out]


def documents_of(path: Path | str, **fields: object) -> list[Document]:
    documents = read_documents(DataConfig(source=str(path), **fields))
    return [Document(name, bytes(content)) for name, content in documents.views()]


def contents(part: torch.Tensor) -> list[bytes]:
    """The documents of one part of a corpus, which a NUL follows each."""
    *found, rest = bytes(part.tolist()).split(b"\0")
    assert rest == b"", "the last document has no separator"
    return found


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A directory of 40 different small files."""
    folder = tmp_path / "shelf"
    for i in range(40):
        file = folder / f"part{i % 4}" / f"{i:02}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"This is document {i}, {'é' * i}.\n", encoding="utf-8")
    return folder


# Documents


def test_a_directory_gives_one_document_per_file_in_the_order_of_relative_names(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_bytes(b"one\r\n")
    (tmp_path / "a.md").write_bytes("\ufeffä".encode())
    (tmp_path / "blank.txt").write_bytes(b" \n")
    (tmp_path / "c.jsonl").write_text('{"text": "x"}\n\n{"text": null}\n{"text": "y", "id": 3}\n')
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index").write_bytes(b"\xff\0")
    assert documents_of(tmp_path) == [
        ("a.md", "ä".encode()),  # without its byte-order mark
        ("b/one.txt", b"one\r\n"),  # line ends as they are
        ("c.jsonl:1", b"x"),
        ("c.jsonl:4", b"y"),
    ]


def test_a_jsonl_file_gives_one_document_per_line_from_the_named_field(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"body": "caf\\u00e9"}\n{"body": "line\\nend"}', encoding="utf-8")
    assert documents_of(file, text_field="body") == [("a.jsonl:1", "café".encode()), ("a.jsonl:2", b"line\nend")]


@pytest.mark.parametrize("text", ["Zeile für Zeile.\n" * 5000, "x" + "ü" * 5000], ids=["lines", "one line"])
def test_a_lone_text_is_cut_into_blocks_that_lose_nothing(tmp_path, text):
    """A book has no boundaries to split at; without blocks nothing could be held out."""
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    blocks = documents_of(tmp_path / "book.txt")
    assert b"".join(block.content for block in blocks) == text.encode()
    assert len(blocks) >= 8
    assert len({block.name for block in blocks}) == len(blocks)
    for block in blocks:
        block.content.decode()  # no character is cut
        assert len(block.content) <= 1 << 16
        assert block.content.endswith(b"\n") or "\n" not in text


def test_blocks_of_a_large_text_stop_growing(tmp_path):
    (tmp_path / "book.txt").write_bytes(b"0123456789abcde\n" * (1 << 18))  # 4 MiB
    assert {len(block.content) for block in documents_of(tmp_path / "book.txt")} == {1 << 16}


def test_the_standard_library_is_source_code_without_tests_packages_and_tables():
    documents = documents_of("stdlib")
    names = [document.name for document in documents]
    assert names == sorted(names)
    assert {"argparse.py", "json/decoder.py", "unittest/case.py"} <= set(names)
    unwanted = {"test", "tests", "idle_test", "site-packages", "encodings", "pydoc_data"}
    assert not [name for name in names if unwanted & set(name.split("/"))]
    assert "html/entities.py" not in names
    size = sum(len(document.content) for document in documents)
    assert 5e6 < size < 2e7, "a rule left out nearly everything, or let a table in"
    assert max(len(document.content) for document in documents) < size / 20


# What cannot be read


def refuse(path: Path, *parts: str, **fields: object) -> None:
    """Loading raises a DataError whose message has all the parts."""
    with pytest.raises(DataError) as caught:
        documents_of(path, **fields)
    assert isinstance(caught.value, SpectralError)
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_path_is_named_with_all_kinds_of_sources(tmp_path):
    refuse(tmp_path / "none.txt", str(tmp_path / "none.txt"), "no such file", "'stdlib'", "datasets:NAME")
    refuse(Path("stdlb"), "Did you mean 'stdlib'?")


@pytest.mark.parametrize("content", [None, b"", b" \n\t\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_source_without_text_is_refused(tmp_path, content, name):
    if content is not None:
        (tmp_path / name).write_bytes(content)
        refuse(tmp_path / name, str(tmp_path / name), "no text found", "at least two documents")
    refuse(tmp_path, str(tmp_path), "no text found")


def test_text_that_is_not_utf8_is_named_with_the_offset(tmp_path):
    (tmp_path / "good.txt").write_bytes(b"good")
    (tmp_path / "latin.txt").write_bytes("abc é".encode("latin-1"))
    refuse(tmp_path, str(tmp_path / "latin.txt"), "not UTF-8", "0xe9 at offset 4", "iconv")


def test_a_binary_file_is_refused_for_its_nul(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc\0def")
    refuse(tmp_path, str(tmp_path / "a.bin"), "NUL byte at offset 3", "binary")


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"abc")

    def denied(path: Path, mode: str) -> None:  # not chmod: the superuser may read everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    refuse(tmp_path, str(tmp_path / "a.txt"), "cannot be read: Permission denied")


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"text": "b"', ["not JSON", "column 13", "one object per line"]),
        ('["b"]', ["holds list", "'text'"]),
        ('{"txt": "b", "id": 1}', ["no field 'text'", "Did you mean 'txt'?", "txt, id", "text_field"]),
        ("{}", ["no field 'text'", "none"]),
        ('{"text": 3}', ["holds int", "string"]),
        ('{"text": "a\\u0000"}', ["NUL byte at offset 1"]),
        ('{"text": "a\\ud800"}', ["not text", "character 1"]),
    ],
)
def test_a_bad_json_line_is_named_with_file_and_number(tmp_path, line, parts):
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"text": "a"}}\n\n{line}\n')
    refuse(file, f"{file}, line 3", *parts)


@pytest.mark.parametrize("mark", [True, False], ids=["with a mark", "without a mark"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
def test_text_in_another_unicode_is_called_that(tmp_path, suffix, encoding, mark):
    """Whatever reads it; without a mark where it is Latin."""
    text = ("\ufeff" if mark else "") + '{"text": "naïve ünïcode", "label": "a"}\n' * 300
    file = tmp_path / f"a{suffix}"
    file.write_bytes(text.encode(encoding))
    with pytest.raises(DataError) as caught:
        LabelledTextsConfig(source="-").table(str(file)) if suffix == ".csv" else documents_of(file)
    name = encoding[:6].upper()
    assert f"a{suffix}: {name}" in str(caught.value)
    assert f"iconv -f {name}" in str(caught.value)
    assert "latin" not in str(caught.value)


@pytest.mark.parametrize("text", ["日本語のテキスト。\n", "Просто текст, и больше ничего.\n"])
def test_utf16_of_other_scripts_is_known_by_its_mark(tmp_path, text):
    (tmp_path / "a.txt").write_bytes((text * 300).encode("utf-16"))
    refuse(tmp_path / "a.txt", "UTF-16 text, and only UTF-8 is read")


@pytest.mark.parametrize("size", [1, 3, 1 << 20, (1 << 20) + 1])
def test_pieces_of_a_file_are_its_bytes_and_whole_characters(tmp_path, size):
    text = ("aé世🙂" * (size // 10 + 1)).encode()[: size + 8].decode(errors="ignore")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = list(pieces(tmp_path / "a.txt"))
    assert "".join(piece.decode() for piece in found) == text
    (tmp_path / "a.txt").write_bytes(text.encode() + "é".encode()[:1])
    refuse(tmp_path / "a.txt", f"byte 0xc3 at offset {len(text.encode())}")


# Memory


@pytest.mark.parametrize(("suffix", "tokenizer"), [(".txt", "bytes"), (".jsonl", "bytes"), (".jsonl", "bpe")])
def test_a_corpus_takes_about_as_much_memory_as_its_text(tmp_path, suffix, tokenizer):
    """Of Python's allocations at their peak; they were three to forty times the text."""
    lines = [
        f"A line of text that is about as long as lines are, number {i}.\n"
        for i in range(20_000 if tokenizer == "bpe" else 60_000)
    ]
    content = "".join(lines)
    if suffix == ".jsonl":
        texts = ("".join(lines[i : i + 20]) for i in range(0, len(lines), 20))
        content = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / f"a{suffix}").write_text(content)
    config = DataConfig(source=str(tmp_path / f"a{suffix}"), context=64)
    made = learn_bpe(lines[:100], 1000) if tokenizer == "bpe" else None
    tracemalloc.start()
    try:
        corpus = load_corpus(config, tokenizer=made)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert corpus.train_bytes > 0.8 * len(content)
    assert corpus.train.element_size() == (1 if made is None else 2)
    held = corpus.train_bytes + len(corpus.validation_text)
    held += 0 if made is None else 2 * len(corpus.train)
    # A piece of a file, and a batch of tokens as lists.
    assert peak < 1.2 * held + (5 << 20 if made is None else 10 << 20), (peak, held)


# Datasets


def in_fresh_process(code: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run without network: the libraries read these settings when they are imported."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "HF_DATASETS_CACHE": str(cache / "datasets")}
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | offline, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="the datasets library is not installed")
def test_a_dataset_folder_is_read_and_the_library_is_imported_only_then(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"body": f"row {i}"}) + "\n" for i in range(5)))
    (folder / "test.jsonl").write_text('{"body": "never read"}\n')
    code = f"""
import sys
from spectral_models.data import DataConfig, DataError
from spectral_models.data.documents import read_documents
assert "datasets" not in sys.modules
documents = read_documents(DataConfig(source="datasets:{folder.as_posix()}", text_field="body"))
found = [(name, bytes(content)) for name, content in documents.views()]
assert found == [(f"train:{{i}}", f"row {{i}}".encode()) for i in range(5)], found
for source in ("datasets:{folder.as_posix()}", "datasets:acme/no_such_set", "datasets:{folder.as_posix()}:odd"):
    try:
        read_documents(DataConfig(source=source))
    except DataError as error:
        print(" ".join(str(error).split()))
"""
    done = in_fresh_process(code, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    no_field, no_name, no_subset = done.stdout.strip().splitlines()
    assert "no field 'text'" in no_field
    assert "Its fields: body" in no_field
    assert "could not load 'acme/no_such_set'" in no_name
    assert "huggingface.co/datasets" in no_name
    assert "with config 'odd'" in no_subset


def test_without_the_datasets_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    refuse(Path("datasets:x"), "'datasets:x'", "pip install 'spectral-networks[train]'")


def test_a_dataset_source_without_a_name_is_refused():
    refuse(Path("datasets:"), "names no dataset", "datasets:NAME[:CONFIG]")


# The division


def test_the_division_is_whole_disjoint_and_the_same_every_time(shelf):
    config = DataConfig(source=str(shelf), validation_fraction=0.3, context=8)
    corpus = load_corpus(config)
    train, validation = contents(corpus.train), contents(corpus.validation)
    assert sorted(train + validation) == sorted(document.content for document in documents_of(shelf))
    assert not set(train) & set(validation)
    assert (corpus.train_documents, corpus.validation_documents) == (len(train), len(validation))
    assert 4 <= len(validation) <= 20
    again = load_corpus(config)
    assert torch.equal(again.train, corpus.train)
    assert torch.equal(again.validation, corpus.validation)
    assert corpus.train.dtype == corpus.validation.dtype == torch.uint8


def test_another_seed_holds_out_other_documents(shelf):
    first, second = (
        set(contents(load_corpus(DataConfig(source=str(shelf), seed=seed, context=8)).validation)) for seed in (0, 1)
    )
    assert first != second


def test_membership_depends_on_neither_order_nor_other_documents():
    """So that adding a file to a corpus does not move trained-on text into the held-out part."""
    documents = [Document(f"{i}.txt", str(i).encode()) for i in range(200)]
    train, validation = split(documents, fraction=0.2, seed=3)
    assert split(documents[::-1], fraction=0.2, seed=3) == (train[::-1], validation)
    fewer_train, fewer_validation = split(documents[:100], fraction=0.2, seed=3)
    assert set(fewer_train) <= set(train)
    assert set(fewer_validation) <= set(validation)


def test_moving_a_corpus_moves_no_document(shelf, tmp_path):
    before = load_corpus(DataConfig(source=str(shelf), context=8))
    after = load_corpus(DataConfig(source=str(shelf.rename(tmp_path / "moved")), context=8))
    assert torch.equal(before.validation, after.validation)


@pytest.mark.parametrize("fraction", [1e-9, 0.05, 0.5, 1 - 1e-9])
@pytest.mark.parametrize("seed", range(5))
def test_neither_side_is_ever_empty(fraction, seed):
    documents = [Document("a", b"one"), Document("b", b"two"), Document("c", b"one")]
    train, validation = split(documents, fraction=fraction, seed=seed)
    assert train
    assert validation
    assert not {d.content for d in train} & {d.content for d in validation}


def test_no_text_is_both_trained_on_and_held_out():
    """Copies under other names (licences, vendored files) would let a model that learns by heart look good."""
    documents = [Document(f"{i}", str(i % 50).encode()) for i in range(500)]
    train, validation = split(documents, fraction=0.7, seed=0)
    assert validation
    assert not {d.content for d in train} & {d.content for d in validation}
    drawn, _ = split([Document(f"{i}", str(i).encode()) for i in range(500)], fraction=0.7, seed=0)
    assert [d.name for d in train] == [d.name for d in drawn], "a training document was dropped for its copy"
    assert len(train) + len(validation) < 500, "the example has no copy to drop: it proves nothing"


def test_dropped_copies_are_on_neither_side(tmp_path):
    lines = [json.dumps({"text": f"document {i % 10}"}) for i in range(100)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    corpus = load_corpus(DataConfig(source=str(tmp_path), validation_fraction=0.3, context=8))
    assert corpus.train_documents + corpus.validation_documents < 100
    assert not set(contents(corpus.train)) & set(contents(corpus.validation))


def test_one_text_only_cannot_be_divided(tmp_path):
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(DataError, match=r"a\.txt.*1 document\(s\).*at least two different documents"):
        load_corpus(DataConfig(source=str(tmp_path / "a.txt")))
    (tmp_path / "b.txt").write_text("short")
    with pytest.raises(DataError, match=r"2 document\(s\) with 1 different"):
        load_corpus(DataConfig(source=str(tmp_path)))


def test_a_corpus_shorter_than_one_window_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    with pytest.raises(DataError, match=r"source '.*': 4 tokens .* context 256 needs 257.*lower context"):
        load_corpus(DataConfig(source=str(tmp_path)))


def test_the_held_out_bytes_are_capped_to_the_first_of_all(shelf):
    whole = load_corpus(DataConfig(source=str(shelf), validation_bytes=None, validation_fraction=0.5, context=8))
    capped = load_corpus(DataConfig(source=str(shelf), validation_bytes=50, validation_fraction=0.5, context=8))
    assert torch.equal(capped.validation, whole.validation[:49]), "the 50th is half of a character"
    assert torch.equal(capped.train, whole.train)
    assert capped.validation.untyped_storage().nbytes() == 49, "the rest is still held in memory"


def test_a_stdlib_corpus_says_which_python_it_is():
    corpus = load_corpus(DataConfig())
    assert isinstance(corpus, Corpus)
    assert corpus.source.startswith(f"stdlib of Python {sys.version_info.major}.{sys.version_info.minor}.")
    assert len(corpus.validation) == 262144
    assert corpus.validation_documents >= 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"validation_fraction": 0.0},
        {"validation_fraction": 1.0},
        {"context": 0},
        {"validation_bytes": 7},
        {"source": ""},
        {"field": "text"},
    ],
)
def test_a_config_that_cannot_work_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DataConfig.parse(wrong)


# Windows


def test_labels_are_the_next_tokens():
    tokens = torch.arange(100, dtype=torch.uint8)
    for item in (RandomWindows(tokens, 16, 1, seed=0)[0], ContiguousWindows(tokens, 16)[2]):
        assert item["input_ids"].dtype == item["labels"].dtype == torch.long
        assert item["input_ids"].shape == item["labels"].shape == (16,)
        assert torch.equal(item["labels"], item["input_ids"] + 1)


def test_a_random_window_depends_on_seed_and_index_alone():
    """Workers and resumed runs must see the same windows, whatever was drawn before."""
    tokens = torch.randint(256, (5000,), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    windows = RandomWindows(tokens, 32, 50, seed=1)
    forwards = [windows[i]["input_ids"] for i in range(50)]
    torch.manual_seed(5)
    longer = RandomWindows(tokens, 32, 1000, seed=1)
    backwards = [longer[i]["input_ids"] for i in reversed(range(50))]
    assert torch.equal(torch.stack(forwards), torch.stack(backwards).flip(0))
    other = RandomWindows(tokens, 32, 50, seed=2)
    assert not any(torch.equal(other[i]["input_ids"], forwards[i]) for i in range(50))


def test_random_windows_reach_both_ends_and_everything_between():
    tokens = torch.arange(20, dtype=torch.uint8)
    starts = {int(item["input_ids"][0]) for item in RandomWindows(tokens, 4, 500, seed=0)}
    assert starts == set(range(16))  # the last start leaves the last label its token


def test_a_window_that_fits_exactly_is_the_whole():
    tokens = torch.arange(9, dtype=torch.uint8)
    assert RandomWindows(tokens, 8, 3, seed=0)[2]["labels"].tolist() == list(range(1, 9))
    assert len(ContiguousWindows(tokens, 8)) == 1


def test_windows_serve_a_data_loader():
    tokens = torch.arange(200, dtype=torch.uint8)
    loader = torch.utils.data.DataLoader(RandomWindows(tokens, 8, 10, seed=0), batch_size=4, shuffle=True)
    assert [batch["input_ids"].shape[0] for batch in loader] == [4, 4, 2]


def test_windows_of_a_memory_mapped_file(tmp_path):
    (tmp_path / "tokens").write_bytes(bytes(range(50)))
    tokens = torch.from_file(str(tmp_path / "tokens"), dtype=torch.uint8, size=50)
    assert ContiguousWindows(tokens, 10)[1]["labels"].tolist() == list(range(11, 21))


@pytest.mark.parametrize("length", [2, 3, 16, 17, 18, 33, 50])
@pytest.mark.parametrize("context", [1, 16])
def test_contiguous_windows_cover_every_token_but_the_first_once(length, context):
    tokens = torch.arange(length, dtype=torch.uint8)
    items = list(ContiguousWindows(tokens, context))
    labels = torch.cat([item["labels"] for item in items])
    inputs = torch.cat([item["input_ids"] for item in items])
    assert all(len(item["labels"]) == context for item in items)
    assert labels[labels >= 0].tolist() == list(range(1, length))
    assert inputs[labels >= 0].tolist() == list(range(length - 1))
    assert set(labels[labels < 0].tolist()) <= {-100}
    assert inputs[labels < 0].eq(0).all(), "padding is token 0"


@pytest.mark.parametrize(
    "windows", [RandomWindows(torch.arange(9), 4, 3, seed=0), ContiguousWindows(torch.arange(9), 3)]
)
def test_an_index_beyond_the_last_window_ends_iteration(windows):
    assert len(list(windows)) == len(windows) == 3
    assert torch.equal(windows[-1]["labels"], windows[2]["labels"])
    with pytest.raises(IndexError, match="window 3 of 3"):
        windows[3]


@pytest.mark.parametrize(
    ("tokens", "context", "message"),
    [
        (torch.arange(8), 8, "8 tokens .* context 8 needs 9"),
        (torch.arange(8), 0, "context is 0"),
        (torch.zeros(8), 4, "float32 .*1-D integer"),
        (torch.zeros(2, 8, dtype=torch.uint8), 1, r"\(2, 8\); a 1-D integer"),
    ],
)
def test_tokens_that_give_no_window_are_refused(tokens, context, message):
    with pytest.raises(DataError, match=message):
        RandomWindows(tokens, context, 1, seed=0)


def test_impossible_counts_and_contexts_are_refused():
    with pytest.raises(DataError, match="count of windows is 0"):
        RandomWindows(torch.arange(8), 4, 0, seed=0)
    with pytest.raises(DataError, match="context is 0"):
        ContiguousWindows(torch.arange(8), 0)
    with pytest.raises(DataError, match="1 tokens are shorter"):
        ContiguousWindows(torch.arange(1), 4)


# Recall


def recall(seed: int = 0, batch: int = 64, length: int = 64, pairs: int = 8, vocab_size: int = 64):
    generator = torch.Generator().manual_seed(seed)
    return mqar_batch(batch, length=length, pairs=pairs, vocab_size=vocab_size, generator=generator)


@pytest.mark.parametrize("sizes", [{}, {"length": 24}, {"pairs": 31, "length": 93}, {"vocab_size": 65}])
def test_every_key_is_asked_for_once_and_answered_by_its_value(sizes):
    input_ids, labels = recall(**sizes)
    pairs, half = sizes.get("pairs", 8), sizes.get("vocab_size", 64) // 2
    assert input_ids.shape == labels.shape == (64, sizes.get("length", 64))
    for row, row_labels in zip(input_ids.tolist(), labels.tolist(), strict=True):
        values = dict(zip(row[0 : 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
        assert len(values) == pairs, "a key stands for two values"
        assert all(1 <= key < half <= value < sizes.get("vocab_size", 64) for key, value in values.items())
        asked = {token: label for token, label in zip(row, row_labels, strict=True) if label != -100}
        assert asked == values
        assert row_labels[: 2 * pairs] == [-100] * 2 * pairs
        assert all(
            token == 0 for token, label in zip(row[2 * pairs :], row_labels[2 * pairs :], strict=True) if label == -100
        )


def test_recall_is_a_function_of_its_generator_and_fresh_in_every_sample():
    (first, _), (again, _), (other, _) = recall(0), recall(0), recall(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({tuple(row[:16].tolist()) for row in first}) == 64, "a map that repeats can be learned by heart"
    positions = {tuple(row[16:].nonzero().flatten().tolist()) for row in first}
    assert len(positions) > 60, "queries at fixed positions can be answered by position"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"length": 23}, "8 pairs needs a length of at least 24"),
        ({"vocab_size": 17}, "a vocab_size of at least 18; got 17"),
        ({"pairs": 0}, "pairs 0: both must be at least 1"),
        ({"batch": 0}, "batch 0"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(DataError, match=message):
        recall(**sizes)


def test_the_least_sizes_that_are_allowed_work():
    """The bounds in the messages are the true ones."""
    assert recall(pairs=8, length=24, vocab_size=18)[0].shape == (64, 24)


# Sequences to reverse and to sort


def sequences(task="reverse", seed=0, batch=64, symbols=20, **lengths):
    generator = torch.Generator().manual_seed(seed)
    return sequences_batch(batch, task=task, symbols=symbols, generator=generator, **lengths)


@pytest.mark.parametrize("lengths", [{}, {"shortest": 1, "longest": 3}, {"shortest": 6, "longest": 6}])
@pytest.mark.parametrize(("task", "done"), [("reverse", lambda row: row[::-1]), ("sort", sorted)])
def test_targets_are_their_sources_reversed_or_sorted_and_then_end(task, done, lengths):
    shortest, longest = lengths.get("shortest", 4), lengths.get("longest", 32)
    input_ids, mask, labels = sequences(task, **lengths)
    assert input_ids.shape == mask.shape == (64, longest)
    assert labels.shape == (64, longest + 1)
    counts = mask.sum(1).tolist()
    for count, row, target in zip(counts, input_ids.tolist(), labels.tolist(), strict=True):
        assert shortest <= count <= longest
        assert row[count:] == [0] * (longest - count)
        assert target == [*done(row[:count]), 0, *[-100] * (longest - count)]
    assert set(input_ids[mask].tolist()) == set(range(1, 21))
    assert {shortest, longest} <= set(counts) or longest > 6
    assert torch.equal(mask, torch.arange(longest) < mask.sum(1, keepdim=True))


def test_sequences_are_a_function_of_their_generator():
    (first, _, _), (again, _, _), (other, _, _) = sequences(), sequences(), sequences(seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "shuffle"}, "no task on sequences is called 'shuffle': they are reverse, sort"),
        ({"batch": 0}, "a batch of 0 sequences"),
        ({"symbols": 0}, "of 0 symbols"),
        ({"shortest": 5, "longest": 4}, "5 to 4 tokens: .* no longest below the shortest"),
    ],
)
def test_sequences_that_cannot_be_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        sequences(**options)
