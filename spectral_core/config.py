"""The base of all configs: frozen, closed, and open only where a registry says so.

``gate: Annotated[GateConfig, OneOf(GATES)]`` is a union of whatever the registry holds, discriminated by ``type``. It
accepts a part's config, a mapping with a ``type``, or a bare name for a part with its defaults. A plugin's part keeps
its own fields when dumped and appears in the JSON Schema. Configs hold data only, never a Python path, so reading an
untrusted one runs none of its code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from spectral_core.contract import Contract
from spectral_core.errors import ConfigError, PluginError, SpectralError, printable, shown, suggestion
from spectral_core.plain_data import within_limits
from spectral_core.renamed import Renamed, inherited

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

C = TypeVar("C", bound="Config")
_KIND = "x-spectral-kind"
_MOST_PROBLEMS, _LONGEST_LINE = 20, 1000
_MORE = "more_problems"
_OURS = ("spectral_core.", "spectral_layers.", "spectral_models.")
_STANDARD_ERRORS = frozenset(get_args(core_schema.ErrorType))
_WORDS = {
    "tuple_type": "Input should be a list, also for a single entry: [entry]",
    "model_type": "Input should be a mapping of keys to values",
}

Width = Annotated[int, Field(gt=0, le=1 << 20)]
"""Size of an axis other than time: channels, heads, modes, taps, labels."""
Length = Annotated[int, Field(gt=0, le=1 << 32)]
"""Number of tokens, of entries of a vocabulary, of samples or of steps."""
Scale = Annotated[float, Field(gt=0, le=1e38)]
"""Timescales, rates, temperatures and other positive factors."""
Weight = Annotated[float, Field(ge=0, le=1e38)]
"""Weights of losses, frequencies, deviations and other factors that may be 0."""


class Config(BaseModel):
    """Base of configs. Immutable; unknown keys are errors with a suggestion.

    earlier_options: renamed options by their earlier names: ``{"forgetting": Renamed("decay", {True: "per_token",
    False: "constant"})}``. Earlier names are accepted without a warning, and are not in the JSON Schema. Subclasses
    inherit them.
    """

    earlier_options: ClassVar[Mapping[str, Renamed]] = {}

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="wrap")
    @classmethod
    def _teach_unknown_keys(cls: type[C], data: Any, handler: ModelWrapValidatorHandler[C]) -> C:
        refused: dict[str, str] = {}
        if isinstance(data, Mapping):
            data, refused = cls.with_current_names(data)
        lines = [_located((name,), message, data.pop(name)) for name, message in refused.items()]
        try:
            made = handler(data)
        except ValidationError as error:
            lines += cls._taught(error)
        except SpectralError:
            raise
        except Exception as error:
            if f"{cls.__module__}.".startswith(_OURS):
                raise
            raise PluginError(
                f"the config {cls.__module__}.{cls.__qualname__} failed to check its values: "
                f"{type(error).__name__}: {error}. Report it to the author of {cls.__module__.partition('.')[0]}."
            ) from error
        if lines:
            raise ValidationError.from_exception_data(cls.__name__, lines) from None
        return made

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        for name, renamed in cls.renamed_options().items():
            if name in cls.model_fields or renamed.name not in cls.model_fields:
                raise TypeError(
                    f"{cls.__qualname__}.earlier_options: {name!r} must be no field, and {renamed.name!r} must be one."
                )

    @classmethod
    def renamed_options(cls) -> dict[str, Renamed]:
        """The earlier options of this class and of its bases."""
        return inherited(cls, "earlier_options")

    @classmethod
    def with_current_names(cls, data: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[str, str]]:
        """A copy of the data with options under their current names, and error messages by earlier name.

        An earlier option is an error, and stays in the data, if it never had that value or if the current option is
        present with another one.
        """
        made, refused = dict(data), {}
        for name, renamed in cls.renamed_options().items():
            if name not in made:
                continue
            try:
                value = renamed.value_of(made[name])
            except ValueError as error:
                refused[name] = str(error)
                continue
            if renamed.name in made and made[renamed.name] != value:
                refused[name] = (
                    f"is {renamed.name}: {shown(value)} now, and {renamed.name} is {shown(made[renamed.name])} here. "
                    f"Write {renamed.name} alone."
                )
                continue
            made[renamed.name] = value
            del made[name]
        return made, refused

    @classmethod
    def _taught(cls, error: ValidationError) -> Iterator[InitErrorDetails]:
        """The first problems, unknown keys with the known ones, and the number of further problems."""
        taught = more = 0
        for line in error.errors(include_url=False):
            if line["type"] == _MORE or taught == _MOST_PROBLEMS:
                more += line["ctx"]["count"] if line["type"] == _MORE else 1
                continue
            taught += 1
            kind: str | PydanticCustomError = line["type"]
            context = line.get("ctx", {})
            if line["type"] == "extra_forbidden" and len(line["loc"]) == 1:
                known = [name for name in cls.model_fields if name != "type"]
                text = "unknown key. Known: {known}."
                kind = PydanticCustomError("unknown_key", text, {"known": ", ".join(known) or "none"})
            elif line["type"] not in _STANDARD_ERRORS:
                kind = PydanticCustomError(line["type"], "{message}", {**context, "message": line["msg"]})
            yield InitErrorDetails(type=kind, loc=line["loc"], input=line["input"], ctx=context)
        if more:
            kind = PydanticCustomError(_MORE, "{count} more problems", {"count": more})
            yield InitErrorDetails(type=kind, loc=(), input=None)

    @classmethod
    def parse(cls, data: object) -> Any:
        """Validate, with every problem in one ConfigError: ``block.mixer.gate.heads: ... (got 'x')``."""
        try:
            within_limits(data)
        except ConfigError as error:
            raise ConfigError(f"config: {error}") from None
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError(render(error)) from None

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The JSON Schema, with each registry's parts under ``$defs`` by kind and name."""
        schema = super().model_json_schema(*args, **kwargs)
        definitions = schema.setdefault("$defs", {})
        pending = [schema]
        while pending:
            for node in _references(pending.pop()):
                kind = node.pop(_KIND)
                node["$ref"] = f"#/$defs/{kind}"
                if kind in definitions:
                    continue
                configs = _UNIONS[kind].configs()
                definitions[kind] = {"anyOf": [{"enum": list(configs)}]}
                for part_name, config in configs.items():
                    name = f"{kind}.{part_name}".replace("/", ".")
                    # Nested models are prefixed by the part's name: two plugins may both define an Options.
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


