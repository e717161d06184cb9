"""Feed-forwards in chunks of the sequence: the same numbers, and less kept for the backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_core import ConfigError
from spectral_models import build_model
from spectral_models.variants.language_model import LanguageModel

LENGTH = 40


def made(feedforward: str, chunk: int | None, **changes: Any) -> LanguageModel:
    torch.manual_seed(0)
    block = {"mixer": {"type": "holographic", "head_dim": 8, "phases": 4}, "feedforward": feedforward, **changes}
    model = build_model({"hidden_dim": 16, "num_layers": 2, "block": {**block, "feedforward_chunk": chunk}})
    assert isinstance(model, LanguageModel)
    return model.double().train()


def tokens() -> Tensor:
    return torch.randint(256, (3, LENGTH), generator=torch.Generator().manual_seed(1))


def gradients(model: LanguageModel) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(5)  # of dropout
    loss = model.loss(tokens(), tokens().roll(-1, 1)).loss
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("feedforward", ["mlp", "swiglu"])
@pytest.mark.parametrize("chunk", [7, LENGTH, 1000])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_chunks_change_no_number(feedforward: str, chunk: int, checkpointing: bool) -> None:
    """Logits, loss and the gradient of every parameter, with dropout, and inside blocks that are recomputed too."""
    plain, chunked = made(feedforward, None, dropout=0.1), made(feedforward, chunk, dropout=0.1)
    chunked.gradient_checkpointing = checkpointing
    (loss, wanted), (found, ours) = gradients(plain), gradients(chunked)
    torch.testing.assert_close(found, loss, rtol=1e-12, atol=0)
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        assert other.abs().max() > 0
    with torch.no_grad():
        torch.testing.assert_close(chunked.eval()(tokens()).logits, plain.eval()(tokens()).logits)


def kept(model: LanguageModel) -> int:
    """Numbers kept for the backward pass, each tensor's memory once."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.loss(tokens(), tokens()).loss
    total = sum(sizes.values())
    assert loss.requires_grad
    return total


@pytest.mark.parametrize(("feedforward", "inner"), [("mlp", 2 * 64), ("swiglu", 4 * 43)])
def test_nothing_inside_a_chunk_is_kept(feedforward: str, inner: int) -> None:
    """An mlp keeps what is in front of its gelu and behind it; swiglu both halves, the gate's silu and the product."""
    inside = 2 * tokens().numel() * inner
    assert kept(made(feedforward, None)) - kept(made(feedforward, 8)) > 0.9 * inside


def test_experts_are_refused_with_the_path() -> None:
    with pytest.raises(ConfigError, match=r"block\.feedforward_chunk: moe computes losses or metrics over all tokens"):
        made("moe", 8)
    with pytest.raises(ConfigError, match=r"layers\.1\.feedforward_chunk: .*Leave feedforward_chunk null"):
        build_model({"layers": ["dense", {"type": "moe", "feedforward_chunk": 8}]})
    with pytest.raises(ConfigError, match=r"block\.feedforward_chunk"):
        made("mlp", 0)
