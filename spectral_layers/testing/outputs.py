"""Checks of a mixer's outputs and refusals: shapes, dtypes, gradients, limits."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core.errors import StateError, UnsupportedInputError
from spectral_core.testing import assert_close
from spectral_layers.rows import Rows
from spectral_layers.state import State
from spectral_layers.testing.cases import (
    MixerCase,
    cannot_stream,
    is_causal,
    is_limited,
    streams,
)
from spectral_layers.testing.check import (
    for_all,
    normal,
    only_for,
    ragged,
    require_autocast,
    require_error,
    require_like,
    require_scalars,
)
from spectral_layers.testing.gradients import require_gradients
from spectral_layers.testing.streaming import continued, run


@for_all
def check_shapes_and_dtypes(case: MixerCase) -> None:
    """(B, L, D) keeps shape and dtype, and is finite; losses are scalars; a call changes neither input nor mixer."""
    for dtype in (torch.float64, torch.float32):
        mixer = case.build(dtype)
        for length in (1, 2, 3, case.block - 1, case.block, case.block + 1, 61, case.length):
            x = normal(2, max(1, length), case.hidden_dim, dtype=dtype)
            kept = x.clone()
            output = mixer(x)
            require_like(str(case), output.y, x)
            if not output.y.isfinite().all():
                raise AssertionError(f"{case}: the output of {length} tokens in {dtype} is not finite.")
            if not torch.equal(x, kept):
                raise AssertionError(f"{case} changes its input in place; work on a copy.")
            if not torch.equal(mixer(x).y, output.y):
                raise AssertionError(
                    f"{case}: a second call in eval mode gives other outputs: something is remembered."
                )
            require_scalars(str(case), output.losses, output.metrics)


@only_for(is_causal)
def check_a_prefix_gives_the_prefix_of_the_output(case: MixerCase) -> None:
    """The first n tokens alone give the first n outputs: no output depends on the sequence's length."""
    mixer = case.build()
    x = normal(2, case.length, case.hidden_dim)
    with torch.no_grad():
        y = mixer(x).y
        for length in sorted({1, 2, 3, 5, case.block - 1, case.block, case.block + 1, 61} - {0}):
            assert_close(f"{case}: the first {length} tokens alone", mixer(x[:, :length]).y, y[:, :length], 1e-9)


@for_all
def check_gradients_at_any_scale(case: MixerCase) -> None:
    """The input and every parameter get finite gradients for inputs of size 0, 1e-30, 1e-25, 1e-10 and 1.

    In float32, where the gradient of an angle is 5e9 at 1e-10 and NaN at 1e-25, and that of a square root NaN at 0.
    """

    def loss(x: Tensor) -> Tensor:
        output = mixer(x, rows=rows)
        return torch.stack([(output.y * weights).sum(), *output.losses.values()]).sum()

    length = 2 * case.block + 5
    mixer = case.build(torch.float32)
    weights = normal(2, length, case.hidden_dim, seed=1, dtype=torch.float32)
    rows: Rows | None = None
    require_gradients(str(case), mixer, loss, normal(2, length, case.hidden_dim, dtype=torch.float32))
    weights = weights[:, :1]
    require_gradients(f"{case}, one token", mixer, loss, normal(2, 1, case.hidden_dim, dtype=torch.float32), dead=True)


@for_all
def check_autocast_to_bfloat16(case: MixerCase) -> None:
    """Under autocast outputs are finite and within a tenth of float32's; so is decoding in two chunks and a token."""
    mixer = case.build(torch.float32)
    x = normal(2, case.length, case.hidden_dim, dtype=torch.float32)
    with torch.no_grad():
        y = mixer(x).y
        require_autocast(str(case), lambda: mixer(x).y)
        if streams(case):
            chunks = x.split([case.block + 2, case.length - case.block - 3, 1], 1)
            require_autocast(f"{case} in chunks", lambda: continued(mixer, None, chunks)[0])
        assert_close(f"{case} in float32 after a call under autocast", mixer(x).y, y, 1e-6)


@for_all
def check_inputs_that_do_not_fit_are_refused(case: MixerCase) -> None:
    """Another width, no tokens, a missing axis and lengths of another batch raise UnsupportedInputError."""
    mixer, dim = case.build(), case.hidden_dim
    for x in (normal(2, 5, dim + 1), normal(2, 0, dim), normal(5, dim)):
        require_error(UnsupportedInputError, f"{case}: input {tuple(x.shape)}", mixer, x)
    require_error(
        UnsupportedInputError, f"{case}: 3 lengths for 2 rows", mixer, normal(2, 5, dim), rows=ragged([5, 4, 3])
    )
    require_error(UnsupportedInputError, f"{case}: 1 length for 2 rows", mixer, normal(2, 5, dim), rows=ragged([5]))


@only_for(cannot_stream)
def check_a_mixer_without_a_state_refuses_one(case: MixerCase) -> None:
    """A bidirectional mixer, or one that does not stream, refuses return_state and any state."""
    mixer, x = case.build(), normal(2, 5, case.hidden_dim)
    require_error(StateError, f"{case}: return_state", mixer, x, return_state=True)
    state = State(type(mixer).__name__, torch.zeros(2, dtype=torch.long))
    require_error(StateError, f"{case}: a state", mixer, x, state=state)


@only_for(lambda case: not case.build().keeps_segments)
def check_packed_documents_are_refused(case: MixerCase) -> None:
    """A mixer without ``keeps_segments`` refuses packed documents."""
    rows = Rows(torch.tensor([6, 6]), torch.tensor([[0, 0, 0, 1, 1, 1]] * 2))
    require_error(UnsupportedInputError, f"{case}: segments", case.build(), normal(2, 6, case.hidden_dim), rows=rows)


@only_for(is_limited)
def check_the_length_limit_is_kept(case: MixerCase) -> None:
    """A sequence as long as the limit is accepted; one token more is refused."""
    mixer = case.build()
    limit = mixer.length_limit
    assert limit is not None
    with torch.no_grad():
        mixer(normal(1, limit, case.hidden_dim))
        require_error(
            UnsupportedInputError,
            f"{case}: {limit + 1} tokens, limit {limit}",
            mixer,
            normal(1, limit + 1, case.hidden_dim),
        )


@only_for(lambda case: is_limited(case) and streams(case))
def check_the_length_limit_is_kept_across_calls(case: MixerCase) -> None:
    """Decoding reaches the limit and not further; the refusal does not consume the state."""
    mixer = case.build()
    limit = mixer.length_limit
    assert limit is not None
    x = normal(1, limit, case.hidden_dim)
    with torch.no_grad():
        _, state = run(mixer, x[:, :-2])
        require_error(UnsupportedInputError, f"{case}: 3 tokens, 2 below its limit", mixer, x[:, :3], state=state)
        y, _ = continued(mixer, state, x[:, -2:].split(1, 1))
        assert_close(f"{case}: the last two tokens below its limit", y, mixer(x).y[:, -2:], 1e-9)
