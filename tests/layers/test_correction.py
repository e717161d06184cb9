"""The operator of memories that correct themselves: its gradients, and what compilers are told of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spectral_layers.mixing.correction import Chunks, _correct, correct


def given(batch: int = 2, heads: int = 2, chunks: int = 3, size: int = 4) -> list[Tensor]:
    """keys, values, solving, on_reading, on_storing, left, memory."""
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
    return correct(Chunks(*inputs))


def test_its_backward_pass_is_that_of_the_loop() -> None:
    inputs = given()
    weights = [torch.randn_like(made) for made in corrected(*inputs)]

    def gradients(made: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        loss = sum(((tensor * weight).sum() for tensor, weight in zip(made, weights, strict=True)), start=Tensor([0.0]))
        return torch.autograd.grad(loss, inputs)

    for ours, autograd in zip(gradients(corrected(*inputs)), gradients(_correct(*inputs)), strict=True):
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
    _, direct = torch.func.jvp(_correct, inputs, tangents)
    torch.testing.assert_close(ours, direct)
    torch.func.grad(lambda *given: corrected(*given)[0].sum())(*inputs)


@pytest.mark.parametrize("strided", [False, True])
def test_compilers_are_told_the_truth(strided: bool) -> None:
    inputs = given()
    if strided:
        inputs = [tensor.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for tensor in inputs]
        inputs[4] = inputs[4].detach()[:1].expand_as(inputs[4]).requires_grad_()
    torch.library.opcheck(torch.ops.spectral_layers.correct, tuple(inputs))
    detached = [tensor.detach() for tensor in inputs]
    stored, before, after = _correct(*detached)
    torch.library.opcheck(
        torch.ops.spectral_layers.correct_backward, (*detached, stored, before, stored, before, after)
    )


def test_an_exported_program_has_the_loop_and_no_operator_of_ours() -> None:
    class Corrected(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return corrected(*inputs)

    inputs = tuple(tensor.detach() for tensor in given())
    program = torch.export.export(Corrected(), inputs)
    assert not any("spectral" in str(node.target) for node in program.graph.nodes)
    for ours, eager in zip(program.module()(*inputs), _correct(*inputs), strict=True):
        torch.testing.assert_close(ours, eager)
