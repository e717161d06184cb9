"""Entries: methods of a module that are calls of it, so that its hooks run around them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spectral_layers.entry import Entered, entry
from spectral_layers.filters.resonant import Resonant


class Part(Entered):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor, *, more: float = 0.0) -> Tensor:
        return self.scaled(x) + more

    @entry
    def scaled(self, x: Tensor) -> Tensor:
        return self.scale * x


class Overrides(Part):
    def scaled(self, x: Tensor) -> Tensor:
        return super().scaled(x) + 1


def counted(part: nn.Module) -> list[str]:
    """Its calls, as hooks see them."""
    seen: list[str] = []
    part.register_forward_pre_hook(lambda *_: seen.append("in"))
    part.register_forward_hook(lambda *_: seen.append("out"), always_call=True)
    return seen


@pytest.mark.parametrize(("kind", "offset"), [(Part, 0.0), (Overrides, 1.0)])
def test_hooks_run_once_around_every_entry_and_forward(kind: type[Part], offset: float) -> None:
    part = kind()
    seen = counted(part)
    assert part.scaled(torch.ones(())) == 2 + offset
    assert seen == ["in", "out"]
    assert part(torch.ones(()), more=3.0) == 5 + offset
    assert seen == ["in", "out"] * 2, "what a call calls of its own module is inside of it"


def test_hooks_see_what_an_entry_is_given() -> None:
    part, given = Part(), []
    part.register_forward_pre_hook(lambda _, args: given.append(args))
    part.scaled(torch.ones(3))
    assert [tuple(args[0].shape) for args in given] == [(3,)]


def test_an_error_leaves_nothing_behind() -> None:
    part = Part()
    seen = counted(part)
    with pytest.raises(TypeError):
        part.scaled("text")
    part.scaled(torch.ones(()))
    assert seen == ["in", "out"] * 2


def test_threads_are_inside_by_themselves() -> None:
    part, barrier = Part(), threading.Barrier(2, timeout=10)
    seen = counted(part)

    def wait(*_: Any) -> None:
        barrier.wait()

    part.register_forward_pre_hook(wait)
    threads = [threading.Thread(target=part.scaled, args=(torch.ones(()),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == ["in", "in", "out", "out"]


def test_an_entry_may_take_the_place_of_forward() -> None:
    # As where torch.func.functional_call is to call it.
    made = Resonant(channels=2, modes=2, timescales=(2.0, 9.0))
    kernel = made.kernel(5)
    made.forward = made.kernel
    torch.testing.assert_close(made(5), kernel)
    torch.testing.assert_close(made.kernel(5), kernel)
    doubled = {name: 2 * parameter for name, parameter in made.named_parameters()}
    assert not torch.allclose(torch.func.functional_call(made, doubled, (5,)), kernel)


def test_compiled_entries_are_inlined() -> None:
    part = Part()
    torch.testing.assert_close(
        torch.compile(lambda x: part.scaled(x) + part(x), backend="eager", fullgraph=True)(torch.ones(3)),
        torch.full((3,), 4.0),
    )
