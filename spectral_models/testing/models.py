"""Checks of a model variant against its declarations."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core import FFTBackend
from spectral_layers.report import with_hidden_states
from spectral_layers.testing.check import for_all, only_for
from spectral_layers.testing.operators import Operators
from spectral_models.assembly import parse_model
from spectral_models.causality import check_causality
from spectral_models.checkpoint import load_checkpoint, save_checkpoint
from spectral_models.export import export_model
from spectral_models.inputs import ImageInput, InputSpec
from spectral_models.labels import Problem
from spectral_models.model import SpectralModel
from spectral_models.registries import architecture_of, task_of
from spectral_models.testing.cases import ModelCase, descent


@for_all
def check_it_builds_on_meta(case: ModelCase) -> None:
    """On the meta device a model has the same parameters, without values."""
    expected = {name: tensor.shape for name, tensor in case.build().named_parameters()}
    with torch.device("meta"):
        model = case.config.build()
    found = {name: tensor.shape for name, tensor in model.named_parameters() if tensor.is_meta}
    if found != expected:
        names = sorted(expected.items() ^ found.items())[:3]
        raise AssertionError(f"{case}: built on the meta device, its parameters differ or hold values: {names}.")


@for_all
def check_its_config_comes_back(case: ModelCase) -> None:
    """A config equals the one that its JSON is parsed to."""
    again = parse_model(case.config.model_dump(mode="json"))
    if again != case.config:
        raise AssertionError(f"{case}: its config, dumped and read again, differs: {again!r}.")


@for_all
def check_its_inputs_and_outputs_are_declared(case: ModelCase) -> None:
    """``run`` takes the inputs of ``input_specs``, and returns ``outputs`` as finite tensors with the batch first."""
    model = case.build()
    if not model.input_specs() or not model.outputs():
        raise AssertionError(f"{case}: input_specs() and outputs() declare nothing; exports and commands need them.")
    for name, value in case.outputs(model, case.inputs(model, 3)).items():
        if not isinstance(value, Tensor) or value.shape[:1] != (3,) or not value.isfinite().all():
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise AssertionError(f"{case}: the output {name!r} must be a finite tensor (3, ...); got {shape}.")
        if not value.any():
            raise AssertionError(f"{case}: the output {name!r} is 0 everywhere, with random parameters and inputs.")


@for_all
def check_labels_and_pooled_are_as_declared(case: ModelCase) -> None:
    """Logits have the size of ``label_set``; if the config ``pools``, the output has ``pooled``, (B, D)."""
    model, known = case.build(), case.config.label_set
    with torch.no_grad():
        output = model.run(case.inputs(model, 3))
    logits, pooled = getattr(output, "logits", None), getattr(output, "pooled", None)
    if known is not None and (not isinstance(logits, Tensor) or logits.shape[-1] != known.size):
        raise AssertionError(f"{case}: label_set declares {known.size} labels, and logits must have as many.")
    if case.config.pools and (not isinstance(pooled, Tensor) or pooled.dim() != 2):
        raise AssertionError(f"{case}: its config has pools, so forward's output must have pooled, (B, D).")


@for_all
def check_rows_do_not_mix(case: ModelCase) -> None:
    """A row's outputs do not depend on other rows of the batch."""
    model = case.build()
    whole = case.inputs(model, 3)
    together = case.outputs(model, whole)
    for row in range(3):
        alone = case.outputs(model, {name: tensor[row : row + 1] for name, tensor in whole.items()})
        for name, value in alone.items():
            case.require_equal(f"{name} of a row alone and in a batch", together[name][row : row + 1], value)


def _padded_input(case: ModelCase) -> InputSpec | None:
    spec = case.build().input_specs()[:1]
    return spec[0] if spec and spec[0].masked else None


