"""Files that are damaged, cut, or of another kind than their names say: read, or one clear error."""

from __future__ import annotations

import io
import json
import warnings
import wave
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from spectral_models.data import DataConfig, DataError
from spectral_models.data.documents import read_documents
from spectral_models.data.labelled import LabelledTextsConfig
from spectral_models.data.readers import AudioReader, File, ImageReader
from spectral_models.data.tagged import TaggedConfig

ROWS = [("good, really", "pos"), ('it "works"', "neg"), ("two\nlines, é世🙂", "pos"), ("null", "neg")] * 4
PIECES = (*map(str.encode, '\0\n\r\t",{'), b"\xff\xfe", b"\xc3", b"\xef\xbb\xbf", b"[" * 500, b"\\ud800", b"9" * 5000)
"""What means something to one format or another."""


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [row[0] for row in ROWS], "label": [row[1] for row in ROWS]}), sink)
    return sink.getvalue()


def sound() -> bytes:
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.arange(400, dtype="<i2").tobytes())
    return sink.getvalue()


def picture(kind: str) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(sink, kind)
    return sink.getvalue()


WHOLE = {
    ".csv": "text,label\n" + "".join('"{}",{}\n'.format(text.replace('"', '""'), label) for text, label in ROWS),
    ".tsv": "text\tlabel\n" + "".join(f"{text!a}\t{label}\n" for text, label in ROWS),
    ".jsonl": "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS),
    ".txt": "".join(f"{text} {label}\n" for text, label in ROWS),
    ".conll": "".join(
        f"{'' if i % 4 else chr(10)}{text.split()[0]} _ {label}\n" for i, (text, label) in enumerate(ROWS)
    ),
    ".parquet": parquet(),
    ".wav": sound(),
    **{f".{kind}": picture(kind) for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp")},
}


def read(path: Path) -> None:
    if path.suffix in (".csv", ".tsv", ".jsonl", ".parquet"):
        assert len(LabelledTextsConfig(source="-").table(str(path)))
    if path.suffix == ".conll":
        assert len(TaggedConfig(source="-").table(str(path)))
    if path.suffix in (".jsonl", ".txt"):
        assert len(read_documents(DataConfig(source=str(path))))
    if path.suffix == ".wav":
        assert AudioReader(None)(File.at(path)).isfinite().all()
    elif path.suffix in (".png", ".jpeg", ".gif", ".bmp", ".tiff", ".webp"):
        assert ImageReader(3, (8, 8))(File.at(path)).isfinite().all()


def changed(content: bytes, random: np.random.Generator) -> bytes:
    """Other bytes, pieces put in, doubled or cut off."""
    found = bytearray(content)
    for _ in range(random.integers(1, 6)):
        place = int(random.integers(len(found) + 1))
        match random.integers(4):
            case 0 if place < len(found):
                found[place] = random.integers(256)
            case 1:
                found[place:place] = PIECES[random.integers(len(PIECES))]
            case 2:
                found[place:place] = found[: random.integers(60)]
            case 3 if random.integers(4) == 0:
                del found[place:]
    return bytes(found)


@pytest.mark.parametrize("suffix", WHOLE)
def test_any_bytes_are_read_or_refused(suffix, tmp_path, rounds, bounded):
    whole = WHOLE[suffix]
    whole = whole.encode() if isinstance(whole, str) else whole
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole)
    read(path)
    random = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what it overlooks
        for _ in range(rounds(2000)):
            path.write_bytes(changed(whole, random))
            with bounded(), suppress(DataError):
                read(path)