class Parts(Protocol):
    """The interface of :class:`spectral_core.registry.Registry`, which imports this module, for :class:`OneOf`."""

    @property
    def kind(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def base(self) -> type[PartConfig]: ...
    def names(self) -> list[str]: ...
    def get(self, name: str) -> Any: ...
    def configs(self) -> Mapping[str, type[PartConfig]]: ...
    def __iter__(self) -> Iterator[Any]: ...


_UNIONS: dict[str, Parts] = {}
"""Registries by kind, of all open unions in a JSON Schema so far."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """Annotation of an open union: any part of a registry, as a config, a mapping with ``type``, or a bare name."""

    registry: Parts

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.resolve)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        _UNIONS[self.registry.kind] = self.registry
        return {_KIND: self.registry.kind}

    def resolve(self, value: object) -> PartConfig:
        """The validated config of the part that ``value`` names or contains."""
        registry = self.registry
        if isinstance(value, str):
            value = {"type": value}
        if isinstance(value, Mapping):
            if "type" not in value:
                raise refusal(f"a {registry.label} needs a 'type': one of {', '.join(registry.names())}")
            return self._class(value["type"]).model_validate(value)
        if isinstance(value, registry.base) and type(value) is self._class(value.type):
            return value
        raise refusal(
            f"expected a {registry.label}: a name, a mapping with 'type', or a registered {registry.base.__name__}; "
            f"got {type(value).__name__}"
        )

    def _class(self, name: object) -> type[PartConfig]:
        if not isinstance(name, str):
            raise refusal(f"the 'type' of a {self.registry.label} is a name; got {shown(name)}")
        try:
            found: type[PartConfig] = self.registry.get(name).load()
        except SpectralError as error:
            raise refusal(str(error)) from error
        return found


def refusal(message: str) -> PydanticCustomError:
    """The error that validators raise for a value, with its message unchanged."""
    return PydanticCustomError("unknown_part", "{message}", {"message": message})


def part(name: str) -> Any:
    """A part's name as the default of a config field; validation turns it into the part's config."""
    return name


def render(error: ValidationError) -> str:
    """One line per problem, with its full path, in terms of YAML: lists and mappings."""
    problems = error.errors(include_url=False)
    parents = {line["loc"][:depth] for line in problems for depth in range(len(line["loc"]))}
    # pydantic's "too short" counts valid entries only; invalid ones have lines of their own
    problems = [line for line in problems if line["type"] != "too_short" or line["loc"] not in parents]
    lines = []
    for line in problems:
        if line["type"] == _MORE:
            lines.append(f"... and {line['ctx']['count']:,} more problems.")
            continue
        place = line["loc"]
        message = _WORDS.get(line["type"], line["msg"].removeprefix("Value error, "))
        message = message.replace("Tuple should", "The list should").replace(" after validation", "")
        if line["type"] == "unknown_key":
            hint = suggestion(str(place[-1]), line.get("ctx", {}).get("known", "").split(", "))
            message = message.replace("unknown key.", f"unknown key.{hint}", 1)
        path = ".".join(_step(step) for step in place) or "config"
        telling = line["type"] in ("unknown_key", "unknown_part", "missing", "value_error")
        got = "" if telling else f" (got {shown(line['input'])})"
        lines.append(f"{path}: {message[:_LONGEST_LINE]}{got}")
    return "\n".join(lines)


def problem(path: tuple[str | int, ...], message: str, value: object = None) -> ValidationError:
    """A ValidationError at a path below the config that raises it, for checks across fields."""
    return ValidationError.from_exception_data("config", [_located(path, message, value)])


def _located(path: tuple[str | int, ...], message: str, value: object) -> InitErrorDetails:
    return InitErrorDetails(type=refusal(message), loc=path, input=value)


def _step(step: str | int) -> str:
    """A key in a path, shortened and without line breaks."""
    text = str(step)
    return printable(text if len(text) <= 80 else f"{text[:77]}...").replace("\n", "\\n")


def _references(node: object) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if _KIND in node:
            yield node
        for child in list(node.values()):
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)
