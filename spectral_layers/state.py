"""The state of a causal part between calls.

All parts share one class: a tree of named tensors whose first axis is the batch, with the number of tokens of each row
so far. Copying, reordering, rewinding and saving are therefore implemented once.

A call consumes its state (it may reuse the memory): :meth:`State.clone` a state to continue it twice.

A state does not follow changes of the weights: a stream continued after a change mixes old and new results and still
uses the cached kernels of long filters. Start a new stream for new weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree

from spectral_core.errors import StateError
from spectral_core.trees import tree
from spectral_layers.weight_cache import WeightCache


class Output(Protocol):
    """Any output with a state."""

    @property
    def state(self) -> State | None: ...


@dataclass(eq=False, repr=False)  # FSDP2 looks for tensors inside of dataclasses
class State:
    """The state of a sequence after some tokens.

    owner: name of the part that continues it. position: (B,) tokens of each row so far. tensors: with the batch first.
    parts: states of the parts inside the owner. kernels: a cache of values computed from weights alone. It has no batch
    axis; later states of the stream, clones and selections share it; in saved, copied and pickled states it is empty.
    """

    owner: str
    position: Tensor
    tensors: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, State] = field(default_factory=dict)
    kernels: WeightCache | None = None
    _consumed: bool = False
    _journal: Journal | None = None

    def __post_init__(self) -> None:
        self.tensors = dict(self.tensors or {})
        self.parts = dict(self.parts or {})
        if self.kernels is None and not torch.compiler.is_compiling():  # traced graphs have no cache
            self.kernels = WeightCache()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise self._incomplete(f"no {name!r}")
        return self.tensors[name]

    def part(self, name: str) -> State:
        """The state of the part of that name inside the owner."""
        if name not in self.parts:
            raise self._incomplete(f"nothing of its part {name!r}")
        return self.parts[name]

    def _incomplete(self, missing: str) -> StateError:
        return StateError(
            f"this state of {self.owner} holds {missing}: it was saved by another release, or incompletely."
        )

    def consume(self, owner: str, batch: int) -> State:
        """Mark the state as consumed. Raises StateError for another owner or batch, or if it was consumed before."""
        self._require_unconsumed()
        if self.owner != owner:
            raise StateError(f"this state belongs to {self.owner}; it cannot continue {owner}.")
        if self.position.shape[0] != batch:
            raise StateError(
                f"this state has {self.position.shape[0]} rows, the input {batch}. Use select(indices) to match them."
            )
        self._consumed = True
        return self

    def clone(self) -> State:
        """A deep copy of the tensors."""
        return self._map(torch.Tensor.clone)

    def select(self, indices: Tensor) -> State:
        """The rows at ``indices``, in that order, repeats allowed: reorders beams, drops finished rows."""
        return self._map(lambda tensor: tensor.index_select(0, indices.to(tensor.device)))

    def reserve(self, *, rewind: int) -> State:
        """Enable :meth:`rewind` by up to that many tokens, at the cost of two snapshots. Returns self."""
        if rewind < 1:
            raise StateError(f"reserve(rewind=...) takes at least 1 token; got {rewind}.")
        self._journal = Journal.begin(self, rewind)
        return self

    def rewind(self, tokens: int, step: Callable[[Tensor, State], Output]) -> State:
        """The state as it was ``tokens`` tokens ago; consumes this one.

        step: continues a state by inputs: ``lambda x, s: part(x, state=s, return_state=True)``. Raises StateError if
        fewer tokens were reserved, and leaves the state unchanged then.
        """
        self._require_unconsumed()
        if self._journal is None:
            raise StateError("nothing to rewind to: call state.reserve(rewind=R) before continuing the state.")
        earlier = self._journal.rewind(tokens, step)
        self._consumed = True
        return earlier

    def save(self) -> dict[str, Tensor]:
        """All tensors under flat names, for safetensors: contiguous copies without gradients.

        The snapshots for rewinding are not included.
        """
        self._require_unconsumed()
        own = {"position": self.position, **self.tensors}
        flat = {
            f"{self.owner}:{name}": tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in own.items()
        }
        for name, part in self.parts.items():
            flat.update({f"{name}/{key}": tensor for key, tensor in part.save().items()})
        return flat

    @classmethod
    def load(cls, flat: Mapping[str, Tensor]) -> State:
        """The state from the tensors of :meth:`save`. Raises StateError for other tensors."""
        owner = ""
        own: dict[str, Tensor] = {}
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in flat.items():
            head, slash, rest = key.partition("/")
            if slash:
                parts.setdefault(head, {})[rest] = tensor
            else:
                owner, _, name = key.rpartition(":")
                own[name] = tensor
        if "position" not in own:
            raise StateError("these tensors are not a saved state: they have no position. Load what save() returned.")
        return cls(owner, own.pop("position"), own, {name: cls.load(part) for name, part in parts.items()})

    def record(self, previous: State | None, inputs: Tensor, *, ragged: bool) -> State:
        """Continue the snapshots of ``previous``, from which a call on ``inputs`` computed this state. Returns self."""
        if previous is not None and previous._journal is not None:
            journal = previous._journal
            self._journal = Journal.begin(self, journal.limit) if ragged else journal.extended(self, inputs)
        return self

    def _map(self, function: Callable[[Tensor], Tensor]) -> State:
        self._require_unconsumed()
        mapped = self._bare(function)
        if self._journal is not None:
            mapped._journal = self._journal.map(function)
        return mapped

    def _require_unconsumed(self) -> None:
        if self._consumed:
            raise StateError(
                "this state was already continued, and a call consumes its state. Use the state the call returned, "
                "or a clone() taken before the call."
            )

    def _bare(self, function: Callable[[Tensor], Tensor]) -> State:
        """A mapped copy without the snapshots for rewinding."""
        return State(
            self.owner,
            function(self.position),
            {name: function(tensor) for name, tensor in self.tensors.items()},
            {name: part._bare(function) for name, part in self.parts.items()},
            self.kernels,
        )

    def __repr__(self) -> str:
        return f"State({self.owner}, position={self.position.tolist()})"


@tree
@dataclass(frozen=True)
class Journal:
    """Two snapshots at least ``limit`` tokens apart, and the inputs since the older one, for rewinding.

    The older snapshot is at least ``limit`` tokens before the newest state, or at the call of ``reserve``. Calls with
    rows of different lengths restart the journal: rows cannot be rewound across them by one common number of tokens.
    """

    limit: int
    older: State
    newer: State
    between: tuple[Tensor, ...]
    since: tuple[Tensor, ...]

    @classmethod
    def begin(cls, state: State, limit: int) -> Journal:
        snapshot = state._bare(torch.Tensor.clone)
        return cls(limit, snapshot, snapshot, (), ())

    def extended(self, state: State, inputs: Tensor) -> Journal:
        since = (*self.since, inputs.clone())  # the caller may write its next tokens into the same memory
        if _tokens(since) < self.limit:
            return Journal(self.limit, self.older, self.newer, self.between, since)
        return Journal(self.limit, self.newer, state._bare(torch.Tensor.clone), since, ())

    def rewind(self, tokens: int, step: Callable[[Tensor, State], Output]) -> State:
        inputs = (*self.between, *self.since)
        if not 0 <= tokens <= min(self.limit, _tokens(inputs)):
            raise StateError(
                f"cannot rewind by {tokens} tokens: {min(self.limit, _tokens(inputs))} of {self.limit} reserved tokens "
                "are available. Reserve more, or clone() at the points you return to."
            )
        keep = _tokens(inputs) - tokens
        state = self.older._bare(torch.Tensor.clone)
        state.reserve(rewind=self.limit)
        if not keep:
            return state
        rewound = step(torch.cat(inputs, 1)[:, :keep], state).state
        assert rewound is not None
        return rewound

    def map(self, function: Callable[[Tensor], Tensor]) -> Journal:
        older = self.older._bare(function)
        newer = older if self.newer is self.older else self.newer._bare(function)
        return Journal(self.limit, older, newer, tuple(map(function, self.between)), tuple(map(function, self.since)))


def _flatten_with_keys(state: State) -> tuple[list[tuple[_pytree.KeyEntry, Any]], str]:
    state._require_unconsumed()
    names = ("position", "tensors", "parts", "_journal")
    return [(_pytree.GetAttrKey(name), getattr(state, name)) for name in names], state.owner


def _flatten(state: State) -> tuple[list[Any], str]:
    branches, owner = _flatten_with_keys(state)
    return [branch for _, branch in branches], owner


def _unflatten(children: Iterable[Any], owner: str) -> State:
    position, tensors, parts, journal = children
    return State(owner, position, tensors, parts, _journal=journal)


_pytree.register_pytree_node(
    State,
    _flatten,
    _unflatten,
    serialized_type_name=f"{State.__module__}.State",
    flatten_with_keys_fn=_flatten_with_keys,
)


def _tokens(inputs: tuple[Tensor, ...]) -> int:
    return sum(chunk.shape[1] for chunk in inputs)
