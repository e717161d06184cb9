"""Finds, by field annotations, the config class for the data at a path inside a larger config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from spectral_core.config import Config, OneOf
from spectral_core.errors import SpectralError


def config_of(annotation: Any, data: object) -> type[Config] | None:
    """The config class that validates the data in such a field; None unless it is a mapping with a known type."""
    if not isinstance(data, Mapping):
        return None
    name = data.get("type")
    fixed = []
    for form in _forms(annotation):
        if isinstance(form, OneOf) and isinstance(name, str):
            try:
                found: type[Config] = form.registry.get(name).load()
            except SpectralError:  # validation reports it with its path
                continue
            return found
        if isinstance(form, type) and issubclass(form, Config):
            fixed.append(form)
    if len(fixed) > 1:
        fixed = [form for form in fixed if "type" in form.model_fields and form.model_fields["type"].default == name]
    return fixed[0] if fixed else None


def inside(annotation: Any, data: object, key: str) -> Any:
    """The annotation of the value under a key of the data: a config's field, or a container's members."""
    config = config_of(annotation, data)
    if config is not None:
        return config.model_fields.get(key)
    for form in _forms(annotation):
        origin = get_origin(form)
        if isinstance(origin, type) and issubclass(origin, list | tuple | Mapping):
            return get_args(form)[1 if issubclass(origin, Mapping) else 0]
    return None


def _forms(annotation: Any) -> Iterator[Any]:
    """The members of a union annotation or field; an open union yields its :class:`OneOf`."""
    base: Any = annotation
    metadata: list[Any] = []
    if isinstance(annotation, FieldInfo):
        base, metadata = annotation.annotation, annotation.metadata
    elif get_origin(annotation) is Annotated:
        base, *metadata = get_args(annotation)
    if base is not annotation:
        unions = [member for member in metadata if isinstance(member, OneOf)]
        yield from unions or _forms(base)
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _forms(member)
    else:
        yield annotation