@only_for(lambda case: _padded_input(case) is not None)
def check_padding_changes_nothing(case: ModelCase) -> None:
    """Values at padding of the masked input change neither outputs at real tokens nor those of rows."""
    model, spec = case.build(), _padded_input(case)
    assert spec is not None
    inputs = case.inputs(model, 2)
    expected, (first, *_) = case.outputs(model, inputs), inputs.values()
    length = first.shape[1]
    noise = case.inputs(model, 2, seed=5)[spec.name][:, : length // 2]
    wide = {**inputs, spec.name: torch.cat([first, noise], 1)}
    mask = F.pad(torch.ones(2, length, dtype=torch.long), (0, noise.shape[1]))
    for name, value in case.outputs(model, wide, mask).items():
        per_token = value.dim() > expected[name].dim() - 1 and value.shape != expected[name].shape
        case.require_equal(
            f"{name} with padding", value[:, : expected[name].shape[1]] if per_token else value, expected[name]
        )


@only_for(lambda case: case.config.decoder)
def check_no_logit_sees_a_later_token(case: ModelCase) -> None:
    """The model passes the causality check of third-party parts."""
    check_causality(case.config, suspects=[case.config.type])


@only_for(lambda case: case.build().streams)
def check_chunks_equal_one_pass(case: ModelCase) -> None:
    """Tokens in chunks, continued by a state, give the logits of one pass."""
    model = case.build()
    inputs = list(case.inputs(model, 2).values())
    *source, tokens = inputs
    with torch.no_grad():
        expected = model(*inputs).logits
        state = model.prepare(*source) if source else None  # type: ignore[operator]
        pieces = []
        for piece in tokens.split([1, 3, tokens.shape[1] - 4], 1):
            output = model(*(None for _ in source), piece, state=state, return_state=True)
            state = output.state
            pieces.append(output.logits)
    case.require_equal("logits in chunks of 1, 3 and the rest", torch.cat(pieces, 1), expected)


@for_all
def check_a_saved_model_is_the_same(case: ModelCase) -> None:
    """A loaded checkpoint gives the outputs of the model that was saved."""
    model = case.build()
    inputs = case.inputs(model, 2)
    with tempfile.TemporaryDirectory() as directory:
        again = load_checkpoint(save_checkpoint(model, Path(directory) / "saved"))
        for name, value in case.outputs(again, inputs).items():
            case.require_equal(f"{name} of a checkpoint", value, case.outputs(model, inputs)[name])


@for_all
def check_its_backend_reaches_every_operator(case: ModelCase) -> None:
    """Every part, also of submodels, has the backend ``fft`` of the config, and transforms with nothing else.

    ``fft: xla`` multiplies by real matrices, so with it any FFT or complex tensor shows a part that bypasses it.
    """
    for path, module in case.build(fft="direct").named_modules():
        backend = vars(module).get("fft")
        if isinstance(backend, FFTBackend) and backend.name != "direct":
            raise AssertionError(
                f"{case}: with fft: direct, {path} has the backend {backend.name!r}. Give parts config.build_fft()."
            )
    model = case.build(fft="xla")
    with Operators() as seen:
        case.outputs(model, case.inputs(model, 2))
    if strays := sorted({name for name in seen.names if name.startswith("_fft_")} | seen.complex):
        raise AssertionError(
            f"{case} calls {', '.join(strays)} with fft: xla, which has no FFT and no complex numbers. Transform by "
            "config.build_fft() alone."
        )


@for_all
def check_gradient_checkpointing_changes_no_gradient(case: ModelCase) -> None:
    """``gradient_checkpointing`` changes no gradient, and is passed on to submodels."""
    model = case.build().train()
    inputs, found = case.inputs(model, 2), []
    for switch in (False, True):
        model.gradient_checkpointing = switch
        model.zero_grad()
        torch.default_generator.manual_seed(2)  # the same dropout
        output = model.run(inputs)
        sum(getattr(output, name).square().mean() for name in model.outputs()).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    plain, again = found
    if plain.keys() != again.keys():
        raise AssertionError(f"{case}: gradient_checkpointing changes which parameters have gradients.")
    for name, gradient in plain.items():
        case.require_equal(f"the gradient of {name} with gradient_checkpointing", again[name], gradient)
    if left := [path for path, inner in model.submodels().items() if not inner.gradient_checkpointing]:
        raise AssertionError(f"{case}: gradient_checkpointing does not reach {', '.join(left)}.")


def _depths(case: ModelCase) -> list[int]:
    """The number of blocks of each stack."""
    stacks: list[Any] = [module for module in case.build().modules() if hasattr(module, "through_blocks")]
    return [len(stack.blocks) for stack in stacks]


@only_for(lambda case: bool(_depths(case)))
def check_hidden_states_are_reported(case: ModelCase) -> None:
    """``with_hidden_states`` reports N + 1 features of each stack of N blocks, and changes no output."""
    model = case.build()
    inputs = case.inputs(model, 2)
    with torch.no_grad(), with_hidden_states("all"):
        output = model.run(inputs)
    found = Counter(name.rpartition(".")[0] for name in output.hidden_states)
    expected = sorted(depth + 1 for depth in _depths(case))
    if sorted(found.values()) != expected:
        raise AssertionError(
            f"{case}: its stacks have {expected} hidden states, and its output reports {dict(found)}. "
            "Add the report of every part to the output."
        )
    for name, x in output.hidden_states.items():
        if x.dim() != 3 or x.shape[0] != 2 or not x.isfinite().all():
            raise AssertionError(f"{case}: the hidden state {name} must be finite, (2, L, D); got {tuple(x.shape)}.")
    for name, value in case.outputs(model, inputs).items():
        case.require_equal(f"{name} with hidden states", getattr(output, name), value)


@for_all
def check_it_exports(case: ModelCase) -> None:
    """``torch.export`` succeeds, and the program gives the model's outputs: export_model compares them."""
    model = case.build()
    lengths = {spec.name: spec.small[0] for spec in model.input_specs() if spec.has_length}
    size = next(
        (spec.small[1:] for spec in model.input_specs() if isinstance(spec, ImageInput) and not spec.size), None
    )
    with tempfile.TemporaryDirectory() as directory:
        export_model(model, Path(directory) / "program.pt2", format="torch", length=lengths or None, size=size)  # type: ignore[arg-type]


def labels_for(model: SpectralModel, batch: int) -> Tensor:
    """Random labels for the model's loss: of its ``label_set`` if it has one, else a class for each token."""
    generator, known = torch.Generator().manual_seed(3), model.config.label_set
    inputs = {spec.name: spec.example(batch, generator) for spec in model.input_specs()}
    with torch.no_grad():
        shape = model.run(inputs).logits.shape
    if known is not None and len(shape) == 2:
        forms: dict[Problem, Tensor] = {
            "single_label_classification": torch.randint(known.size, (batch,), generator=generator),
            "multi_label_classification": torch.rand(batch, known.size, generator=generator).round(),
            "regression": torch.rand(batch, known.size, generator=generator),
        }
        return forms[known.problem]
    return torch.randint(shape[-1], shape[:2], generator=generator)


@only_for(lambda case: task_of(case.config) is not None and "logits" in case.build().outputs())
def check_a_step_lowers_the_loss(case: ModelCase) -> None:
    """Eight steps on one batch lower the loss, auxiliary losses included."""
    model = case.build().train()
    inputs, labels = case.inputs(model, 4), labels_for(model, 4)
    first, *others = inputs.values()
    given: Any = inputs if others and not model.config.decoder else first
    losses = descent(model, lambda _: model.loss(given, labels), steps=8, learning_rate=1e-2)
    if not losses[-1] < losses[0]:
        raise AssertionError(f"{case}: eight steps on one batch must lower the loss; got {losses}.")


@only_for(lambda case: architecture_of(case.config) is not None)
def check_hugging_faces_class_holds_it(case: ModelCase) -> None:
    """The Hugging Face class of its task wraps the model, saves it, and loads it with the same outputs."""
    from spectral_models.integrations import huggingface

    kind = getattr(huggingface, str(architecture_of(case.config)), None)
    if kind is None:
        raise AssertionError(f"{case}: integrations.huggingface has no class {architecture_of(case.config)}.")
    model = case.build()
    inputs = case.inputs(model, 2)
    with tempfile.TemporaryDirectory() as directory:
        kind.wrap(model).save_pretrained(directory)
        again = kind.from_pretrained(directory).eval().model
    for name, value in case.outputs(again, inputs).items():
        case.require_equal(f"{name} of Hugging Face's class", value, case.outputs(model, inputs)[name])
