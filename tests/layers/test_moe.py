"""The mixture of experts: against every expert run on every token, its losses by their formulas, what they train."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_layers import Rows
from spectral_layers.feedforward.moe import MoE

DIM, EXPERTS, BATCH, LENGTH = 6, 5, 2, 23


def moe(*, active: int = 2, spread: float = 1.0, **options: Any) -> MoE:
    """Random weights large enough to matter. spread: of the router's scores; 0 makes all experts equal."""
    weights = {"balance_weight": 1.0, "z_weight": 1.0, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = MoE(dim=DIM, expansion=9 / DIM, experts=EXPERTS, active=active, **weights).double()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.normal_(std=0.5)
            made.router.weight.mul_(2 * spread)
    return made


def tokens(seed: int = 0) -> Tensor:
    return torch.randn(BATCH, LENGTH, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def collapsed(part: MoE) -> MoE:
    """Every token goes to experts 0 and 1."""
    with torch.no_grad():
        part.router.weight.zero_()
        part.router.weight[:2, 0] = torch.tensor([9.0, 7.0])
    return part


def positive() -> Tensor:
    """Tokens whose first channel is about 1, so that one row of the router decides."""
    x = tokens()
    x[..., 0] = 1 + 0.1 * x[..., 0]
    return x


def dense(part: MoE, x: Tensor) -> Tensor:
    """Every expert on every token, those not among the k likeliest weighed by 0."""
    probability = part.router(x).softmax(-1)
    rank = probability.argsort(-1, descending=True).argsort(-1)
    kept = torch.where(rank < part.config.active, probability, 0.0)
    if part.config.active > 1:
        kept = kept / kept.sum(-1, keepdim=True)
    return sum(kept[..., e, None] * expert(x).y for e, expert in enumerate(part.experts))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("active", [1, 2, 4, EXPERTS])
def test_it_is_the_sum_over_the_likeliest_experts_with_its_gradients(active: int, training: bool) -> None:
    part, x = moe(active=active).train(training), tokens().requires_grad_()
    found, wanted = part(x).y, dense(part, x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    inputs = [x, *part.parameters()]
    weights = tokens(seed=1)
    ours, theirs = (torch.autograd.grad((y * weights).sum(), inputs) for y in (found, wanted))
    for one, other in zip(ours, theirs, strict=True):
        assert other.any(), "top-1 too teaches its router by the task's loss"
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_no_token_is_dropped_however_busy_an_expert_is(training: bool) -> None:
    part, x = collapsed(moe()).train(training), positive()
    output = part(x)
    torch.testing.assert_close(output.y, dense(part, x), rtol=1e-12, atol=1e-12)
    assert output.y.abs().amax(-1).min() > 1e-3
    assert output.metrics["busiest_expert"].item() == pytest.approx(EXPERTS / 2)
    assert output.metrics["idlest_expert"].item() == 0
    assert output.metrics["experts_in_use"].item() == pytest.approx(2)


def test_losses_and_metrics_are_their_formulas() -> None:
    part, x = moe(balance_weight=0.3, z_weight=0.2), tokens()
    scores = part.router(x).flatten(0, 1)
    chosen = torch.nn.functional.one_hot(scores.topk(2).indices, EXPERTS).sum((0, 1)).double()
    share = chosen / chosen.sum()
    output = part(x)
    balance = 0.3 * EXPERTS * sum(share[e] * scores.softmax(-1)[:, e].mean() for e in range(EXPERTS))
    squares = [torch.log(torch.exp(token).sum()) ** 2 for token in scores]
    torch.testing.assert_close(output.losses["load_balancing"], balance)
    torch.testing.assert_close(output.losses["router_z"], 0.2 * sum(squares) / len(squares))
    torch.testing.assert_close(output.metrics["busiest_expert"], EXPERTS * share.max())
    torch.testing.assert_close(output.metrics["idlest_expert"], EXPERTS * share.min())
    torch.testing.assert_close(output.metrics["experts_in_use"], torch.exp(-(share * share.log()).sum()))


def test_the_balancing_loss_is_its_weight_when_balanced_and_grows_to_experts_over_k() -> None:
    even = moe(active=EXPERTS, spread=0.0)(tokens())
    assert even.losses["load_balancing"].item() == pytest.approx(1)
    assert even.metrics["experts_in_use"].item() == pytest.approx(EXPERTS)
    assert even.metrics["busiest_expert"] == even.metrics["idlest_expert"] == 1
    assert collapsed(moe())(positive()).losses["load_balancing"].item() == pytest.approx(EXPERTS / 2, rel=1e-3)


@pytest.mark.parametrize("name", ["load_balancing", "router_z"])
def test_each_loss_trains_the_router_and_nothing_else_of_the_part(name: str) -> None:
    part = moe()
    part(tokens()).losses[name].backward()
    assert part.router.weight.grad.abs().max() > 1e-6
    assert all(parameter.grad is None for parameter in part.experts.parameters())


def test_descending_the_balancing_loss_spreads_the_tokens() -> None:
    part, x = collapsed(moe()), positive()
    descend(part, x, "load_balancing")
    assert part(x).losses["load_balancing"] < 1.2
    assert part(x).metrics["busiest_expert"] < 0.8 * EXPERTS / 2
    assert part(x).metrics["experts_in_use"] > 3


def test_descending_the_z_loss_makes_scores_small() -> None:
    part, x = moe(spread=2.0), tokens()
    before = part.router(x).logsumexp(-1).square().mean().item()
    descend(part, x, "router_z")
    assert part.router(x).logsumexp(-1).square().mean().item() < 0.5 * before


def descend(part: MoE, x: Tensor, name: str) -> None:
    optimizer = torch.optim.Adam([part.router.weight], lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        part(x).losses[name].backward()
        optimizer.step()


def test_the_router_computes_in_float32_under_autocast() -> None:
    """To the bit: in bfloat16, some of these tokens would go to other experts."""
    part, x = moe().float(), tokens().float()
    wanted = part(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = part(x)
        rounded = torch.nn.functional.linear(x, part.router.weight).float()
    assert not torch.equal(rounded, part.router(x)), "autocast was on"
    assert found.y.dtype == torch.float32
    for kind in ("losses", "metrics"):
        for name, value in getattr(wanted, kind).items():
            assert getattr(found, kind)[name].dtype == torch.float32
            assert torch.equal(getattr(found, kind)[name], value), name
    torch.testing.assert_close(found.y, wanted.y, rtol=0.05, atol=0.05)
    half = part.bfloat16()(x.bfloat16())
    assert half.y.dtype == torch.bfloat16
    assert half.losses["router_z"].dtype == torch.float32


def test_padding_goes_to_no_expert() -> None:
    part, x = moe(), tokens()
    rows = Rows(torch.tensor([LENGTH, 4]))
    seen: list[int] = []
    for expert in part.experts:
        expert.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    output = part(x, rows=rows)
    assert sum(seen) == part.config.active * (LENGTH + 4)
    assert not output.y[1, 4:].any()
    torch.testing.assert_close(output.y[1, :4], part(x).y[1, :4], rtol=1e-12, atol=1e-12)


def test_idle_experts_have_gradients_of_zero_and_cost_nothing_without_gradients() -> None:
    part, x = collapsed(moe()), positive()
    part(x).y.sum().backward()
    for index, expert in enumerate(part.experts):
        assert all(parameter.grad.any() == (index < 2) for parameter in expert.parameters()), "none is missing: DDP"
    ran: list[int] = []
    for index, expert in enumerate(part.experts):
        expert.register_forward_hook(lambda *_, index=index: ran.append(index))
    with torch.no_grad():
        part(x)
        assert ran == [0, 1]
        assert part(x[:0]).y.shape == (0, LENGTH, DIM)


@pytest.mark.parametrize("active", [1, 2])
def test_a_program_runs_every_expert_on_every_token_and_gives_the_same(active: int) -> None:
    class Padded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = moe(active=active)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            y: Tensor = self.part(x, rows=Rows(lengths)).y
            return y

    module, lengths = Padded().eval(), torch.tensor([LENGTH, 4])
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (tokens(), lengths), dynamic_shapes=({0: batch}, {0: batch})).module()
    x = torch.cat([tokens(seed=1), tokens(seed=2)])
    lengths = torch.tensor([LENGTH, 4, 1, 9])
    found = program(x, lengths)
    torch.testing.assert_close(found, module(x, lengths), rtol=1e-12, atol=1e-12)
    assert found[0].any()
    assert not found[1, 4:].any()
