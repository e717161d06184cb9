"""Reads WAV and RF64 files: integers of 8, 16, 24 and 32 bits, floats of 32 and 64 bits.

Python's ``wave`` reads integers only, and before 3.12 refuses WAVE_FORMAT_EXTENSIBLE, which many recorders write.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectral_models.errors import DataError

_INTEGERS, _FLOATS, _EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
_FORMATS = {
    0x0002: "ADPCM",
    0x0006: "A-law",
    0x0007: "mu-law",
    0x0011: "IMA ADPCM",
    0x0031: "GSM",
    0x0050: "MPEG",
    0x0055: "MP3",
    0x00FF: "AAC",
    0x1610: "AAC",
    0x674F: "Vorbis",
    0xF1AC: "FLAC",
}
_GUID = bytes.fromhex("000000001000800000aa00389b71")  # bytes after the tag in an extensible format's GUID
_OTHERS = {
    b"ID3": "an MP3 file",
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"FORM": "an AIFF file",
    b"caff": "a CAF file",
    b".snd": "an AU file",
    b"RIFX": "a big-endian WAV file (RIFX)",
    b"\x1aE\xdf\xa3": "a WebM or Matroska file",
    b"riff": "a Wave64 file",
    b"#!AMR": "an AMR file",
}
_STREAMED = 0x7FFF0000
"""A declared size from here on that exceeds the file marks a stream: ffmpeg, sox and arecord write various large
numbers, or 0."""
_LOUDEST = 100.0
"""Floats may exceed full scale; beyond this limit they are integers that were not scaled."""


class Format(NamedTuple):
    """The format of a file's samples. width: bytes per sample."""

    tag: int
    channels: int
    rate: int
    width: int


def read_wav(content: bytes, name: str) -> tuple[NDArray[np.float64], int]:
    """Samples (T, channels) of full scale 1, and the sample rate in Hz. name: the file's name in errors.

    A declared size of 0, or one of about 2 GiB or more that exceeds the file, marks a stream: its samples extend to the
    end of the file. Raises DataError for other formats, truncated files, files without samples, and samples that are
    not finite or exceed a hundred times full scale.
    """
    form, data = _chunks(content, name)
    frame = form.width * form.channels
    if len(data) < frame:
        raise DataError(f"{name} has no samples. Leave it out.")
    octets = np.frombuffer(data[: len(data) // frame * frame], np.uint8).reshape(-1, form.width)
    if form.tag == _FLOATS:
        samples = octets.view(f"<f{form.width}")[:, 0].astype(np.float64)
        if not (loudest := np.abs(samples).max()) <= _LOUDEST:  # true for NaN
            raise DataError(
                f"{name} has samples of {loudest:g}, where full scale is 1. Divide integers by their largest value "
                "(32768 for 16 bits); leave out files with infinite samples or NaN."
            )
    elif form.width == 1:
        samples = (octets[:, 0].astype(np.float64) - 128) / 128
    else:  # signed little-endian integers of any width go to the high bytes of 32 bits
        widened = np.zeros((len(octets), 4), np.uint8)
        widened[:, 4 - form.width :] = octets
        samples = widened.view("<i4")[:, 0] / 2**31
    return samples.reshape(-1, form.channels), form.rate


def _chunks(content: bytes, name: str) -> tuple[Format, memoryview]:
    """The format and the bytes of the samples."""
    if content[:4] not in (b"RIFF", b"RF64", b"BW64") or content[8:12] != b"WAVE":
        raise _no_wav(name, _kind(content))
    form: Format | None = None
    large = 0  # RF64: size of the data, whose 32-bit field is all ones
    place, view = 12, memoryview(content)
    while place + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, place)
        body = view[place + 8 :]
        if kind == b"ds64" and len(body) >= 16:
            (large,) = struct.unpack_from("<Q", body, 8)
        elif kind == b"fmt ":
            form = _format(bytes(body[:size]), name)
        elif kind == b"data":
            if form is None:
                raise _no_wav(name, "its samples precede their format")
            if size == 0xFFFFFFFF and 0 < large < 1 << 63:
                size = large
            elif (size == 0 and not _more_chunks(body)) or len(body) < size >= _STREAMED:
                size = len(body)
            if len(body) < size:
                raise DataError(
                    f"{name} is cut off: it declares {size:,} bytes of samples and holds {len(body):,}. Get the whole "
                    "file, or leave it out."
                )
            return form, body[:size]
        place += 8 + size + size % 2  # chunks begin at even offsets
    raise _no_wav(name, "it ends before its samples")


def _more_chunks(body: memoryview) -> bool:
    """Whether the rest of a file parses as chunks, as after an empty data chunk; samples do not."""
    place = 0
    while place + 8 <= len(body):
        kind, size = struct.unpack_from("<4sI", body, place)
        if not (kind.isascii() and kind.decode().isprintable()):
            return False
        place += 8 + size + size % 2
    return place in (len(body), len(body) + 1)


def _format(body: bytes, name: str) -> Format:
    if len(body) < 16:
        raise _no_wav(name, "its format is cut off")
    tag, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and body[26:40] == _GUID:
        (tag,) = struct.unpack_from("<H", body, 24)
    width = -(-bits // 8)
    allowed = {_INTEGERS: (1, 2, 3, 4), _FLOATS: (4, 8)}.get(tag)
    if allowed is None:
        raise _no_wav(name, f"its samples are {_FORMATS.get(tag, f'of format {tag:#06x}')}")
    if width not in allowed or (tag == _FLOATS and bits % 32):
        raise _no_wav(name, f"its samples are {'floats' if tag == _FLOATS else 'integers'} of {bits} bits")
    if not channels or not rate or frame != width * channels:
        found = f"{channels} channels, {rate} samples a second, {bits} bits a sample, {frame} bytes for all channels"
        raise _no_wav(name, f"its format does not fit together: {found}")
    return Format(tag, channels, rate, width)


def _kind(content: bytes) -> str:
    """Why the content is not a WAV file."""
    for start, kind in _OTHERS.items():
        if content.startswith(start):
            return f"it is {kind}"
    if content[4:8] == b"ftyp":
        return "it is an MP4 file"
    if len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0:
        return "it is an AAC file" if content[1] & 0xF6 == 0xF0 else "it is an MP3 file"
    if len(content) < 12:
        return "it ends early" if content else "it is empty"
    return "it does not begin as one"


def _no_wav(name: str, why: str) -> DataError:
    return DataError(
        f"{name} is no WAV file of plain samples: {why}. Convert it: ffmpeg -i {name} -c:a pcm_s16le OUT.wav."
    )
