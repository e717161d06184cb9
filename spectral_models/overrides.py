"""Overrides of config data at dotted paths: ``block.mixer.filter.modes=8``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spectral_core import ConfigError
from spectral_core.errors import shown
from spectral_core.places import config_of, inside
from spectral_core.plain_data import MAX_DEPTH, from_yaml

_MARKS = "|>,;:&*!%@#"
"""One-character values of ``--set``, such as separators, that YAML would read as syntax or as null."""
_ALTERNATIVES = {"block": "layers", "layers": "block"}


def override(data: Mapping[str, Any], changes: Mapping[str, Any], annotation: Any = None) -> dict[str, Any]:
    """A copy of nested config data with values replaced at dotted paths: ``{"block.mixer.filter.modes": 8}``.

    annotation: of the field that validates the data; with it, options may have earlier names in paths and in data. On
    the way, a bare name (``mixer: holographic``) becomes a mapping with this ``type``, and null an empty one. Setting
    ``block`` as a whole removes ``layers``, and the other way round. Raises ConfigError for a path into a value without
    keys, and for different values of one option by its earlier and current name. Keys are not checked: validation of
    the config does that.
    """
    made: dict[str, Any] = dict(data)
    placed: dict[tuple[str, ...], tuple[str, Any]] = {}
    for path, value in changes.items():
        if path.count(".") >= MAX_DEPTH:
            raise ConfigError(f"{path[:80]}...: a path has at most {MAX_DEPTH} steps.")
        change = _Change(path, value)
        made = change.applied(made, path, annotation)
        other, before = placed.setdefault(tuple(change.place), (path, change.value))
        if other != path and before != change.value:
            raise ConfigError(f"{other} and {path} are names of one option, with different values. Give it once.")
    return made


class _Change:
    """One override. place: its path with current names of options."""

    def __init__(self, path: str, value: Any) -> None:
        self.path = path
        self.value = value
        self.place: list[str] = []

    def applied(self, node: Any, rest: str, annotation: Any) -> Any:
        """A node's data with the value set at the rest of the path. annotation: of the node."""
        if node is None or isinstance(node, str):
            node = {} if node is None else {"type": node}
        head, _, further = rest.partition(".")
        if isinstance(node, Mapping):
            node, head = self._renamed(node, head, annotation, last=not further)
            self.place.append(head)
            if further:
                return {**node, head: self.applied(node.get(head), further, inside(annotation, node, head))}
            if self.value is not None and node.get(_ALTERNATIVES.get(head, "")) is not None:
                node = {**node, _ALTERNATIVES[head]: None}
            return {**node, head: self.value}
        if isinstance(node, list | tuple):
            if not (head.isdecimal() and len(head) < 10) or int(head) >= len(node):
                raise ConfigError(f"{self.path}: {shown(head)} is not an index into a list of {len(node)}.")
            self.place.append(head)
            members, index = list(node), int(head)
            below = self.applied(members[index], further, inside(annotation, node, head)) if further else self.value
            members[index] = below
            return members
        raise ConfigError(f"{self.path}: nothing can be set inside {shown(node)}.")

    def _renamed(
        self, node: Mapping[str, Any], head: str, annotation: Any, *, last: bool
    ) -> tuple[Mapping[str, Any], str]:
        """The node and the option to set there, with current names. Validation reports conflicts in the node."""
        config = config_of(annotation, node)
        if config is None:
            return node, head
        node, _ = config.with_current_names(node)
        renamed = config.renamed_options().get(head)
        if renamed is None:
            return node, head
        if last:
            try:
                self.value = renamed.value_of(self.value)
            except ValueError as error:
                raise ConfigError(f"{self.path}: {error}") from None
        return node, renamed.name


def parse_assignment(text: str) -> tuple[str, Any]:
    """``block.mixer.filter.modes=8`` → the path and the value, read as YAML unless it is a lone mark such as ``|``."""
    path, equals, value = text.partition("=")
    if not (equals and all(step.strip() for step in path.split("."))):
        raise ConfigError(f"cannot set {shown(text)}: write PATH=VALUE, as in block.mixer.filter.modes=8.")
    if len(value) == 1 and value in _MARKS:
        return path.strip(), value
    try:
        return path.strip(), from_yaml(value)
    except ConfigError as error:
        raise ConfigError(f"cannot set {path.strip()}: {shown(value)} {error}") from None
