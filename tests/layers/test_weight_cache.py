"""Values computed from weights follow every change of them; only scopes and streams cache them."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from spectral_core import convolve, fft_backend
from spectral_layers import FILTERS, MIXERS, Filter, FilterContext, LayerContext, fixed_weights
from spectral_layers.filters.resonant import Resonant
from spectral_layers.mixers.gated_convolution import GatedConvolution, GatedConvolutionConfig
from spectral_layers.mixers.multiscale import MultiscaleConfig
from spectral_layers.state import State
from spectral_layers.testing import filter_cases, fusion_cases, gate_cases, mixer_cases
from spectral_layers.testing.weights import answers
from spectral_layers.weight_cache import cached

FFT = fft_backend("torch")
Write = Callable[[nn.Module, nn.Module], None]


class Convolved(nn.Module):
    """A filter as a module, with all that it gives mixers."""

    def __init__(self, long_filter: Filter) -> None:
        super().__init__()
        self.filter = long_filter

    def forward(self, u: Tensor) -> Tensor:
        return convolve(u, self.filter.prepared(u.shape[-1], FFT), backend="torch")


class Mixed(nn.Module):
    """A mixer: its full pass and, where it streams, tokens behind a prefill."""

    def __init__(self, config: Any, *, causal: bool) -> None:
        super().__init__()
        self.mixer = config.build(LayerContext(4, causal, FFT, max_seq_len=32))

    def forward(self, u: Tensor) -> Tensor:
        x = u.transpose(1, 2)
        y = self.mixer(x).y
        if not (self.mixer.causal and self.mixer.streams):
            return y
        first = self.mixer(x[:, :9], return_state=True)
        second = self.mixer(x[:, 9:10], state=first.state, return_state=True)
        return torch.cat([y, first.y, second.y, self.mixer(x[:, 10:], state=second.state).y], 1)


def mixers() -> dict[str, Callable[[], nn.Module]]:
    """Every registered mixer in each direction, and those that hold a filter with one that is no recurrence too."""
    small = {"holographic": {"head_dim": 2, "phases": 4}, "spectral_gating": {"head_dim": 2, "block": 4, "window": 8}}
    found: dict[str, Callable[[], nn.Module]] = {}
    for entry in MIXERS:
        config = entry.load().model_validate(small.get(entry.name, {}))
        variants = [config, *([config.model_copy(update={"filter": implicit()})] if hasattr(config, "filter") else [])]
        for number, variant in enumerate(variants):
            for direction in sorted(variant.directions):
                name = f"{entry.name}-{direction}{'-implicit' * number}"
                found[name] = partial(Mixed, variant, causal=direction == "causal")
    return {name: make for name, make in found.items() if any(True for _ in make().parameters())}


def implicit() -> Any:
    return FILTERS.get("implicit").load()(width=8)


def filters() -> dict[str, Callable[[], nn.Module]]:
    def of(name: str) -> Callable[[], nn.Module]:
        return lambda: Convolved(FILTERS.get(name).load()(type=name).build(FilterContext(4, 32, FFT)))

    return {name: of(name) for name in FILTERS.names()}


def through_data(part: nn.Module, new: nn.Module) -> None:
    for p, q in zip(part.parameters(), new.parameters(), strict=True):
        p.data.copy_(q)


def through_data_in_place(part: nn.Module, new: nn.Module) -> None:
    for p, q in zip(part.parameters(), new.parameters(), strict=True):
        p.data.mul_(0).add_(q.data)


def by_data_index(part: nn.Module, new: nn.Module) -> None:
    for p, q in zip(part.parameters(), new.parameters(), strict=True):
        p.data[...] = q.data


def by_data_assignment(part: nn.Module, new: nn.Module) -> None:
    for p, q in zip(part.parameters(), new.parameters(), strict=True):
        p.data = q.data.clone()


def by_an_average(part: nn.Module, new: nn.Module) -> None:
    for _ in range(2):
        for p, q in zip(part.parameters(), new.parameters(), strict=True):
            p.data.lerp_(q.data, 1.0)


def through_detach(part: nn.Module, new: nn.Module) -> None:
    for p, q in zip(part.parameters(), new.parameters(), strict=True):
        p.detach().copy_(q.detach())


def through_numpy(part: nn.Module, new: nn.Module) -> None:
    for p, q in zip(part.parameters(), new.parameters(), strict=True):
        p.detach().numpy()[...] = q.detach().numpy()


def without_gradients(part: nn.Module, new: nn.Module) -> None:
    with torch.no_grad():
        for p, q in zip(part.parameters(), new.parameters(), strict=True):
            p.copy_(q)


def in_inference_mode(part: nn.Module, new: nn.Module) -> None:
    with torch.inference_mode():
        for p, q in zip(part.parameters(), new.parameters(), strict=True):
            p.copy_(q)


def by_foreach(part: nn.Module, new: nn.Module) -> None:
    with torch.no_grad():
        torch._foreach_copy_(list(part.parameters()), list(new.parameters()))


def by_set(part: nn.Module, new: nn.Module) -> None:
    with torch.no_grad():
        for p, q in zip(part.parameters(), new.parameters(), strict=True):
            p.set_(q.detach().clone())


def through_storage(part: nn.Module, new: nn.Module) -> None:
    for p, q in zip(part.parameters(), new.parameters(), strict=True):
        p.untyped_storage().copy_(q.detach().contiguous().untyped_storage())


def by_loading(part: nn.Module, new: nn.Module) -> None:
    part.load_state_dict(new.state_dict())


def by_loading_with_assignment(part: nn.Module, new: nn.Module) -> None:
    part.load_state_dict(copy.deepcopy(new).state_dict(), assign=True)


def by_swapping(part: nn.Module, new: nn.Module) -> None:
    for p, q in zip(list(part.parameters()), list(copy.deepcopy(new).parameters()), strict=True):
        torch.utils.swap_tensors(p, q)


def by_new_parameters(part: nn.Module, new: nn.Module) -> None:
    for name, q in new.named_parameters():
        owner, _, own = name.rpartition(".")
        setattr(part.get_submodule(owner), own, nn.Parameter(q.detach().clone()))


def by_a_vector(part: nn.Module, new: nn.Module) -> None:
    vector = nn.utils.parameters_to_vector(new.parameters())
    nn.utils.vector_to_parameters(vector, part.parameters())


def by_averaged_model(part: nn.Module, new: nn.Module) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(part, multi_avg_fn=lambda mine, others, _: _copy(mine, others))
    for _ in range(2):
        averaged.update_parameters(new)
    part.load_state_dict(averaged.module.state_dict())


def _copy(mine: list[Tensor], others: list[Tensor]) -> None:
    for p, q in zip(mine, others, strict=True):
        p.copy_(q)


WAYS: list[Write] = [
    through_data,
    through_data_in_place,
    by_data_index,
    by_data_assignment,
    by_an_average,
    through_detach,
    through_numpy,
    without_gradients,
    in_inference_mode,
    by_foreach,
    by_set,
    through_storage,
    by_loading,
    by_loading_with_assignment,
    by_swapping,
    by_new_parameters,
    by_a_vector,
    by_averaged_model,
]


def moved(part: nn.Module) -> nn.Module:
    """The same with other weights, never called."""
    new = copy.deepcopy(part)
    with torch.no_grad():
        for p in new.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return new


def used(part: nn.Module, u: Tensor) -> Tensor:
    """What it gives, twice, and in a scope that has ended."""
    with torch.no_grad(), fixed_weights(part):
        part(u)
    with torch.inference_mode():
        part(u)
    with torch.no_grad():
        part(u)
        return part(u)


@pytest.mark.parametrize("write", WAYS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("make", [*filters().values(), *mixers().values()], ids=[*filters(), *mixers()])
def test_outputs_follow_the_weights(make: Callable[[], nn.Module], write: Write) -> None:
    part, u = make().eval(), torch.randn(2, 4, 12)
    new = moved(part)
    before = used(part, u)
    write(part, new)
    with torch.no_grad():
        found, wanted = part(u), copy.deepcopy(new)(u)
    assert (before - wanted).abs().max() > 1e-3 * wanted.abs().max(), "the new weights are other ones"
    torch.testing.assert_close(found, wanted)


def raw_fused_adamw(parameters: list[nn.Parameter]) -> Callable[[], None]:
    """As training loops of their own call it: no optimiser, no hook, no version."""

    def step() -> None:
        def zeros() -> list[Tensor]:
            return [torch.zeros_like(p) for p in parameters]

        given = [p.data for p in parameters], [p.grad for p in parameters], zeros(), zeros(), []
        options = {"lr": 0.1, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.0, "eps": 1e-8}
        flags = {"amsgrad": False, "maximize": False, "grad_scale": None, "found_inf": None}
        torch._fused_adamw_(*given, [torch.tensor(1.0) for _ in parameters], **options, **flags)

    return step


STEPS: dict[str, Callable[[list[nn.Parameter]], Callable[[], object]]] = {
    "sgd foreach": lambda p: torch.optim.SGD(p, 0.1, foreach=True).step,
    "sgd fused": lambda p: torch.optim.SGD(p, 0.1, fused=True).step,
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, foreach=False).step,
    "adamw fused": lambda p: torch.optim.AdamW(p, 0.1, fused=True).step,
    "adagrad fused": lambda p: torch.optim.Adagrad(p, 0.1, fused=True).step,
    "raw fused adamw": raw_fused_adamw,
}


@pytest.mark.parametrize("optimiser", STEPS)
@pytest.mark.parametrize("make", filters().values(), ids=filters())
def test_outputs_follow_an_optimiser_s_step(make: Callable[[], nn.Module], optimiser: str) -> None:
    # In evaluation mode, and used between the gradients and the step, as a loop that logs does.
    part, u = make().eval(), torch.randn(2, 4, 12)
    step = STEPS[optimiser](list(part.parameters()))
    part(u).square().sum().backward()
    before = used(part, u)
    step()
    with torch.no_grad():
        found, wanted = part(u), copy.deepcopy(part)(u)
    assert (before - wanted).abs().max() > 1e-3 * wanted.abs().max()
    torch.testing.assert_close(found, wanted)


def test_another_process_may_write_shared_weights() -> None:
    part, u = filters()["resonant"]().eval().share_memory(), torch.randn(2, 4, 12)
    new = moved(part)
    used(part, u)
    context = torch.multiprocessing.get_context("fork")
    writer = context.Process(target=through_data, args=(part, new))
    writer.start()
    writer.join()
    assert writer.exitcode == 0
    with torch.no_grad():
        torch.testing.assert_close(part(u), copy.deepcopy(new)(u))


@pytest.mark.parametrize("make", filters().values(), ids=filters())
def test_an_ensemble_under_vmap_is_each_of_its_members(make: Callable[[], nn.Module]) -> None:
    models, u = [make().eval() for _ in range(3)], torch.randn(2, 4, 16)
    with torch.no_grad():
        expected = torch.stack([model(u) for model in models])
        shared = copy.deepcopy(models[0])
        found = vmap(lambda *state: functional_call(shared, state, (u,)))(*stack_module_state(models))
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()
    torch.testing.assert_close(found, expected)


class Counted(Resonant):
    """Counts its syntheses."""

    def setup(self, config: Any, context: FilterContext) -> None:
        super().setup(config, context)
        self.made: list[object] = []

    def kernel(self, length: int) -> Tensor:
        self.made.append(length)
        return super().kernel(length)

    def tables(self) -> tuple[Tensor, Tensor]:
        self.made.append("tables")
        return super().tables()


@pytest.fixture
def counted() -> tuple[GatedConvolution, Counted]:
    mixer = GatedConvolution(LayerContext(4, True, FFT), short_taps=2).eval()
    mixer.filter = Counted(channels=4, modes=2, timescales=(2.0, 20.0)).eval()
    return mixer, mixer.filter


def test_a_scope_keeps_kernels_and_a_plain_call_does_not(counted: tuple[GatedConvolution, Counted]) -> None:
    mixer, long_filter = counted
    x = torch.randn(1, 8, 4)
    with torch.no_grad():
        mixer(x), mixer(x)
        assert long_filter.made == [8, 8]
        with fixed_weights(mixer):
            mixer(x), mixer(x), mixer(x[:, :5]), mixer(x)
            with fixed_weights(mixer), fixed_weights(long_filter):
                mixer(x)
            mixer(x)
        assert long_filter.made[2:] == [8, 5]
        mixer(x)
        assert long_filter.made[4:] == [8]


def test_a_scope_is_of_one_model_and_one_thread(counted: tuple[GatedConvolution, Counted]) -> None:
    mixer, long_filter = counted
    other = copy.deepcopy(mixer)
    x = torch.randn(1, 8, 4)

    def call() -> None:
        with torch.no_grad():
            mixer(x)

    with torch.no_grad(), fixed_weights(mixer):
        other(x), other(x)
        assert other.filter.made == [8, 8]
        call()
        for _ in range(2):
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
    assert long_filter.made == [8, 8, 8]


def test_a_scope_ends_with_an_error_too(counted: tuple[GatedConvolution, Counted]) -> None:
    mixer, long_filter = counted

    def fails() -> None:
        with torch.no_grad(), fixed_weights(mixer):
            mixer(torch.randn(1, 8, 4))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with torch.no_grad():
        mixer(torch.randn(1, 8, 4))
    assert long_filter.made == [8, 8]


def test_calls_with_gradients_use_nothing_that_was_kept(counted: tuple[GatedConvolution, Counted]) -> None:
    mixer, long_filter = counted
    x = torch.randn(1, 8, 4)
    with fixed_weights(mixer):
        with torch.no_grad():
            mixer(x)
        mixer(x).y.sum().backward()
    assert long_filter.coefficient.grad.abs().max() > 0
    assert long_filter.made == [8, 8]


def test_a_scope_lets_the_kernel_go_that_was_unused_for_longest(counted: tuple[GatedConvolution, Counted]) -> None:
    mixer, long_filter = counted
    with torch.no_grad(), fixed_weights(mixer):
        for length in (1, *range(2, 9), 1, 9, 1, 2):
            mixer(torch.randn(1, length, 4))
    assert long_filter.made == [*range(1, 10), 2], "eight are kept: 9 took the place of 2, not of 1"


def test_any_value_may_be_kept(counted: tuple[GatedConvolution, Counted]) -> None:
    mixer, _ = counted
    made = []

    def copied() -> Tensor:
        made.append(1)
        return mixer.in_proj.weight.bfloat16()

    with torch.no_grad():
        with fixed_weights(mixer):
            assert cached(mixer.in_proj, "bfloat16", None, copied) is cached(mixer.in_proj, "bfloat16", None, copied)
        assert cached(mixer.in_proj, "bfloat16", None, copied) is not cached(mixer.in_proj, "bfloat16", None, copied)
    assert len(made) == 3


def test_a_stream_makes_its_tables_once(counted: tuple[GatedConvolution, Counted]) -> None:
    mixer, long_filter = counted
    x = torch.randn(2, 8, 4)
    with torch.no_grad():
        state = mixer(x, return_state=True).state
        for t in range(4):
            state = mixer(x[:, t : t + 1], state=state, return_state=True).state
        for other in (state.clone(), state.select(torch.tensor([1, 0])), state.reserve(rewind=3).clone()):
            mixer(x[:, :1], state=other)
        assert long_filter.made == [8, "tables"]
        saved = state.save()
        assert not any("kernel" in name for name in saved)
        for other in (State.load(saved), pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):  # noqa: S301
            mixer(x[:, :1], state=other)
        assert long_filter.made == [8] + 4 * ["tables"]


def test_streams_in_a_scope_share_what_they_make() -> None:
    mixer = GatedConvolution(LayerContext(4, True, FFT), filter={"type": "implicit", "width": 8}, short_taps=2).eval()
    long_filter = mixer.filter
    asked, kernel = [], long_filter.kernel
    long_filter.kernel = lambda length: asked.append(length) or kernel(length)

    def streamed() -> None:
        state = mixer(torch.randn(1, 3, 4), return_state=True).state
        for _ in range(100):
            state = mixer(torch.randn(1, 1, 4), state=state, return_state=True).state

    with torch.no_grad(), fixed_weights(mixer):
        streamed()
        once = list(asked)
        streamed()
    assert asked == once
    assert len(once) == len(set(once)) > 3


@pytest.mark.parametrize("config", [GatedConvolutionConfig(filter=implicit()), MultiscaleConfig(filter=implicit())])
def test_a_new_stream_is_of_the_weights_as_they_are(config: Any) -> None:
    # Through the tiles of online convolution, which a stream makes as it grows.
    mixer = config.build(LayerContext(4, True, FFT)).eval()
    x = torch.randn(1, 150, 4)

    def streamed() -> Tensor:
        with torch.no_grad():
            first = mixer(x[:, :3], return_state=True)
            outputs, state = [first.y], first.state
            for t in range(3, 150):
                output = mixer(x[:, t : t + 1], state=state, return_state=True)
                outputs.append(output.y)
                state = output.state
            return torch.cat(outputs, 1)

    streamed()
    through_data(mixer, moved(mixer))
    with torch.no_grad():
        wanted = mixer(x).y
    torch.testing.assert_close(streamed(), wanted, rtol=1e-3, atol=1e-4)


def test_a_stream_goes_on_with_another_copy_of_its_model(counted: tuple[GatedConvolution, Counted]) -> None:
    # Kernels are those of the model that goes on, whoever began.
    mixer, _ = counted
    new, x = moved(mixer), torch.randn(1, 9, 4)
    with torch.no_grad():
        state = mixer(x[:, :7], return_state=True).state
        state = mixer(x[:, 7:8], state=state, return_state=True).state
        again = State.load(state.save())
        torch.testing.assert_close(new(x[:, 8:], state=state).y, new(x[:, 8:], state=again).y)


def test_models_with_used_filters_copy_and_pickle() -> None:
    for make in filters().values():
        part, u = make().eval(), torch.randn(1, 4, 12)
        wanted = used(part, u)
        for other in (copy.deepcopy(part), copy.copy(part), pickle.loads(pickle.dumps(part))):  # noqa: S301
            with torch.no_grad():
                torch.testing.assert_close(other(u), wanted)


@pytest.mark.parametrize("case", [*filter_cases(), *mixer_cases(), *fusion_cases(), *gate_cases()], ids=str)
def test_a_call_leaves_nothing_on_a_part(case: Any) -> None:
    part = case.build()
    before = [set(vars(module)) for module in part.modules()]
    answers(case, part)
    assert [set(vars(module)) for module in part.modules()] == before
