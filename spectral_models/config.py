"""Configs every model shares: blocks, by name or by their parts, and the base of model variants."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    GetJsonSchemaHandler,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import CoreSchema

from spectral_core import FFT_BACKENDS, FFTBackend, FFTBackendConfig
from spectral_core.config import Config, Length, OneOf, PartConfig, part, problem
from spectral_core.errors import shown, suggestion
from spectral_core.plain_data import from_yaml
from spectral_layers import FEEDFORWARDS, MIXERS, FeedForwardConfig, MixerConfig
from spectral_models.labels import LabelSet
from spectral_models.model import SpectralModel
from spectral_models.overrides import override

if TYPE_CHECKING:
    from spectral_models.data.readers import Reader


class BlockConfig(Config):
    """One residual block: x + mixer(norm(x)), then x + feedforward(norm(x)).

    A bare name is short for a named block. Beside a name as ``type``, other keys change that block where they say so:
    ``{type: sparse, mixer: {sparsity: {share: 0.1}}}``.
    """

    mixer: Annotated[MixerConfig, OneOf(MIXERS)] = part("gated_convolution")
    """What mixes tokens along time."""
    feedforward: Annotated[FeedForwardConfig, OneOf(FEEDFORWARDS)] = part("swiglu")
    """What changes each token by itself."""
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    """Normalisation in front of both."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on what each adds to the residual stream, in training."""
    feedforward_chunk: Length | None = None
    """Tokens of a row the feed-forward takes at a time. In training the backward pass makes each chunk again, so that
    nothing inside is kept; the same numbers, more work. Null gives it all of them."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        block, *others = spelled_out(data)
        if others:
            raise problem((), f"{_name_of(data)!r} is {1 + len(others)} blocks in turn, not one; name it in layers.")
        return block

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        found = handler.resolve_ref_schema(handler(schema))
        named = {"enum": list_blocks(), "description": "A named block that the other keys change."}
        written = {**found, "properties": {"type": named, **found["properties"]}}
        return {"anyOf": [{"enum": list_blocks()}, written]}


def list_blocks(pattern: str = "*") -> list[str]:
    """Names of blocks (``block: sparse``, ``layers: [dense, moe]``) that match a shell-style pattern."""
    return sorted(fnmatch.filter(_named_blocks(), pattern))


@cache
def named_block(name: str) -> tuple[BlockConfig, ...]:
    """The blocks that a known name stands for."""
    return tuple(BlockConfig.parse(block) for block in _named_blocks()[name])


def spelled_out(value: Any) -> list[Any]:
    """The blocks that a name, or a mapping with a name as its ``type``, stands for; any other value is itself one.

    Beside the name, a mapping's keys replace what each of these blocks has there; a mapping without a type reaches
    into the part that is there, as overrides do. Raises a ValidationError for names that no block has.
    """
    name = _name_of(value)
    if name is None:
        return [value]
    if not isinstance(name, str) or name not in list_blocks():
        hint = suggestion(name, list_blocks()) if isinstance(name, str) else ""
        raise problem(
            (),
            f"no block is called {shown(name)}.{hint} Known: {', '.join(list_blocks())}. "
            f"Or write one: a mapping of {', '.join(BlockConfig.model_fields)}.",
        )
    changes = {} if isinstance(value, str) else {key: given for key, given in value.items() if key != "type"}
    return [override(block, dict(_leaves(changes)), BlockConfig) for block in _named_blocks()[name]]


def block_as_layers(data: Any) -> Any:
    """A model's data, in which a ``block`` whose name is several blocks in turn has become ``layers``."""
    if not isinstance(data, Mapping) or data.get("layers") is not None:
        return data
    name = _name_of(data.get("block"))
    if not isinstance(name, str) or len(_named_blocks().get(name, ())) < 2:
        return data
    return {**data, "block": None, "layers": [data["block"]]}


def _name_of(value: Any) -> Any:
    """The name in a block's data; None where its parts are all written out."""
    if isinstance(value, Mapping):
        return value.get("type")
    return value if isinstance(value, str) else None


