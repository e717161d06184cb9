"""Time per decoded token against position: a resonant model's must not grow.

Decodes from the states after 1,000 and after 32,000 tokens in turn, so that noise hits both alike. Before any time is
printed, the logits at 32,000 are held against a full pass.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from spectral_layers import State
from spectral_models import build_model

NEAR, FAR, TOKENS, ROUNDS = 1_000, 32_000, 20, 15
MODELS = {
    "resonant": {"block": {"mixer": {"type": "gated_convolution", "filter": "resonant"}}},
    "alternating": {"layers": [{"mixer": "gated_convolution"}, {"mixer": "holographic"}]},
}


def milliseconds(model: torch.nn.Module, state: State) -> float:
    token = torch.zeros(1, 1, dtype=torch.long)
    state = state.clone()
    start = time.perf_counter()
    for _ in range(TOKENS):
        state = model(token, state=state, return_state=True).state
    return (time.perf_counter() - start) / TOKENS * 1e3


@torch.no_grad()
def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, batch 1, width 256, 4 layers")
    for name, layout in MODELS.items():
        torch.manual_seed(0)
        model = build_model({"hidden_dim": 256, "num_layers": 4, **layout}).eval()
        ids = torch.randint(0, 256, (1, FAR + 1))
        near = model(ids[:, :NEAR], return_state=True).state
        far = model(ids[:, :FAR], return_state=True).state
        streamed = model(ids[:, FAR:], state=far.clone()).logits[:, -1]
        whole = model(ids).logits[:, -1]
        error = float((streamed - whole).abs().max() / whole.abs().max())
        if error > 1e-3:
            sys.exit(f"{name}: streaming and full pass differ by {error:.1e}; no time is printed for a wrong result")
        pairs = [(milliseconds(model, far), milliseconds(model, near)) for _ in range(ROUNDS)]
        ratios = sorted(a / b for a, b in pairs)
        print(
            f"{name:12} {statistics.median(b for _, b in pairs):6.2f} ms/token at {NEAR:,}, "
            f"{statistics.median(a for a, _ in pairs):6.2f} at {FAR:,}; ratio {statistics.median(ratios):.3f} "
            f"({ratios[len(ratios) // 4]:.3f} to {ratios[-len(ratios) // 4]:.3f}); streamed logits within {error:.0e}"
        )


if __name__ == "__main__":
    main()
