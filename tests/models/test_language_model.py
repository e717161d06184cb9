"""The language model as its users see it: strictly causal, one function however it is fed, clear when it refuses."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from spectral_core import (
    ConfigError,
    FFTBackendConfig,
    Request,
    StateError,
    UnsupportedInputError,
    fft_backend,
    hookimpl,
    list_fft_backends,
)
from spectral_core.backends.torch_fft import TorchFFT
from spectral_core.plugins import HOST, Registrar
from spectral_layers import State
from spectral_layers.testing import MixerCase, mixer_cases
from spectral_models import build_model, load_config
from spectral_models.variants.language_model import LanguageModel

VOCABULARY = 13
CASES = [case for case in mixer_cases() if case.causal]
ALTERNATING = [
    {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}}, "feedforward": "mlp"},
    {"mixer": {"type": "holographic", "head_dim": 8, "phases": 8}},
]


def made(*blocks: Any, dtype: torch.dtype = torch.float64, **overrides: Any) -> LanguageModel:
    """A small model in eval mode whose parameters are random: what starts at zero hides what it would do."""
    config = {"vocab_size": VOCABULARY, "hidden_dim": 16, "num_layers": 2, "layers": blocks or ALTERNATING}
    torch.manual_seed(0)
    model = build_model(config, **overrides)
    assert isinstance(model, LanguageModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def of(case: MixerCase, **overrides: Any) -> LanguageModel:
    """Two layers around a mixer of the registry, heads as wide as the small model."""
    mixer = case.config.model_dump()
    if "head_dim" in mixer:
        mixer["head_dim"] = 8
    limit = {"max_seq_len": 256} if mixer.get("filter", {}).get("type") in ("spectrum", "hankel") else {}
    return made({"mixer": mixer}, **{**limit, **overrides})


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest of b."""
    a, b = a.detach(), b.detach()
    assert b.abs().max() > 1e-3, "a comparison with zeros says nothing"
    return float((a - b).abs().max() / b.abs().max())


def fed(model: LanguageModel, input_ids: Tensor, *chunks: int, state: State | None = None) -> tuple[Tensor, State]:
    """Logits and final state of the tokens in chunks of these sizes, taken in turn."""
    found = []
    sizes = itertools.cycle(chunks)
    while input_ids.shape[1]:
        size = next(sizes)
        output = model(input_ids[:, :size], state=state, return_state=True)
        found.append(output.logits)
        state, input_ids = output.state, input_ids[:, size:]
    assert state is not None
    return torch.cat(found, 1), state


# Causality


def leak(model: LanguageModel, positions: tuple[int, ...], length: int) -> float:
    """How far earlier logits move when the tokens from a position on change, relative to how far later ones do."""
    input_ids, worst = tokens(2, length), 0.0
    with torch.no_grad():
        logits = model(input_ids).logits
        for position in positions:
            changed = input_ids.clone()
            changed[:, position:] = (changed[:, position:] + 1) % VOCABULARY
            moved = (model(changed).logits - logits).abs()
            assert moved[:, position:].max() > 1e-3, "later logits must move, or this says nothing"
            worst = max(worst, float(moved[:, :position].max() / moved[:, position:].max()))
    return worst


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_logit_sees_a_later_token(case: MixerCase) -> None:
    """In float64, where the rounding of an FFT is 1e-15: a change at, before and behind the bounds of blocks."""
    length = case.length
    assert leak(of(case), (1, case.block, case.block + 1, 2 * case.block - 1, length - 1), length) <= 1e-9


def test_the_causality_test_sees_a_small_leak() -> None:
    model = made()
    norm = model.blocks[0].mixer_norm
    norm.register_forward_hook(lambda _, inputs, y: y + 1e-3 * y.mean(1, keepdim=True))
    assert leak(model, (1, 40), 80) > 1e-6


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_full_pass_chunks_and_single_tokens_give_the_same_logits(case: MixerCase) -> None:
    model, input_ids = of(case), tokens(2, 2 * case.block + 9)
    with torch.no_grad():
        logits = model(input_ids).logits
        assert difference(fed(model, input_ids, 1)[0], logits) < 1e-9
        assert difference(fed(model, input_ids, 5, 1, 13, 3)[0], logits) < 1e-9
        assert difference(fed(model, input_ids, case.block + 1, 1)[0], logits) < 1e-9


