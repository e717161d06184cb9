"""Checks of a fusion's states beyond those of :mod:`.streaming`: sources absorbed ahead, and states refused."""

from __future__ import annotations

import torch

from spectral_core.errors import StateError
from spectral_core.testing import assert_close
from spectral_layers.fusion.base import Stream
from spectral_layers.state import State
from spectral_layers.testing.cases import FusionCase, cannot_stream, streams
from spectral_layers.testing.check import normal, only_for, require_error
from spectral_layers.testing.fusions import Conditioned, given, names_of, streams_of
from spectral_layers.testing.streaming import continued


@only_for(streams)
def check_a_target_continues_prepared_sources(case: FusionCase) -> None:
    """After ``prepare``, a target in chunks has the outputs of the full pass; a source beside a state is refused."""
    part, x = Conditioned(case), normal(3, case.length, case.hidden_dim)
    sources = part.sources(3)
    with torch.no_grad():
        streamed, _ = continued(part, part.fusion.prepare(sources), x.split(5, 1))
        assert_close(f"{case}: chunks after prepare against the full pass", streamed, part(x).y, 1e-9)
    both, prepared = {part.target: Stream(x, None, "causal"), **sources}, part.fusion.prepare(sources)
    require_error(StateError, f"{case}: a source beside a state", part.fusion, both, part.target, state=prepared)


@only_for(cannot_stream)
def check_a_fusion_without_a_state_refuses_one(case: FusionCase) -> None:
    """A fusion that does not stream refuses return_state, prepare and any state."""
    fusion = case.build()
    target = names_of(fusion)[0]
    all_streams = given(case, target, streams_of(case, fusion))
    own, state = {target: all_streams[target]}, State(type(fusion).__name__, torch.zeros(3, dtype=torch.long))
    require_error(StateError, f"{case}: return_state", fusion, all_streams, target, return_state=True)
    require_error(StateError, f"{case}: a state", fusion, own, target, state=state)
    require_error(StateError, f"{case}: prepare", fusion.prepare, own)
