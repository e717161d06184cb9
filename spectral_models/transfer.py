"""Begins from a checkpoint: its weights go into another model, whose body they fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from spectral_models.assembly import build_without_memory
from spectral_models.checkpoint import WEIGHTS, load_tokenizer, read_checkpoint
from spectral_models.config import ModelConfig, parts_of
from spectral_models.data import Tokenizer
from spectral_models.data.config import AnyDataConfig
from spectral_models.data.tokenizers import TokenizerConfig
from spectral_models.errors import CheckpointError, DataError
from spectral_models.inputs import TokenInput
from spectral_models.model import SpectralModel
from spectral_models.registries import MODELS
from spectral_models.seal import sealed
from spectral_models.weights import current_name, earlier_names, misfits

_SHOWN = 6


@dataclass(frozen=True)
class Transfer:
    """Which weights a model took from a checkpoint, by name.

    source: the checkpoint. sha256: of its weights. taken: in the model. grown: taken into the first rows of a larger
    vocabulary. new: in the model, freshly initialised. left: in the checkpoint, not used. differences: values of the
    configs that differ where the weights went, as ``path: before -> now``.
    """

    source: Path
    sha256: str
    taken: tuple[str, ...]
    grown: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]
    differences: tuple[str, ...]

    def origin(self) -> dict[str, Any]:
        """What a checkpoint records of where its model began. new: parameters that begin new, or have rows that do."""
        return {"checkpoint": str(self.source), "weights_sha256": self.sha256, "new": [*self.new, *self.grown]}

    def lines(self) -> list[str]:
        """For people."""
        found = [f"begins from {self.source}: {len(self.taken) + len(self.grown)} tensors taken"]
        for what, names in (
            ("with new rows at the end", self.grown),
            ("begin new", self.new),
            ("left in the checkpoint", self.left),
            ("differ in the config", self.differences),
        ):
            if names:
                found.append(f"  {len(names)} {what}: {_some(names)}")
        return found


def transfer_weights(model: SpectralModel, path: str | Path) -> Transfer:
    """Copy the weights of a checkpoint into a model that has the same body, and perhaps another task.

    The body is the model itself or a model inside it (the encoder of a classifier), and the same of the checkpoint's;
    of all such pairs, the one with the most weights in common. Every weight of the body must be in the checkpoint with
    its shape, except: rows of tokens that a larger vocabulary has more, heads (:attr:`SpectralModel.heads`) of another
    task, other labels or which the checkpoint has not. What is outside the body begins new, as ``model`` has it.
    Values are cast to the model's dtype.

    path: a checkpoint or the directory of a finished run. Raises CheckpointError, with what fits and what does not, and
    leaves the model unchanged, for a checkpoint of another architecture, of fewer tokens, or of int8 weights.
    """
    config, stored, directory = read_checkpoint(path)
    source = build_without_memory(config)
    earlier = earlier_names(source)
    stored = {current_name(name, earlier): tensor for name, tensor in stored.items()}
    body = max(
        (_Pair(model, *ours, *theirs, stored) for ours in _models(model) for theirs in _models(source)),
        key=lambda pair: (pair.size, -len(pair.there), -len(pair.here)),
    )
    if problem := body.problem():
        raise CheckpointError(f"{directory} does not fit: {problem}")
    state = model.state_dict()
    for name, tensor in body.common.items():
        state[name] = tensor.to(state[name].dtype)
    for name, tensor in body.grown.items():
        rows = state[name].clone()
        rows[: len(tensor)] = tensor.to(rows.dtype)
        state[name] = rows
    model.load_state_dict(state)
    used = {*body.common, *body.grown}
    transfer = Transfer(
        directory,
        sealed(directory)[WEIGHTS]["sha256"],
        taken=tuple(body.common),
        grown=tuple(body.grown),
        new=tuple(name for name, _ in model.named_parameters() if name not in used),
        left=tuple(name for name in stored if body.name_of(name) not in used),
        differences=tuple(body.differences()),
    )
    model.origin = transfer.origin()
    return transfer


class _Pair:
    """A model in the target and one in the source, and the weights they have in common, by the target's names."""

    def __init__(
        self,
        model: SpectralModel,
        there: str,
        target: SpectralModel,
        here: str,
        source: SpectralModel,
        stored: Mapping[str, Tensor],
    ) -> None:
        self.there, self.target = there, target
        self.here, self.source = here, source
        self.whole = model.state_dict()
        self.inside = [name for name in self.whole if name.startswith(there)]
        self.given = {name: tensor for old, tensor in stored.items() if (name := self.name_of(old)) is not None}
        self.heads = tuple(self._heads())
        self.common: dict[str, Tensor] = {}
        self.grown: dict[str, Tensor] = {}
        sizes = _vocabularies(self.source), _vocabularies(self.target)
        for name in self.inside:
            if name not in self.given or _under(name, self.heads):
                continue
            now, before = self.whole[name], self.given[name]
            if now.shape == before.shape:
                self.common[name] = before
            elif _grew(now, before, *sizes):
                self.grown[name] = before
        self.size = sum(tensor.numel() for tensor in (*self.common.values(), *self.grown.values()))

    def name_of(self, old: str) -> str | None:
        """The target's name of a weight of the source; None of those outside the body."""
        return self.there + old.removeprefix(self.here) if old.startswith(self.here) else None

    def _heads(self) -> Iterator[str]:
        """Names of the heads that begin new."""
        known = dict(_models(self.source))
        for path, now in _models(self.target):
            before = known.get(path)
            same = before is not None and (type(before), before.config.label_set) == (type(now), now.config.label_set)
            for head in now.heads:
                name = f"{self.there}{path}{head}"
                if not same or not any(_under(given, (name,)) for given in self.given):
                    yield name

    def problem(self) -> str:
        """Why the body cannot be taken; empty if it can."""
        ours, theirs = f"the model's {self.target.config.type}", f"the checkpoint's {self.source.config.type}"
        turned = self.target.config.direction != self.source.config.direction
        differences = _some(tuple(self.differences()))
        advice = f" Their configs differ: {differences}." if differences else ""
        if turned:
            advice += (
                f" {theirs[0].upper()}{theirs[1:]} is {self.source.config.direction}, {ours} is not: an encoder takes "
                "a language model's weights with causal: true."
            )
        if not self.size:
            return (
                f"no weight of {theirs} fits {ours}.{advice} Name a checkpoint of the same architecture, or leave out "
                "model in the config, which is then the checkpoint's."
            )
        taken = self.common.keys() | self.grown.keys()
        wanted = {name: self.whole[name] for name in self.inside if not (name in taken or _under(name, self.heads))}
        heads = (
            *self.heads,
            *(f"{self.there}{path}{head}" for path, model in _models(self.source) for head in model.heads),
        )
        given = {
            name: tensor
            for name, tensor in self.given.items()
            if name in wanted or not (name in taken or _under(name, heads))
        }
        found = misfits(wanted, given)
        if not found and not turned:
            return ""
        return (
            f"{len(taken)} tensors of {theirs} fit {ours}{'; ' if found else ''}{found}.{advice} Give the model the "
            "checkpoint's parts and sizes, or leave out model in the config, which is then the checkpoint's. A "
            "vocabulary may only grow."
        )

    def differences(self) -> Iterator[str]:
        now, before = (dict(_leaves(model.config.model_dump(mode="json"))) for model in (self.target, self.source))
        for path in (path for path in now if path in before):
            if now[path] != before[path] and path != "type":
                yield f"{path}: {before[path]} -> {now[path]}"


