"""YAML and JSON become plain data, in bounds, or one error with the place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from spectral_core import ConfigError, SpectralError
from spectral_core.errors import printable, shown
from spectral_core.plain_data import MAX_BYTES, MAX_DEPTH, MAX_VALUES, from_json, from_yaml, read_text, within_limits


def refusal(read: Any, *given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(*given)
    message = str(caught.value)
    assert len(message) < 400
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("8", 8), ("-8", -8), ("+8", 8), ("0x10", 16), ("1.5", 1.5),
        ("1.0e+3", 1000.0), ("true", True), ("False", False), ("a", "a"), ("'8'", "8"), ('"\\x41"', "A"),
        # text, which fields of numbers and booleans read as what it says
        ("1e-3", "1e-3"), ("5e-4", "5e-4"), ("1_000", "1_000"), ("yes", "yes"), ("off", "off"), ("9" * 30, "9" * 30),
        # text, where YAML 1.1 has dates, octal and sexagesimal numbers
        ("2024-01-13", "2024-01-13"), ("2024-13-45", "2024-13-45"), ("010", "010"), ("12:30", "12:30"), ("=", "="),
        ("[a, 1]", ["a", 1]), ("{a: {b: c}}", {"a": {"b": "c"}}), ("1: x", {"1": "x"}), ("on: x", {"on": "x"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}), ("|\n  a\n  b", "a\nb"), ("---\na", "a"),
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        ("<<: [{a: 1}, {a: 2, b: 3}]", {"a": 1, "b": 3}),
    ],
)  # fmt: skip
def test_what_yaml_says(text: str, value: object) -> None:
    found = from_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_infinity_and_nan_are_numbers() -> None:
    assert from_yaml("[.inf, -.inf]") == [float("inf"), -float("inf")]
    assert from_yaml(".nan") != from_yaml(".nan")


STRINGS = [
    "1e5", "1e-3", "yes", "no", "on", "null", "~", "", "2024-01-01", "12:30", "010", "0o7", "1_0", "=", "<<", ".5",
    "-.5", "+.5", "5.", ".inf", "+.inf", "0x1F", "0b1", "9" * 40, "1.e5", "1.0e5", "-", "\x1b[2J", "é🙂", "a: b", "#x",
    "!x", "*x", "&x", "%x", "@x", "`", "'", '"', "\n", " a ", "\u2028", "\ufeff", "\x85",
]  # fmt: skip


def test_what_pyyaml_writes_is_read_as_it_was() -> None:
    """Runs write their config with its dumper: text must stay text, however it looks."""
    data = {
        "strings": STRINGS,
        "numbers": [0, -1, 10**17, 0.1, 1e-5, 1e300, 2e-308, -0.0],
        "more": [None, True, {}, []],
    }
    assert from_yaml(yaml.safe_dump(data)) == data
    assert from_yaml(yaml.safe_dump({text: 1 for text in STRINGS if text != "<<"})).keys() == {*STRINGS} - {"<<"}
    assert from_json(json.dumps(data)) == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is there twice"),
        ("x: !!int y", "line 1, column 4: the tag 'tag:yaml.org,2002:int'"),
        ("!!python/object/apply:os.system [ls]", "the tag"),
        ("!!binary aGk=", "the tag"),
        ("!!set {a}", "the tag"),
        ("!x y", "the tag '!x'"),
        ("&a [*a]", "no anchor 'a' is complete here"),
        ("*a", "no anchor 'a'"),
        ("[" * 900 + "]" * 900, f"more than {MAX_DEPTH} levels"),
        ("[" * 100_000, f"more than {MAX_DEPTH} levels"),
        ("- " * 900 + "x", f"more than {MAX_DEPTH} levels"),
        ("\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9 if n else ['ha'])}]" for n in range(12)), "values"),
        ("a0: &a0 [x]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 99)), "levels deep"),
        ("[" + "a," * MAX_VALUES + "]", "values"),
        ("x: &x {" + ", ".join(f"k{n}: 1" for n in range(500)) + "}\ny: {<<: [" + "*x," * 500 + "]}", "values"),
        ("<<: 3", "what << merges"),
        ("? [a]\n: b", "a key is text"),
        ("a: b: c", "line 1"),
        ("a\n---\nb", "a second document"),
        ("a: \x1b[2J", "line 1: the character '\\x1b'"),
        ("a\x00", "'\\x00'"),
        ("\ud800", "'\\ud800'"),
        ('"\\U00110000"', "is not YAML"),
        ("'" + "q" * 70_000 + "'", "a text of 70,000 characters"),
        ("`", "is not YAML: line 1, column 1"),
    ],
)
def test_what_is_no_plain_yaml(text: str, message: str) -> None:
    assert message in refusal(from_yaml, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("[" * 100_000, "levels deep"),
        ("[" * 100 + "]" * 100, "levels deep"),
        ("9" * 5000, "an integer of 5,000 digits"),
        ("NaN", "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ("{'a': 1}", "line 1, column 2"),
        ("", "line 1, column 1"),
        ('"' + "q" * 70_000 + '"', "a text of 70,000 characters"),
    ],
)
def test_what_is_no_plain_json(text: str, message: str) -> None:
    assert message in refusal(from_json, text)


def test_pure_python_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyYAML has no libyaml."""
    monkeypatch.setattr("spectral_core.plain_data._PARSER", yaml.SafeLoader)
    assert from_yaml("a: &x [1, '2', {b: null}]\nc: *x") == {"a": [1, "2", {"b": None}], "c": [1, "2", {"b": None}]}
    for text in ("&a [*a]", "!!int x", "[" * 900, '"\\U00110000"', '"\\UFFFFFFFF"', "a: 1\na: 2", "`"):
        refusal(from_yaml, text)


def test_data_made_in_python_are_held_to_the_same() -> None:
    circular: list[Any] = []
    circular.append(circular)
    laughs: Any = "ha"
    for _ in range(12):
        laughs = [laughs] * 9
    refusal(within_limits, circular)
    refusal(within_limits, laughs)
    within_limits({"a": [1, None, {"b": ("c", 10**5000)}]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1".encode("utf-16"), "is UTF-16 text"),
        (b"caf\xe9", r"is not UTF-8 text (byte 3)"),
        (b" " * (MAX_BYTES + 1), "is larger than"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    assert message in refusal(read_text, tmp_path / "x", "the file")


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa: 1")
    assert from_yaml(read_text(tmp_path / "x", "the file")) == {"a": 1}


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), Path("x" * 300), Path("a\0b"), Path("\ud800")):
        assert "cannot read the file" in refusal(read_text, path, "the file")


def test_messages_are_short_and_printable() -> None:
    error = SpectralError("a\x1b[2J\x9b\u202e\r" + "x" * 10**6 + "\nb")
    assert len(str(error)) < 10_000
    assert str(error).isprintable()
    assert printable("é\n🙂\x1b\ud800") == "é\n🙂\\x1b\\ud800"
    for value in (10**5000, "x" * 10**6, ["x" * 10**6] * 10**6, {1: 10**5000}, object()):
        assert len(shown(value)) < 400
