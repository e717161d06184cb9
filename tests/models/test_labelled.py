"""Texts with labels: what tables hold, how it is divided, and the order in which it is learned."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from spectral_models.data import ByteTokenizer, DataError
from spectral_models.data.batches import ShuffledBatches, TextExamples, padded
from spectral_models.data.labelled import LabelledTextsConfig
from spectral_models.data.labels import class_numbers, majority
from spectral_models.data.source import SourceConfig, Table, load

TEXTS = ["good, really", 'it "works"', "NA", "bad\\n", "café 世界", "null"]
LABELS = ["pos", "pos", "neg", "neg", "pos", "neg"]


class Side(NamedTuple):
    items: list[Any]
    labels: list[int]


class Labelled(NamedTuple):
    train: Side
    validation: Side
    names: tuple[str, ...] | None


def load_labelled(config: SourceConfig, num_labels: int, names: tuple[str, ...] | None = None) -> Labelled:
    train, held_out = load(config)
    numbers, found = class_numbers(train, num_labels, names)
    judged, again = class_numbers(held_out, num_labels, names)
    assert again == found
    return Labelled(Side(train.columns["input"], numbers), Side(held_out.columns["input"], judged), found)


def read_table(source: str) -> Table:
    return LabelledTextsConfig(source=source).table(source)


def rows(count: int) -> list[tuple[str, str]]:
    return [(f"text number {i}", "odd" if i % 2 else "even") for i in range(count)]


def write(path: Path, found: list[tuple[object, object]], text: str = "text", label: str = "label") -> str:
    if path.suffix == ".tsv":
        lines = [f"{label}\t{text}", *(f"{number}\t{content}" for content, number in found)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([(text, label), *found])
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({text: [row[0] for row in found], label: [row[1] for row in found]}), path)
    else:
        lines = [json.dumps({text: content, label: number}) for content, number in found]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_table_gives_its_texts_as_written(tmp_path, suffix):
    """Also those that a reader of numbers would take for missing values, and quotes and commas."""
    table = read_table(write(tmp_path / f"t{suffix}", list(zip(TEXTS, LABELS, strict=True))))
    assert (table.columns["input"], table.columns["label"]) == (TEXTS, LABELS)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_numbers_from_zero_are_labels_as_they_are(tmp_path, suffix):
    file = write(tmp_path / f"t{suffix}", [(f"text {i}", i % 3) for i in range(30)])
    data = load_labelled(LabelledTextsConfig(source=file, validation=file), 3)
    assert data.names is None
    assert data.train.labels == [i % 3 for i in range(30)]
    named = load_labelled(LabelledTextsConfig(source=file, validation=file), 3, names=("a", "b", "c"))
    assert (named.train.labels, named.names) == (data.train.labels, ("a", "b", "c")), "they number the model's names"


def test_other_labels_are_names_numbered_in_their_order(tmp_path):
    file = write(tmp_path / "t.csv", rows(40))
    data = load_labelled(LabelledTextsConfig(source=file, validation=file), 2)
    assert data.names == ("even", "odd")
    assert data.train.labels == [i % 2 for i in range(40)]
    swapped = load_labelled(LabelledTextsConfig(source=file, validation=file), 2, names=("odd", "even"))
    assert swapped.train.labels == [1 - i % 2 for i in range(40)], "a model's own order wins"
    stars = write(tmp_path / "stars.jsonl", [(f"text {i}", 1 + i % 10) for i in range(40)])
    found = load_labelled(LabelledTextsConfig(source=stars, validation=stars), 10)
    assert found.names == tuple(str(n) for n in range(1, 11)), (
        "numbers that do not begin at 0 are names, in their order"
    )


def test_a_share_is_held_out_and_no_text_is_on_both_sides(tmp_path):
    found = rows(200)
    file = write(tmp_path / "t.jsonl", [*found, *found])
    data = load_labelled(LabelledTextsConfig(source=file, validation_fraction=0.2), 2)
    assert not set(data.train.items) & set(data.validation.items)
    assert 20 <= len(set(data.validation.items)) <= 80
    assert len(data.train.items) + len(data.validation.items) == 400, "copies stay together"
    whole = dict(found)
    names = ("even", "odd")
    for part in (data.train, data.validation):
        assert [names[number] for number in part.labels] == [whole[text] for text in part.items]
    again = load_labelled(LabelledTextsConfig(source=file, validation_fraction=0.2), 2)
    other = load_labelled(LabelledTextsConfig(source=file, validation_fraction=0.2, seed=1), 2)
    assert again.validation.items == data.validation.items != other.validation.items


def test_a_dataset_gives_its_splits_and_the_names_it_has_for_its_labels(tmp_path):
    import datasets

    features = datasets.Features(
        {"sentence": datasets.Value("string"), "mood": datasets.ClassLabel(names=["sad", "glad"])}
    )
    parts = {
        split: datasets.Dataset.from_dict(
            {"sentence": [f"{split} {i}" for i in range(4)], "mood": [0, 1, 1, 0]}, features
        )
        for split in ("train", "test")
    }
    for split, part in parts.items():
        part.to_parquet(str(tmp_path / f"{split}.parquet"))
    config = LabelledTextsConfig(source=f"datasets:{tmp_path}", validation="test", text="sentence", label="mood")
    data = load_labelled(config, 2)
    assert data.names == ("glad", "sad")
    assert data.train.labels == [1, 0, 0, 1]
    assert data.validation.items == [f"test {i}" for i in range(4)]
    unlabelled = datasets.Dataset.from_dict({"sentence": ["a", "b"], "mood": [1, -1]}, features)
    unlabelled.to_parquet(str(tmp_path / "test.parquet"))
    with pytest.raises(DataError, match=r"row 2: column 'mood' holds -1, which is none of the 2 labels"):
        load_labelled(config, 2)
    with pytest.raises(DataError, match=r"has no split 'dev', only test, train|has no split 'dev', only train, test"):
        load_labelled(config.model_copy(update={"validation": "dev"}), 2)


@pytest.mark.parametrize(
    ("found", "options", "message"),
    [
        (rows(4), {"text": "txt"}, r"no field 'txt'. Did you mean 'text'.*data.text"),
        (rows(4), {"label": "class"}, r"no field 'class'.*Its fields: .*data.label"),
        ([*rows(4), ("  ", "odd")], {}, r"row 5: column 'text' is empty"),
        ([*rows(4), (None, "odd")], {}, r"row 5: column 'text' is empty"),
        ([("a", 0.5), ("b", 1.5)], {}, r"row 1: column 'label' holds 0.5; a label is a name or an integer"),
        ([(1, "a"), (2, "b")], {}, r"row 1: column 'text' holds int"),
        (
            [*rows(4), ("x", "neither")],
            {},
            r"has 3 different labels \(even, neither, odd\).*num_labels is 2.*num_labels: 3",
        ),
        ([("one", "odd"), ("one", "even")], {"validation": None}, r"too few to train on one and hold out another"),
        ([("one", "odd"), ("two", "odd")], {}, r"has only one label, 'odd', and a classifier tells two or more apart"),
    ],
)
def test_what_cannot_be_learned_is_refused_with_its_row(tmp_path, found, options, message):
    file = write(tmp_path / "t.jsonl", found)
    with pytest.raises(DataError, match=message):
        load_labelled(LabelledTextsConfig(**{"source": file, "validation": file, **options}), 2)


def test_a_label_that_training_does_not_know_is_refused(tmp_path):
    train, dev = write(tmp_path / "a.csv", rows(4)), write(tmp_path / "b.csv", [("x", "odd"), ("y", "evn")])
    with pytest.raises(DataError, match=r"b.csv, row 2: the label 'evn' is none of the model's: even, odd. .*'even'"):
        load_labelled(LabelledTextsConfig(source=train, validation=dev), 2)


def test_files_that_are_no_tables_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.csv': no such file"):
        read_table(str(tmp_path / "nowhere.csv"))
    (tmp_path / "t.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"not a table. Allowed: .*\.csv"):
        read_table(str(tmp_path / "t.xlsx"))
    (tmp_path / "t.parquet").write_text("not parquet")
    with pytest.raises(DataError, match=r"t.parquet: cannot be read as .parquet"):
        read_table(str(tmp_path / "t.parquet"))


def test_only_parquet_needs_a_library_and_the_error_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    for suffix in (".csv", ".tsv", ".jsonl"):
        assert len(read_table(write(tmp_path / f"t{suffix}", rows(4)))) == 4
    with pytest.raises(DataError, match=r"pip install 'spectral-networks\[train\]'"):
        read_table(write(tmp_path / "t.parquet", rows(4)))


MALFORMED = {
    "an unquoted comma in every row": (
        ".csv",
        "text,label\nI liked it, really 0,neg\nYes, I did,pos\n",
        r"line 2: .* 3 f",
    ),
    "an unquoted comma in one row": (
        ".csv",
        "text,label\nfine,pos\n\nI liked it, really,neg\n",
        r"line 4: .* 3 fields",
    ),
    "two more in every row": (".csv", "text,label\na,b,c,neg\n", r"line 2: a row of 4 fields, where the header has 2"),
    "a comma at the end of rows": (".csv", "text,label\na,pos,\nb,neg,\n", r"line 2: .* 3 fields"),
    "a row too short": (".csv", "text,label\na,pos\nb\n", r"line 3: a row of 1 fields, where the header has 2"),
    "a row too short after a text of two lines": (".csv", 'text,label\n"a\nb",pos\nc\n', r"line 4: a row of 1"),
    "a quote that nothing closes": (".csv", 'text,label\na,pos\n"b,neg\nc,pos\n', r"line 3: cannot be read as .csv"),
    "text behind a quote": (".csv", 'text,label\n"good" film,pos\n', r"line 2: cannot be read as .csv"),
    "a tab in a text": (".tsv", "text\tlabel\na\tpos\nb\tc\tneg\n", r"line 3: a row of 3 fields.* remove it"),
    "a row of a .tsv too short": (".tsv", "text\tlabel\na\n", r"line 2: a row of 1"),
    "two columns of a name": (".csv", "text,label,text\na,pos,b\n", r"2 columns are called 'text'"),
    "another separator": (".csv", "text;label\na;pos\n", r"no field 'text'.*Its fields: text;label"),
    "an empty file": (".csv", "", r"no field 'text'"),
    "a header alone": (".tsv", "text\tlabel\n", r"no rows"),
    "a NUL": (".csv", "text,label\na\0,pos\n", r"NUL byte at offset 12"),
    "no JSON": (".jsonl", '{"text": "a", "label": 1}\n{not json\n', r"line 2: not JSON"),
    "a key that is missing": (".jsonl", '{"text": "a", "label": 1}\n\n{"text": "a"}\n', r"line 3: no field 'label'"),
    "a key written twice": (
        ".jsonl",
        '{"text": "a", "label": 0, "text": "b"}\n',
        r"line 1: .* 'text' is there twice",
    ),
    "no object": (".jsonl", '[{"text": "a", "label": 0}]\n', r"line 1: holds list"),
    "half a character": (".jsonl", '{"text": "\\ud800", "label": 0}\n', r"row 1: .*character 0 is half of"),
    "a number of too many digits": (".jsonl", f'{{"text": "a", "label": {"1" * 5000}}}\n', r"line 1: cannot be read"),
    "too deep a nesting": (".jsonl", "[" * 100_000, r"line 1: cannot be read"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_rows_that_are_not_as_the_others_are_refused_with_their_line(tmp_path, case):
    suffix, content, message = MALFORMED[case]
    file = tmp_path / f"t{suffix}"
    file.write_text(content, encoding="utf-8", newline="")
    with pytest.raises(DataError, match=message):
        read_table(str(file))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_text_may_be_long_and_other_columns_hold_what_they_like(tmp_path, suffix):
    """Longer than the 128 KiB that csv reads by itself; its limit is then what it was."""
    import csv

    before, text = csv.field_size_limit(), "long " * 60_000
    assert read_table(write(tmp_path / f"t{suffix}", [(text, "a"), ("short", "b")])).columns["input"][0] == text
    assert csv.field_size_limit() == before


def test_tables_as_spreadsheets_and_libraries_write_them(tmp_path):
    """A byte-order mark, line ends of two characters, blank lines at the end, a column of numbers without a name."""
    file = tmp_path / "t.csv"
    file.write_bytes('\ufeff,text,label\r\n0,"one\r\ntwo",a\r\n1,Zoë,b\r\n\r\n'.encode())
    table = read_table(str(file))
    assert (table.columns["input"], table.columns["label"]) == (["one\r\ntwo", "Zoë"], ["a", "b"])


@pytest.mark.parametrize("file", ["t.csv", "t.jsonl"])
def test_a_row_with_more_fields_than_the_header_of_a_dataset_s_csv_is_refused(tmp_path, file, monkeypatch):
    """Which the library reads by taking the first column for row names; extra keys of JSON are no such thing."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "folder"
    folder.mkdir()
    if file == "t.csv":
        (folder / file).write_text("text,label\nI liked it, really 0,neg\nI did, too,pos\n")
        with pytest.raises(DataError, match=r"could not load .*does not match length of data"):
            read_table(f"datasets:{folder}")
    else:
        (folder / file).write_text('{"text": "a", "label": "x", "more": 1}\n{"text": "b", "label": "y", "more": 2}\n')
        assert read_table(f"datasets:{folder}").columns["input"] == ["a", "b"]