def first_tokenizer(data: AnyDataConfig, path: str | Path) -> Tokenizer | None:
    """The checkpoint's tokenizer, unless it reads no tokens or the data's config names one that is not learned."""
    named: TokenizerConfig | None = getattr(data, "tokenizer", None)
    if named is None or ("tokenizer" in data.model_fields_set and named.type != "bpe"):
        return None
    return _tokenizer_of(path)


def _tokenizer_of(path: str | Path) -> Tokenizer | None:
    source = build_without_memory(read_checkpoint(path)[0])
    reads_tokens = any(_vocabularies(model) for _, model in _models(source))
    return load_tokenizer(path) if reads_tokens else None


def check_tokenizer(tokenizer: Tokenizer | None, path: str | Path) -> None:
    """Raise DataError unless every token of the checkpoint's tokenizer has the same id in this one."""
    source = None if tokenizer is None else _tokenizer_of(path)
    if tokenizer is None or source is None:
        return
    before, now = source.spellings(), tokenizer.spellings()
    changed = [token for token, spelling in enumerate(before) if now[token : token + 1] != [spelling]]
    if changed:
        first = changed[0]
        other = repr(now[first]) if first < len(now) else "nothing"
        raise DataError(
            f"the tokenizer is not the one of {path}: {len(changed)} of its {len(before)} tokens differ (token {first} "
            f"is {before[first]!r} there, and {other} here). Leave out data.tokenizer, which is then the checkpoint's."
        )