def _leaves(changes: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """What nested data sets, by dotted paths: everything but mappings, and parts with a type."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and "type" not in value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


@cache
def _named_blocks() -> dict[str, list[dict[str, Any]]]:
    text = (resources.files("spectral_models") / "blocks.yaml").read_text(encoding="utf-8")
    found: dict[str, list[dict[str, Any]]] = from_yaml(text)
    return found


def _each(value: Any, validate: ValidatorFunctionWrapHandler) -> list[BlockConfig]:
    return [validate(block) for block in spelled_out(value)]


def _joined(members: tuple[list[BlockConfig], ...]) -> tuple[BlockConfig, ...]:
    if not members:
        raise ValueError("give one block at least")
    return tuple(chain.from_iterable(members))


Blocks = Annotated[
    tuple[Annotated[BlockConfig, WrapValidator(_each)], ...],
    Field(max_length=1024, json_schema_extra={"minItems": 1}),
    AfterValidator(_joined),
]
"""Blocks that take turns. A name among them that is several blocks gives all of these."""


class ModelConfig(PartConfig):
    """Names a model variant and everything it is made of; ``build()`` makes it.

    What commands, training and exports must know of a variant before it is built, its class declares here, and the
    rest :class:`SpectralModel`: they ask no variant for its class.
    """

    must_return = (("build", SpectralModel),)

    decoder: ClassVar[bool] = False
    """Whether logits may depend on no later token; held by a check when parts come from third parties."""
    reads_source: ClassVar[bool] = False
    """Whether a decoder reads a source, which stands in front of its tokens among the inputs."""
    pools: ClassVar[bool] = False
    """Whether the output has ``pooled``, (B, D): one vector for each row."""

    fft: Annotated[FFTBackendConfig, OneOf(FFT_BACKENDS)] | None = None
    """FFT backend of every spectral operator, in the models inside this one too. Null leaves each of these its own, and
    is ``auto`` for the rest. A named backend never falls back to another."""

    @property
    def direction(self) -> Literal["causal", "bidirectional"]:
        """Whether features at t depend on tokens up to t only, or on the whole row."""
        return "causal" if self.decoder else "bidirectional"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that train the model, or one that :meth:`for_task` makes of it; the default first."""
        return ()

    def for_task(self, task: str) -> ModelConfig:
        """The config of the model that one of ``tasks`` trains: this one, a changed one, or one that contains it."""
        return self

    def with_data(
        self,
        *,
        labels: tuple[str, ...] | None = None,
        max_length: int | None = None,
        image_size: tuple[int, int] | None = None,
        image_sizes: Mapping[str, tuple[int, int]] | None = None,
        eos_token_id: int | None = None,
    ) -> ModelConfig:
        """The config with what training found in its data; a variant takes up what it has an option for.

        labels: names, by number. max_length: tokens of a text that are read. image_size: height and width; of a model
        of several inputs, image_sizes by the input's name. eos_token_id: ends a target.
        """
        return self

    def build(self) -> SpectralModel:
        raise NotImplementedError(f"{type(self).__name__} must define build()")

    @property
    def label_set(self) -> LabelSet | None:
        """The labels of logits (B, num_labels), of rows, or (B, L, num_labels), of tokens; None of other models."""
        return None

    def reader(self) -> Reader | None:
        """What reads the images or recordings of this model from files; None where it reads none, or several inputs."""
        return None

    def readers(self) -> Mapping[str, Reader]:
        """What reads files, by the input's name, of a model of several inputs; those of text have no reader."""
        return {}

    @property
    def blocks(self) -> tuple[BlockConfig, ...]:
        """The distinct blocks of a stack, in the order they take turns; none without a stack."""
        return ()

    def stack(self) -> Iterator[tuple[str, BlockConfig]]:
        """All blocks of a stack, each with the config path it comes from; none without a stack."""
        return iter(())

    def build_fft(self) -> FFTBackend:
        """The backend of the operators that belong to this model itself, and to none inside it."""
        backend: FFTBackendConfig = self.fft or FFT_BACKENDS.get("auto").load().parse({"type": "auto"})
        return backend.build()

    @model_validator(mode="after")
    def _one_fft(self) -> ModelConfig:
        if self.fft is not None:
            # A frozen config takes no assignment, and a validator must return the instance it was given.
            self.__dict__.update(with_inner(self, lambda _: {"fft": self.fft}))
        return self


def with_inner(config: Config, change: Callable[[ModelConfig], Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a config that contain models, with what ``change`` gives for each of these updated in it."""

    def inside(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(inside, value))
        if isinstance(value, dict):
            return {key: inside(member) for key, member in value.items()}
        if not isinstance(value, Config):
            return value
        changes = with_inner(value, change)
        if isinstance(value, ModelConfig):
            changes.update(change(value))
        return BaseModel.model_copy(value, update=changes) if changes else value

    made = {name: inside(getattr(config, name)) for name in type(config).model_fields}
    return {name: value for name, value in made.items() if value != getattr(config, name)}


def parts_of(config: Config, path: str = "") -> Iterator[tuple[str, PartConfig]]:
    """Every part named anywhere in a config, with its path: ``block.mixer.filter``."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        here = f"{path}.{name}" if path else name
        members: Iterable[tuple[Any, Any]] = ((None, value),)
        if isinstance(value, tuple | dict):
            members = value.items() if isinstance(value, dict) else enumerate(value)
        for key, member in members:
            if isinstance(member, Config):
                there = here if key is None else f"{here}.{key}"
                if isinstance(member, PartConfig):
                    yield there, member
                yield from parts_of(member, there)
