"""Each check of the fusion kit fails on a fusion that breaks its promise, and on nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spectral_layers import Fusion, FusionConfig, FusionOutput, Stream
from spectral_layers.fusion.base import lengths_of
from spectral_layers.fusion.source_product import SourceProduct, SourceProductConfig
from spectral_layers.state import State
from spectral_layers.testing import FUSION_CHECKS, FusionCase, pairs


class Honest(Fusion):
    """y[t] = x[t] + W (x[t] + sum of the others' means), and a count of tokens on top; it streams."""

    streams = True

    def setup(self, config: Any, context: Any) -> None:
        super().setup(config, context)
        self.proj = nn.Linear(context.hidden_dim, context.hidden_dim, bias=False)

    def fuse(self, streams, target, state, return_state):
        if state is None:
            state = self.absorb({name: stream for name, stream in streams.items() if name != target})
        x = streams[target].x
        place = state.position[:, None] + torch.arange(x.shape[1])
        y = x + self.proj(x + state["heard"][:, None].to(x.dtype)) * (1 + torch.sin(place))[..., None].to(x.dtype)
        made = self.new_state(state.position + lengths_of(streams[target]), {"heard": state["heard"]})
        return FusionOutput(y, made if return_state else None)

    def absorb(self, sources):
        heard = [self.mean(stream) for stream in sources.values()]
        return self.new_state(torch.zeros(len(heard[0]), dtype=torch.long), {"heard": torch.stack(heard).sum(0)})

    def mean(self, stream):
        real = torch.arange(stream.x.shape[1]) < lengths_of(stream)[:, None]
        return torch.where(real[..., None], stream.x, 0.0).sum(1) / real.sum(1).clamp(min=1)[:, None]


class Named(Honest):
    """For whole targets, with parameters by name."""

    streams = False
    names = ("a", "b", "c")

    def setup(self, config: Any, context: Any) -> None:
        super().setup(config, context)
        self.scale = nn.Parameter(torch.ones(3))

    def fuse(self, streams, target, state, return_state):
        y = streams[target].x
        for name, stream in streams.items():
            y = y + self.proj(self.mean(stream))[:, None] * self.scale[self.names.index(name)]
        return FusionOutput(y)


class LeaksAThousandth(Honest):
    """Lets a thousandth of the next token through."""

    def fuse(self, streams, target, state, return_state):
        output = super().fuse(streams, target, state, return_state)
        output.y[:, :-1] += 1e-3 * streams[target].x[:, 1:]
        return output


class TransformsTheTarget(Honest):
    """The usual fusion of spectra: multiplies the target's whole spectrum by a gain."""

    def fuse(self, streams, target, state, return_state):
        output = super().fuse(streams, target, state, return_state)
        gain = torch.sigmoid(torch.fft.rfft(streams[target].x, dim=1).abs())
        output.y = output.y + torch.fft.irfft(
            torch.fft.rfft(streams[target].x, dim=1) * gain, streams[target].x.shape[1], 1
        )
        return output


class TakesCausalTargets(Named):
    def forward(self, streams, target, **options):
        return super().forward({name: Stream(s.x, s.rows) for name, s in streams.items()}, target, **options)


class HearsAPrefix(Honest):
    """As many source tokens as the target has: the aligned product's reach."""

    def mean(self, stream):
        return super().mean(Stream(stream.x[:, :13], stream.rows))


class ZeroPadsToTheTarget(Honest):
    """A mean over the width of the batch."""

    def mean(self, stream):
        return stream.x.mean(1)


class AveragesTheBatch(Honest):
    def mean(self, stream):
        heard = super().mean(stream)
        return heard - 0.01 * heard.mean(0, keepdim=True)


class OfTheSourcesLength(Honest):
    def fuse(self, streams, target, state, return_state):
        output = super().fuse(streams, target, state, return_state)
        longest = max(stream.x.shape[1] for stream in streams.values())
        output.y = nn.functional.pad(output.y, (0, 0, 0, longest - output.y.shape[1]))
        return output


class IgnoresASubset(Named):
    """Hears all or nothing."""

    def fuse(self, streams, target, state, return_state):
        complete = set(streams) == set(self.names)
        return super().fuse(streams if complete else {target: streams[target]}, target, state, return_state)


class IgnoresStrangers(Named):
    def forward(self, streams, target, **options):
        known = {name: stream for name, stream in streams.items() if name in self.names}
        return super().forward(known, target, **options)


class ChecksNothing(Honest):
    def forward(self, streams, target, *, state=None, return_state=False):
        return self.fuse(streams, target, state, return_state)


class DoesNotConsume(Honest):
    def forward(self, streams, target, *, state=None, return_state=False):
        output = self.fuse(streams, target, state, return_state)
        if output.state is not None:
            output.state.record(state, streams[target].x, ragged=False)
        return output


class Normalises(Honest):
    """x / |x|, which is not a number at zero."""

    def mean(self, stream):
        heard = super().mean(stream)
        return heard / heard.norm(dim=-1, keepdim=True)


class Detached(Honest):
    def setup(self, config, context):
        super().setup(config, context)
        self.scale = nn.Parameter(torch.ones(1))

    def mean(self, stream):
        return super().mean(stream) * self.scale.detach()


class RoundsAngles(Honest):
    def fuse(self, streams, target, state, return_state):
        output = super().fuse(streams, target, state, return_state)
        output.y = streams[target].x + torch.cos(1000 * self.proj(streams[target].x))
        return output


class FailsOnNothing(Honest):
    def mean(self, stream):
        assert stream.x.max() < 1e9
        return super().mean(stream)


class ReadsItsWeightFromOutside(Honest):
    """Its layer's matrix, and not its layer."""

    def fuse(self, streams, target, state, return_state):
        output = super().fuse(streams, target, state, return_state)
        output.y = output.y + F.linear(streams[target].x, self.proj.weight)
        return output


class KeepsWhatItReads(Honest):
    """Lays its matrix out once, for speed."""

    def fuse(self, streams, target, state, return_state):
        output = super().fuse(streams, target, state, return_state)
        kept = self.__dict__.setdefault("kept", self.proj.weight.detach().T.contiguous())
        output.y = output.y + streams[target].x @ kept.to(output.y)
        return output


class RoundsItsTable(Honest):
    """A fixed table as a buffer that is not saved."""

    def setup(self, config: Any, context: Any) -> None:
        super().setup(config, context)
        self.register_buffer("table", torch.arange(1.0, 1.0 + context.hidden_dim).rsqrt(), persistent=False)

    def mean(self, stream):
        return super().mean(stream) * self.table


class StaysOnTheCpu(Honest):
    """A parameter that names its device."""

    def setup(self, config: Any, context: Any) -> None:
        super().setup(config, context)
        self.proj.weight = nn.Parameter(torch.randn(self.proj.weight.shape, device="cpu"))


class CountsFromTheCall(Honest):
    """Positions of a chunk, not of the sequence."""

    def fuse(self, streams, target, state, return_state):
        if state is not None:
            state = self.new_state(torch.zeros_like(state.position), state.tensors)
        return super().fuse(streams, target, state, return_state)


class CountsPadding(Honest):
    def fuse(self, streams, target, state, return_state):
        before = 0 if state is None else state.position
        output = super().fuse(streams, target, state, return_state)
        if output.state is not None:
            output.state.position = before + torch.full((len(output.y),), output.y.shape[1])
        return output


class SharesWithItsClones(Honest):
    """A step that works in place on what clones share."""

    def fuse(self, streams, target, state, return_state):
        output = super().fuse(streams, target, state, return_state)
        made = output.state
        if made is not None:
            made.tensors["heard"].mul_(1.01)
            made.clone = lambda: State(made.owner, made.position, made.tensors)
        return output


class TakesAnyState(Named):
    def forward(self, streams, target, *, state=None, return_state=False):
        return super().forward(streams, target)

    def prepare(self, sources):
        return self.new_state(torch.zeros(1), {})


class Twin(FusionConfig):
    type: str = "twin"

    def build(self, context: Any) -> Fusion:
        return TWINS[self.type](context)


class HalvesItsHeads(SourceProductConfig):
    """Its fusion made by keyword is another one."""

    def build(self, context: Any) -> Fusion:
        return SourceProduct(context, head_dim=self.head_dim // 2)


TWINS: dict[str, Any] = {}


def twin(kind: type[Honest]) -> FusionCase:
    TWINS[kind.__name__] = kind
    return FusionCase(Twin(type=kind.__name__), causal=not issubclass(kind, Named))


CHECKS = {check.__name__.removeprefix("check_"): check for check in FUSION_CHECKS}
CAUGHT = [
    (OfTheSourcesLength, "the_output_is_on_the_target"),
    (HearsAPrefix, "every_token_of_every_stream_is_heard"),
    (LeaksAThousandth, "a_causal_target_sees_no_later_token"),
    (TransformsTheTarget, "a_causal_target_sees_no_later_token"),
    (TransformsTheTarget, "chunks_equal_the_full_pass"),
    (TransformsTheTarget, "a_target_continues_prepared_sources"),
    (TakesCausalTargets, "a_causal_target_is_refused"),
    (AveragesTheBatch, "rows_of_a_fusion_do_not_mix"),
    (ZeroPadsToTheTarget, "padding_of_any_stream_changes_nothing"),
    (IgnoresASubset, "any_stream_may_be_absent"),
    (IgnoresStrangers, "unknown_streams_are_refused"),
    (ChecksNothing, "streams_that_do_not_fit_are_refused"),
    (DoesNotConsume, "a_state_is_continued_once_and_by_its_owner"),
    (Normalises, "gradients_of_a_fusion_at_any_scale"),
    (Detached, "gradients_of_a_fusion_at_any_scale"),
    (RoundsAngles, "a_fusion_under_autocast"),
    (TransformsTheTarget, "it_transforms_through_its_backend"),
    (FailsOnNothing, "an_empty_batch_is_fused"),
    (StaysOnTheCpu, "it_builds_on_meta"),
    (ReadsItsWeightFromOutside, "weights_are_read_in_their_modules_call"),
    (KeepsWhatItReads, "nothing_is_remembered_of_the_weights"),
    (RoundsItsTable, "it_survives_meta_and_casts"),
    (CountsFromTheCall, "chunks_equal_the_full_pass"),
    (CountsFromTheCall, "rows_continue_from_where_each_ended"),
    (CountsPadding, "rows_continue_from_where_each_ended"),
    (SharesWithItsClones, "clones_and_selections_stand_alone"),
    (TakesAnyState, "a_fusion_without_a_state_refuses_one"),
]


@pytest.mark.parametrize(
    ("kind", "check"), [pytest.param(*pair, id=f"{pair[0].__name__}-{pair[1]}") for pair in CAUGHT]
)
def test_the_check_catches_the_fault(kind: type[Honest], check: str) -> None:
    # On an empty batch a part fails by whatever error it raises.
    error = RuntimeError if kind is FailsOnNothing else AssertionError
    with pytest.raises(error) as caught:
        CHECKS[check](twin(kind))
    assert kind is FailsOnNothing or (len(str(caught.value)) > 40 and kind.__name__ in str(caught.value))


def test_every_check_has_a_fault_it_catches() -> None:
    # Mixers have twins for the others, which are the same checks.
    shared = {"one_token_after_any_prefill", "a_saved_state_continues", "rewinding"}
    assert set(CHECKS) == {name for _, name in CAUGHT} | shared | {"keywords_make_the_same_part"}
    with pytest.raises(AssertionError, match="made by keyword arguments has other weights"):
        CHECKS["keywords_make_the_same_part"](FusionCase(HalvesItsHeads(head_dim=16)))


@pytest.mark.parametrize("honest", [Honest, Named])
def test_the_twins_are_wrong_in_nothing_else(honest: type[Honest]) -> None:
    for check, case in pairs(FUSION_CHECKS, [twin(honest)]):
        check(case)