# Batches


@pytest.fixture(scope="module")
def examples() -> TextExamples:
    lengths = torch.randint(1, 40, (83,), generator=torch.Generator().manual_seed(0)).tolist()
    texts = [chr(65 + number % 50) * length for number, length in enumerate(lengths)]
    return TextExamples(texts, [number % 2 for number in range(83)], ByteTokenizer(), 30)


def test_texts_are_cut_at_the_longest_length_and_padded_behind(examples):
    batch = padded([examples[number] for number in range(5)])
    lengths = batch["attention_mask"].sum(1)
    assert lengths.tolist() == [min(len(examples.tokens[number]), 30) for number in range(5)]
    assert int(examples.lengths().max()) == 30
    for number, length in enumerate(lengths.tolist()):
        assert batch["inputs"][number, :length].tolist() == [65 + number] * length
        assert batch["inputs"][number, length:].eq(0).all()
        assert batch["attention_mask"][number].tolist() == [1] * length + [0] * (lengths.max() - length)
    assert batch["labels"].tolist() == [0, 1, 0, 1, 0]


def test_an_epoch_holds_every_example_and_fills_its_last_batch(examples):
    order = ShuffledBatches(examples, 8, steps=33, seed=0)
    assert len(order) == 33 * 8
    epochs = [
        [int(order[i]["inputs"][0]) + 1000 * len(order[i]["inputs"]) for i in range(88 * e, 88 * e + 88)]
        for e in range(3)
    ]
    whole = sorted(int(examples[i]["inputs"][0]) + 1000 * len(examples[i]["inputs"]) for i in range(83))
    for epoch in epochs:
        rest = sorted(epoch)
        for value in whole:
            rest.remove(value)
        assert len(rest) == 5
    assert epochs[0] != epochs[1] != epochs[2]


