"""The base of all configs: frozen, closed, and open only where a registry says so.

``gate: Annotated[GateConfig, OneOf(GATES)]`` is a union of whatever the registry holds, discriminated by ``type``. It
takes a part's config, a mapping with a ``type``, or a bare name for a part with its defaults; a plugin's part keeps its
own fields when dumped and appears in the JSON Schema. Configs hold data only, never a Python path: reading one from
a stranger runs no code of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from spectral_core.contract import Contract
from spectral_core.errors import ConfigError, SpectralError, suggestion

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

    from spectral_core.registry import Registry

C = TypeVar("C", bound="Config")
_KIND = "x-spectral-kind"
_STANDARD_ERRORS = frozenset(get_args(core_schema.ErrorType))
_WORDS = {
    "tuple_type": "Input should be a list, also for a single entry: [entry]",
    "model_type": "Input should be a mapping of keys to values",
}


class Config(BaseModel):
    """Data that describes something to build. Immutable; unknown keys are errors with a suggestion."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="wrap")
    @classmethod
    def _teach_unknown_keys(cls: type[C], data: Any, handler: ModelWrapValidatorHandler[C]) -> C:
        try:
            return handler(data)
        except ValidationError as error:
            raise ValidationError.from_exception_data(cls.__name__, list(cls._taught(error))) from None

    @classmethod
    def _taught(cls, error: ValidationError) -> Iterator[InitErrorDetails]:
        for line in error.errors():
            kind: str | PydanticCustomError = line["type"]
            context = line.get("ctx", {})
            if line["type"] == "extra_forbidden" and len(line["loc"]) == 1:
                known = [name for name in cls.model_fields if name != "type"]
                hint = suggestion(str(line["loc"][0]), known) + f" Known: {', '.join(known) or 'none'}."
                kind = PydanticCustomError("unknown_key", "unknown key.{hint}", {"hint": hint})
            elif line["type"] not in _STANDARD_ERRORS:
                kind = PydanticCustomError(line["type"], "{message}", {"message": line["msg"]})
            yield InitErrorDetails(type=kind, loc=line["loc"], input=line["input"], ctx=context)

    @classmethod
    def parse(cls, data: object) -> Any:
        """Validate, with every problem in one ConfigError: ``block.mixer.gate.heads: ... (got 'x')``."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError(render(error)) from None

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The JSON Schema, with each registry's parts under ``$defs`` by kind and name."""
        from spectral_core.plugins import HOST

        schema = super().model_json_schema(*args, **kwargs)
        definitions = schema.setdefault("$defs", {})
        pending = [schema]
        while pending:
            for node in _references(pending.pop()):
                kind = node.pop(_KIND)
                node["$ref"] = f"#/$defs/{kind}"
                if kind in definitions:
                    continue
                configs = HOST.registries[kind].configs()
                definitions[kind] = {"anyOf": [{"enum": list(configs)}]}
                for part_name, config in configs.items():
                    name = f"{kind}.{part_name}".replace("/", ".")
                    # Helper models go by the part's name: two plugins may both have an Options.
                    options = {**kwargs, "ref_template": f"#/$defs/{name}.{{model}}"}
                    part = BaseModel.model_json_schema.__func__(config, *args, **options)  # type: ignore[attr-defined]
                    definitions.update({f"{name}.{model}": found for model, found in part.pop("$defs", {}).items()})
                    definitions[name] = part
                    definitions[kind]["anyOf"].append({"$ref": f"#/$defs/{name}"})
                    pending.append(part)
                pending.append(definitions)
        return schema


class PartConfig(Contract, Config):
    """A config of a registered part: its ``type`` is the part's name."""

    must_return: ClassVar[tuple[tuple[str, type | tuple[type, ...]], ...]] = ()

    type: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """Annotation: any part of a registry, as a config, a mapping with ``type``, or a bare name."""

    registry: Registry[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.resolve)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {_KIND: self.registry.kind}

    def resolve(self, value: object) -> PartConfig:
        """The validated config of the part that ``value`` names."""
        registry = self.registry
        if isinstance(value, str):
            value = {"type": value}
        if isinstance(value, Mapping):
            if "type" not in value:
                raise self._refusal(f"a {registry.label} needs a 'type': one of {', '.join(registry.names())}")
            return self._class(value["type"]).model_validate(value)
        if isinstance(value, registry.base) and type(value) is self._class(value.type):
            return value
        raise self._refusal(
            f"expected a {registry.label}: a name, a mapping with 'type', or a registered {registry.base.__name__}; "
            f"got {type(value).__name__}"
        )

    def _class(self, name: object) -> type[PartConfig]:
        if not isinstance(name, str):
            raise self._refusal(f"the 'type' of a {self.registry.label} is a name; got {name!r}")
        try:
            found: type[PartConfig] = self.registry.get(name).load()
        except SpectralError as error:
            raise self._refusal(str(error)) from error
        return found

    @staticmethod
    def _refusal(message: str) -> PydanticCustomError:
        return PydanticCustomError("unknown_part", "{message}", {"message": message})


def part(name: str) -> Any:
    """The default of an open union, a part's name, typed so that a config field takes it; validation looks it up."""
    return name


def render(error: ValidationError) -> str:
    """One line per problem, each with its full path, in the words of a YAML file: lists and mappings."""
    lines = []
    problems = error.errors(include_url=False)
    for line in problems:
        place = line["loc"]
        inside = any(other["loc"][: len(place)] == place != other["loc"] for other in problems)
        if line["type"] == "too_short" and inside:
            continue  # pydantic counts what was valid: the entries that are not have a line of their own
        message = _WORDS.get(line["type"], line["msg"].removeprefix("Value error, "))
        message = message.replace("Tuple should", "The list should").replace(" after validation", "")
        shown = "" if line["type"] in ("unknown_key", "unknown_part", "missing", "value_error") else _got(line["input"])
        lines.append(f"{'.'.join(map(str, place)) or 'config'}: {message}{shown}")
    return "\n".join(lines)


def problem(path: tuple[str | int, ...], message: str, value: object = None) -> ValidationError:
    """A ValidationError at a path below the model that raises it, for checks across fields."""
    kind = PydanticCustomError("unknown_part", "{message}", {"message": message})
    return ValidationError.from_exception_data("config", [InitErrorDetails(type=kind, loc=path, input=value)])


def _got(value: object) -> str:
    shown = repr(value)
    return f" (got {shown if len(shown) <= 80 else shown[:77] + '...'})"


def _references(node: object) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if _KIND in node:
            yield node
        for child in list(node.values()):
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)
