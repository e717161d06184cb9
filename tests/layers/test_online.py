"""Online convolution against the direct sum: outputs as inputs come, whatever the pieces, at less than its cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import safetensors.torch
import torch
from torch import Tensor

from spectral_core import fft_backend
from spectral_layers import Filter, FilterConfig, FilterContext, Rows, State, online
from spectral_layers.filters.implicit import ImplicitConfig
from spectral_layers.filters.spectrum import SpectrumConfig
from spectral_layers.mixers.gated_convolution import GatedConvolutionConfig
from spectral_layers.mixers.spectral_product import SpectralProductConfig
from spectral_layers.online import RUN, OnlineConvolution, OnlineFilter, OnlineProduct
from spectral_layers.testing import MixerCase
from spectral_layers.testing.streaming import continued, run
from spectral_layers.weight_cache import WeightCache

CHANNELS, LENGTH = 3, 700
FFT = fft_backend("torch")
PREFILLS = [1, 2, RUN - 1, RUN, RUN + 1, 100, 4 * RUN, 300]


class TableConfig(FilterConfig):
    type: str = "table"
    taps: int = LENGTH
    support: int | None = None
    limit: int | None = None


class Table(Filter[TableConfig]):
    """Free taps, zero from ``support`` on."""

    def setup(self, config: TableConfig, context: FilterContext) -> None:
        taps, support = config.taps, config.support
        self.support, self.length_limit = support, config.limit
        self.asked: list[int] = []
        table = torch.randn(CHANNELS, taps, dtype=torch.float64)
        table[:, taps if support is None else support :] = 0.0
        self.table = torch.nn.Parameter(table, requires_grad=False)

    def kernel(self, length: int) -> Tensor:
        self.asked.append(length)
        return torch.nn.functional.pad(self.table, (0, max(0, length - self.table.shape[1])))[:, :length]


class Filtered:
    """A fixed kernel, with its direct sum."""

    channels = CHANNELS

    def __init__(self, **options: int) -> None:
        self.filter = Table(channels=CHANNELS, **options)

    def after(self, u: Tensor, rows: Rows | None = None) -> OnlineConvolution:
        held = OnlineFilter.after(self.filter, FFT, u, rows)
        held.kernels = WeightCache()  # a stream's, as its state has it
        return held

    def direct(self, u: Tensor) -> Tensor:
        return direct(u, self.filter.table[None].to(u.dtype))


class Product:
    """Two streams, stacked, with their direct sum."""

    channels = 2 * CHANNELS

    def after(self, u: Tensor, rows: Rows | None = None) -> OnlineConvolution:
        return OnlineProduct.after(FFT, u, rows)

    def direct(self, u: Tensor) -> Tensor:
        return direct(*u.chunk(2, 1))


Kind = Filtered | Product
KINDS = [pytest.param(Filtered, id="filter"), pytest.param(Product, id="product")]


def direct(u: Tensor, kernel: Tensor) -> Tensor:
    """y[t] = sum_s kernel[s] u[t-s], term by term."""
    length = min(u.shape[-1], kernel.shape[-1])
    y = torch.zeros_like(u)
    for s in range(length):
        y[..., s:] += kernel[..., s : s + 1] * u[..., : u.shape[-1] - s]
    return y


def streamed(held: OnlineConvolution, u: Tensor, start: Tensor, sizes: Iterator[int] | None = None) -> Tensor:
    """Outputs for u, cut into pieces of those sizes, or of single tokens."""
    outputs, done = [], 0
    while done < u.shape[-1]:
        count = 1 if sizes is None else next(sizes)
        outputs.append(held.extend(u[..., done : done + count], start + done, None))
        done += count
    return torch.cat(outputs, -1)


def close(found: Tensor, expected: Tensor, bound: float = 1e-10) -> None:
    assert expected.abs().max() > 0.1, "an expectation of nothing says nothing"
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= bound * expected.abs().max()


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("prefill", PREFILLS)
@pytest.mark.parametrize("make", KINDS)
def test_single_tokens_are_the_direct_sum(make: Callable[[], Kind], prefill: int) -> None:
    kind = make()
    u = torch.randn(2, kind.channels, prefill + 10 * RUN + 5, dtype=torch.float64)
    found = streamed(kind.after(u[..., :prefill]), u[..., prefill:], torch.full((2,), prefill))
    close(found, kind.direct(u)[..., prefill:])


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("lengths", [[0, 1, 45, 130], [31, 32, 33, 200], [70, 128, 64, 100], [0, 0, 0, 0]], ids=str)
def test_rows_at_different_positions_share_their_tiles(make: Callable[[], Kind], lengths: list[int]) -> None:
    kind = make()
    start, new = torch.tensor(lengths), 7 * RUN + 3
    rows = [torch.randn(kind.channels, length + new, dtype=torch.float64) for length in lengths]
    prefill = torch.zeros(len(rows), kind.channels, max(1, *lengths), dtype=torch.float64)
    for row, (u, length) in enumerate(zip(rows, lengths, strict=True)):
        prefill[row, :, :length] = u[:, :length]
    following = torch.stack([u[:, length:] for u, length in zip(rows, lengths, strict=True)])
    found = streamed(kind.after(prefill, Rows(start)), following, start)
    for row, (u, length) in enumerate(zip(rows, lengths, strict=True)):
        close(found[row : row + 1], kind.direct(u[None])[..., length:])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("make", KINDS)
def test_pieces_of_any_length_are_the_direct_sum(make: Callable[[], Kind], seed: int) -> None:
    kind, generator = make(), torch.Generator().manual_seed(seed)

    def draw(choices: list[int]) -> int:
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    u = torch.randn(2, kind.channels, LENGTH, dtype=torch.float64)
    prefill = draw(PREFILLS)
    sizes = iter(lambda: draw([1, 1, 2, 3, 7, RUN, RUN + 1, 100, 3 * RUN, 257]), None)
    found = streamed(kind.after(u[..., :prefill]), u[..., prefill:], torch.full((2,), prefill), sizes)
    close(found, kind.direct(u)[..., prefill:])


@pytest.mark.parametrize("support", [1, 2, 5, RUN, RUN + 1, 100])
def test_a_filter_with_a_support_keeps_no_more_than_it_hears(support: int) -> None:
    kind = Filtered(support=support)
    u = torch.randn(1, CHANNELS, LENGTH, dtype=torch.float64)
    held = kind.after(u[..., :3])
    close(streamed(held, u[..., 3:], torch.tensor([3])), kind.direct(u)[..., 3:])
    assert held.stored.shape[-1] <= 3 * max(support, RUN)
    ones = torch.ones_like(u)
    close(held.extend(ones, torch.tensor([LENGTH]), None)[..., -1:], kind.direct(ones)[..., -1:])
    assert held.stored.shape[-1] == support - 1, "after a long piece, too"


def test_a_limited_filter_is_asked_for_no_more_taps() -> None:
    kind = Filtered(taps=201, limit=201)
    u = torch.randn(1, CHANNELS, 201, dtype=torch.float64)
    close(streamed(kind.after(u[..., :7]), u[..., 7:], torch.tensor([7])), kind.direct(u)[..., 7:])
    assert max(kind.filter.asked) == 201


def test_dropped_rows_take_their_memory_along() -> None:
    u = torch.randn(2, 2 * CHANNELS, 190, dtype=torch.float64)
    rows, following = Rows(torch.tensor([190, 10])), torch.randn(1, 2 * CHANNELS, 150, dtype=torch.float64)
    kind, product = Filtered(taps=201, limit=201), Product()
    held = kind.after(u[:, :CHANNELS], rows)
    held = OnlineFilter(kind.filter, FFT, held.stored[1:], held.pending[1:])
    y = held.extend(following[:, :CHANNELS], torch.tensor([10]), Rows(torch.tensor([150])))
    close(y, kind.direct(torch.cat([u[1:, :CHANNELS, :10], following[:, :CHANNELS]], -1))[..., 10:])
    assert max(kind.filter.asked) <= 201, "a short row must not ask for a long one's taps"
    u[1, :, 10:] = 0.0
    tensors = {name: tensor[1:] for name, tensor in product.after(u, rows).tensors().items()}
    again = OnlineProduct(FFT, tensors["heads"], tensors["inputs"], tensors["pending"])
    close(
        streamed(again, following, torch.tensor([10])),
        product.direct(torch.cat([u[1:, :, :10], following], -1))[..., 10:],
    )
    assert again.heads.shape[-1] < 190, "a growth keeps what the rows that are left have"


@pytest.mark.parametrize("make", KINDS)
def test_the_work_grows_like_tiles_and_not_like_sums(make: Callable[[], Kind], monkeypatch: pytest.MonkeyPatch) -> None:
    # Counted, not timed: columns transformed and summed per token, at two lengths.
    kind, columns = make(), []
    convolve = online.convolve
    monkeypatch.setattr(online, "convolve", lambda u, *a, **k: columns.append(u.shape[-1]) or convolve(u, *a, **k))
    u = torch.randn(1, kind.channels, 4096, dtype=torch.float64)
    counts = []
    for prefill in (128, 2048):
        held = kind.after(u[..., :prefill])
        columns.clear()
        places = {held.stored.data_ptr()}
        for t in range(prefill, 2 * prefill):
            held.extend(u[..., t : t + 1], torch.tensor([t]), None)
            places.add(held.stored.data_ptr())
        assert len(places) == 2, "the past is copied when the buffers grow, and at no token between"
        assert max(columns) <= 2 * prefill + 1
        counts.append(sum(columns) / prefill)
    # One growth of 2n columns and, on each level of tiles, n columns for n tokens.
    assert counts == pytest.approx([2 + math.log2(prefill / RUN) for prefill in (128, 2048)], rel=0.05)


def test_kernels_are_made_once_per_doubling_and_stream() -> None:
    kind = Filtered()
    u = torch.randn(1, CHANNELS, LENGTH, dtype=torch.float64)
    streamed(kind.after(u[..., :40]), u[..., 40:], torch.tensor([40]))
    # Heads of a run; tiles of 64 to 256 inputs in twice as many points; growths at 40, 104, 232 and 488 inputs.
    assert sorted(kind.filter.asked) == [RUN, 2 * RUN, 4 * RUN, 8 * RUN, 16 * RUN, 32 * RUN]


@pytest.mark.parametrize("make", KINDS)
def test_float32_rounds_no_more_than_the_direct_sum(make: Callable[[], Kind]) -> None:
    kind = make()
    u = torch.randn(1, kind.channels, LENGTH, dtype=torch.float64).float()
    exact = kind.direct(u.double())[..., 40:]
    if isinstance(kind, Filtered):
        kind.filter.float()
        exact = direct(u.double(), kind.filter.table[None].double())[..., 40:]
    found = streamed(kind.after(u[..., :40]), u[..., 40:], torch.tensor([40]))
    plain = (kind.direct(u)[..., 40:] - exact).abs().max()
    assert (found - exact).abs().max() <= 2 * plain
    assert plain > 0


@pytest.mark.parametrize("make", KINDS)
def test_bfloat16_is_rounded_once(make: Callable[[], Kind]) -> None:
    kind = make()
    u = torch.randn(1, kind.channels, LENGTH, dtype=torch.float64).bfloat16()
    if isinstance(kind, Filtered):
        kind.filter.float()
    kernel = kind.filter.table[None].double() if isinstance(kind, Filtered) else u[:, CHANNELS:].double()
    exact = direct(u[:, :CHANNELS].double(), kernel)[..., 40:]
    found = streamed(kind.after(u[..., :40]), u[..., 40:], torch.tensor([40]))
    assert found.dtype == torch.bfloat16
    assert ((found.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-4).all()
    assert found.abs().max() > 1


def mixer_case(name: str) -> MixerCase:
    filters = {"implicit": ImplicitConfig(timescale=300.0), "spectrum": SpectrumConfig(size=512)}
    config = GatedConvolutionConfig(filter=filters[name]) if name in filters else SpectralProductConfig()
    return MixerCase(config, hidden_dim=4)


MIXERS = pytest.mark.parametrize("case", [mixer_case(name) for name in ("implicit", "spectrum", "product")], ids=str)


@MIXERS
@pytest.mark.parametrize("fork", [RUN, RUN + 5, 3 * RUN, 4 * RUN - 1])
def test_a_state_forks_between_and_at_tiles(case: MixerCase, fork: int) -> None:
    # In place is only what nobody else holds: clones, selections, saved states go on as if alone.
    mixer, prefill = case.build(), 2 * RUN + 1
    x = torch.randn(2, prefill + 8 * RUN, 4, dtype=torch.float64)
    elsewhere = torch.randn(2, 3 * RUN, 4, dtype=torch.float64)
    y = mixer(x).y[:, prefill + fork :]
    _, state = run(mixer, x[:, :prefill])
    _, state = continued(mixer, state, x[:, prefill : prefill + fork].split(1, 1))
    clone, selected, saved = state.clone(), state.select(torch.tensor([1, 0, 1])), state.save()
    loaded = State.load(safetensors.torch.load(safetensors.torch.save(saved)))
    _, late = continued(mixer, state, elsewhere.split(1, 1))
    rest = x[:, prefill + fork :]
    close(continued(mixer, clone, rest.split(1, 1))[0], y)
    close(continued(mixer, selected, rest[[1, 0, 1]].split(7, 1))[0], y[[1, 0, 1]])
    close(continued(mixer, loaded, rest.split(1, 1))[0], y)
    gone = torch.cat([x[:, : prefill + fork], elsewhere, rest], 1)
    close(continued(mixer, late, rest[:, :5].split(1, 1))[0], mixer(gone).y[:, -rest.shape[1] :][:, :5])


@MIXERS
def test_rewinding_crosses_tiles_and_growths(case: MixerCase) -> None:
    mixer, reserve, prefill = case.build(), RUN + 9, 30
    x = torch.randn(2, prefill + 4 * RUN, 4, dtype=torch.float64)
    y = mixer(x).y
    _, state = run(mixer, x[:, :prefill])
    state.reserve(rewind=reserve)
    for end in range(prefill + 1, x.shape[1] + 1):
        _, state = run(mixer, x[:, end - 1 : end], state)
        if (end - prefill) % RUN in (0, 1, 20) and end > prefill + reserve:
            for tokens in (1, reserve):
                earlier = mixer.rewind(state.clone(), tokens)
                assert earlier.position.tolist() == [end - tokens] * 2
                close(
                    continued(mixer, earlier, x[:, end - tokens : end + 9].split(1, 1))[0], y[:, end - tokens : end + 9]
                )


@MIXERS
def test_rows_drift_apart_and_decode_on(case: MixerCase) -> None:
    mixer = case.build()
    x = torch.randn(3, 300, 4, dtype=torch.float64)
    y, at = mixer(x).y, torch.zeros(3, dtype=torch.long)
    state: State | None = None
    for lengths, tokens in (([90, 1, 40], 40), ([3, 0, 2], 50), ([0, 20, 1], 70)):
        chunk = torch.randn(3, max(lengths), 4, dtype=torch.float64)
        for row, count in enumerate(lengths):
            chunk[row, :count] = x[row, at[row] : at[row] + count]
        _, state = run(mixer, chunk, state, Rows(torch.tensor(lengths)))
        at += torch.tensor(lengths)
        index = at[:, None] + torch.arange(tokens)
        found, state = continued(mixer, state, x[torch.arange(3)[:, None], index].split(1, 1))
        close(found, y[torch.arange(3)[:, None], index])
        at += tokens


@MIXERS
def test_a_state_made_without_gradients_learns_from_there_on(case: MixerCase) -> None:
    mixer = case.build()
    x = torch.randn(1, 120, 4, dtype=torch.float64)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            _, state = run(mixer, x[:, :60])
            _, state = continued(mixer, state, x[:, 60:100].split(1, 1))
            clone = state.clone()
        with torch.enable_grad():
            y = mixer(x[:, 100:101], state=state).y
            y.sum().backward()
        assert mixer.in_proj.weight.grad.any()
        found, _ = continued(mixer, clone, x[:, 100:].split(1, 1))
        close(found, mixer(x).y[:, 100:])
        close(y.detach(), found[:, :1])
