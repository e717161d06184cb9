"""A check that decoders with third-party parts are strictly causal."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spectral_core import PluginError, StateError
from spectral_models.causality.cases import (
    LONG,
    SHORT,
    STREAM,
    Case,
    Setting,
    around_blocks,
    first_cases,
    lengths_around_powers,
    long_cases,
    short_cases,
)
from spectral_models.causality.subject import VOCABULARY, Subject
from spectral_models.config import ModelConfig

OUT_OF_REACH = (
    "sequences of more than 2,049 tokens; one-token leaks beyond 257 tokens away from multiples of 64, 96 and 100; "
    "leaks below 1e-9 of the change (1e-3 for those in float32 alone); leaks in bfloat16 or float16, under autocast or "
    "torch.compile, on accelerators, with padding, or in batches of other than 1, 8 and 9 rows; leaks that certain "
    "tokens, the time, the number of calls or the presence of this check set off"
)
"""What the check cannot see. It finds mistakes; it does not protect against malicious code in the process."""

_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Relative to the change of later logits. A causal FFT convolution moves earlier ones by 1e-15 and by 1e-5."""
_ROUNDING = 1e-5
"""Smaller leaks may be rounding errors of a part that computes in float32."""
_NOISE, _LESS_NOISE = 0.3, 0.03
"""Noise on parameters, since a part that starts at zero would hide its faults. Less for sequences of over 257 tokens,
where unstable recurrences would overflow."""
_WITHOUT_TIME = ("gate", "sparsity", "filter")
"""Parts of spectra and kernels: they have no positions, so positions beyond 257 tokens are not swept for them."""


def check_causality(config: ModelConfig, *, suspects: Sequence[str]) -> None:
    """Raise PluginError if an earlier logit, or another row's, changes when a token changes.

    Perturbs a copy of the model on the CPU, with random parameters, a small vocabulary, and one block of each kind that
    has a third-party part: every position up to 257 tokens, and up to 2,049 the neighbourhoods of multiples
    of 64, 96 and 100; lengths on both sides of powers of two; batches of 1 and more; float64 and float32; training and
    evaluation; with and without gradients recorded (:mod:`spectral_models.causality.cases`). Where all parts stream,
    full passes must equal a stream. A part whose outputs differ for the same tokens, or that writes into its input, is
    refused too. :data:`OUT_OF_REACH` lists what the check cannot see.

    Our own feed-forwards are made narrow, and our own FFT backends, and any that cannot run here, replaced by
    ``torch``, since tests cover them. Buffers are restored before each pass; the random state is unchanged. For
    decoders over a vocabulary. One to five seconds at a width of 128; a part that loops over tokens takes longer.
    suspects: the parts to name in the error.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("cpu"):
        check = _Check(config, ", ".join(suspects))
        for case in first_cases(check.limit):
            check.perturb(case)
        check.stream(1, SHORT)
        for case in short_cases(check.limit, streams=check.streams):
            check.perturb(case)
        if check.limit > SHORT:
            check.use_noise(_LESS_NOISE)
            check.stream(SHORT + 1, LONG)
            knows_time = any(suspect.partition(" ")[0] not in _WITHOUT_TIME for suspect in suspects)
            for case in long_cases(check.limit, positions=knows_time and not check.streams):
                check.perturb(case)


@dataclass(frozen=True)
class _Leak:
    """A logit that changed although its row's tokens up to it did not. scale: the change of later logits."""

    row: int
    token: int
    size: float
    scale: float


