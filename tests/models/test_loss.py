"""The loss in chunks: it is plain cross-entropy, and the logits of all tokens never exist at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from spectral_core import UnsupportedInputError
from spectral_models import build_model
from spectral_models import loss as loss_module
from spectral_models.loss import IGNORE, StepLoss, token_nats
from spectral_models.variants.language_model import LanguageModel

VOCABULARY = 37
BLOCK = {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 2}}}
HEADS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_embeddings": False},
    "factorised": {"embed_dim": 8},
    "factorised and untied": {"embed_dim": 8, "tie_embeddings": False},
}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Chunks of five tokens."""
    monkeypatch.setattr(loss_module, "_CHUNK_LOGITS", 5 * VOCABULARY)
    return


def made(**changes: Any) -> LanguageModel:
    """Two blocks, one with a chunked feed-forward and one with experts, and nothing nearly uniform."""
    torch.manual_seed(0)
    model = build_model(
        {
            "vocab_size": VOCABULARY,
            "hidden_dim": 16,
            "num_layers": 2,
            "layers": [
                {
                    "mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 2}},
                    "feedforward_chunk": 7,
                },
                {
                    "mixer": {"type": "holographic", "phases": 4, "head_dim": 8},
                    "feedforward": {"type": "moe", "experts": 2, "active": 1, "balance_weight": 0.5},
                },
            ],
            **changes,
        }
    )
    assert isinstance(model, LanguageModel)
    with torch.no_grad():
        model.frontend.embedding.weight.mul_(20)
    return model.double()


def tokens(batch: int, length: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    ids = torch.randint(VOCABULARY, (batch, length + 1), generator=torch.Generator().manual_seed(seed))
    labels = ids[:, 1:].clone()
    labels[:, ::7] = IGNORE
    return ids[:, :-1], labels


def plain(model: LanguageModel, ids: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """From the logits of all tokens, as everyone writes it."""
    output = model(ids, mask)
    if mask is not None:
        labels = labels.masked_fill(mask == 0, IGNORE)
    return F.cross_entropy(output.logits.flatten(0, 1), labels.flatten()) + sum(output.losses.values())


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    return dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True))


@pytest.mark.parametrize("chunk", [1, 3, 12, 100, None])
def test_the_sum_is_plain_cross_entropys_and_its_gradients_are_its_derivatives(chunk: int | None) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0, 4, IGNORE, 2, 2, 1], [IGNORE, 3, 0, 0, IGNORE, 4]])

    def nats(x: Tensor, weight: Tensor) -> Tensor:
        return token_nats(x, labels, lambda part: F.linear(part, weight), vocab_size=5, chunk=chunk)

    wanted = F.cross_entropy(F.linear(x, weight).flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(nats(x, weight), wanted, rtol=1e-12, atol=0)
    found = torch.autograd.grad(nats(x, weight), (x, weight))
    for ours, theirs in zip(found, torch.autograd.grad(wanted, (x, weight)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        assert theirs.abs().max() > 0.1
    assert torch.autograd.gradcheck(nats, (x, weight))


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("padding", [None, "left", "right"])
def test_a_models_loss_is_that_of_its_logits(head: dict[str, Any], padding: str | None, small_chunks: None) -> None:
    """With every kind of head: value and the gradient of every parameter, auxiliary losses included."""
    model, (ids, labels) = made(**head), tokens(3, 19)
    mask = None
    if padding is not None:
        mask = (torch.arange(19) < torch.tensor([[19], [11], [4]])).int()
        mask = mask.flip(1) if padding == "left" else mask
    found, wanted = model.loss(ids, labels, mask).loss, plain(model, ids, labels, mask)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    theirs = gradients(model, wanted)
    for name, gradient in gradients(model, found).items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-8, atol=1e-12, msg=name)
        assert gradient.abs().max() > 0, name


def test_what_is_counted_is_told(small_chunks: None) -> None:
    model, (ids, labels) = made(), tokens(2, 19)
    found = model.loss(ids, labels)
    assert int(found.count) == int((labels != IGNORE).sum())
    assert set(found.losses) == {"layers.1.feedforward.load_balancing", "layers.1.feedforward.router_z"}
    assert "layers.1.feedforward.busiest_expert" in found.metrics
    torch.testing.assert_close(found.loss, found.nats / found.count + sum(found.losses.values()))


def test_the_parts_of_a_step_add_up_however_it_is_divided(small_chunks: None) -> None:
    model, (ids, labels) = made(layers=[{"mixer": "holographic"}], hidden_dim=32), tokens(4, 19)
    labels[0, 3:] = IGNORE
    whole = gradients(model, model.loss(ids, labels).loss)
    count = int((labels != IGNORE).sum())
    parts = [
        gradients(model, model.loss(ids[part], labels[part], step_count=count).loss)
        for part in (slice(0, 1), slice(1, 4))
    ]
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], gradient, rtol=1e-9, atol=1e-12, msg=name)


