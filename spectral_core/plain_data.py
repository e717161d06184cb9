"""Plain data from YAML and JSON: mappings, lists, text, numbers, booleans and null, within limits.

Time and memory are bounded by the size of the text, and no other types arise. YAML follows its core schema of 2009:
tags are errors; dates, sexagesimal numbers and yes/no are text; anchors and merge keys work within the limits. Keys are
text, and a repeated key is an error.
"""

from __future__ import annotations

import json
import re
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from spectral_core.errors import ConfigError, shown

MAX_BYTES = 1 << 20
"""Bytes of a file."""
MAX_DEPTH = 64
"""Levels of mappings and lists."""
MAX_VALUES = 50_000
"""Values and keys; those of an anchor count again at each alias."""
MAX_TEXT = 1 << 16
"""Characters of one text."""

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML was built with it
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
# What PyYAML's own dumper writes without quotes as a number must be one here, and text must be text.
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"([-+]?[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40})([eE][-+][0-9]{1,5})?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def within_limits(data: object) -> None:
    """Raise ConfigError for data that is nested too deeply (or contains itself), too large, or has too long texts."""
    pending, values = [(data, 0)], 0
    while pending:
        value, depth = pending.pop()
        values += 1
        members: list[object] = []
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise ConfigError(f"holds a text of {len(value):,} characters; at most {MAX_TEXT:,} are read.")
        if isinstance(value, Mapping):
            members = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            members = [*value]
        if members and depth == MAX_DEPTH:
            raise ConfigError(f"is nested more than {MAX_DEPTH} levels deep, or holds itself.")
        if values + len(pending) + len(members) > MAX_VALUES:
            raise ConfigError(f"holds more than {MAX_VALUES:,} values, those behind aliases included.")
        pending += [(member, depth + 1) for member in members]


def read_text(path: Path, what: str) -> str:
    """The text of a small file. Raises ConfigError if it is large, unreadable or not UTF-8. what: its name there."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"cannot read {what} {path}: it is not a regular file.")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}.") from None
    except ValueError:  # NUL, or half of a surrogate pair
        raise ConfigError(f"cannot read {what} {path}: its name has characters that no file's name has.") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{what} {path} is larger than {MAX_BYTES:,} bytes.")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{what} {path} is UTF-16 text. Convert it: iconv -f utf-16 -t utf-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} {path} is not UTF-8 text (byte {error.start}).") from None


def is_file(path: Path) -> bool:
    """Whether there is such a file; False also for names that the system cannot look up."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def from_json(text: str, *, limited: bool = True) -> Any:
    """The data in JSON. limited: whether :func:`within_limits` applies.

    Raises ConfigError that continues ``the file X``: ``is not JSON: line 3, ...``.
    """
    try:
        data = json.loads(text, object_pairs_hook=unique_keys, parse_int=_integer, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ValueError as error:
        raise ConfigError(f"is not JSON as read here: {error}") from None
    except RecursionError:
        raise ConfigError(f"is nested more than {MAX_DEPTH} levels deep.") from None
    if limited:
        within_limits(data)
    return data


def from_yaml(text: str) -> Any:
    """The data in YAML. Raises ConfigError that continues ``the file X``: ``is not YAML: line 3, ...``."""
    if found := _UNREADABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ConfigError(f"is not YAML: line {line}: the character {found.group()!r} has no place in a text.")
    try:
        data = _Document(text).data()
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in str(error.problem):  # PyYAML's own limit, in its later releases
            raise ConfigError(f"is nested more than {MAX_DEPTH} levels deep.") from None
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"is not YAML: {place}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # an escape for no character, in PyYAML's own scanner
        raise error if isinstance(error, ConfigError) else ConfigError(f"is not YAML: {error}") from None
    within_limits(data)
    return data


class _Document:
    """Builds data from the events of a YAML text with one document."""

    def __init__(self, text: str) -> None:
        self.events = yaml.parse(text, Loader=_PARSER)
        self.anchors: dict[str, Any] = {}
        self.values = 0

    def data(self) -> Any:
        next(self.events)  # the stream begins
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        data = self.value(next(self.events), 0)
        next(self.events)  # the document ends
        if not isinstance(more := next(self.events), yaml.StreamEndEvent):
            raise _problem(more, "a second document begins; one is read")
        return data

    def value(self, event: Any, depth: int) -> Any:
        self.count(event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise _problem(event, f"no anchor {shown(event.anchor)} is complete here; none may hold itself")
            return self.anchors[event.anchor]
        if event.tag is not None:
            raise _problem(event, f"the tag {shown(event.tag)}: values have no tags here; leave it out")
        if depth > MAX_DEPTH:
            raise _problem(event, f"nested more than {MAX_DEPTH} levels deep")
        made: Any
        if isinstance(event, yaml.ScalarEvent):
            made = _plain(event.value) if event.implicit[0] else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            made = []
            while not isinstance(member := next(self.events), yaml.SequenceEndEvent):
                made.append(self.value(member, depth + 1))
        else:
            made = self.mapping(depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = made
        return made

    def mapping(self, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merged: list[Mapping[str, Any]] = []
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent) or key.tag is not None:
                raise _problem(key, "a key is text")
            value = self.value(next(self.events), depth + 1)
            if key.value == "<<" and key.implicit[0]:
                merged += value if isinstance(value, list) else [value]
                if not all(isinstance(others, dict) for others in merged):
                    raise _problem(key, "what << merges is a mapping, or a list of them")
            elif key.value in made:
                raise _problem(key, f"the key {shown(key.value)} is there twice")
            else:
                made[key.value] = value
        for others in merged:
            self.count(key, len(others))
            made = {**others, **made}
        return made

    def count(self, event: Any, more: int = 1) -> None:
        self.values += more
        if self.values > MAX_VALUES:
            raise _problem(event, f"more than {MAX_VALUES:,} values")


def _plain(text: str) -> Any:
    """The value of an unquoted scalar. ``1e-3`` and ``1_000`` stay text, which numeric fields convert."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 16 if "x" in text else 10)
    return float(text) if _FLOAT.fullmatch(text) else text


def _problem(event: Any, message: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=event.start_mark)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An ``object_pairs_hook`` of the json module. Raises ValueError for an object with a repeated key."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {shown(twice)} is there twice in one object.")
    return made


def _integer(text: str) -> int:
    if len(text) > 400:
        raise ValueError(f"it holds an integer of {len(text):,} digits; at most 400 are read.")
    return int(text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number there.")
