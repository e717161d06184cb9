"""Base of all parts: modules built from keyword arguments or from a config and a context."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from inspect import Signature, signature
from typing import Any, ClassVar, Generic, get_args

from pydantic import ValidationError
from torch import Tensor, nn
from typing_extensions import TypeVar

from spectral_core.axes import describe
from spectral_core.config import PartConfig, render
from spectral_core.contract import Contract
from spectral_core.errors import ConfigError, StateError, UnsupportedInputError, shown
from spectral_layers.context import Context, LayerContext
from spectral_layers.rows import Rows

X = TypeVar("X", bound=Context)
C = TypeVar("C", bound=PartConfig, default=Any)


class NoOptions(PartConfig):
    """The config of parts that declare none; not registered."""

    type: str = ""


class Part(Contract, nn.Module, Generic[X, C]):
    """Base of the bases of parts. ``Resonant(channels=64, modes=8)`` is ``ResonantConfig(modes=8).build(context)``.

    A subclass names its config class in brackets, ``class Resonant(RecurrentFilter[ResonantConfig])``, and defines
    :meth:`setup` instead of a constructor. Options and their defaults are declared in the config class alone, whose
    ``build`` then returns this class.

    context_class: the context of this kind of part; the constructor takes its keywords beside the options.
    """

    context_class: ClassVar[type[Context]]
    config_class: ClassVar[type[PartConfig]] = NoOptions
    __signature__: ClassVar[Signature]
    config: C

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in vars(cls).get("__orig_bases__", ()):
            for named in get_args(base):
                if isinstance(named, type) and issubclass(named, PartConfig):
                    cls.config_class = _linked(named, cls)

    def __init__(self, context: X | None = None, config: C | None = None, **options: Any) -> None:
        """From a context and a config, or with keywords in place of either.

        Raises ConfigError for a keyword that is missing or unknown, or whose value is not allowed.
        """
        super().__init__()
        if self.config_class is NoOptions and type(self).__init__ is not Part.__init__:
            _warn_of_constructor(type(self))
        else:
            context, config = _resolved(type(self), context, config, options)
            self.config = config
        self.setup(config, context)  # type: ignore[arg-type]  # both None from a deprecated constructor

    def setup(self, config: C, context: X) -> None:
        """Create the parameters and submodules; called once, by the constructor.

        Subclasses of mixers and fusions call ``super().setup(config, context)`` first.
        """


class TimePart(Part[LayerContext, C]):
    """Base of the parts that mix along time: mixers and fusions.

    streams: whether the part, if causal, can continue a state. keeps_segments: whether packed documents stay apart.
    """

    context_class = LayerContext
    streams: ClassVar[bool]
    keeps_segments: ClassVar[bool] = False

    def setup(self, config: C, context: LayerContext) -> None:
        possible, direction = _directions(config), "causal" if context.causal else "bidirectional"
        if direction not in possible:
            raise ConfigError(f"{config.type} cannot be {direction}, only {', '.join(possible)}. Use another part.")
        self.hidden_dim = context.hidden_dim
        self.causal = context.causal
        self.fft = context.fft

    def _check_stream(self, x: Tensor, rows: Rows | None, label: str) -> None:
        name = type(self).__name__
        if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != self.hidden_dim:
            raise UnsupportedInputError(
                f"{name} takes {label} (B, L, D) with L >= 1 and D = {self.hidden_dim}; got {describe(x)}. "
                "Project it to that width first."
            )
        if rows is not None and rows.lengths.shape != x.shape[:1]:
            raise UnsupportedInputError(
                f"{name}: {label} has {x.shape[0]} rows, and lengths are {describe(rows.lengths)}. "
                "Give one length per row."
            )
        if rows is not None and rows.segments is not None and not self.keeps_segments:
            raise UnsupportedInputError(f"{name} cannot keep packed documents of {label} apart; give each its own row.")

    def _check_streaming(self) -> None:
        if not (self.streams and self.causal):
            reason = "cannot stream" if self.causal else "is bidirectional"
            raise StateError(f"{type(self).__name__} {reason}: it has no state. Give whole sequences.")


def _directions(config: object) -> Collection[str]:
    """Directions that the config of a mixer or a fusion allows."""
    possible: Collection[str] = getattr(config, "directions", ("causal", "bidirectional"))
    return possible


def _linked(config: type[Any], part: type[Part[Any, Any]]) -> type[PartConfig]:
    """The config class, whose ``build`` returns the part from now on."""
    before = vars(config).get("part_class")  # a class may be redefined, as in a notebook
    if before is not None and (before.__module__, before.__qualname__) != (part.__module__, part.__qualname__):
        raise TypeError(f"{config.__name__} builds {before.__name__}; give {part.__name__} its own config class.")
    config.part_class = part
    keywords = [*signature(part.context_class.keywords).parameters.values(), *signature(config).parameters.values()]
    part.__signature__ = Signature([keyword for keyword in keywords if keyword.name != "type"])  # for help and editors
    return config


def _resolved(part: type[Part[Any, Any]], context: Any, config: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """The context and the config, built from keywords where they are None.

    Without keywords, the context of a part without options stays None, except for mixers and fusions.
    """
    name, kind = part.__name__, part.context_class
    known = kind.keywords.model_fields
    if context is not None and not isinstance(context, kind):
        raise ConfigError(
            f"{name} takes keywords, {', '.join(known)} and its options, or a {kind.__name__}; got {shown(context)}."
        )
    if config is not None and not isinstance(config, part.config_class):
        other = type(config).__name__
        raise TypeError(f"{other} is no config of {name}. A part names its config: class Name({name}[{other}]).")
    where = {key: options.pop(key) for key in known if key in options and context is None}
    try:
        if config is None:
            config = part.config_class.model_validate(options)
        elif options:
            raise ConfigError(f"{name} got a config and also options: {', '.join(options)}. Give one of the two.")
        if context is None and (where or part.config_class is not NoOptions or issubclass(part, TimePart)):
            if "causal" in known and "causal" not in _directions(config):
                where.setdefault("causal", False)
            context = kind.keywords.model_validate(where).context()
    except ValidationError as error:
        message = render(error).rstrip(".")
        raise ConfigError(f"{name}: {message}. Beside its options it takes {', '.join(known)}.") from None
    return context, config


def _warn_of_constructor(part: type[Part[Any, Any]]) -> None:
    name, base = part.__name__, part.__bases__[0].__name__
    warnings.warn(
        f"{part.__module__}.{name} has a constructor of its own, which the next release will not call. Write  "
        f"class {name}({base}[{name}Config])  with the config above it,  setup(self, config, context)  in place of "
        "__init__, and no build() in the config (docs/migration.md).",
        DeprecationWarning,
        stacklevel=3,
    )
