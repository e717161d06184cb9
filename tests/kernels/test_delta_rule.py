"""The gated delta rule against its definition; its operator: gradients, and what compilers are told of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spectral_kernels.delta_rule import chunked, reference
from spectral_kernels.delta_rule.chunked import delta_rule
from spectral_kernels.delta_rule.op import Chunks, _loop, recurrence


def given(batch: int = 2, heads: int = 2, chunks: int = 3, size: int = 4) -> list[Tensor]:
    """k, v, solve, from_start, to_end, total, initial_state."""
    torch.manual_seed(0)
    many = (batch, heads, chunks)
    shapes = [
        (*many, size, 6),
        (*many, size, 5),
        (*many, size, size),
        (*many, size, 1),
        (*many, size, 1),
        (*many, 1, 1),
    ]
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in (*shapes, (batch, heads, 6, 5))]


def corrected(*inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return recurrence(Chunks(*inputs))


def test_its_backward_pass_is_that_of_the_loop() -> None:
    inputs = given()
    weights = [torch.randn_like(made) for made in corrected(*inputs)]

    def gradients(made: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        loss = sum(((tensor * weight).sum() for tensor, weight in zip(made, weights, strict=True)), start=Tensor([0.0]))
        return torch.autograd.grad(loss, inputs)

    for ours, autograd in zip(gradients(corrected(*inputs)), gradients(_loop(*inputs)), strict=True):
        torch.testing.assert_close(ours, autograd, rtol=1e-10, atol=1e-10)


def test_gradients_of_gradients(recwarn: pytest.WarningsRecorder) -> None:
    assert torch.autograd.gradgradcheck(corrected, tuple(given(batch=1, heads=1, chunks=2, size=2)))
    assert not recwarn.list


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # of torch.func itself
def test_transforms_go_through_the_loop() -> None:
    """A rule of its own torch.func does not know: it would take what is stored for a constant."""
    inputs = tuple(tensor.detach() for tensor in given())
    tangents = tuple(torch.randn_like(tensor) for tensor in inputs)
    _, ours = torch.func.jvp(corrected, inputs, tangents)
    _, direct = torch.func.jvp(_loop, inputs, tangents)
    torch.testing.assert_close(ours, direct)
    torch.func.grad(lambda *given: corrected(*given)[0].sum())(*inputs)


@pytest.mark.parametrize("strided", [False, True])
def test_compilers_are_told_the_truth(strided: bool) -> None:
    inputs = given()
    if strided:
        inputs = [tensor.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for tensor in inputs]
        inputs[4] = inputs[4].detach()[:1].expand_as(inputs[4]).requires_grad_()
    torch.library.opcheck(torch.ops.spectral_kernels.delta_rule, tuple(inputs))
    detached = [tensor.detach() for tensor in inputs]
    stored, before, after = _loop(*detached)
    torch.library.opcheck(
        torch.ops.spectral_kernels.delta_rule_backward, (*detached, stored, before, stored, before, after)
    )


def test_an_exported_program_has_the_loop_and_no_operator_of_ours() -> None:
    class Corrected(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return corrected(*inputs)

    inputs = tuple(tensor.detach() for tensor in given())
    program = torch.export.export(Corrected(), inputs)
    assert not any("spectral" in str(node.target) for node in program.graph.nodes)
    for ours, eager in zip(program.module()(*inputs), _loop(*inputs), strict=True):
        torch.testing.assert_close(ours, eager)


def inputs_of(length: int, *, beta: bool, constant: bool, dtype: torch.dtype = torch.float64) -> list[Tensor | None]:
    """q, k, v, g, beta and an initial state, of phase keys."""
    generator = torch.Generator().manual_seed(length)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    q, k = (torch.cat([theta.cos(), theta.sin()], -1) for theta in (noise(2, 3, length, 8), noise(2, 3, length, 8)))
    g = -(noise(1, 3, 1) if constant else noise(2, 3, length)).exp() * 0.1
    strength = torch.sigmoid(noise(2, 3, length)) if beta else None
    given = [q, k, noise(2, 3, length, 5), g, strength, noise(2, 3, 16, 5)]
    return [None if tensor is None else tensor.to(dtype) for tensor in given]


def run(rule: Any, given: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    *inputs, state = given
    made: tuple[Tensor, Tensor] = rule(*inputs, scale=1 / 8, initial_state=state)
    return made


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("length", [1, 2, 7, 32, 33, 97])
def test_chunks_are_the_definition(length: int, beta: bool, constant: bool) -> None:
    given = inputs_of(length, beta=beta, constant=constant)
    for state in (given[-1], None):
        ours, wanted = (run(rule, [*given[:-1], state]) for rule in (delta_rule, reference.delta_rule))
        for found, expected in zip(ours, wanted, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
            assert expected.abs().max() > 0.1


@pytest.mark.parametrize("beta", [False, True])
def test_gradients_are_the_definition_s(beta: bool) -> None:
    given = inputs_of(45, beta=beta, constant=False)
    inputs = [tensor for tensor in given if tensor is not None]
    weights = [torch.randn(2, 3, 45, 5, dtype=torch.float64), torch.randn(2, 3, 16, 5, dtype=torch.float64)]
    for tensor in inputs:
        tensor.requires_grad_()

    def gradients(rule: Any) -> tuple[Tensor, ...]:
        made = run(rule, given)
        return torch.autograd.grad(sum((m * w).sum() for m, w in zip(made, weights, strict=True)), inputs)  # type: ignore[arg-type]

    for found, expected in zip(gradients(delta_rule), gradients(reference.delta_rule), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("beta", [False, True])
def test_the_final_state_continues_the_sequence(beta: bool) -> None:
    q, k, v, g, strength, state = inputs_of(90, beta=beta, constant=False)
    whole, last = run(delta_rule, [q, k, v, g, strength, state])
    outputs = []
    for here in (slice(0, 40), slice(40, 41), slice(41, 90)):
        parts = [None if z is None else z[:, :, here] for z in (q, k, v, g, strength)]
        o, state = run(delta_rule, [*parts, state])
        outputs.append(o)
    torch.testing.assert_close(torch.cat(outputs, 2), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("fastest", [1e4, 1e38])
@pytest.mark.parametrize("beta", [False, True])
def test_a_decay_beyond_all_rounds_off_no_other(beta: bool, fastest: float) -> None:
    q, k, v, _, strength, _ = inputs_of(150, beta=beta, constant=False)
    g = torch.full((2, 3, 150), -0.01, dtype=torch.float64)
    g[..., ::50] = -fastest
    exact = [q, k, v, g, strength, None]
    rounded = [None if tensor is None else tensor.float() for tensor in exact]
    torch.testing.assert_close(run(delta_rule, rounded)[0].double(), run(delta_rule, exact)[0], rtol=0, atol=1e-4)


def test_with_beta_one_a_key_reads_its_latest_value_whatever_was_stored_before() -> None:
    """The additive update reads what all keys have left."""
    _, k, v, _, _, _ = inputs_of(200, beta=False, constant=False)
    g, wholly = torch.zeros(1, 3, 1, dtype=torch.float64), torch.ones(2, 3, 200, dtype=torch.float64)
    torch.testing.assert_close(run(delta_rule, [k, k, v, g, wholly, None])[0], v, rtol=1e-9, atol=1e-9)
    assert (run(delta_rule, [k, k, v, g, None, None])[0] - v).abs().mean() > 1.0


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_inverses_of_alike_keys_keep_their_digits(size: int) -> None:
    """Equal keys with beta 1: powers of A pass 1e18, its inverse stays at one."""
    lower = torch.ones(3, size, size).tril(-1)
    expected = torch.eye(size) - torch.diag(torch.ones(size - 1), -1)
    torch.testing.assert_close(chunked._unit_lower_inverse(lower), expected.expand(3, -1, -1), rtol=0, atol=1e-5)