class _Check:
    """A model in both dtypes. limit: its longest sequence. streams: whether it can be compared with its stream."""

    def __init__(self, config: ModelConfig, suspects: str) -> None:
        self.suspects = suspects
        self.models = {dtype: Subject(config, dtype) for dtype in _TOLERANCES}
        limits = [subject.limit for subject in self.models.values()]
        self.limit = min([LONG, *(limit for limit in (*limits, getattr(config, "max_seq_len", None)) if limit)])
        self.use_noise(_NOISE)
        self.streams = self.limit > 1 and self.models[STREAM.dtype].streams and self._keeps_states()

    def use_noise(self, scale: float) -> None:
        for subject in self.models.values():
            subject.randomise(scale)

    def perturb(self, case: Case) -> None:
        """Compare each changed batch with the unchanged one. Raises PluginError for a leak."""
        base, other = _tokens(case, seed=0)
        before = self._logits(case.setting, base)
        for starts in case.starts:
            leak = self._leak(case, before, base, other, starts)
            if leak is not None and self._is_lasting(case, starts):
                raise PluginError(self._refusal(case, before, base, other, starts, leak))

    def stream(self, shortest: int, longest: int) -> None:
        """Compare full passes of each length with one stream.

        It is fed token by token; in longer sequences, by chunks that end where blocks of some size may end.
        """
        subject = self.models[torch.float64]
        lengths = lengths_around_powers(self.limit, first=shortest, last=longest)
        if not (self.streams and lengths):
            return
        length = lengths[-1]
        tokens = torch.randint(VOCABULARY, (1, length), generator=torch.Generator().manual_seed(length))
        bounds = (
            range(1, length) if length <= SHORT else [SHORT - 1, *(p for p in around_blocks() if SHORT <= p < length)]
        )
        chunks = tokens.tensor_split(list(bounds), dim=1)
        streamed = self._guarded(STREAM, length, lambda: subject.streamed(STREAM, chunks))
        for end in lengths:
            full = self._logits(STREAM, tokens[:, :end])
            size = float(streamed[:, :end].abs().max())
            apart = (full - streamed[:, :end]).abs().amax((0, 2))
            if float(apart.max()) > _TOLERANCES[torch.float64] * size:
                token = int(apart.argmax())
                if token + 1 < end:  # a leak is named as one
                    self.perturb(Case(STREAM, end, ((token + 1,),)))
                raise PluginError(
                    f"this decoder streams, and gives other logits in one pass: those of token {token} differ by "
                    f"{float(apart.max()):.0e} of {size:.0e} between a pass over {end} tokens and the "
                    f"same tokens one after the other ({STREAM}). A mixer that streams gives the same in a full "
                    "pass, in chunks and token by token, and sees no later token in any. "
                    f"Third-party parts: {self.suspects}."
                )

    def _keeps_states(self) -> bool:
        """Whether the model can be continued: a mixer may declare ``streams`` and yet return no state."""
        tokens = torch.zeros(1, 2, dtype=torch.long)
        try:
            self._guarded(STREAM, 2, lambda: self.models[STREAM.dtype].streamed(STREAM, tokens.split(1, dim=1)))
        except PluginError as error:
            if isinstance(error.__cause__, StateError):
                return False
            raise
        return True

    def _logits(self, setting: Setting, tokens: Tensor) -> Tensor:
        return self._guarded(setting, tokens.shape[1], lambda: self.models[setting.dtype].logits(setting, tokens))

    def _guarded(self, setting: Setting, length: int, call: Callable[[], Tensor]) -> Tensor:
        """The logits of a call; exceptions of parts, and logits that are not finite, raise PluginError."""
        try:
            logits = call()
        except (PluginError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginError(
                f"this decoder has third-party parts and could not be checked for causality: on the CPU, {length} "
                f"tokens, {setting}, it raised {type(error).__name__}: {error}. A part computes in the dtype and on "
                f"the device of its input. Third-party parts: {self.suspects}."
            ) from error
        if not logits.isfinite().all():
            noise = _NOISE if length <= SHORT else _LESS_NOISE
            raise PluginError(
                f"this decoder has third-party parts and could not be checked for causality: with {noise} * normal "
                f"noise on its parameters, as training might move them, its logits are not finite ({length} tokens, "
                f"{setting}). Keep parameters in range by softplus or sigmoid. Third-party parts: {self.suspects}."
            )
        return logits

    def _leak(self, case: Case, before: Tensor, base: Tensor, other: Tensor, starts: tuple[int, ...]) -> _Leak | None:
        """The largest leak beyond rounding; None if there is none."""
        begins = torch.tensor(starts)[:, None]
        later = torch.arange(case.length) >= begins
        moved = (self._logits(case.setting, other.where(later, base)) - before).abs().amax(2)
        scale = float(moved.where(later, 0).max())
        earlier = moved.masked_fill(later, 0)
        row, token = divmod(int(earlier.argmax()), case.length)
        size = float(earlier.max())
        return _Leak(row, token, size, scale) if size > _bound(case.setting, scale) else None

    def _is_lasting(self, case: Case, starts: tuple[int, ...]) -> bool:
        """Whether other tokens leak too: in float32, rounding errors occasionally change a choice (top-k, routing)."""
        if case.setting.dtype == torch.float64:
            return True
        for seed in (1, 2):
            base, other = _tokens(case, seed)
            if self._leak(case, self._logits(case.setting, base), base, other, starts) is None:
                return False
        return True

    def _refusal(
        self, case: Case, before: Tensor, base: Tensor, other: Tensor, starts: tuple[int, ...], leak: _Leak
    ) -> str:
        """The message of a leak: its source is an earlier call, another row, or a later token, which is searched."""
        bound = _bound(case.setting, leak.scale)

        def moves(row: int, first: int, last: int) -> bool:
            changed = base.clone()
            changed[row, first : last + 1] = other[row, first : last + 1]
            moved = (self._logits(case.setting, changed) - before)[leak.row, leak.token].abs().max()
            return float(moved) > bound

        where = f"{case.length} tokens, {case.rows} rows, {case.setting}"
        if float((self._logits(case.setting, base) - before).abs().max()) > bound:
            return (
                f"this decoder answers differently to the same tokens ({where}), so it could not be checked for "
                "causality: a part keeps something of an earlier call, or draws random numbers of its own. Keep "
                "nothing between calls but buffers, and draw from torch's generator. "
                f"Third-party parts: {self.suspects}."
            )
        start, last = starts[leak.row], case.length - 1
        size = f"by {leak.size:.0e}, later ones by {leak.scale:.0e}; {where}"
        if start < case.length and moves(leak.row, start, last):
            last = start + bisect_left(range(start, last), True, key=lambda end: moves(leak.row, start, end))
            what = f"changing token {last} moves the logits of token {leak.token}, {last - leak.token} before it"
        else:
            others = [row for row in range(case.rows) if row != leak.row and moves(row, starts[row], case.length - 1)]
            source = f"row {others[0]}" if others else "several rows"
            what = f"changing the tokens of {source} moves the logits of other rows of the batch, row {leak.row}"
        hint = ""
        if leak.size < _ROUNDING * leak.scale:
            hint = " So small a leak may be the rounding of a part that casts to float32: compute in the input's dtype."
        return (
            f"this decoder is not causal: {what} ({size}). "
            f"One of these parts mixes rows or looks ahead: {self.suspects}.{hint}"
        )


def _tokens(case: Case, seed: int) -> tuple[Tensor, Tensor]:
    """Random tokens, and others that differ at every place: (rows, length) each."""
    generator = torch.Generator().manual_seed(1000 * case.length + seed)
    base = torch.randint(VOCABULARY, (case.rows, case.length), generator=generator)
    step = torch.randint(1, VOCABULARY, base.shape, generator=generator)
    return base, (base + step) % VOCABULARY


def _bound(setting: Setting, scale: float) -> float:
    """The allowed change of earlier logits when later ones change by ``scale``."""
    return _TOLERANCES[setting.dtype] * max(scale, 1e-12)
