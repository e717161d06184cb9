"""Texts with labels: read from tables, divided into what is learned from and what is held out, and cut into batches."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from spectral_core.config import Config
from spectral_core.errors import suggestion
from spectral_models.data.corpus import split_documents
from spectral_models.data.documents import DATASETS, Document, load_splits, missing_field
from spectral_models.data.tokenizers import BytesConfig, TokenizerConfig
from spectral_models.errors import DataError

_READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


class LabelledDataConfig(Config):
    """Texts with a label each: where they come from, which are held out, and what their tokens are."""

    type: Literal["labelled"] = "labelled"

    source: Annotated[str, Field(min_length=1)]
    """A table with a row for each text (.csv and .tsv with a header, .jsonl, .parquet), or ``datasets:NAME[:CONFIG]``,
    of which the split ``train`` is read. A .tsv has no quotes: a line break or tab is never part of a text."""

    validation: Annotated[str, Field(min_length=1)] | None = None
    """A table to be judged on, or the name of the dataset's split; null holds out a share of the source."""

    text: Annotated[str, Field(min_length=1)] = "text"
    """The column with the texts."""

    label: Annotated[str, Field(min_length=1)] = "label"
    """The column with their labels: names, or numbers from 0."""

    tokenizer: TokenizerConfig = BytesConfig()
    """What a token is: ``bytes``, ``bpe``, learned from the texts to train on, or ``{type: file, path: PATH}``."""

    max_length: PositiveInt = 512
    """Tokens of a text that are read; what goes beyond is not."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the different texts that is held out, on average, where ``validation`` is null."""

    seed: int = 0
    """Chooses which texts are held out."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledTexts:
    """texts, and the number of each one's label."""

    texts: list[str]
    labels: list[int]

    def majority(self) -> float:
        """The accuracy of a constant answer: the share of the most frequent label."""
        return max(Counter(self.labels).values()) / len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledData:
    """Texts to learn from and texts to be judged on.

    names: of the labels, by number; None where they have only numbers.
    """

    train: LabelledTexts
    validation: LabelledTexts
    names: tuple[str, ...] | None


