"""Examples in rows for every task: columns of every kind of table by role, labels as numbers, and batches of them."""

from __future__ import annotations

import csv
import hashlib
import json
import wave
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from spectral_models.data import ByteTokenizer, DataError
from spectral_models.data.batches import (
    FileExamples,
    ModalityExamples,
    TaggedExamples,
    TextExamples,
    padded,
    token_rows,
)
from spectral_models.data.folders import LabelledFilesConfig
from spectral_models.data.labelled import LabelledTextsConfig
from spectral_models.data.labels import class_numbers, multi_hot, real_values, tag_numbers
from spectral_models.data.modalities import ModalitiesConfig
from spectral_models.data.pairs import PairsConfig
from spectral_models.data.readers import AudioReader, File, ImageReader
from spectral_models.data.source import SourceConfig, Table, load
from spectral_models.data.tables import read_columns
from spectral_models.data.tagged import TaggedConfig

Rows = list[dict[str, Any]]
FLAT = (".csv", ".tsv", ".jsonl", ".parquet", "datasets")
NESTED = (".jsonl", ".parquet", "datasets")


def write(folder: Path, suffix: str, rows: Rows) -> str:
    """A table of these rows. ``datasets``: a folder that the datasets library reads."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"train{'.jsonl' if suffix == 'datasets' else suffix}"
    if suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="," if suffix == ".csv" else "\t", lineterminator="\n")
            writer.writerows([list(rows[0]), *([*row.values()] for row in rows)])
    elif suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return f"datasets:{folder}" if suffix == "datasets" else str(path)


def image(path: Path, grey: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 4), grey).save(path)
    return path.name


def recording(path: Path, samples: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 4000, 0, "NONE", ""))
        file.writeframes(b"\1\2" * samples)
    return path.name


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


# Labels of each kind of task


@pytest.mark.parametrize("suffix", FLAT)
def test_real_values_are_read_from_every_table(tmp_path, suffix):
    source = write(tmp_path / "t", suffix, [{"text": f"text {i}", "label": i / 4} for i in range(8)])
    table = LabelledTextsConfig(source=source).table(source)
    torch.testing.assert_close(real_values(table), torch.arange(8) / 4)


@pytest.mark.parametrize("suffix", NESTED)
def test_lists_of_real_values_and_of_labels(tmp_path, suffix):
    rows = [{"text": f"text {i}", "label": [i + 0.5, -i], "kinds": ["a", "b"][: i % 3]} for i in range(6)]
    rows[0]["kinds"] = ["b", "c"]
    source = write(tmp_path / "t", suffix, rows)
    table = LabelledTextsConfig(source=source).table(source)
    torch.testing.assert_close(real_values(table), torch.tensor([[i + 0.5, -i] for i in range(6)]))
    train, held_out = load(LabelledTextsConfig(source=source, label="kinds", seed=1, validation_fraction=0.3))
    seen = 0
    for part in (train, held_out):
        hot, names = multi_hot(part, 3)
        assert names == ("a", "b", "c"), "both sides learn them from all rows"
        for text, row in zip(part.texts("input"), hot, strict=True):
            wanted = rows[int(text.split()[1])]["kinds"]
            assert [name for name, value in zip(names, row, strict=True) if value == 1] == wanted
            assert float(row.sum()) == len(wanted)
            seen += 1
    assert seen == 6


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_separator_divides_the_labels_of_a_cell(tmp_path, suffix):
    cells = ["a|b", "", "b", "c | a", "b|b"]
    source = write(tmp_path / "t", suffix, [{"text": f"text {i}", "label": cell} for i, cell in enumerate(cells)])
    config = LabelledTextsConfig(source=source, validation=source, separator="|")
    hot, names = multi_hot(load(config)[0], 3)
    assert names == ("a", "b", "c")
    assert hot.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 0]]
    given, _ = multi_hot(config.table(source), 3, ("c", "b", "a"))
    assert torch.equal(given, hot.flip(1)), "a model's own order wins"


def test_a_table_that_no_run_reads_learns_no_names(tmp_path):
    """What is evaluated is numbered as in training: names of its own would be numbered by chance."""
    source = write(tmp_path / "t", ".csv", [{"text": f"text {i}", "label": "yn"[i % 2]} for i in range(4)])
    config = LabelledTextsConfig(source=source, validation=source)
    assert class_numbers(load(config)[1], 2) == ([1, 0, 1, 0], ("n", "y"))
    with pytest.raises(DataError, match=r"row 1: the label 'y' is none of the model's: 0, 1"):
        class_numbers(config.table(source), 2)


RULE = r"a label is a name or an integer from 0; for numbers use task: regression"


@pytest.mark.parametrize(
    ("number", "labels", "message"),
    [
        (class_numbers, [0.5, 1.5], rf"row 1: column 'label' holds 0.5; {RULE}"),
        (class_numbers, ["1", "2", "2.5"], rf"row 3: column 'label' holds 2.5; {RULE}"),
        (class_numbers, [["a"], ["b"]], rf"row 1: column 'label' holds \['a'\]; {RULE}"),
        (class_numbers, ["a", None], rf"row 2: column 'label' holds None; {RULE}"),
        (multi_hot, ["a", "b"], r"row 1: column 'label' holds 'a'; several labels are a list, or .* data.separator"),
        (multi_hot, [["a"], [0.5]], rf"row 2: column 'label' holds 0.5; {RULE}"),
        (class_numbers, ["1" * 5000, "2", "3"], r"has 3 different labels \(1111.*num_labels: 3"),
        (multi_hot, [["a", "b"], ["c"]], r"has 3 different labels \(a, b, c\).*num_labels: 3"),
        (multi_hot, [[], []], r"has no label, and a classifier tells two or more apart"),
        (real_values, ["1", "good"], r"row 2: column 'label' holds 'good'; for regression .* task: classification"),
        (real_values, [1, True], r"row 2: column 'label' holds True; for regression a label is a finite number"),
        (real_values, ["1", "nan"], r"row 2: column 'label' holds 'nan'; .*finite"),
        (real_values, [1, 1e39], r"row 2: column 'label' holds 1e\+39; .*finite"),
        (real_values, [1, None], r"row 2: column 'label' holds None; .*finite"),
        (real_values, [[1, 2], [1]], r"row 2: column 'label' holds 1 numbers, and row 1 has 2"),
        (real_values, [[1, 2], 1], r"row 2: column 'label' holds 1 numbers, and row 1 has 2"),
        (real_values, [[], []], r"row 1: column 'label' holds 0 numbers, and regression needs at least one"),
    ],
)
def test_labels_that_do_not_fit_their_task_are_refused_with_the_row(tmp_path, number, labels, message):
    source = write(tmp_path / "t", ".jsonl", [{"text": f"text {i}", "label": cell} for i, cell in enumerate(labels)])
    train, _ = load(LabelledTextsConfig(source=source, validation=source))
    with pytest.raises(DataError, match=message):
        number(train) if number is real_values else number(train, 2)


# Files in tables


@pytest.mark.parametrize("suffix", FLAT[:-1])
def test_files_are_found_beside_their_table(tmp_path, suffix):
    rows = [{"file": f"images/{image(tmp_path / 't' / 'images' / f'{i}.png', i)}", "label": i / 2} for i in range(4)]
    source = write(tmp_path / "t", suffix, rows)
    table = LabelledFilesConfig(source=source).table(source)
    examples = FileExamples(table.files("input"), real_values(table), ImageReader(1, mean=(0,), std=(1,)))
    assert examples.what == "images"
    batch = padded([examples[1], examples[3]])
    assert batch["labels"].tolist() == [0.5, 1.5]
    torch.testing.assert_close(batch["inputs"], torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 1, 4, 8) / 255)
    (tmp_path / "t" / "images" / "2.png").unlink()
    with pytest.raises(DataError, match=r"row 3: column 'file' names 'images/2.png', and there is no such file \(/"):
        LabelledFilesConfig(source=source).table(source)
    with pytest.raises(DataError, match=r"no field 'path'.*Its fields: .*data.file and data.label"):
        LabelledFilesConfig(source=source, file="path").table(source)


def test_copies_of_a_file_are_on_one_side_whatever_their_paths(tmp_path):
    rows = [{"source": image(tmp_path / f"{copy}{i}.png", i), "target": "x"} for i in range(40) for copy in "ab"]
    config = PairsConfig(source=write(tmp_path, ".jsonl", rows), validation_fraction=0.3)
    sides = [{file.content() for file in part.files("source")} for part in load(config, files=["source"])]
    assert not sides[0] & sides[1]
    assert all(sides)
    apart = [{file.content() for file in part.files("source")} for part in load(config)]
    assert apart[0] & apart[1], "paths alone do not show it"


# Pairs


@pytest.mark.parametrize("suffix", FLAT)
def test_pairs_are_read_and_a_source_is_on_one_side(tmp_path, suffix):
    rows = [{"de": f"Satz {i // 2}", "en": f"sentence {i}"} for i in range(80)]
    source = write(tmp_path / "t", suffix, rows)
    train, held_out = load(PairsConfig(source=source, input="de", target="en", validation_fraction=0.3))
    assert len(train) + len(held_out) == 80
    assert not set(train.texts("source")) & set(held_out.texts("source"))
    for part in (train, held_out):
        for text, target in zip(part.texts("source"), part.texts("target"), strict=True):
            assert int(target.split()[1]) // 2 == int(text.split()[1])


def test_targets_are_labels_behind_an_end_and_padding_counts_for_nothing():
    tokenizer = ByteTokenizer()
    targets = token_rows(["ab", "c", "defgh"], tokenizer, 4, end=0)
    batch = padded([TextExamples(["x", "yy", "zzz"], targets, tokenizer, 2)[i] for i in range(3)])
    assert batch["inputs"].tolist() == [[120, 0], [121, 121], [122, 122]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1], [1, 1]]
    assert batch["labels"].tolist() == [[97, 98, 0, -100], [99, 0, -100, -100], [100, 101, 102, 103]]
    assert batch["labels"].dtype == torch.long


# Tags

SENTENCES = [(["Ada", "met", "Alan"], ["PER", "O", "PER"]), (["in", "Rome"], ["O", "LOC"])] * 3


@pytest.mark.parametrize("suffix", [*NESTED, ".conll", ".txt"])
def test_sentences_have_a_tag_for_each_word(tmp_path, suffix):
    if suffix in NESTED:
        rows = [{"tokens": words, "tags": tags} for words, tags in SENTENCES]
        source = write(tmp_path / "t", suffix, rows)
    else:
        between = "\t" if suffix == ".txt" else " X X "
        text = "-DOCSTART- -X- O\n\n" + "\n\n".join(
            "\r\n".join(f"{word}{between}{tag}" for word, tag in zip(*sentence, strict=True)) for sentence in SENTENCES
        )
        (tmp_path / f"t{suffix}").write_text(text, encoding="utf-8", newline="")
        source = str(tmp_path / f"t{suffix}")
    config = TaggedConfig(source=source, validation="train" if suffix == "datasets" else source)
    table, _ = load(config)
    assert list(zip(table.columns["tokens"], table.columns["tags"], strict=True)) == SENTENCES
    numbers, names = tag_numbers(table, 3)
    assert names == ("LOC", "O", "PER")
    assert numbers == [[2, 1, 2], [1, 0]] * 3
    examples = TaggedExamples(table.columns["tokens"], numbers, ByteTokenizer(), 6)
    batch = padded([examples[0], examples[1]])
    assert batch["inputs"].tolist() == [list(b"Ada me"), list(b"in Rom")]
    assert batch["labels"].tolist() == [[2, -100, -100, 1, -100, -100], [1, -100, 0, -100, -100, -100]]
    assert examples.lengths().tolist() == [6] * 6
    other = TaggedExamples([["Ada", "met", "Alan"]], [[2, 0, 2]], ByteTokenizer(), 6)
    assert other.digest() != TaggedExamples([["Ada", "met", "Alan"]], numbers[:1], ByteTokenizer(), 6).digest()


def test_tags_of_a_dataset_have_its_class_names(tmp_path):
    import datasets

    tags = datasets.ClassLabel(names=["O", "PER"])
    features = datasets.Features(
        {"tokens": datasets.Sequence(datasets.Value("string")), "tags": datasets.Sequence(tags)}
    )
    content = {"tokens": [["a", "b"], ["c"]], "tags": [[1, 0], [0]]}
    source = str(tmp_path / "t.parquet")
    datasets.Dataset.from_dict(content, features).to_parquet(source)
    table = TaggedConfig(source=source).table(source)
    assert table.columns["tags"] == [["PER", "O"], ["O"]]


# Modalities


@pytest.mark.parametrize("suffix", FLAT[:-1])
def test_a_row_may_lack_a_modality_and_not_all(tmp_path, suffix):
    folder = tmp_path / "t"
    rows: Rows = [
        {
            "caption": f"text {i}" if i % 3 else "",
            "image": image(folder / f"{i}.png", 51) if i % 2 else "",
            "audio": recording(folder / f"{i}.wav", 10 + i) if i < 8 else "",
            "label": i % 2,
        }
        for i in range(12)
        if i % 3 or i % 2 or i < 8
    ]
    source = write(folder, suffix, rows)
    config = ModalitiesConfig(source=source, columns={"text": "caption"}).of(["text", "image", "audio"])
    train, held_out = load(config, files=["image", "audio"])
    assert len(train) + len(held_out) == len(rows)
    table = config.table(source)
    numbers, _ = class_numbers(table, 2)
    assert numbers == [row["label"] for row in rows]
    columns = {"text": table.columns["text"], "image": table.files("image"), "audio": table.files("audio")}
    assert [text is not None for text in columns["text"]] == [bool(row["caption"]) for row in rows]
    readers = {"image": ImageReader(1, mean=(0,), std=(1,)), "audio": AudioReader(4000)}
    examples = ModalityExamples(columns, numbers, ByteTokenizer(), 5, readers)
    assert set(examples[0]) == {"inputs.audio", "labels"}
    assert set(examples[1]) == {"inputs.text", "inputs.image", "inputs.audio", "labels"}
    assert examples.lengths()[:2].tolist() == [10, 5 + 8 + 11]
    assert examples.readers["image"].size == (4, 8)
    batch = padded([examples[0], examples[1]])
    assert batch["present.text"].tolist() == [False, True]
    assert batch["inputs.text"].tolist() == [[0] * 5, list(b"text ")]
    assert batch["attention_mask.text"].tolist() == [[0] * 5, [1] * 5]
    assert batch["attention_mask.audio"].sum(1).tolist() == [10, 11]
    torch.testing.assert_close(
        batch["inputs.image"], torch.tensor([0, 0.2]).view(2, 1, 1, 1).expand(2, 1, 4, 8), check_dtype=False
    )
    assert batch["present.image"].tolist() == [False, True]


def test_modalities_of_a_dataset_may_be_missing(tmp_path):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    image(tmp_path / "a.png", 7)
    content = (tmp_path / "a.png").read_bytes()
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string"), "label": tags()})
    rows = {"image": [{"bytes": content, "path": None}, None], "text": [None, "b"], "label": [1, 0]}
    pq.write_table(pa.table(rows, schema=features.arrow_schema), tmp_path / "t.parquet")
    source = str(tmp_path / "t.parquet")
    table = ModalitiesConfig(source=source).of(["image", "text"]).table(source)
    file, none = table.files("image")
    assert (file.content(), none) == (content, None)
    assert (table.columns["text"], table.columns["label"]) == ([None, "b"], ["glad", "sad"])


def tags() -> Any:
    import datasets

    return datasets.ClassLabel(names=["sad", "glad"])


# Bad input of each config

GOOD: dict[type[SourceConfig], tuple[dict[str, Any], Rows]] = {
    LabelledTextsConfig: ({}, [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(6)]),
    PairsConfig: ({}, [{"source": f"text {i}", "target": f"target {i}"} for i in range(6)]),
    TaggedConfig: ({}, [{"tokens": ["a", str(i)], "tags": ["O", "X"]} for i in range(6)]),
    ModalitiesConfig: (
        {"columns": {"text": "text", "more": "more"}},
        [{"text": f"text {i}", "more": f"more {i}", "label": "ab"[i % 2]} for i in range(6)],
    ),
}


def read(kind: type[SourceConfig], tmp_path: Path, rows: Rows, suffix: str = ".jsonl", **options: Any) -> Table:
    source = write(tmp_path / "t", suffix, rows)
    return load(kind(source=source, **{**GOOD[kind][0], **options}))[0]


@pytest.mark.parametrize("kind", GOOD)
def test_each_config_refuses_a_missing_column_and_an_empty_table(tmp_path, kind):
    _, rows = GOOD[kind]
    assert len(read(kind, tmp_path, rows)) >= 1
    for column in rows[0]:
        less = [{name: cell for name, cell in row.items() if name != column} for row in rows]
        with pytest.raises(DataError, match=rf"line 1: no field '{column}'.*Its fields: .*Name the right one: data\."):
            read(kind, tmp_path, less)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"empty.jsonl: no rows"):
        load(kind(source=str(tmp_path / "empty.jsonl"), **GOOD[kind][0]))
    with pytest.raises(DataError, match=r"6 row\(s\), of which 1 differ: too few to train on one"):
        read(kind, tmp_path, rows[:1] * 6)
    with pytest.raises(DataError, match=r"nowhere.jsonl': no such file"):
        load(kind(source=str(tmp_path / "nowhere.jsonl"), **GOOD[kind][0]))


@pytest.mark.parametrize(
    ("kind", "cells", "message"),
    [
        (PairsConfig, {"source": " "}, r"row 3: column 'source' is empty; a row needs a text"),
        (PairsConfig, {"source": 1}, r"row 3: column 'source' holds int; a row needs a text"),
        (PairsConfig, {"target": None}, r"row 3: column 'target' is empty; a row needs a text"),
        (PairsConfig, {"target": "\ud800"}, r"row 3: column 'target' is not text: character 0 is half of"),
        (TaggedConfig, {"tags": ["O"]}, r"row 3: column 'tags' holds 1 tags for 2 words. Give each word one"),
        (TaggedConfig, {"tags": "O X"}, r"row 3: column 'tags' holds str; a row needs a list of tags"),
        (TaggedConfig, {"tokens": "a b"}, r"row 3: column 'tokens' holds str; a row needs a list of tokens"),
        (TaggedConfig, {"tokens": [], "tags": []}, r"row 3: column 'tokens' holds an empty list"),
        (TaggedConfig, {"tokens": ["a", 1]}, r"row 3: column 'tokens' holds 1 as a word; words are texts"),
        (TaggedConfig, {"tokens": ["a", ""]}, r"row 3: column 'tokens' holds '' as a word; words are texts"),
        (ModalitiesConfig, {"text": "", "more": None}, r"row 3: has none of the modalities text, more. Remove it"),
        (ModalitiesConfig, {"text": 7}, r"row 3: column 'text' holds int; a modality is a text or the path of a file"),
    ],
)
def test_each_config_refuses_cells_of_another_kind_with_their_row(tmp_path, kind, cells, message):
    rows = [dict(row) for row in GOOD[kind][1]]
    rows[2].update(cells)
    with pytest.raises(DataError, match=message):
        read(kind, tmp_path, rows)


def test_paths_without_files_are_refused_where_the_task_asks_for_files(tmp_path):
    rows = GOOD[PairsConfig][1]
    source = write(tmp_path, ".csv", rows)
    with pytest.raises(DataError, match=r"row 1: column 'source' names 'text 0', and there is no such file"):
        load(PairsConfig(source=source), files=["source"])
    table = LabelledTextsConfig(source=source, text="source", label="target").table(source)
    table.columns["input"][1] = None
    with pytest.raises(DataError, match=r"row 2: column 'source' is empty; a row needs the path of a file"):
        Table.part(table, [1]).files("input")


def test_lines_without_a_tag_and_files_without_words_are_refused(tmp_path):
    path = tmp_path / "t.conll"
    path.write_text("a O\n\nb O\nc\n")
    with pytest.raises(DataError, match=r"t.conll, line 4: holds 'c' alone; a line is a word and its tag"):
        TaggedConfig(source=str(path)).table(str(path))
    path.write_text("\n\n")
    with pytest.raises(DataError, match=r"t.conll: no rows. Give a file with a word and its tag"):
        TaggedConfig(source=str(path)).table(str(path))
    with pytest.raises(DataError, match=r"none.conll: cannot be read: No such file"):
        TaggedConfig(source="-").table(str(tmp_path / "none.conll"))


def test_columns_name_the_modalities_of_the_model(tmp_path):
    config = ModalitiesConfig(source="-", columns={"txt": "a"})
    with pytest.raises(DataError, match=r"the model has no modality 'txt'. Did you mean 'text'\?.*: text, image"):
        config.of(["text", "image"])
    with pytest.raises(DataError, match=r"data.columns names no modality"):
        ModalitiesConfig(source="-").table("-")
    with pytest.raises(DataError, match=r"'label' cannot name a modality"):
        ModalitiesConfig(source="-").of(["label", "text"]).table("-")


# Columns and digests


def test_cells_are_as_they_were_written(tmp_path):
    rows = [{"a": "007", "b": "NA"}, {"a": "1e3", "b": "null"}]
    for suffix in FLAT:
        source = write(tmp_path / suffix, suffix, rows)
        table = read_columns(source, {"x": "b", "y": "a", "z": "b"}, settings="data.b", inputs=("x",))
        assert table.columns == {"x": ["NA", "null"], "y": ["007", "1e3"], "z": ["NA", "null"]}
        assert table.places == ["row 1", "row 2"]


def test_the_digest_of_labelled_examples_is_that_of_runs_begun_before(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    found = TextExamples(["é", "bb"], [1, 0], ByteTokenizer(), 1).digest()
    assert found == hashlib.sha256("1 2 é".encode() + b"0 2 bb").hexdigest()

    class Raw(TextExamples):
        def __init__(self) -> None:
            super(TextExamples, self).__init__([File.at(tmp_path / "a.bin")], [3])

    assert Raw().digest() == hashlib.sha256(b"3 3 abc").hexdigest()
