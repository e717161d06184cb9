"""Checks of weights: any way of loading them works, they are read inside calls, and nothing is cached."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spectral_core import convolve, fft_backend
from spectral_core.testing import assert_close
from spectral_layers.filters.base import Filter, RecurrentFilter
from spectral_layers.testing.cases import (
    FeedForwardCase,
    FilterCase,
    FrontEndCase,
    FusionCase,
    GateCase,
    MixerCase,
    PartCase,
    PositionCase,
    SparsityCase,
    has_parameters,
)
from spectral_layers.testing.check import for_all, normal, only_for
from spectral_layers.testing.fusions import given, streams_of
from spectral_layers.testing.gates import signals, spectral_view
from spectral_layers.testing.positions import placed
from spectral_layers.testing.streaming import continued
from spectral_layers.weight_cache import fixed_weights

_BOUND = 1e-9


@only_for(has_parameters)
def check_nothing_is_remembered_of_the_weights(case: PartCase[Any]) -> None:
    """Outputs follow the current weights, after ``p.data.copy_`` and after assigning new parameters.

    Neither changes the mode or runs a hook, so a cache keyed by versions, addresses or steps would be stale.
    """

    def through_data(part: nn.Module, new: nn.Module) -> None:
        for mine, other in zip(part.parameters(), new.parameters(), strict=True):
            mine.data.copy_(other)

    def by_assignment(part: nn.Module, new: nn.Module) -> None:
        part.load_state_dict(copy.deepcopy(new).state_dict(), assign=True)

    writes: tuple[Callable[[nn.Module, nn.Module], None], ...] = (through_data, by_assignment)
    for write in writes:
        part, new = case.build(), _moved(case)
        answers(case, part)
        with fixed_weights(part):
            answers(case, part)
        write(part, new)
        after, wanted = answers(case, part), answers(case, new)
        for name, expected in wanted.items():
            what = f"{case}: {name} after new weights, written {write.__name__.replace('_', ' ')}"
            assert_close(f"{what} (is something kept of the old ones?)", after[name], expected, _BOUND)


@for_all
def check_it_survives_meta_and_casts(case: PartCase[Any]) -> None:
    """Fixed tables are right after weights were loaded following ``to_empty``, half precision, or a cast to float64."""
    with _default_dtype(torch.float64):
        exact = case.build()
    wanted, weights = answers(case, exact), exact.state_dict()
    with torch.device("meta"):
        empty = case.build()
    empty = empty.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*empty.parameters(), *empty.buffers()):
            tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
    for how, part in (
        ("built on meta, after to_empty", empty),
        ("that was in bfloat16", copy.deepcopy(exact).bfloat16().double()),
        ("built in float32 and cast to float64", case.build(torch.float32).double()),
    ):
        part.load_state_dict(weights)
        for name, found in answers(case, part).items():
            assert_close(
                f"{case}: {name} of a part {how}, its weights loaded (tensors computed while building are no weights: "
                "hold them as a Constant, spectral_layers.constant)",
                found,
                wanted[name],
                _BOUND,
            )


@only_for(has_parameters)
def check_weights_are_read_in_their_modules_call(case: PartCase[Any]) -> None:
    """Weights may be present only during calls: a module's own during its call, or all during the part's.

    So do accelerate's offloading, FSDP and ZeRO-3. Outside of calls the check puts weights on the meta device.
    """
    part: nn.Module = case.build()
    wanted = answers(case, part)
    owners = [module for module in part.modules() if any(True for _ in module.parameters(recurse=False))]
    for whole in (False, True):
        units = [(part, owners)] if whole else [(owner, [owner]) for owner in owners]
        if (error := _wrong(case, part, units, wanted)) is None:
            continue
        names = {module: name for name, module in part.named_modules()}
        read = [names[unit] or "itself" for unit, owned in units if _wrong(case, part, [(unit, owned)], wanted)]
        raise AssertionError(
            f"{case}: parameters are read outside the call of the module that owns them ({', '.join(read)}): {error} "
            "Call the module, or make the method that reads them an entry (spectral_layers.entry)."
        )


def answers(case: PartCase[Any], part: Any) -> dict[str, Tensor]:
    """Outputs of a part for fixed inputs, in all the ways in which it is used, without gradients."""
    with torch.no_grad():
        if isinstance(case, FilterCase):
            return _of_filter(case, part)
        if isinstance(case, MixerCase):
            x = normal(2, 12, case.hidden_dim)
            found = {"y": part(x).y}
            if case.causal and part.streams:
                found["a stream"], _ = continued(part, None, x.split([9, 1, 2], 1))
            return found
        if isinstance(case, GateCase | SparsityCase):
            modulation = part(spectral_view(signals(case, 16)))
            fields = {"gain": modulation.gain, "phase": modulation.phase}
            return {name: field for name, field in fields.items() if field is not None}
        if isinstance(case, FeedForwardCase):
            return {"y": part(normal(2, 7, case.hidden_dim)).y}
        if isinstance(case, FusionCase):
            return _of_fusion(case, part)
        if isinstance(case, PositionCase):
            return {"x": placed(part, normal(2, 9, case.hidden_dim), torch.arange(9)[None])}
        assert isinstance(case, FrontEndCase)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return {"features": part(case.inputs(part, 2)).x}


def _of_filter(case: FilterCase, part: Filter) -> dict[str, Tensor]:
    u, fft = normal(2, case.channels, 40), fft_backend("torch")
    found = {"kernel": part.kernel(40), "y": convolve(u, part.prepared(40, fft), backend=fft)}
    if isinstance(part, RecurrentFilter):
        memory = part.absorb(None, u, None)
        found["what it carries"] = part.carry(memory, 5)
        found["a step"], _ = part.step(memory, u[..., 0])
        found["a step by tables"], _ = part.step(memory, u[..., 0], *part.tables())
    return found


def _of_fusion(case: FusionCase, part: Any) -> dict[str, Tensor]:
    streams = given(case, target := next(iter(tensors := streams_of(case, part))), tensors)
    found = {"y": part(streams, target).y}
    if case.causal and part.streams:
        state = part.prepare({name: stream for name, stream in streams.items() if name != target})
        found["y after prepare"] = part({target: streams[target]}, target, state=state).y
    return found


def _moved(case: PartCase[Any]) -> nn.Module:
    """The part with other weights, not yet called."""
    part = case.build()
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(torch.randn_like(parameter))
    return part


def _wrong(
    case: PartCase[Any], part: nn.Module, units: list[tuple[nn.Module, list[nn.Module]]], wanted: dict[str, Tensor]
) -> str | None:
    """The error if weights are present only during the calls of their units; None if outputs are right."""
    with _offloaded(units):
        try:
            found = answers(case, part)
            for name, expected in wanted.items():
                assert_close(name, found[name], expected, _BOUND)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


@contextmanager
def _offloaded(units: list[tuple[nn.Module, list[nn.Module]]]) -> Iterator[None]:
    """Puts the parameters of each unit on the meta device, except during calls of the unit."""
    hooks, restored = [], []
    for unit, owned in units:
        here = [(owner, dict(owner.named_parameters(recurse=False))) for owner in owned]
        meta = [(owner, {name: nn.Parameter(p.to("meta")) for name, p in tensors.items()}) for owner, tensors in here]
        hooks.append(unit.register_forward_pre_hook(partial(_put, here)))
        hooks.append(unit.register_forward_hook(partial(_put, meta), always_call=True))
        restored.append(here)
        _put(meta)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for here in restored:
            _put(here)


def _put(values: list[tuple[nn.Module, dict[str, nn.Parameter]]], *_: Any) -> None:
    for owner, tensors in values:
        owner._parameters.update(tensors)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
