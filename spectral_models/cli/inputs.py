"""What the commands that read texts, pictures or sounds are given, as batches for an encoder."""

from __future__ import annotations

import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spectral_core import ConfigError
from spectral_models.data import Tokenizer
from spectral_models.variants.encoding import Encoder

_BATCH = 32


@dataclass(frozen=True)
class Batch:
    """Some of what was given, in its order, and what to call it. attention_mask: of texts, padded on the right."""

    names: list[str]
    inputs: Tensor
    attention_mask: Tensor | None = None


def read_items(given: list[str], file: Path | None) -> list[str]:
    """The texts, or the paths of pictures and sounds: arguments, or the lines of a file (``-``: the standard input)."""
    if bool(given) == (file is not None):
        raise ConfigError(
            "give what to read, or --file FILE with one on each line (- for the standard input)"
            + (", not both." if given else ".")
        )
    if file is None:
        items = given
    else:
        try:
            content = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot read {file}: {error.strerror}.") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file} is not UTF-8 text (byte {error.start}). Convert it, as by iconv.") from None
        items = content.splitlines()
    empty = [number for number, item in enumerate(items, start=1) if not item.strip()]
    if empty or not items:
        which = f"line {empty[0]} of {file}" if file and items else str(file or f"text {empty[0]}")
        raise ConfigError(f"{which} is empty, and there is nothing in it to read. Leave it out.")
    return items


def batches(encoder: Encoder, tokenizer: Tokenizer, items: list[str]) -> Iterator[Batch]:
    """Texts, some at a time; pictures and sounds, which are paths, one by one.

    Raises ConfigError for files that are missing or of another kind, and for sound of another sample rate.
    """
    if encoder.config.modality == "text":
        for start in range(0, len(items), _BATCH):
            yield _texts(tokenizer, items[start : start + _BATCH])
        return
    front = getattr(encoder.config, "frontend", None)
    for item in items:
        if encoder.config.modality == "image":
            yield Batch([_printable(item)], _picture(Path(item), channels=encoder.frontend.example(1).shape[1]))
        else:
            yield Batch([_printable(item)], _sound(Path(item), sample_rate=getattr(front, "sample_rate", None)))


def _texts(tokenizer: Tokenizer, texts: list[str]) -> Batch:
    # As bytes that need not be text: an argument may hold any.
    encoded = [tokenizer.encode(text.encode(errors="surrogateescape")) for text in texts]
    for text, ids in zip(texts, encoded, strict=True):
        if not ids:
            raise ConfigError(f"the model's tokenizer makes nothing of the text {text!r}. Leave it out.")
    rows = [torch.tensor(ids) for ids in encoded]
    mask = pad_sequence([torch.ones_like(ids) for ids in rows], batch_first=True)
    return Batch(list(map(_printable, texts)), pad_sequence(rows, batch_first=True), mask)


def _printable(text: str) -> str:
    """An argument's bytes that are not UTF-8 as U+FFFD."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _picture(path: Path, *, channels: int) -> Tensor:
    """(1, C, H, W), from -1 for black to 1 for white; grey where the model has one channel, else red, green, blue."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ConfigError("pictures need a library that is not installed: Pillow. Run: pip install pillow") from None
    if channels not in (1, 3):
        raise ConfigError(f"this model's pictures have {channels} channels; files have 1 (grey) or 3 (colour).")
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"), dtype=np.float32)
    except UnidentifiedImageError:
        raise ConfigError(f"{path} is no picture that Pillow reads.") from None
    except OSError as error:
        raise ConfigError(f"cannot read the picture {path}: {error.strerror or error}.") from None
    height, width = pixels.shape[:2]
    return torch.from_numpy(pixels / 127.5 - 1).reshape(height, width, channels).permute(2, 0, 1)[None]


def _sound(path: Path, *, sample_rate: float | None) -> Tensor:
    """(1, T), the mean of the channels of a WAV file of 8, 16, 24 or 32 bits a sample, from -1 to 1."""
    try:
        with wave.open(str(path)) as sound:
            rate, channels, width = sound.getframerate(), sound.getnchannels(), sound.getsampwidth()
            content = sound.readframes(sound.getnframes())
    except OSError as error:
        raise ConfigError(f"cannot read the sound {path}: {error.strerror or error}.") from None
    except (wave.Error, EOFError) as error:
        raise ConfigError(f"{path} is no WAV file of integers ({error}). Convert it: sox IN -b 16 OUT.wav.") from None
    if sample_rate is not None and rate != sample_rate:
        raise ConfigError(
            f"{path} has {rate} samples a second, and this model hears {sample_rate:g}; nothing is resampled here. "
            f"Convert it: sox {path} -r {sample_rate:g} OUT.wav."
        )
    if not content:
        raise ConfigError(f"{path} has no samples, and there is nothing in it to hear. Leave it out.")
    octets = np.frombuffer(content, np.uint8).reshape(-1, width)
    if width == 1:
        samples = (octets[:, 0].astype(np.float64) - 128) / 128
    else:  # little-endian and signed: into the high bytes of 32 bits, whatever the width
        whole = np.zeros((len(octets), 4), np.uint8)
        whole[:, 4 - width :] = octets
        samples = whole.view("<i4")[:, 0] / 2**31
    return torch.from_numpy(samples.reshape(-1, channels).mean(1).astype(np.float32))[None]
