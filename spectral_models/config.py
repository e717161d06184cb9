"""Configs of blocks, by name or by their parts, and the base of configs of model variants."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping
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

from spectral_core import FFT_BACKENDS, FFTBackend, FFTBackendConfig, fft_backend
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

    A bare name is short for a named block. In a mapping with a name as ``type``, other keys replace options of that
    block: ``{type: sparse, mixer: {sparsity: {share: 0.1}}}``.
    """

    mixer: Annotated[MixerConfig, OneOf(MIXERS)] = part("gated_convolution")
    """Mixes tokens along time."""
    feedforward: Annotated[FeedForwardConfig, OneOf(FEEDFORWARDS)] = part("swiglu")
    """Applied to each token by itself."""
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    """Normalisation in front of the mixer and of the feed-forward."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the outputs of both, in training."""
    feedforward_chunk: Length | None = None
    """Tokens of a row that the feed-forward computes at a time. In training the backward pass recomputes each chunk, to
    save the memory of activations. Results do not change. Null computes all tokens at once."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        block, *others = spelled_out(data)
        if others:
            raise problem((), f"{_name_of(data)!r} is {1 + len(others)} blocks in turn, not one. Name it in layers.")
        return block

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        parts = handler.resolve_ref_schema(handler(schema))
        named = {"enum": list_blocks(), "description": "A named block that the other keys change."}
        mapping = {**parts, "properties": {"type": named, **parts["properties"]}}
        return {"anyOf": [{"enum": list_blocks()}, mapping]}


def list_blocks(pattern: str = "*") -> list[str]:
    """Names of blocks (``block: sparse``, ``layers: [dense, moe]``) that match a shell-style pattern."""
    return sorted(fnmatch.filter(_named_blocks(), pattern))


def spelled_out(value: Any) -> list[Any]:
    """The data of the blocks that a name, or a mapping with a name as ``type``, stands for; else the value alone.

    Other keys of the mapping replace options of each of these blocks. A nested mapping without a ``type`` changes
    options of the part that is there, as overrides do. Raises a ValidationError for unknown names.
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
    changes = {} if isinstance(value, str) else {key: option for key, option in value.items() if key != "type"}
    return [override(block, dict(_leaves(changes)), BlockConfig) for block in _named_blocks()[name]]


def block_as_layers(data: Any) -> Any:
    """A model's data, with a ``block`` whose name is several blocks in turn moved to ``layers``."""
    if not isinstance(data, Mapping) or data.get("layers") is not None:
        return data
    name = _name_of(data.get("block"))
    if not isinstance(name, str) or len(_named_blocks().get(name, ())) < 2:
        return data
    return {**data, "block": None, "layers": [data["block"]]}


def _name_of(value: Any) -> Any:
    """The name in a block's data; None if it has none."""
    if isinstance(value, Mapping):
        return value.get("type")
    return value if isinstance(value, str) else None


def _leaves(changes: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested data, by dotted paths: all but mappings, and mappings with a ``type``."""
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


Blocks = Annotated[
    tuple[Annotated[BlockConfig, WrapValidator(_each)], ...],
    Field(min_length=1, max_length=1024),
    AfterValidator(lambda members: tuple(chain.from_iterable(members))),
]
"""Blocks in turn. A name that stands for several blocks is replaced by these."""


class ModelConfig(PartConfig):
    """Base of the configs of model variants; ``build()`` makes the model.

    Commands, training and exports use the declarations here and, of a built model, those of :class:`SpectralModel`,
    never a variant's class.
    """

    must_return = (("build", SpectralModel),)

    decoder: ClassVar[bool] = False
    """Whether the model is strictly causal; ``build_model`` checks it if there are third-party parts."""
    reads_source: ClassVar[bool] = False
    """Whether a decoder reads a source; the source comes before the tokens in the inputs."""
    pools: ClassVar[bool] = False
    """Whether the output has ``pooled``, (B, D): one vector for each row."""

    fft: Annotated[FFTBackendConfig, OneOf(FFT_BACKENDS)] | None = None
    """FFT backend of every spectral operator, also of models inside this one. Null keeps the backends of those, and
    means ``auto`` for other operators. A named backend never falls back to another."""

    @property
    def direction(self) -> Literal["causal", "bidirectional"]:
        """Whether features at t depend on tokens up to t only, or on the whole row."""
        return "causal" if self.decoder else "bidirectional"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that can train the model, or what :meth:`for_task` returns; the default first."""
        return ()

    def for_task(self, task: str) -> ModelConfig:
        """The config of the model to train for one of ``tasks``: this one, a changed one, or one that contains it."""
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
        """The config with options set from the training data. A variant ignores those that it does not have.

        labels: names, by number. max_length: tokens of a text that are read. image_size: height and width; image_sizes:
        by the input's name, for a model with several inputs. eos_token_id: ends a target.
        """
        return self

    def build(self) -> SpectralModel:
        raise NotImplementedError(f"{type(self).__name__} must define build()")

    @property
    def label_set(self) -> LabelSet | None:
        """The labels of logits (B, num_labels) of rows, or (B, L, num_labels) of tokens; None for other models."""
        return None

    def reader(self) -> Reader | None:
        """Reads image or audio files for the model's one input; None if that is text, or there are several."""
        return None

    def readers(self) -> Mapping[str, Reader]:
        """Readers of files by the input's name, for a model with several inputs; inputs of text have none."""
        return {}

    @property
    def blocks(self) -> tuple[BlockConfig, ...]:
        """The distinct blocks of a stack, in turn; empty without a stack."""
        return ()

    def stack(self) -> Iterator[tuple[str, BlockConfig]]:
        """All blocks of a stack, each with the path of its config; empty without a stack."""
        return iter(())

    def build_fft(self) -> FFTBackend:
        """The FFT backend for operators of this model, not of models inside it."""
        return fft_backend("auto") if self.fft is None else self.fft.build()

    @model_validator(mode="after")
    def _pass_on_fft(self) -> ModelConfig:
        if self.fft is not None:
            # The config is frozen, and a validator must return the same instance.
            self.__dict__.update(with_inner(self, lambda _: {"fft": self.fft}))
        return self


def with_inner(config: Config, change: Callable[[ModelConfig], Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a config that contain models, with these updated by the fields that ``change`` returns."""

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

    fields = {name: inside(getattr(config, name)) for name in type(config).model_fields}
    return {name: value for name, value in fields.items() if value != getattr(config, name)}


def parts_of(config: Config, path: str = "") -> Iterator[tuple[str, PartConfig]]:
    """All parts at any depth of a config, with their paths: ``block.mixer.filter``."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        here = f"{path}.{name}" if path else name
        members = {here: value}
        if isinstance(value, tuple | dict):
            keys = value.items() if isinstance(value, dict) else enumerate(value)
            members = {f"{here}.{key}": member for key, member in keys}
        for there, member in members.items():
            if isinstance(member, PartConfig):
                yield there, member
            if isinstance(member, Config):
                yield from parts_of(member, there)
