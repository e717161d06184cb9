"""Checks of fusions: shapes, rows, padding, causality, absent streams, gradients, refusals."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from spectral_core.errors import UnsupportedInputError
from spectral_core.testing import assert_close
from spectral_layers.fusion.base import Fusion, FusionOutput, Stream
from spectral_layers.rows import Rows
from spectral_layers.state import State
from spectral_layers.testing.cases import FusionCase, is_causal
from spectral_layers.testing.check import (
    for_all,
    normal,
    only_for,
    ragged,
    relative_change,
    require_autocast,
    require_causal,
    require_error,
    require_like,
    require_scalars,
)
from spectral_layers.testing.gradients import require_gradients

_BOUND = 1e-9
_LENGTHS = (13, 24, 7, 10)
"""Tokens of the streams, the target first: odd, even, longer and shorter than it."""


def names_of(fusion: Fusion) -> tuple[str, ...]:
    """The names of the streams in a check: those of the fusion, or a target and a source."""
    return fusion.names or ("target", "source")


def streams_of(case: FusionCase, fusion: Fusion, batch: int = 3, *, seed: int = 0) -> dict[str, Tensor]:
    """Noise for each stream, (B, L, D), the target first."""
    lengths = itertools.cycle(_LENGTHS)
    return {
        name: normal(batch, length, case.hidden_dim, seed=seed + index)
        for index, (name, length) in enumerate(zip(names_of(fusion), lengths, strict=False))
    }


def given(
    case: FusionCase, target: str, streams: Mapping[str, Tensor], rows: Mapping[str, Rows] | None = None
) -> dict[str, Stream]:
    """The arguments of a call: the target is causal if the case is."""
    return {
        name: Stream(
            x, None if rows is None else rows[name], "causal" if case.causal and name == target else "bidirectional"
        )
        for name, x in streams.items()
    }


class Conditioned:
    """A causal fusion with fixed sources, called as a mixer of its target: (B, L, D) to (B, L, D)."""

    def __init__(self, case: FusionCase) -> None:
        self.fusion = case.build()
        self.target, *names = names_of(self.fusion)
        tensors = streams_of(case, self.fusion, 8)
        self._sources = {name: (tensors[name], ragged([tensors[name].shape[1], 3, 1, 7, 2, 4, 5, 6])) for name in names}

    def sources(self, batch: int) -> dict[str, Stream]:
        return {name: Stream(x[:batch], Rows(rows.lengths[:batch])) for name, (x, rows) in self._sources.items()}

    def __call__(
        self, x: Tensor, *, state: State | None = None, rows: Rows | None = None, return_state: bool = False
    ) -> FusionOutput:
        """Fuse on x. The sources are passed unless a state holds them."""
        streams = self.sources(x.shape[0]) if state is None else {}
        streams[self.target] = Stream(x, rows, "causal")
        output: FusionOutput = self.fusion(streams, self.target, state=state, return_state=return_state)
        return output

    def rewind(self, state: State, tokens: int) -> State:
        return self.fusion.rewind(state, tokens, self.target)


def knows_names(case: FusionCase) -> bool:
    return case.build().names is not None


@for_all
def check_the_output_is_on_the_target(case: FusionCase) -> None:
    """With any stream as the target, of any length down to one token, y has its shape and dtype.

    Outputs are finite, losses and metrics scalar; inputs are not changed, and a second call gives the same outputs.
    """
    for dtype in (torch.float64, torch.float32):
        fusion = case.build(dtype)
        for target, cut in itertools.product(names_of(fusion), (1, 2, None)):
            streams = {name: x.to(dtype) for name, x in streams_of(case, fusion).items()}
            streams[target] = streams[target][:, :cut]
            kept = {name: x.clone() for name, x in streams.items()}
            output = fusion(given(case, target, streams), target)
            what = f"{case}: target {target!r} of {streams[target].shape[1]} tokens in {dtype}"
            require_like(what, output.y, streams[target])
            if not output.y.isfinite().all():
                raise AssertionError(f"{what} is not finite.")
            changed = [name for name, x in streams.items() if not torch.equal(x, kept[name])]
            if changed:
                raise AssertionError(f"{what}: {changed[0]!r} was changed in place; work on a copy.")
            if not torch.equal(fusion(given(case, target, streams), target).y, output.y):
                raise AssertionError(f"{what}: a second call in eval mode gives other outputs; what is remembered?")
            require_scalars(what, output.losses, output.metrics)


@for_all
def check_every_token_of_every_stream_is_heard(case: FusionCase) -> None:
    """Each output depends on every token of the other streams, and on its own token of the target."""
    fusion = case.build()
    for target in names_of(fusion):
        streams = {name: x.requires_grad_() for name, x in streams_of(case, fusion, 1).items()}
        y = fusion(given(case, target, streams), target).y
        for token in {0, y.shape[1] // 2, y.shape[1] - 1}:
            weights = normal(case.hidden_dim, seed=5)
            gradients = torch.autograd.grad((y[0, token] * weights).sum(), list(streams.values()), retain_graph=True)
            for name, gradient in zip(streams, gradients, strict=True):
                size = gradient[0].abs().amax(-1)
                size = size[token : token + 1] if name == target else size
                if not (size > 1e-9 * gradient.abs().max()).all():
                    deaf = int(size.argmin())
                    raise AssertionError(
                        f"{case}: token {token} of target {target!r} does not hear token {deaf} of {name!r}; every "
                        "output sees all of the other streams."
                    )


@only_for(is_causal)
def check_a_causal_target_sees_no_later_token(case: FusionCase) -> None:
    """New target tokens from a position on do not change earlier outputs, and change later ones."""
    fusion = case.build()
    for target in names_of(fusion):
        streams, other = streams_of(case, fusion), streams_of(case, fusion, seed=10)
        with torch.no_grad():
            y = fusion(given(case, target, streams), target).y
            for token in range(1, y.shape[1]):
                joined = torch.cat([streams[target][:, :token], other[target][:, token:]], 1)
                changed = fusion(given(case, target, {**streams, target: joined}), target).y
                require_causal(f"{case}: new tokens of {target!r}", changed, y, token)


@only_for(lambda case: not case.causal)
def check_a_causal_target_is_refused(case: FusionCase) -> None:
    """A bidirectional fusion refuses a causal target."""
    fusion = case.build()
    for target in names_of(fusion):
        streams = {name: Stream(x) for name, x in streams_of(case, fusion).items()}
        streams[target] = Stream(streams[target].x, kind="causal")
        require_error(UnsupportedInputError, f"{case}: causal target {target!r}", fusion, streams, target)


@for_all
def check_rows_of_a_fusion_do_not_mix(case: FusionCase) -> None:
    """A row has the output it has alone, however large the values of other rows are."""
    fusion = case.build()
    target = names_of(fusion)[0]
    streams = streams_of(case, fusion)
    with torch.no_grad():
        y = fusion(given(case, target, streams), target).y
        for name, x in streams.items():
            loud = x.clone()
            loud[1] *= 100
            others = fusion(given(case, target, {**streams, name: loud}), target).y[[0, 2]]
            assert_close(f"{case}: rows 0 and 2 when row 1 of {name!r} is louder", others, y[[0, 2]], _BOUND)
        alone = fusion(given(case, target, {name: x[1:2] for name, x in streams.items()}), target).y
        assert_close(f"{case}: a row without the others", alone, y[1:2], _BOUND)


@for_all
def check_padding_of_any_stream_changes_nothing(case: FusionCase) -> None:
    """Each row of a padded batch has the outputs it has alone, whatever the padding of any stream holds."""
    fusion = case.build()
    for target in names_of(fusion):
        streams = streams_of(case, fusion, 4)
        lengths = {name: [x.shape[1], 5 + index, 1, 4] for index, (name, x) in enumerate(streams.items())}
        rows = {name: ragged(found) for name, found in lengths.items()}
        with torch.no_grad():
            for loudness in (0.0, 10.0):
                padded = {
                    name: torch.where(rows[name].mask(x.shape[1])[..., None], x, loudness * x.flip(0))
                    for name, x in streams.items()
                }
                y = fusion(given(case, target, padded, rows), target).y
                for row in range(4):
                    own = {name: x[row : row + 1, : lengths[name][row]] for name, x in streams.items()}
                    alone = fusion(given(case, target, own), target).y[0]
                    what = f"{case}: row {row} of {target!r} among streams padded with values of {loudness:g}"
                    assert_close(what, y[row, : lengths[target][row]], alone, _BOUND)


@only_for(knows_names)
def check_any_stream_may_be_absent(case: FusionCase) -> None:
    """Every subset of streams fuses, each to another y; a stream of length 0 counts as absent."""
    fusion = case.build()
    target, *others = names_of(fusion)
    streams = streams_of(case, fusion)
    found: list[Tensor] = []
    with torch.no_grad():
        for count in range(len(others) + 1):
            for present in itertools.combinations(others, count):
                subset = {name: streams[name] for name in (target, *present)}
                y = fusion(given(case, target, subset), target).y
                rows = {name: ragged([x.shape[1] if name in subset else 0] * 3) for name, x in streams.items()}
                what = f"{case}: {target!r} with {', '.join(present) or 'nothing else'}"
                assert_close(
                    f"{what} and rows of length 0", fusion(given(case, target, streams, rows), target).y, y, _BOUND
                )
                if any(relative_change(y, before, y.abs().max().item()) < 1e-9 for before in found):
                    raise AssertionError(f"{what} gives the same as another subset; are streams left out?")
                found.append(y)


@only_for(knows_names)
def check_unknown_streams_are_refused(case: FusionCase) -> None:
    """A stream whose name the fusion does not know is an error, not silently ignored."""
    fusion = case.build()
    target = names_of(fusion)[0]
    streams = {**streams_of(case, fusion), "nobody": normal(3, 5, case.hidden_dim)}
    require_error(UnsupportedInputError, f"{case}: stream 'nobody'", fusion, given(case, target, streams), target)


@for_all
def check_streams_that_do_not_fit_are_refused(case: FusionCase) -> None:
    """No target, another width, no tokens, other rows, lengths of another batch, packed documents."""
    fusion = case.build()
    target, source = names_of(fusion)[:2]
    streams = given(case, target, streams_of(case, fusion))
    without = {name: stream for name, stream in streams.items() if name != target}
    require_error(UnsupportedInputError, f"{case}: no target", fusion, without, target)
    dim = case.hidden_dim
    for name, shape in itertools.product((target, source), ((3, 5, dim + 1), (3, 0, dim), (3, dim), (2, 5, dim))):
        wrong = {**streams, name: Stream(normal(*shape))}
        require_error(UnsupportedInputError, f"{case}: {name!r} of shape {shape}", fusion, wrong, target)
    for name in (target, source):
        x = streams[name].x
        for what, rows in (
            ("2 lengths for 3 rows", ragged([5, 4])),
            ("packed documents", Rows(torch.full((3,), x.shape[1]), torch.zeros(x.shape[:2], dtype=torch.long))),
        ):
            wrong = {**streams, name: Stream(x, rows)}
            require_error(UnsupportedInputError, f"{case}: {what} of {name!r}", fusion, wrong, target)


@for_all
def check_gradients_of_a_fusion_at_any_scale(case: FusionCase) -> None:
    """Streams and parameters get finite gradients for streams of size 0, 1e-30, 1e-25, 1e-10 and 1, in float32."""
    fusion = case.build(torch.float32)
    shapes = {name: x.shape[1] for name, x in streams_of(case, fusion).items()}
    joined = torch.cat(list(streams_of(case, fusion).values()), 1).float()

    def loss(x: Tensor) -> Tensor:
        streams = dict(zip(shapes, x.split(list(shapes.values()), 1), strict=True))
        total = torch.zeros(())
        for target in shapes:
            output = fusion(given(case, target, streams), target)
            weights = normal(*output.y.shape, seed=1, dtype=torch.float32)
            total = total + torch.stack([(output.y * weights).sum(), *output.losses.values()]).sum()
        return total

    require_gradients(str(case), fusion, loss, joined)


@for_all
def check_a_fusion_under_autocast(case: FusionCase) -> None:
    """Under bfloat16 autocast outputs are finite and within a tenth of float32's."""
    fusion = case.build(torch.float32)
    target = names_of(fusion)[0]
    streams = given(case, target, {name: x.float() for name, x in streams_of(case, fusion).items()})
    require_autocast(str(case), lambda: fusion(streams, target).y, streams[target].x)


@for_all
def check_an_empty_batch_is_fused(case: FusionCase) -> None:
    """An empty batch gives an empty batch."""
    fusion = case.build()
    for target in names_of(fusion):
        streams = streams_of(case, fusion, 0)
        require_like(f"{case}: target {target!r}", fusion(given(case, target, streams), target).y, streams[target])