def load_labelled(config: LabelledDataConfig, num_labels: int, names: Sequence[str] | None = None) -> LabelledData:
    """Read and number the texts of a source.

    names: of the labels, by number, where the model has them. Without, labels that are integers below ``num_labels``
    are numbers already; others are names, numbered in their order.
    Raises DataError, with the row, for texts that are missing or empty and for labels that do not fit.
    """
    train = read_table(config.source, config.text, config.label, split="train")
    if config.validation is None:
        train, validation = _split(train, config)
    elif config.source.startswith(DATASETS):
        validation = read_table(config.source, config.text, config.label, split=config.validation)
    else:
        validation = read_table(config.validation, config.text, config.label)
    found = tuple(names) if names else label_names(train, num_labels)
    return LabelledData(numbered(train, num_labels, found), numbered(validation, num_labels, found), found)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What a table holds: its texts, none of them empty, their labels as written, and where it lies, for errors."""

    source: str
    texts: list[str]
    labels: list[str]
    lines: list[int]
    """The row of each text in the table, from 1."""


def read_table(source: str, text: str, label: str, *, split: str = "train") -> Table:
    """The rows of a table, or of a split of a dataset. Raises DataError for what is not a text with a label."""
    if source.startswith(DATASETS):
        where = f"{source}, split {split!r}"
        splits = load_splits(source)
        if split not in splits:
            raise DataError(f"source {source!r}: has no split {split!r}, only {', '.join(splits)}.")
        table = splits[split]
    else:
        where = source
        table = _loaded(Path(source).expanduser())
    for column in (text, label):
        if column not in table.column_names:
            raise missing_field(where, column, table.column_names, setting="data.text and data.label")
    names = getattr(table.features[label], "names", None)  # of a ClassLabel
    texts, labels = list(table[text]), list(table[label])
    if not texts:
        raise DataError(f"{where}: no rows. Give a table with texts and labels.")
    for number, (content, given) in enumerate(zip(texts, labels, strict=True), start=1):
        if not isinstance(content, str) or not content.strip():
            shown = "is empty" if content is None or isinstance(content, str) else f"holds {type(content).__name__}"
            raise DataError(f"{where}, row {number}: column {text!r} {shown}; every row needs a text. Remove the row.")
        if not isinstance(given, int | str) or given == "":
            raise DataError(
                f"{where}, row {number}: column {label!r} holds {given!r}; a label is a name or an integer from 0."
            )
        if names is not None and not 0 <= int(given) < len(names):  # -1 stands for no label
            raise DataError(
                f"{where}, row {number}: column {label!r} holds {given}, which is none of the {len(names)} labels. "
                "Leave rows without a label out, or choose another split."
            )
    written = [str(int(given)) if isinstance(given, int) else given for given in labels]
    if names is not None:
        written = [names[int(given)] for given in written]
    return Table(where, texts, written, list(range(1, len(texts) + 1)))


def label_names(table: Table, num_labels: int) -> tuple[str, ...] | None:
    """The names of labels, numbered in their order; None where all are integers below ``num_labels``."""
    distinct = set(table.labels)
    numbers = all(label.isdecimal() for label in distinct)
    if numbers and all(int(label) < num_labels for label in distinct):
        return None
    if len(distinct) != num_labels:
        some = ", ".join(sorted(distinct)[:10]) + (", ..." if len(distinct) > 10 else "")
        raise DataError(
            f"{table.source} has {len(distinct)} different labels ({some}), and the model's num_labels is "
            f"{num_labels}. Set model.num_labels: {len(distinct)}, or name another column: data.label."
        )
    return tuple(sorted(distinct, key=int) if numbers else sorted(distinct))


def numbered(table: Table, num_labels: int, names: Sequence[str] | None) -> LabelledTexts:
    """Texts with the numbers of their labels, by name or, where integers are no names, as they are."""
    numbers = {str(number): number for number in range(num_labels)}
    known: Mapping[str, int] = numbers if names is None else {name: number for number, name in enumerate(names)}
    if not known.keys() & set(table.labels):
        known = numbers
    for line, label in zip(table.lines, table.labels, strict=True):
        if label not in known:
            raise DataError(
                f"{table.source}, row {line}: the label {label!r} is none of the model's: {', '.join(known)}."
                f"{suggestion(label, known)}"
            )
    return LabelledTexts(table.texts, [known[label] for label in table.labels])


def _split(table: Table, config: LabelledDataConfig) -> tuple[Table, Table]:
    """As documents are, by the text itself: no text is on both sides, however often it is in the table."""
    distinct = [Document(text, text.encode(errors="replace")) for text in dict.fromkeys(table.texts)]
    try:
        _, held_out = split_documents(distinct, fraction=config.validation_fraction, seed=config.seed)
    except DataError as error:
        raise DataError(f"{table.source}: {error}") from None
    chosen = {document.name for document in held_out}

    def part(of_validation: bool) -> Table:
        kept = [
            row
            for row in zip(table.texts, table.labels, table.lines, strict=True)
            if (row[0] in chosen) == of_validation
        ]
        texts, labels, lines = (list(column) for column in zip(*kept, strict=True))
        return Table(table.source, texts, labels, lines)

    return part(False), part(True)


def _loaded(path: Path) -> Any:
    """A table of the datasets library. In .csv and .tsv all is text, as written."""
    suffix = path.suffix.lower()
    if suffix not in _READERS or not path.is_file():
        what = "no such file" if suffix in _READERS else "not a table this reads"
        raise DataError(
            f"source {str(path)!r}: {what}. Allowed: a file ({', '.join(_READERS)}) or {DATASETS}NAME[:CONFIG]."
        )
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"tables need the datasets library ({error}): pip install 'spectral-networks[train]'."
        ) from error
    options: dict[str, Any] = {}
    if suffix in _SEPARATORS:
        quoting: Literal[0, 3] = csv.QUOTE_NONE if suffix == ".tsv" else csv.QUOTE_MINIMAL
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            header = next(csv.reader(file, delimiter=_SEPARATORS[suffix], quoting=quoting), [])
        features = datasets.Features({name: datasets.Value("string") for name in header})
        options = {"sep": _SEPARATORS[suffix], "quoting": quoting, "keep_default_na": False, "features": features}
    try:
        with TemporaryDirectory() as cache:  # a copy of the user's data is not left behind
            options |= {"cache_dir": cache, "keep_in_memory": True}
            return datasets.load_dataset(_READERS[suffix], data_files=[str(path)], split="train", **options)
    except Exception as error:  # pandas, pyarrow and datasets raise all kinds
        raise DataError(f"{path}: cannot be read as {suffix}: {error.__cause__ or error}. Repair the file.") from error
