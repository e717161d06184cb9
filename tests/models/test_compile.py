"""A language model of every causal mixer compiles as one graph: no part splits it, whatever the FFT backend."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from spectral_layers import MIXERS
from spectral_models import build_model

CAUSAL = [name for name, config in MIXERS.configs().items() if "causal" in config.directions]
CORRECTING = {"type": "holographic", "forgetting": True, "correcting": True}


@pytest.mark.parametrize("mixer", [*CAUSAL, CORRECTING], ids=str)
def test_a_training_step_is_one_graph(mixer: str | dict[str, object]) -> None:
    torch.manual_seed(0)
    model = build_model(
        {"vocab_size": 32, "hidden_dim": 32, "num_layers": 1, "fft": "hierarchical", "block": {"mixer": mixer}}
    )
    ids = torch.randint(0, 32, (2, 40))
    parameters = list(model.parameters())

    def gradients(forward: object) -> tuple[torch.Tensor, ...]:
        logits = forward(ids)  # type: ignore[operator]
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        return loss, *torch.autograd.grad(loss, parameters)

    torch._dynamo.reset()
    compiled = torch.compile(lambda ids: model(ids).logits, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(gradients(compiled), gradients(lambda ids: model(ids).logits), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_memory_that_corrects_itself_is_one_graph_for_many_lengths() -> None:
    torch.manual_seed(0)
    model = build_model({"vocab_size": 32, "hidden_dim": 32, "num_layers": 1, "block": {"mixer": CORRECTING}})
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(lambda ids: model(ids).logits, fullgraph=True, dynamic=True, backend=counter)
    counts = []
    for length in (40, 333):
        ids = torch.randint(0, 32, (2, length))
        torch.testing.assert_close(compiled(ids), model(ids).logits, rtol=1e-4, atol=1e-5)
        counts.append(counter.frame_count)
    assert counts[0] == counts[1]
