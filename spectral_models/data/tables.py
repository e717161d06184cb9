"""Texts with labels, from tables: .csv, .tsv, .jsonl, .parquet, and datasets of Hugging Face."""

from __future__ import annotations

import csv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from pydantic import Field

from spectral_core.config import Length
from spectral_models.data.documents import DATASETS, missing_field
from spectral_models.data.labelled import LabelledConfig, Table, dataset_split, written_labels
from spectral_models.data.tokenizers import BytesConfig, TokenizerConfig
from spectral_models.errors import DataError

_READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


class LabelledTextsConfig(LabelledConfig):
    """Texts with a label each: where they come from, which are held out, and what their tokens are.

    source: a table with a row for each text (.csv and .tsv with a header, .jsonl, .parquet), or
    ``datasets:NAME[:CONFIG]``. A .tsv has no quotes: a line break or tab is never part of a text.
    """

    type: Literal["labelled"] = "labelled"

    text: Annotated[str, Field(min_length=1)] = "text"
    """The column with the texts."""

    tokenizer: TokenizerConfig = BytesConfig()
    """What a token is: ``bytes``, ``bpe``, learned from the texts to train on, or ``{type: file, path: PATH}``."""

    max_length: Length = 512
    """Tokens of a text that are read, in training and whenever the commands use the model; what goes beyond is not."""

    def table(self, source: str, split: str = "train") -> Table[str]:
        return read_table(source, self.text, self.label, split=split)


def read_table(source: str, text: str, label: str, *, split: str = "train") -> Table[str]:
    """The rows of a table, or of a split of a dataset. Raises DataError for what is not a text with a label."""
    if source.startswith(DATASETS):
        where, table = dataset_split(source, split)
    else:
        where, table = source, _loaded(Path(source).expanduser())
    for column in (text, label):
        if column not in table.column_names:
            raise missing_field(where, column, table.column_names, setting="data.text and data.label")
    texts = list(table[text])
    if not texts:
        raise DataError(f"{where}: no rows. Give a table with texts and labels.")
    for number, content in enumerate(texts, start=1):
        if not isinstance(content, str) or not content.strip():
            shown = "is empty" if content is None or isinstance(content, str) else f"holds {type(content).__name__}"
            raise DataError(f"{where}, row {number}: column {text!r} {shown}; every row needs a text. Remove the row.")
    rows = [f"row {number}" for number in range(1, len(texts) + 1)]
    return Table(where, texts, written_labels(where, table, label), rows, key=str)


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
