"""WAV files in every form that recorders and editors write: the same numbers, or an error that names the form."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from spectral_models.data import DataError
from spectral_models.data.readers import AudioReader, File

RATE = 8000
TONE = 0.5 * np.sin(np.arange(301) * 0.3)  # an odd number: of 8 and 24 bits, the data have an odd size
TONE[:2] = -1.0, 0.0
GUID = bytes.fromhex("000000001000800000aa00389b71")


def encoded(samples: np.ndarray, kind: str) -> bytes:
    if kind.startswith("float"):
        return samples.astype(f"<f{int(kind[5:]) // 8}").tobytes()
    bits = int(kind)
    full = 2 ** (bits - 1)
    values = np.clip(np.round(samples * full), -full, full - 1).astype(np.int64)
    if bits == 8:
        return (values + 128).astype(np.uint8).tobytes()
    return b"".join(int(value).to_bytes(bits // 8, "little", signed=True) for value in values)


def form(kind: str, channels: int, extensible: bool, **changes: int) -> bytes:
    tag, bits = (3, int(kind[5:])) if kind.startswith("float") else (1, int(kind))
    fields = {"tag": tag, "channels": channels, "rate": RATE, "frame": channels * bits // 8, "bits": bits, **changes}
    tag, channels, rate, frame, bits = fields.values()
    head = struct.pack("<HHIIHH", 0xFFFE if extensible else tag, channels, rate, rate * frame, frame, bits)
    return head + (struct.pack("<HHIH", 22, bits, 0, tag) + GUID if extensible else b"")


def chunk(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    return kind + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def riff(*chunks: bytes, kind: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return kind + struct.pack("<I", len(body)) + body


def read(content: bytes, rate: float | None = RATE) -> np.ndarray:
    return AudioReader(rate)(File("a.wav", lambda: content)).numpy()


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("kind", ["8", "16", "24", "32", "float32", "float64"])
def test_a_tone_comes_back_from_every_format(kind, channels, extensible):
    """Full scale is 1, silence is 0, in all of them."""
    data = encoded(np.repeat(TONE, channels), kind)
    found = read(riff(chunk(b"fmt ", form(kind, channels, extensible)), chunk(b"data", data)))
    assert found.dtype == np.float32
    assert found.shape == TONE.shape
    bits = 24 if kind.startswith("float") else int(kind)
    np.testing.assert_allclose(found, TONE, atol=max(2.0**-bits, 1e-7) * 1.01)
    assert found[0] == -1.0
    assert found[1] == 0.0


def test_channels_are_averaged():
    left_and_right = np.stack([TONE, np.zeros_like(TONE)], 1).ravel()
    found = read(riff(chunk(b"fmt ", form("float32", 2, False)), chunk(b"data", encoded(left_and_right, "float32"))))
    np.testing.assert_allclose(found, TONE / 2, atol=1e-7)


FORM, DATA = chunk(b"fmt ", form("16", 1, False)), encoded(TONE, "16")
PLAIN = riff(FORM, chunk(b"data", DATA))
LARGE = struct.pack("<QQQI", 0, len(DATA), 0, 0)


@pytest.mark.parametrize(
    "content",
    [
        riff(chunk(b"LIST", b"INFOx"), FORM, chunk(b"fact", b"1234"), chunk(b"data", DATA)),
        riff(FORM, chunk(b"data", DATA), chunk(b"LIST", b"INFO")),
        riff(FORM, chunk(b"data", DATA, 0)),
        *(riff(FORM, chunk(b"data", DATA, size)) for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000)),
        riff(chunk(b"ds64", LARGE), FORM, chunk(b"data", DATA, 0xFFFFFFFF), chunk(b"LIST", b"INFO"), kind=b"RF64"),
        riff(chunk(b"ds64", LARGE), FORM, chunk(b"data", DATA, 0xFFFFFFFF), kind=b"BW64"),
        riff(FORM, chunk(b"data", DATA), kind=b"RF64"),
        PLAIN[:4] + b"\xff\xff\xff\xff" + PLAIN[8:],
        PLAIN + b"after the end",
    ],
)
def test_chunks_and_sizes_as_writers_leave_them(content):
    np.testing.assert_array_equal(read(content), read(PLAIN))


def test_streamed_silence_is_no_empty_recording():
    silence = bytes(2 * 300)
    assert len(read(riff(FORM, chunk(b"data", silence, 0)))) == 300
    with pytest.raises(DataError, match=r"a.wav has no samples"):
        read(riff(FORM, chunk(b"data", b""), chunk(b"LIST", b"INFO")))


ADTS = b"\xff\xf1\x50\x80" * 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PLAIN[:400], r"is cut off: it declares 602 bytes of samples and holds 356"),
        (
            riff(chunk(b"ds64", LARGE), FORM, chunk(b"data", DATA[:99], 0xFFFFFFFF), kind=b"RF64"),
            r"is cut off: it declares 602 byt",
        ),
        (riff(FORM, chunk(b"data", b"")), r"has no samples"),
        (riff(FORM, chunk(b"data", b"\1")), r"has no samples"),
        (riff(chunk(b"data", DATA), FORM), r"its samples precede their format"),
        (riff(FORM), r"ends before its samples"),
        (b"", r"it is empty"),
        (b"RIFF", r"it ends early"),
        (b"RIFF\0\0\0\0AVI LIST", r"no WAV file of plain samples: it does not begin as one"),
        (b"RIFX" + PLAIN[4:], r"big-endian"),
        (b"ID3\3" + bytes(40), r"it is an MP3 file.*ffmpeg"),
        (b"\xff\xfb\x90\x64" + bytes(40), r"it is an MP3 file"),
        (ADTS, r"it is an AAC file"),
        (b"fLaC" + bytes(40), r"it is a FLAC file"),
        (b"OggS" + bytes(40), r"it is an Ogg file"),
        (b"FORM" + bytes(40), r"it is an AIFF file"),
        (b"\0\0\0 ftypM4A " + bytes(40), r"it is an MP4 file"),
        *(
            (
                riff(chunk(b"fmt ", form("8", 1, extensible, tag=tag)), chunk(b"data", bytes(9))),
                rf"its samples are {name}",
            )
            for tag, name in ((2, "ADPCM"), (6, "A-law"), (7, "mu-law"), (0x55, "MP3"), (0x1234, "of format 0x1234"))
            for extensible in (False, True)
        ),
        (riff(chunk(b"fmt ", form("16", 1, False, bits=64, frame=8)), chunk(b"data", DATA)), r"integers of 64 bits"),
        (riff(chunk(b"fmt ", form("16", 1, False, bits=0, frame=0)), chunk(b"data", DATA)), r"integers of 0 bits"),
        (riff(chunk(b"fmt ", form("float32", 1, False, bits=16, frame=2)), chunk(b"data", DATA)), r"floats of 16 bits"),
        (riff(chunk(b"fmt ", form("16", 0, False)), chunk(b"data", DATA)), r"does not fit together: 0 ch"),
        (
            riff(chunk(b"fmt ", form("16", 1, False, frame=3)), chunk(b"data", DATA)),
            r"does not fit together: .* 3 bytes",
        ),
        (riff(chunk(b"fmt ", form("16", 1, False)[:9]), chunk(b"data", DATA)), r"its format is cut off"),
        (riff(chunk(b"fmt ", form("16", 1, False, rate=8001)), chunk(b"data", DATA)), r"8001 samples a second"),
    ],
)
def test_what_is_no_whole_wav_file_of_plain_samples_is_named(content, message):
    with pytest.raises(DataError, match=message):
        read(content)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -32768.0])
def test_floats_that_are_no_sound_are_refused(kind, value):
    samples = TONE.copy()
    samples[7] = value
    with pytest.raises(DataError, match=r"samples of .*, where full scale is 1"):
        read(riff(chunk(b"fmt ", form(kind, 1, False)), chunk(b"data", encoded(samples, kind))))
