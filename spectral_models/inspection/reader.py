"""Reads the properties of a model's mixers; those that depend on the input, by running the model on a text.

Parts are read by their base class or methods, so third-party parts are read like ours:

=========================================  ===========================================================================
a ``Filter``                               its kernel
with ``poles()``                           also its poles (``spectral_layers.filters.base.Poles``)
a ``ShortConvolution``                     its taps
a ``Mixer`` with ``time_constants()``      (N,) tokens; with an attribute ``bandwidth`` (N,) also that
a ``Mixer`` with ``response(x)``           requested and realised gains (``spectral_layers.mixers.response.Response``)
a ``Gate`` or ``Sparsity`` in a mixer      its requested gain, phase and bins
=========================================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from spectral_core import ConfigError
from spectral_layers import Filter, Gate, Mixer, Modulation, Sparsity, SpectralView
from spectral_layers.filters.base import Poles
from spectral_layers.mixers.multiscale import Multiscale
from spectral_layers.mixers.response import Response
from spectral_layers.short_convolution import ShortConvolution
from spectral_models.arguments import whole
from spectral_models.inspection.readings import (
    FilterReading,
    GateReading,
    Inspection,
    MemoryReading,
    Place,
    PoleReading,
    Reading,
    Silence,
    TapReading,
)
from spectral_models.model import SpectralModel


@runtime_checkable
class HasPoles(Protocol):
    def poles(self) -> Poles: ...


@runtime_checkable
class HasTimeConstants(Protocol):
    def time_constants(self) -> Tensor: ...


@runtime_checkable
class HasResponse(Protocol):
    def response(self, x: Tensor) -> Response: ...


@torch.no_grad()
def inspect_model(
    model: SpectralModel,
    input_ids: Tensor | None = None,
    *,
    layers: Sequence[int] | None = None,
    length: int = 4096,
) -> Inspection:
    """All readings of a model in eval mode. layers: indices of mixers, from 0; by default all.

    input_ids: (1, L), the text for gates; without it they are listed as not read. length: tokens of a filter's kernel
    to read, at most 2^18. Raises ConfigError for a layer that does not exist.
    """
    length = whole("length", length, least=2, most=1 << 18)
    mixers = list(_mixers(model))
    chosen = set()
    for layer in range(len(mixers)) if layers is None else layers:
        chosen.add(whole("layer", layer))
        if not 0 <= layer < len(mixers):
            raise ConfigError(f"there is no layer {layer}: this model's are 0 to {len(mixers) - 1}.")
    wanted = sorted(chosen)
    inspection = Inspection()
    training = model.training
    model.eval()
    try:
        heard = {} if input_ids is None else _inputs(model, [mixers[layer] for layer in wanted], input_ids)
        for layer in wanted:
            place = Place(layer, type(mixers[layer]).__name__)
            found = list(_read(mixers[layer], place, length, heard))
            inspection.readings += [reading for reading in found if not isinstance(reading, Silence)]
            inspection.silent += [reading for reading in found if isinstance(reading, Silence)]
    finally:
        model.train(training)
    return inspection


def _mixers(module: nn.Module) -> Iterator[Mixer]:
    """The outermost mixers, in the order of the model."""
    for child in module.children():
        if isinstance(child, Mixer):
            yield child
        else:
            yield from _mixers(child)


def _inputs(model: SpectralModel, mixers: Sequence[Mixer], input_ids: Tensor) -> dict[Mixer, Tensor]:
    """Runs the model and returns the input of each gated mixer, inner mixers included."""
    heard: dict[Mixer, Tensor] = {}

    def listen(module: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        assert isinstance(module, Mixer)
        heard[module] = arguments[0] if arguments else named["x"]

    every = {module for mixer in mixers for module in mixer.modules() if isinstance(module, Mixer)}
    hooks = [mixer.register_forward_pre_hook(listen, with_kwargs=True) for mixer in every if _is_gated(mixer)]
    try:
        if hooks:
            model(input_ids)
    finally:
        for hook in hooks:
            hook.remove()
    return heard


def _is_gated(mixer: Mixer) -> bool:
    return isinstance(mixer, HasResponse) or any(isinstance(part, Gate | Sparsity) for _, part in _parts(mixer, ""))


def _read(mixer: Mixer, place: Place, length: int, heard: dict[Mixer, Tensor]) -> Iterator[Reading | Silence]:
    """All readings of one mixer, and of mixers inside it."""
    nothing = True
    for reading in _readings(mixer, place, length, heard):
        nothing = False
        finite = all(value.isfinite().all() for value in vars(reading).values() if isinstance(value, Tensor))
        yield reading if finite else Silence(reading.place, "its numbers are not finite")
    if nothing:
        yield Silence(place, "nothing known to show")


def _readings(mixer: Mixer, place: Place, length: int, heard: dict[Mixer, Tensor]) -> Iterator[Reading | Silence]:
    parts = list(_parts(mixer, place.part))
    scales = mixer.scales.items() if isinstance(mixer, Multiscale) else ()
    spacings = {scale.get_submodule("filter"): int(tokens) for tokens, scale in scales}
    for name, part in parts:
        there = Place(place.layer, place.mixer, name, type(part).__name__)
        if isinstance(part, Filter):
            yield from _filter(part, there, length, spacings.get(part, 1))
        elif isinstance(part, ShortConvolution):
            yield TapReading(there, part.weight[:, 0].flip(-1).double())
        elif isinstance(part, Mixer):
            yield from _read(part, there, length, heard)
    if isinstance(mixer, HasTimeConstants):
        bandwidth = getattr(mixer, "bandwidth", None)
        yield MemoryReading(
            place, mixer.time_constants().double(), bandwidth.double() if isinstance(bandwidth, Tensor) else None
        )
    if mixer in heard:
        yield from _gates(mixer, place, parts, heard[mixer])
    elif _is_gated(mixer):
        yield Silence(place, "its gates depend on an input, and none was given")


def _parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The submodules of a mixer with names, but not those inside mixers, filters, gates and sparsities."""
    for name, child in module.named_children():
        path = f"{prefix}.{name}" if prefix else name
        yield path, child
        if not isinstance(child, Mixer | Filter | Gate | Sparsity):
            yield from _parts(child, path)


