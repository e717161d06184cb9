"""What a causal part remembers between calls.

One class serves every part: a tree of named tensors whose first axis is the batch, and the number of tokens each row
has absorbed. Because it is only that, copying, reordering, rewinding and saving are written once.

A call consumes the state it is given (it may reuse its memory): keep a :meth:`State.clone` to continue twice.

A state belongs to its caller, and outlives the weights that made it: a stream that goes on after they changed is a
mixture of old and new. What it computed from them alone, kernels of long filters, it keeps as well. Begin a new stream
for new weights.
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
from spectral_layers.kept import Kept


class Output(Protocol):
    """What a part returns, of which only the state matters here."""

    @property
    def state(self) -> State | None: ...


@dataclass(eq=False, repr=False)  # FSDP2 looks for tensors inside of dataclasses
class State:
    """owner: the part it belongs to. position: (B,) tokens absorbed per row. tensors, parts: what it remembers.

    kernels: what the stream computed from weights alone, at its first use. It has no batch axis: states that follow,
    clones and selections share it. Saved, copied and pickled states are without, and make it again.
    """

    owner: str
    position: Tensor
    tensors: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, State] = field(default_factory=dict)
    kernels: Kept | None = None
    _consumed: bool = False
    _journal: Journal | None = None

    def __post_init__(self) -> None:
        self.tensors = dict(self.tensors or {})
        self.parts = dict(self.parts or {})
        if self.kernels is None and not torch.compiler.is_compiling():  # traced graphs keep nothing
            self.kernels = Kept()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise StateError(
                f"this state of {self.owner} holds no {name!r}: it was saved by another release, or in part."
            )
        return self.tensors[name]

    def part(self, name: str) -> State:
        """The state of one of its parts."""
        if name not in self.parts:
            raise StateError(
                f"this state of {self.owner} holds nothing of its part {name!r}: it was saved by another release, "
                "or in part."
            )
        return self.parts[name]

    def consume(self, owner: str, batch: int) -> State:
        """Hand the content to the part that continues it. Raises when it does not fit or was consumed before."""
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
        """A copy with memory of its own."""
        return self._map(torch.Tensor.clone)

    def select(self, indices: Tensor) -> State:
        """The rows at ``indices``, in that order, repeats allowed: reorders beams, drops finished rows."""
        return self._map(lambda tensor: tensor.index_select(0, indices.to(tensor.device)))

    def reserve(self, *, rewind: int) -> State:
        """Keep what :meth:`rewind` needs to go back up to that many tokens. Costs two snapshots. Returns self."""
        if rewind < 1:
            raise StateError(f"reserve(rewind=...) takes at least 1 token; got {rewind}.")
        self._journal = Journal.begin(self, rewind)
        return self

    def rewind(self, tokens: int, step: Callable[[Tensor, State], Output]) -> State:
        """The state as it was that many tokens ago; consumes this one.

        step: the owning part on inputs behind a state: ``lambda x, s: part(x, state=s, return_state=True)``.
        Raises when nothing was reserved, or less than that; the state is then as it was.
        """
        self._require_unconsumed()
        if self._journal is None:
            raise StateError("nothing to rewind to: call state.reserve(rewind=R) before continuing it.")
        earlier = self._journal.rewind(tokens, step)
        self._consumed = True
        return earlier

    def save(self) -> dict[str, Tensor]:
        """All tensors under flat names, ready for safetensors: copies without padding of memory or gradients.

        The reserve for rewinding is not included.
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
        """The state that :meth:`save` flattened."""
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
            raise StateError("these tensors are not a saved state: they name no position.")
        return cls(owner, own.pop("position"), own, {name: cls.load(part) for name, part in parts.items()})

    def record(self, previous: State | None, inputs: Tensor, *, ragged: bool) -> State:
        """Carry a reserve over the call that made this state out of ``previous``. Returns self."""
        if previous is not None and previous._journal is not None:
            journal = previous._journal
            self._journal = Journal.begin(self, journal.limit) if ragged else journal.extended(self, inputs)
        return self

    def _map(self, function: Callable[[Tensor], Tensor]) -> State:
        self._require_unconsumed()
        made = self._bare(function)
        if self._journal is not None:
            made._journal = self._journal.map(function)
        return made

    def _require_unconsumed(self) -> None:
        if self._consumed:
            raise StateError(
                "this state was already continued, and a call consumes its state. Use the state the call returned, "
                "or a clone() taken before the call."
            )

    def _bare(self, function: Callable[[Tensor], Tensor]) -> State:
        """A mapped copy without the reserve."""
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
    """Two snapshots at least ``limit`` tokens apart, and the inputs since the older one.

    The newest state always lies at least ``limit`` tokens behind the older snapshot, or since the reserve began.
    Calls with rows of different lengths begin it anew: rows cannot be rewound by one common count across them.
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
                f"cannot rewind by {tokens} tokens: {min(self.limit, _tokens(inputs))} can be, "
                f"of {self.limit} reserved. Reserve more, or clone() at the points you return to."
            )
        keep = _tokens(inputs) - tokens
        state = self.older._bare(torch.Tensor.clone)
        state.reserve(rewind=self.limit)
        if not keep:
            return state
        made = step(torch.cat(inputs, 1)[:, :keep], state).state
        assert made is not None
        return made

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
    made = State(owner, position, tensors, parts)
    made._journal = journal
    return made


_pytree.register_pytree_node(
    State,
    _flatten,
    _unflatten,
    serialized_type_name=f"{State.__module__}.State",
    flatten_with_keys_fn=_flatten_with_keys,
)


def _tokens(inputs: tuple[Tensor, ...]) -> int:
    return sum(chunk.shape[1] for chunk in inputs)