def test_an_example_is_a_function_of_the_seed_and_its_place(examples):
    order = ShuffledBatches(examples, 8, steps=33, seed=0)
    backwards = ShuffledBatches(examples, 8, steps=33, seed=0)
    there = [order[i]["inputs"].tolist() for i in range(0, 264, 7)]
    back = [backwards[i]["inputs"].tolist() for i in reversed(range(0, 264, 7))]
    assert there == back[::-1]
    other = ShuffledBatches(examples, 8, steps=33, seed=1)
    assert there != [other[i]["inputs"].tolist() for i in range(0, 264, 7)]


def test_batches_hold_texts_of_like_length(examples):
    order = ShuffledBatches(examples, 8, steps=11, seed=0)
    lengths = torch.tensor([len(order[i]["inputs"]) for i in range(88)]).view(11, 8)
    padding = (lengths.amax(1, keepdim=True) - lengths).sum() / lengths.sum()
    shuffled = lengths.flatten()[torch.randperm(88)].view(11, 8)
    assert padding < 0.3 * (shuffled.amax(1, keepdim=True) - shuffled).sum() / lengths.sum()
    assert lengths[:, 0].tolist() != sorted(lengths[:, 0].tolist()), "the batches are shuffled"


def test_fewer_examples_than_a_batch_are_taken_again():
    few = TextExamples(["a", "bb", "ccc"], [0, 1, 0], ByteTokenizer(), 10)
    order = ShuffledBatches(few, 8, steps=2, seed=0)
    assert sorted(len(order[i]["inputs"]) for i in range(8)) == [1, 1, 1, 2, 2, 2, 3, 3]


def test_the_majority_is_the_best_constant_answer():
    assert majority([0, 1, 1, 2, 1, 1, 0, 1]) == 5 / 8


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", "datasets"])
def test_nothing_is_drawn_where_no_terminal_is(tmp_path, suffix, capfd, monkeypatch):
    """And the libraries' own bars are afterwards as they were."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "folder"
    folder.mkdir()
    file = write(folder / f"t{'.csv' if suffix == 'datasets' else suffix}", rows(4))
    assert len(read_table(f"datasets:{folder}" if suffix == "datasets" else file)) == 4
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()