class Largest(TorchDispatchMode):
    """The most elements a tensor had that any operator returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return output


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_logits_of_all_tokens_never_exist_at_once(checkpointing: bool) -> None:
    """Forward and backward; the plain loss is caught by the same measure."""
    model = build_model(
        {
            "vocab_size": 1 << 16,
            "hidden_dim": 8,
            "embed_dim": 2,
            "num_layers": 1,
            "block": BLOCK,
        }
    )
    model.gradient_checkpointing = checkpointing
    ids = torch.randint(1 << 16, (2, 128))
    logits = ids.numel() << 16
    with Largest() as ours:
        model.loss(ids, ids).loss.backward()
    assert ours.elements == 1 << 22 < logits, "the chunks'"
    with torch.no_grad(), Largest() as evaluation:
        model.loss(ids, ids)
    assert evaluation.elements == 1 << 22
    with Largest() as theirs:
        plain(model, ids, ids)
    assert theirs.elements == logits


def test_the_logits_of_a_whole_target_never_exist_at_once() -> None:
    shape = {"vocab_size": 1 << 16, "hidden_dim": 8, "embed_dim": 2, "num_layers": 1, "block": BLOCK}
    encoder = {"type": "encoder", "hidden_dim": 8, "num_layers": 1, "block": BLOCK}
    fusion = {"type": "source_product", "head_dim": 4, "phases": 2}
    model = build_model({"type": "seq2seq", "encoder": encoder, "fusion": fusion, **shape})
    sources, labels = torch.randint(256, (2, 20)), torch.randint(1 << 16, (2, 128))
    with Largest() as ours:
        model.loss(sources, labels).loss.backward()
    assert ours.elements == 1 << 22, "the chunks'"
    with Largest() as theirs:
        model(sources, model.decoder_inputs(labels))
    assert theirs.elements == labels.numel() << 16


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bfloat16_autocast_gives_a_float32_loss_near_the_exact_one(checkpointing: bool, small_chunks: None) -> None:
    model, (ids, labels) = made().float(), tokens(2, 40)
    model.gradient_checkpointing = checkpointing
    exact = model.loss(ids, labels)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.loss(ids, labels)
    assert rounded.nats.dtype == torch.float32
    assert abs(rounded.nats - exact.nats) < 0.05 * exact.nats
    assert rounded.nats != exact.nats, "autocast reaches the head"
    theirs = gradients(model, exact.loss)
    for name, gradient in gradients(model, rounded.loss).items():
        assert gradient.isfinite().all(), name
        assert gradient.dtype == torch.float32
        assert (gradient - theirs[name]).norm() < 0.5 * theirs[name].norm(), name


def test_without_a_counted_label_there_is_no_loss() -> None:
    """And no gradient that is not a number, which would end a training."""
    model, (ids, labels) = made(layers=[{"mixer": "holographic"}], hidden_dim=32), tokens(2, 9)
    found = model.loss(ids, torch.full_like(labels, IGNORE))
    assert found.loss.item() == 0
    assert all(not gradient.any() for gradient in gradients(model, found.loss).values())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2, 8, dtype=torch.long), r"one integer for each token, of shape \(2, 9\); got \(2, 8\)"),
        (torch.zeros(2, 9), r"one integer for each token, .*float32"),
        (
            torch.full((2, 9), VOCABULARY),
            r"labels run from 0 to 36 \(vocab_size 37\), -100 .*; got 37 to 37\. .* a larger vocab_size",
        ),
        (torch.full((2, 9), -1), r"got -1 to -1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Tensor, message: str) -> None:
    model, ids = made(), tokens(2, 9)[0]
    for mask in (None, torch.tensor([[1] * 9, [0] * 3 + [1] * 6])):
        with pytest.raises(UnsupportedInputError, match=message):
            model.loss(ids, labels, mask)


def test_a_share_of_a_step_is_its_sum_over_the_steps_count() -> None:
    count = torch.tensor(3)
    part = StepLoss.of(torch.tensor(6.0), count, {"a": torch.tensor(10.0)}, {}, step_count=12)
    assert part.loss.item() == pytest.approx(6 / 12 + 10 * 3 / 12)
    assert StepLoss.of(torch.tensor(6.0), count, {"a": torch.tensor(10.0)}, {}).loss.item() == 12


@pytest.mark.parametrize("padding", [False, True])
def test_a_masked_language_models_loss_is_that_of_masked_places(padding: bool, small_chunks: None) -> None:
    torch.manual_seed(0)
    model = build_model(
        {
            "type": "encoder",
            "vocab_size": VOCABULARY,
            "hidden_dim": 16,
            "num_layers": 1,
            "masked_lm": True,
            "block": {"mixer": "gated_convolution", "feedforward": {"type": "moe", "experts": 2}},
        }
    ).double()
    (ids, _), mask = tokens(3, 30), torch.ones(3, 30)
    if padding:
        mask[1, :8], mask[2, 20:] = 0, 0
    labels = ids.where(torch.rand(3, 30) < 0.4, IGNORE)
    output = model(ids, mask)
    counted = labels.masked_fill(mask == 0, IGNORE)
    wanted = F.cross_entropy(output.logits.flatten(0, 1), counted.flatten()) + sum(output.losses.values())
    found = model.loss(ids, labels, mask if padding else None)
    torch.testing.assert_close(found.loss, wanted, rtol=1e-12, atol=0)
    theirs = gradients(model, wanted)
    for name, gradient in gradients(model, found.loss).items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-8, atol=1e-12, msg=name)
    assert int(found.count) == int((counted != IGNORE).sum()) > 5


def test_an_encoder_without_a_head_has_no_loss() -> None:
    with pytest.raises(UnsupportedInputError, match=r"no head over its vocabulary.*masked_lm: true"):
        build_model({"type": "encoder", "num_layers": 1}).loss(*tokens(1, 5))


# Logits of the last tokens only


@pytest.mark.parametrize("count", [1, 3, 30])
def test_kept_logits_are_the_last_of_each_row(count: int) -> None:
    """Wherever its padding stands, and behind a state."""
    model, (ids, _) = made().eval(), tokens(3, 12)
    lengths = [12, 7, 1]
    mask = torch.arange(12) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        whole = model(ids).logits
        torch.testing.assert_close(model(ids, logits_to_keep=count).logits, whole[:, -count:])
        state = model(ids[:, :4], return_state=True).state
        torch.testing.assert_close(model(ids[:, 4:], state=state, logits_to_keep=2).logits, whole[:, -2:])
        shifted = torch.stack([row.roll(12 - length) for row, length in zip(ids, lengths, strict=True)])
        for batch, given in ((ids, mask), (shifted, mask.flip(1))):
            kept = model(batch, given, logits_to_keep=count).logits
            for row, length in enumerate(lengths):
                real = min(count, length)
                torch.testing.assert_close(kept[row, -real:], whole[row, length - real : length])
