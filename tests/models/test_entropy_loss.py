"""The entropy of gates in a whole language model: its loss is in the training loss, and moves the gates."""

from __future__ import annotations

from typing import Any

import torch

from spectral_models import build_model
from spectral_models.variants.language_model import LanguageModel

NAMES = [f"layers.{layer}.mixer.gates.0.entropy" for layer in (0, 1)]


def model(**entropy: Any) -> LanguageModel:
    torch.manual_seed(0)
    made = build_model(
        {
            "vocab_size": 13,
            "hidden_dim": 16,
            "num_layers": 2,
            "block": {
                "mixer": {
                    "type": "spectral_gating",
                    "gates": [{"type": "advanced", "resolutions": [4, 8], "dropout": 0.1, "entropy": entropy}],
                    "head_dim": 8,
                    "block": 8,
                    "window": 16,
                }
            },
        }
    )
    assert isinstance(made, LanguageModel)
    return made.double().train()


def gradients(made: LanguageModel, seed: int = 3) -> dict[str, torch.Tensor]:
    """Of the training loss the trainer minimises."""
    torch.manual_seed(seed)  # of the gates' noise and dropout
    tokens = torch.randint(13, (3, 41), generator=torch.Generator().manual_seed(1))
    made.loss(tokens[:, :-1], tokens[:, 1:]).loss.backward()
    return {name: parameter.grad for name, parameter in made.named_parameters() if parameter.grad is not None}


def test_the_loss_reaches_every_parameter_of_the_gates_gains_through_the_training_loss() -> None:
    without, once, twice = (gradients(model(target=0.5, weight=weight)) for weight in (0.0, 10.0, 20.0))
    for layer in (0, 1):
        for name in ("weight", "bias", "exchange", "log_threshold"):
            key = f"blocks.{layer}.mixer.gates.0.{name}"
            added = once[key] - without[key]
            assert added.abs().max() > 1e-6, f"{key} does not feel the loss"
            torch.testing.assert_close(twice[key] - without[key], 2 * added)
    # What is before the gate learns, too; what the loss does not depend on is left alone.
    key = "blocks.0.mixer.in_proj.weight"
    assert (once[key] - without[key]).abs().max() > 1e-6
    torch.testing.assert_close(once["blocks.1.mixer.gates.0.turn"], without["blocks.1.mixer.gates.0.turn"])


def test_losses_and_metrics_are_named_by_layer_and_gate() -> None:
    output = model(weight=2.0, target=0.9)(torch.randint(13, (2, 24)))
    assert sorted(output.losses) == NAMES
    assert sorted(output.metrics) == [name for gate in NAMES for name in (gate, f"{gate}_gap")]
    for name in NAMES:
        assert output.losses[name].requires_grad
        assert not output.metrics[name].requires_grad
        assert 0 < output.metrics[name].item() <= 1
        # A mean square is at least the mean's square.
        assert output.losses[name].item() >= 2 * output.metrics[f"{name}_gap"].item() ** 2


def test_noise_and_dropout_repeat_when_blocks_are_recomputed() -> None:
    def run(*, seed: int, checkpointing: bool) -> dict[str, torch.Tensor]:
        made = model(noise=1.0, target=1.0)
        made.gradient_checkpointing = checkpointing
        return gradients(made, seed)

    plain, other = run(seed=3, checkpointing=False), run(seed=4, checkpointing=False)
    key = "blocks.0.mixer.gates.0.bias"
    assert not torch.allclose(plain[key], other[key]), "seeds draw other noise"
    for name, gradient in run(seed=3, checkpointing=True).items():
        torch.testing.assert_close(gradient, plain[name])