def test_decoding_two_thousand_tokens_stays_with_the_full_pass() -> None:
    """In float32, as it is used: rounding must not grow with the sequence."""
    model, input_ids = made(dtype=torch.float32, num_layers=4), tokens(1, 2000)
    with torch.inference_mode():
        logits = model(input_ids).logits
        assert difference(fed(model, input_ids, 1)[0], logits) <= 1e-4
        assert difference(fed(model, input_ids, 127, 1, 333)[0], logits) <= 1e-4


# Rows of different lengths

LENGTHS = (7, 20, 1, 13)


def padded(side: str, fill: int = 5) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A batch of rows of LENGTHS, its mask, and the rows themselves."""
    rows = [tokens(1, length, seed=length) for length in LENGTHS]
    width = max(LENGTHS)
    batch = torch.full((len(rows), width), fill)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        here = slice(width - row.shape[1], width) if side == "left" else slice(row.shape[1])
        batch[index, here], mask[index, here] = row[0], 1
    return batch, mask, rows


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_padded_rows_are_the_rows_alone(case: MixerCase, side: str) -> None:
    """Their logits, and everything that is decoded from the state behind them."""
    model = of(case)
    batch, mask, rows = padded(side)
    more = tokens(len(rows), 9, seed=99)
    with torch.no_grad():
        output = model(batch, mask, return_state=True)
        continued, _ = fed(model, more, 1, 4, state=output.state)
        for index, row in enumerate(rows):
            alone = model(torch.cat([row, more[index : index + 1]], 1)).logits[0]
            length = row.shape[1]
            assert difference(output.logits[index][mask[index] == 1], alone[:length]) < 1e-9
            assert difference(continued[index], alone[length:]) < 1e-9


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_may_continue_by_different_lengths(side: str) -> None:
    """Chunked prefill of a padded batch; a row may also pause for a call."""
    model = made()
    first, second = tokens(4, 6), tokens(4, 5, seed=2)
    lengths = (5, 2, 0, 1)
    mask = torch.zeros(4, 5, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, 5 - length if side == "left" else 0 : 5 if side == "left" else length] = True
    last = tokens(4, 3, seed=3)
    with torch.no_grad():
        state = model(first, return_state=True).state
        output = model(second, mask, state=state, return_state=True)
        continued = model(last, state=output.state).logits
        for row in range(4):
            whole = torch.cat([first[row], second[row][mask[row]], last[row]])[None]
            alone = model(whole).logits[0]
            assert difference(continued[row], alone[-3:]) < 1e-9
            if lengths[row]:
                assert difference(output.logits[row][mask[row]], alone[6:-3]) < 1e-9


def test_what_stands_on_padding_does_not_matter() -> None:
    model = made()
    (one, mask, _), (other, _, _) = padded("left", 5), padded("left", 9)
    with torch.no_grad():
        assert difference(model(one, mask).logits[mask == 1], model(other, mask).logits[mask == 1]) < 1e-9


@pytest.mark.parametrize("kind", [torch.bool, torch.long, torch.float32])
def test_a_mask_of_ones_is_no_mask(kind: torch.dtype) -> None:
    model, input_ids = made(), tokens(2, 9)
    with torch.no_grad():
        assert torch.equal(model(input_ids, torch.ones(2, 9, dtype=kind)).logits, model(input_ids).logits)


# What it refuses


@pytest.mark.parametrize(
    ("input_ids", "message"),
    [
        (torch.zeros(5, dtype=torch.long), r"\(B, L\) integers with at least one token; got \(5,\) int64"),
        (torch.zeros(1, 2, 3, dtype=torch.long), r"got \(1, 2, 3\) int64"),
        (torch.zeros(2, 0, dtype=torch.long), r"at least one token; got \(2, 0\)"),
        (torch.zeros(2, 3), r"integers .* got \(2, 3\) float32"),
        (torch.zeros(2, 3, dtype=torch.bool), r"integers .* got \(2, 3\) bool"),
        (torch.zeros(2, 3, dtype=torch.complex64), r"integers .* got \(2, 3\) complex64"),
        (torch.tensor([[1, VOCABULARY]]), r"from 0 to 12 \(vocab_size 13\); got 1 to 13"),
        (torch.tensor([[1, -1]]), "got -1 to 1"),
    ],
)
def test_ids_that_are_none_are_refused(input_ids: Tensor, message: str) -> None:
    with pytest.raises(UnsupportedInputError, match=message):
        made()(input_ids)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1]]), r"holes in rows \[1\]"),
        (torch.ones(2, 3), r"mask \(2, 3\) float32 on cpu must have input_ids' shape \(2, 4\)"),
        (torch.ones(4), r"must have input_ids' shape"),
        (torch.ones(2, 1, 4), r"must have input_ids' shape"),
    ],
)
def test_masks_that_fit_no_rows_are_refused(mask: Tensor, message: str) -> None:
    with pytest.raises(UnsupportedInputError, match=message):
        made()(tokens(2, 4), mask)


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
def test_ids_of_any_integer_type_are_the_same_tokens(kind: torch.dtype) -> None:
    """Bytes come as uint8."""
    model, input_ids = made(), tokens(2, 9)
    with torch.no_grad():
        assert torch.equal(model(input_ids.to(kind)).logits, model(input_ids).logits)
    long = tokens(2, 300).to(kind)
    assert model(long, return_state=True).state.position.tolist() == [300, 300], "positions outgrow a byte"


def limited() -> LanguageModel:
    return made({"mixer": {"type": "gated_convolution", "filter": "spectrum"}}, max_seq_len=12)


def test_a_declared_length_is_a_limit_of_the_full_pass() -> None:
    model = limited()
    with torch.no_grad():
        assert model(tokens(1, 12)).logits.shape[1] == 12
    with pytest.raises(UnsupportedInputError, match=r"limited to 12 tokens.*got 13\. Raise max_seq_len"):
        model(tokens(1, 13))


@pytest.mark.parametrize("size", [1, 5])
def test_a_declared_length_is_a_limit_of_the_stream(size: int) -> None:
    model, input_ids = limited(), tokens(1, 12)
    with torch.no_grad():
        logits, state = fed(model, input_ids, size)
        assert difference(logits, model(input_ids).logits) < 1e-9
        with pytest.raises(UnsupportedInputError, match=f"limited to 12 tokens.*got {12 + size}"):
            model(tokens(1, size), state=state)


def test_max_seq_len_limits_nothing_else() -> None:
    assert made(max_seq_len=4)(tokens(1, 9)).logits.shape == (1, 9, VOCABULARY)


# Batches


def test_a_row_does_not_depend_on_the_batch_around_it() -> None:
    model, input_ids = made(), tokens(3, 17)
    with torch.no_grad():
        logits = model(input_ids).logits
        for row in range(3):
            assert difference(model(input_ids[row : row + 1]).logits, logits[row : row + 1]) < 1e-9


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_empty_batch_gives_empty_logits(case: MixerCase) -> None:
    """Data loaders hand them out at the end of an epoch."""
    model = of(case)
    with torch.no_grad():
        output = model(tokens(0, 5), torch.ones(0, 5), return_state=True)
        assert output.logits.shape == (0, 5, VOCABULARY)
        assert model(tokens(0, 1), state=output.state, return_state=True).logits.shape == (0, 1, VOCABULARY)


# State


def test_the_state_is_cloned_reordered_and_rewound() -> None:
    model = made()
    input_ids, more = tokens(3, 30), tokens(3, 4, seed=2)
    order = torch.tensor([2, 0, 0])
    with torch.no_grad():
        whole = model(torch.cat([input_ids, more], 1)).logits[:, 30:]
        state = model(input_ids, return_state=True).state
        assert state.position.tolist() == [30, 30, 30]
        kept = state.clone()
        assert difference(model(more, state=state).logits, whole) < 1e-9
        chosen = kept.select(order)
        assert difference(model(more, state=kept).logits, whole) < 1e-9
        assert difference(model(more[order], state=chosen).logits, whole[order]) < 1e-9


def test_speculative_tokens_are_taken_back() -> None:
    model, prompt, more = made(), tokens(2, 9), tokens(2, 20, seed=2)
    with torch.no_grad():
        state = model(prompt, return_state=True).state.reserve(rewind=6)
        _, state = fed(model, more, 1, 3, state=state)
        state = model.rewind(state, 5)
        assert state.position.tolist() == [24, 24]
        whole = model(torch.cat([prompt, more], 1)).logits
        assert difference(model(more[:, 15:], state=state).logits, whole[:, 24:]) < 1e-9
        with pytest.raises(StateError, match="rewind"):
            model.rewind(model(prompt, return_state=True).state, 1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_saved_state_continues(case: MixerCase) -> None:
    model, prompt, more = of(case), tokens(2, 11), tokens(2, 3, seed=2)
    with torch.no_grad():
        state = model(prompt, return_state=True).state
        again = State.load(state.save())
        assert torch.equal(model(more, state=again).logits, model(more, state=state).logits)


def test_a_call_consumes_its_state() -> None:
    model = made()
    state = model(tokens(1, 4), return_state=True).state
    model(tokens(1, 1), state=state)
    for use in (lambda: model(tokens(1, 1), state=state), state.clone, state.save):
        with pytest.raises(StateError, match="already continued"):
            use()


@pytest.mark.parametrize(
    ("blocks", "overrides"),
    [
        (ALTERNATING[:1], {}),
        (ALTERNATING[::-1], {}),
        (ALTERNATING, {"num_layers": 1}),
        (ALTERNATING, {"num_layers": 3}),
        (ALTERNATING, {"hidden_dim": 32}),
        (ALTERNATING, {"layers.0.mixer.filter.modes": 5}),
    ],
)
def test_the_state_of_another_model_is_refused(blocks: list[Any], overrides: dict[str, Any]) -> None:
    """Also where its tensors would happen to fit, or be missing with a KeyError."""
    state = made()(tokens(1, 4), return_state=True).state
    other = made(*blocks, **overrides)
    with pytest.raises(StateError, match=r"belongs to LanguageModel.*cannot continue LanguageModel"):
        other(tokens(1, 1), state=state)
    assert made(fft="torch")(tokens(1, 1), state=state).logits.shape == (1, 1, VOCABULARY)  # unharmed, and ours


def test_a_state_of_another_batch_is_refused() -> None:
    model = made()
    state = model(tokens(2, 4), return_state=True).state
    with pytest.raises(StateError, match="2 rows, the input 3"):
        model(tokens(3, 1), state=state)


# Training


def gradients(model: LanguageModel, length: int = 20, **options: Any) -> tuple[Tensor, list[Tensor]]:
    output = model(tokens(2, length), **options)
    loss = output.logits.square().mean() + sum(output.losses.values())
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("continued", [False, True])
def test_gradient_checkpointing_changes_no_gradient(masked: bool, continued: bool) -> None:
    """With a state too: the recomputation must not find it consumed."""
    model = made(*ALTERNATING, {"feedforward": {"type": "moe", "experts": 3}}, num_layers=3).train()
    options: dict[str, Any] = {"return_state": continued}
    if masked:
        options["attention_mask"] = torch.arange(20) < torch.tensor([[20], [11]])
    found = []
    for checkpointing in (False, True):
        model.gradient_checkpointing = checkpointing
        if continued:
            options["state"] = model(tokens(2, 6, seed=4), return_state=True).state
        found.append(gradients(model, **options))
    assert torch.equal(found[0][0], found[1][0])
    for plain, recomputed in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-9, atol=1e-12)


def test_gradients_flow_through_the_state() -> None:
    """Truncated backpropagation may choose how far."""
    model, input_ids = made(), tokens(2, 14)
    whole = torch.autograd.grad(model(input_ids).logits[:, -1].sum(), list(model.parameters()))
    state = model(input_ids[:, :9], return_state=True).state
    parts = torch.autograd.grad(model(input_ids[:, 9:], state=state).logits[:, -1].sum(), list(model.parameters()))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-7, atol=1e-9)


def test_every_parameter_learns() -> None:
    model = made(
        *[{"mixer": case.config.model_dump() | heads(case)} for case in CASES], num_layers=len(CASES), max_seq_len=64
    )
    _, found = gradients(model.train(), length=64)  # three blocks of the coarsest scale, and more
    silent = [name for (name, _), grad in zip(model.named_parameters(), found, strict=True) if not grad.abs().max() > 0]
    assert silent == []


def heads(case: MixerCase) -> dict[str, int]:
    return {"head_dim": 8} if "head_dim" in type(case.config).model_fields else {}


MOE = {"mixer": "gated_convolution", "feedforward": {"type": "moe", "experts": 4, "active": 2, "balance_weight": 0.5}}


def test_the_experts_losses_are_named_by_layer_and_train_the_routers() -> None:
    model = made(MOE, ALTERNATING[1])
    output = model(tokens(2, 30))
    assert list(output.losses) == ["layers.0.feedforward.load_balancing", "layers.0.feedforward.router_z"]
    uses = ("busiest_expert", "idlest_expert", "experts_in_use")
    assert list(output.metrics) == [f"layers.0.feedforward.{use}" for use in uses]
    assert output.losses["layers.0.feedforward.load_balancing"].item() >= 0.5 - 1e-9  # its weight when balanced
    for loss in output.losses.values():
        for weight in (model.blocks[0].feedforward.router.weight, model.frontend.embedding.weight):
            (gradient,) = torch.autograd.grad(loss, [weight], retain_graph=True)
            assert gradient.abs().max() > 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_count_as_load(side: str) -> None:
    """The loss of a padded batch is that of its tokens, whatever ids stand on the padding."""
    model = made(MOE, num_layers=1)
    found = []
    for fill in (0, 5):
        batch, mask, rows = padded(side, fill)
        found.append(model(batch, mask).losses["layers.0.feedforward.load_balancing"])
    assert torch.equal(found[0], found[1])
    with torch.no_grad():
        hidden = torch.cat([_before_feedforward(model, row) for row in rows], 1)
        alone = model.blocks[0].feedforward(hidden).losses["load_balancing"]
    torch.testing.assert_close(found[0], alone)


def _before_feedforward(model: LanguageModel, input_ids: Tensor) -> Tensor:
    block = model.blocks[0]
    x = model.frontend(input_ids).x
    return block.feedforward_norm(x + block.mixer(block.mixer_norm(x)).y)


def test_dropout_acts_in_training_only() -> None:
    model = made(*({**block, "dropout": 0.5} for block in ALTERNATING))
    input_ids = tokens(1, 9)
    with torch.no_grad():
        assert torch.equal(model(input_ids).logits, model(input_ids).logits)
        model.train()
        assert not torch.equal(model(input_ids).logits, model(input_ids).logits)


# Backends


@pytest.mark.parametrize("name", list_fft_backends())
def test_backends_give_the_same_logits(name: str) -> None:
    request = Request("convolution", "cpu", torch.float32, 2, 16, 100, 100, "causal", grad=False)
    reasons = fft_backend(name).unsupported_reasons(request)
    if reasons:
        pytest.skip(f"{name}: {reasons}")
    blocks = [{"mixer": case.config.model_dump() | heads(case)} for case in CASES]
    options = {"num_layers": len(blocks), "dtype": torch.float32, "max_seq_len": 128}
    input_ids = tokens(2, 100)
    with torch.no_grad():
        expected = made(*blocks, fft="torch", **options)(input_ids).logits
        assert difference(made(*blocks, fft=name, **options)(input_ids).logits, expected) <= 3e-5


class ShortFFT(TorchFFT):
    """Transforms signals of up to 16 tokens."""

    name = "acme/short"

    def unsupported_reasons(self, request: Request) -> list[str]:
        return [f"length {request.length} exceeds 16"] if request.length > 16 else []


class ShortFFTConfig(FFTBackendConfig):
    type: Literal["acme/short"] = "acme/short"

    def build(self) -> ShortFFT:
        return ShortFFT()


class ShortPlugin:
    SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_fft_backends(self, register: Registrar) -> None:
        register("fft", "acme/short", ShortFFTConfig, summary="Short signals only.")


def test_a_backend_that_was_named_is_never_replaced() -> None:
    HOST.register(ShortPlugin(), namespace="acme")
    try:
        ours = made()
        model = load_config(ours.config, fft="acme/short").build().double().eval()  # without the check of third parties
        model.load_state_dict(ours.state_dict())
        assert difference(model(tokens(1, 16)).logits, ours(tokens(1, 16)).logits) < 1e-9
        with pytest.raises(
            UnsupportedInputError, match=r"acme/short cannot run this .*length 17 exceeds 16.*fft: auto"
        ):
            model(tokens(1, 17))
    finally:
        HOST.unregister("acme")


# Copies, and what evaluation keeps


def test_a_model_is_copied_and_pickled_after_it_was_evaluated() -> None:
    """Evaluation leaves kernels and plans behind; none of them may break a copy or go stale in it."""
    model, input_ids = made(), tokens(2, 9)
    with torch.no_grad():
        logits = model(input_ids).logits
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
            assert torch.equal(copied(input_ids).logits, logits)
            for parameter in copied.parameters():
                parameter.mul_(1.5)
            assert difference(copied(input_ids).logits, logits) > 1e-3
        assert torch.equal(model(input_ids).logits, logits)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("change", ["optimizer", "load_state_dict"])
def test_evaluation_follows_the_weights(case: MixerCase, change: str) -> None:
    """Kernels are kept between evaluations until their parameters change in place."""
    model, input_ids = of(case), tokens(1, 9)
    fresh = of(case)
    with torch.no_grad():
        before = model(input_ids).logits
        fed(model, input_ids, 1)
    # Only what the cached kernels are made from: the rest is computed anew anyway.
    names = [name for name, _ in model.named_parameters() if ".filter." in name] or ["blocks.0.mixer.out_proj.weight"]
    parameters = [dict(model.named_parameters())[name] for name in names]
    if change == "optimizer":
        model(input_ids).logits.square().sum().backward()
        torch.optim.SGD(parameters, lr=1e-2).step()
    else:
        changed = model.state_dict()
        model.load_state_dict({**changed, **{name: changed[name] + 0.1 for name in names}})
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        after = model(input_ids).logits
        assert difference(after, before) > 1e-6
        assert torch.equal(after, fresh(input_ids).logits)
        assert difference(fed(model, input_ids, 1)[0], after) < 1e-9


def test_inference_mode_leaves_nothing_that_hinders_training() -> None:
    """What is kept under inference_mode are inference tensors, which autograd refuses."""
    model, input_ids = made(), tokens(2, 9)
    with torch.inference_mode():
        logits = model(input_ids).logits
        assert difference(fed(model, input_ids, 1)[0], logits) < 1e-9
    model.train()(input_ids).logits.sum().backward()
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids).logits, logits)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.3), (torch.float16, 0.05)])
def test_half_precision_runs_and_stays_near(dtype: torch.dtype, bound: float) -> None:
    model, input_ids = made(), tokens(2, 40)
    with torch.no_grad():
        logits = model(input_ids).logits
        low = model.to(dtype)(input_ids).logits
        assert low.dtype == dtype
        assert difference(low.double(), logits) < bound


def test_initial_logits_are_near_uniform() -> None:
    """A fresh model is surprised by log V nats a token: no part starts out loud."""
    torch.manual_seed(0)
    model = build_model("tiny")
    input_ids = torch.randint(256, (2, 64))
    with torch.no_grad():
        logits = model(input_ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())
    assert abs(loss.item() - math.log(256)) < 0.2


def test_padding_in_every_row_costs_no_positions() -> None:
    """Rows within the limit, in a batch that is wider: what counts is the longest row."""
    model = build_model(
        {"vocab_size": 32, "hidden_dim": 8, "num_layers": 1, "max_seq_len": 6},
        **{"block.mixer.type": "gated_convolution", "block.mixer.filter": "spectrum"},
    ).eval()
    ids = torch.arange(20).view(2, 10)
    mask = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]])
    with torch.no_grad():
        padded = model(ids, mask).logits
        assert padded.shape == (2, 10, 32)
        torch.testing.assert_close(padded[0, 4:], model(ids[:1, 4:]).logits[0])
        torch.testing.assert_close(padded[1, 8:], model(ids[1:, 8:]).logits[0])


def test_no_layers_is_not_the_default_block() -> None:
    with pytest.raises(ConfigError, match="layers: "):
        build_model({"layers": []})