def _filter(part: Filter, place: Place, length: int, spacing: int) -> Iterator[Reading]:
    taps = -(-length // spacing)
    ends = part.support is not None and part.support <= taps
    taps = min([taps, *(limit for limit in (part.length_limit, part.support) if limit is not None)])
    yield FilterReading(place, part.kernel(taps).double(), spacing, ends)
    if isinstance(part, HasPoles):
        poles = part.poles()
        yield PoleReading(place, poles.time_constant, poles.frequency, poles.strength, spacing)


def _gates(mixer: Mixer, place: Place, parts: list[tuple[str, nn.Module]], x: Tensor) -> Iterator[GateReading]:
    """The modulations of gates and sparsities for x (1, L, D), and the mixer's realised response if it has one."""
    answers: list[_Answer] = []
    hooks = [
        part.register_forward_hook(_note(answers, name)) for name, part in parts if isinstance(part, Gate | Sparsity)
    ]
    try:
        response = mixer.response(x) if isinstance(mixer, HasResponse) else None
        if response is None:
            mixer(x)
    finally:
        for hook in hooks:
            hook.remove()
    if response is None:
        for answer in answers:
            there = Place(place.layer, place.mixer, answer.name, type(answer.part).__name__)
            yield GateReading(there, answer.bins, answer.gain, kept=answer.kept, phase=answer.phase)
        return
    kept = [answer.kept for answer in answers if answer.kept is not None]
    phases = [answer.phase for answer in answers if answer.phase is not None]
    kinds = ", ".join(type(answer.part).__name__ for answer in answers)
    yield GateReading(
        Place(place.layer, place.mixer, place.part, kinds),
        response.bins.double(),
        response.wished[0].double(),
        response.frequency.double(),
        response.realised[0].double(),
        kept=torch.stack(kept).prod(0) if kept else None,
        phase=torch.stack(phases).sum(0) if phases else None,
    )


@dataclass(frozen=True)
class _Answer:
    """The modulation of a gate or sparsity for a view, by block and head: see :class:`GateReading`."""

    name: str
    part: nn.Module
    view: SpectralView
    modulation: Modulation

    @property
    def bins(self) -> Tensor:
        return self.view.frequency.double()

    @property
    def gain(self) -> Tensor:
        gain = self.modulation.gain
        return self._mean(torch.ones_like(self.view.real) if gain is None else gain.square()).sqrt()

    @property
    def kept(self) -> Tensor | None:
        return self.gain if isinstance(self.part, Sparsity) else None

    @property
    def phase(self) -> Tensor | None:
        return None if self.modulation.phase is None else self._mean(self.modulation.phase)

    def _mean(self, field: Tensor) -> Tensor:
        """Mean over each head's channels: (N, H, F)."""
        return field.double().expand_as(self.view.real).mean(2)


def _note(answers: list[_Answer], name: str) -> Callable[[nn.Module, tuple[SpectralView, ...], Modulation], None]:
    """A hook that records a part's modulations."""

    def note(part: nn.Module, views: tuple[SpectralView, ...], modulation: Modulation) -> None:
        answers.append(_Answer(name, part, views[0], modulation))

    return note
