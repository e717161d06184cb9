"""Labelled examples of any kind: numbered, and divided into what is learned from and what is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field

from spectral_core.config import Config
from spectral_core.errors import suggestion
from spectral_models.data.corpus import split_documents
from spectral_models.data.documents import DATASETS, Document, load_splits
from spectral_models.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Table(Generic[T]):
    """What a source holds: its items, their labels as written, and where each lies in it, for errors.

    key: of an item; items that have it in common are copies of each other.
    """

    source: str
    items: list[T]
    labels: list[str]
    places: list[str]
    key: Callable[[T], str]

    def part(self, kept: Sequence[int]) -> Table[T]:
        """Those at these indices."""
        labels, places = ([column[i] for i in kept] for column in (self.labels, self.places))
        return Table(self.source, [self.items[i] for i in kept], labels, places, self.key)


@dataclass(frozen=True, slots=True, eq=False)
class Labelled(Generic[T]):
    """items, and the number of each one's label."""

    items: list[T]
    labels: list[int]

    def majority(self) -> float:
        """The accuracy of a constant answer: the share of the most frequent label."""
        return max(Counter(self.labels).values()) / len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledData(Generic[T]):
    """Items to learn from and items to be judged on.

    names: of the labels, by number; None where they have only numbers.
    """

    train: Labelled[T]
    validation: Labelled[T]
    names: tuple[str, ...] | None


class LabelledConfig(Config):
    """What the configs of labelled data share."""

    type: str

    source: Annotated[str, Field(min_length=1)]
    """Where items and labels come from; of ``datasets:NAME[:CONFIG]`` the split ``train`` is read."""

    validation: Annotated[str, Field(min_length=1)] | None = None
    """Another source to be judged on, or the name of the dataset's split; null holds out a share of the source."""

    label: Annotated[str, Field(min_length=1)] = "label"
    """The column with the labels, of a table or dataset: names, or numbers from 0."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the different items that is held out, on average, where ``validation`` is null."""

    seed: int = Field(default=0, ge=-(1 << 63), lt=1 << 63)
    """Chooses which are held out."""

    def table(self, source: str, split: str = "train") -> Table[Any]:
        """What a source like the config's holds. split: of a dataset."""
        raise NotImplementedError(f"{type(self).__name__} must define table(source, split)")


def load_labelled(config: LabelledConfig, num_labels: int, names: Sequence[str] | None = None) -> LabelledData[Any]:
    """Read, divide and number the items of a source.

    names: of the labels, by number, where the model has them. Without, labels that are integers below ``num_labels``
    are numbers already; others are names, numbered in their order.
    Raises DataError, with the place, for items that are missing or empty and for labels that do not fit.
    """
    whole = config.table(config.source)
    if len(set(whole.labels)) < 2:
        raise DataError(
            f"{whole.source} has only one label, {whole.labels[0]!r}, and a classifier tells two or more apart. "
            "Add examples of another."
        )
    found = tuple(names) if names else label_names(whole, num_labels)
    if config.validation is None:
        train, validation = _divided(whole, config)
    elif config.source.startswith(DATASETS):
        train, validation = whole, config.table(config.source, config.validation)
    else:
        train, validation = whole, config.table(config.validation)
    return LabelledData(numbered(train, num_labels, found), numbered(validation, num_labels, found), found)


def label_names(table: Table[Any], num_labels: int) -> tuple[str, ...] | None:
    """The names of labels, numbered in their order; None where all are integers below ``num_labels``."""
    distinct = set(table.labels)
    numbers = all(label.isdecimal() and str(int(label)) == label for label in distinct)
    if numbers and all(int(label) < num_labels for label in distinct):
        return None
    if len(distinct) != num_labels:
        some = ", ".join(sorted(distinct)[:10]) + (", ..." if len(distinct) > 10 else "")
        raise DataError(
            f"{table.source} has {len(distinct)} different labels ({some}), and the model's num_labels is "
            f"{num_labels}. Set model.num_labels: {len(distinct)}; or, where these are not the labels, name another "
            "column (data.label) or folder (data.source)."
        )
    return tuple(sorted(distinct, key=int) if numbers else sorted(distinct))


def numbered(table: Table[T], num_labels: int, names: Sequence[str] | None) -> Labelled[T]:
    """Items with the numbers of their labels, by name or, where integers are no names, as they are."""
    numbers = {str(number): number for number in range(num_labels)}
    known: Mapping[str, int] = numbers if names is None else {name: number for number, name in enumerate(names)}
    if not known.keys() & set(table.labels):
        known = numbers
    for place, label in zip(table.places, table.labels, strict=True):
        if label not in known:
            raise DataError(
                f"{table.source}, {place}: the label {label!r} is none of the model's: {', '.join(known)}."
                f"{suggestion(label, known)}"
            )
    return Labelled(table.items, [known[label] for label in table.labels])


def _divided(table: Table[T], config: LabelledConfig) -> tuple[Table[T], Table[T]]:
    """As documents are, by the item itself: none is on both sides, however many copies the table has."""
    keys = [table.key(item) for item in table.items]
    distinct = [Document(key, key.encode(errors="replace")) for key in dict.fromkeys(keys)]
    try:
        _, held_out = split_documents(distinct, fraction=config.validation_fraction, seed=config.seed)
    except DataError as error:
        raise DataError(f"{table.source}: {error}") from None
    chosen = {document.name for document in held_out}
    train, validation = ([i for i, key in enumerate(keys) if (key in chosen) == held] for held in (False, True))
    return table.part(train), table.part(validation)


def dataset_split(source: str, split: str) -> tuple[str, Any]:
    """What to call a split of ``datasets:NAME[:CONFIG]``, and the split."""
    splits = load_splits(source)
    if split not in splits:
        raise DataError(f"source {source!r}: has no split {split!r}, only {', '.join(splits)}.")
    return f"{source}, split {split!r}", splits[split]


def class_names(dataset: Any, column: str) -> Sequence[str] | None:
    """The names that a dataset has for the numbers in a column; None where it has none."""
    names: Sequence[str] | None = getattr(dataset.features[column], "names", None)
    return names


def written_labels(where: str, column: str, labels: Sequence[Any], names: Sequence[str] | None) -> list[str]:
    """A column of labels, each by its name or as it is written. Raises DataError, with the row, for what is none."""
    for number, given in enumerate(labels, start=1):
        if not isinstance(given, int | str) or given == "":
            raise DataError(
                f"{where}, row {number}: column {column!r} holds {given!r}; a label is a name or an integer from 0."
            )
        if names is not None and not 0 <= int(given) < len(names):  # -1 stands for no label
            raise DataError(
                f"{where}, row {number}: column {column!r} holds {given}, which is none of the {len(names)} labels. "
                "Leave rows without a label out, or choose another split."
            )
    if names is not None:
        return [names[int(given)] for given in labels]
    return [str(int(given)) if isinstance(given, int) else given for given in labels]