def completed(given: Any, source: ModelConfig, task: str | None) -> Any:
    """A run's ``model``, in which the checkpoint it begins from says what is left out.

    given: what the run's config has there; None for nothing. source: the checkpoint's config. task: the run's, if it
    names one. A mapping of a type that the checkpoint's model does not become for any task is left as it is, and so is
    everything that is no mapping.
    """
    if not isinstance(given, Mapping | None):
        return given
    given = given or {}
    for base in _becomes(source, task):
        if given.get("type", base.type) == base.type:
            dropped = {"labels"} if base is source else {"labels", "num_labels"}
            return _filled(given, {name: value for name, value in base.model_dump().items() if name not in dropped})
    return given


def _becomes(source: ModelConfig, task: str | None) -> Iterator[ModelConfig]:
    """The models that a checkpoint's can be used for, itself first, then by the tasks of the models in it."""
    models = [source, *(part for _, part in parts_of(source) if isinstance(part, ModelConfig))]
    for model in models:
        if task is None:
            yield model
        yield from (model.for_task(name) for name in model.tasks if task in (None, name))


def _filled(given: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a model, and of the models inside it, over those of another."""
    made = {**base, **given}
    for one, other in (("block", "layers"), ("layers", "block")):
        if given.get(one) is not None and given.get(other) is None:
            made[other] = None
    for name, value in given.items():
        inner = base.get(name)
        if not (isinstance(value, Mapping) and isinstance(inner, Mapping) and inner.get("type") in MODELS):
            continue
        if value.get("type", inner["type"]) == inner["type"]:
            made[name] = _filled(value, inner)
    return made


def _models(model: SpectralModel, path: str = "") -> Iterator[tuple[str, SpectralModel]]:
    """A model and all models in it, each with the beginning of its weights' names."""
    yield path, model
    for name, inner in model.submodels().items():
        yield from _models(inner, f"{path}{name}.")


def _under(name: str, modules: Iterable[str]) -> bool:
    """Whether a weight is one of these, or inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _grew(now: Tensor, before: Tensor, earlier: set[int], later: set[int]) -> bool:
    """Whether a weight has a row for each token, and a larger vocabulary made it longer."""
    if not (now.dim() and before.dim() and now.shape[1:] == before.shape[1:] and len(now) > len(before)):
        return False
    return len(before) in earlier and len(now) in later


def _vocabularies(model: SpectralModel) -> set[int]:
    return {spec.vocab_size for spec in model.input_specs() if isinstance(spec, TokenInput)}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Plain data by dotted paths."""
    if isinstance(value, Mapping | list) and value:
        members = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, member in members:
            yield from _leaves(member, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
