"""Every part compiles as one graph, whatever the FFT backend, and a graph serves many lengths."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from spectral_layers import FEEDFORWARDS, FILTERS, GATES, MIXERS, POSITIONS, SPARSITIES
from spectral_models import build_model
from spectral_models.model import SpectralModel

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


def part(mixer: object, **other: object) -> dict[str, object]:
    return {"mixer": mixer, "feedforward": "mlp", **other}


def gating(**options: object) -> dict[str, object]:
    return part({"type": "spectral_gating", "head_dim": 16, **options})


def filtered(name: str) -> dict[str, object]:
    return part({"type": "gated_convolution", "filter": name})


def parts(direction: str) -> dict[str, dict[str, object]]:
    """Blocks with every part that reads that way; a moe is not in them, whose shapes depend on its tokens."""
    own = [name for name, config in MIXERS.configs().items() if direction in config.directions]
    found: dict[str, dict[str, object]] = {name: part(name) for name in own if name != "holographic"}
    if direction == "causal":
        found |= {"holographic": part({"type": "holographic", "head_dim": 16}), "correcting": part(CORRECTING)}
    found |= {f"filter {name}": filtered(name) for name in FILTERS.configs()}
    found |= {f"gate {name}": gating(gates=[name]) for name in GATES.configs()}
    found |= {f"sparsity {name}": gating(sparsity=name) for name in SPARSITIES.configs()}
    found |= {name: part("gated_convolution", feedforward=name) for name in FEEDFORWARDS.configs() if name != "moe"}
    return found


def model_of(direction: str, *blocks: dict[str, object], position: str = "none") -> SpectralModel:
    torch.manual_seed(0)
    kind = "language_model" if direction == "causal" else "encoder"
    size = {"vocab_size": 32, "hidden_dim": 32, "num_layers": len(blocks), "max_seq_len": 400}
    return build_model({"type": kind, **size, "layers": list(blocks), "position": position}).eval()


def compilations(model: SpectralModel, lengths: Sequence[int], **options: object) -> list[int]:
    """How often it was compiled after each length; its outputs are checked on the way."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, **options)  # type: ignore[call-overload]
    counts = []
    for length in lengths:
        ids = torch.randint(0, 32, (2, length))
        with torch.no_grad():
            ours, theirs = (getattr(m(ids), "hidden", None) for m in (compiled, model))
            if ours is None:
                ours, theirs = compiled(ids).logits, model(ids).logits
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        counts.append(counter.frame_count)
    return counts


@pytest.mark.parametrize(
    ("direction", "names", "lengths"),
    [
        ("causal", ("gated_convolution", "spectral_product"), (40, 64, 49)),
        # Lengths that fill their last block of 32 have a graph of their own, whatever their power of two.
        ("causal", ("holographic", "gate magnitude"), (40, 140, 49)),
        ("bidirectional", ("fourier", "gated_convolution"), (40, 64, 49)),
    ],
)
def test_one_graph_serves_many_lengths(direction: str, names: tuple[str, ...], lengths: tuple[int, ...]) -> None:
    model = model_of(direction, *(parts(direction)[name] for name in names))
    assert compilations(model, lengths, dynamic=True) == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [True, None], ids=["dynamic", "automatic"])
@pytest.mark.parametrize(
    ("direction", "name"), [(way, name) for way in ("causal", "bidirectional") for name in parts(way)], ids=str
)
def test_no_part_is_compiled_more_than_once_for_a_power_of_two(direction: str, name: str, dynamic: bool | None) -> None:
    lengths = (64, 96, 100, 128, 130, 200, 257, 300)
    counts = compilations(model_of(direction, parts(direction)[name]), lengths, dynamic=dynamic)
    assert counts[-1] <= 4


@pytest.mark.slow
@pytest.mark.parametrize("position", list(POSITIONS.configs()))
def test_no_position_is_compiled_more_than_once_for_a_power_of_two(position: str) -> None:
    model = model_of("causal", part("gated_convolution"), position=position)
    assert compilations(model, (64, 96, 100, 130, 200), dynamic=True)[-1] <= 3


def test_a_decoding_step_is_compiled_once() -> None:
    mixers = ("gated_convolution", "holographic", "spectral_gating")
    model = model_of("causal", *(parts("causal")[name] for name in mixers))
    ids = torch.randint(0, 32, (2, 40))
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with torch.no_grad():
        full = model(ids).logits
        state = model(ids[:, :10], return_state=True).state
        for token in range(10, 32):
            output = compiled(ids[:, token : token + 1], state=state, return_state=True)
            torch.testing.assert_close(output.logits[:, 0], full[:, token], rtol=1e-4, atol=1e-5)
            state = output.state
    assert counter.frame_count == 1


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
