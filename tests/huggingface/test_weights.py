"""Weights by whatever way they arrive: under a file's names or our own, all of them or an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_model, save_model
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from transformers import AutoConfig, TrainerCallback

from spectral_models import CheckpointError, build_model, load_checkpoint, save_checkpoint
from spectral_models.integrations.huggingface import SpectralForCausalLM

OWN = "model."


def other(kind, seed: int = 7):
    """The same model with other random weights, as a new process begins."""
    torch.manual_seed(seed)
    return kind.cls.wrap(build_model(kind.config))


def held(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(model, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


class Ruin(TrainerCallback):
    """Adds noise to the weights after some steps, so that earlier ones are better; keeps these."""

    def __init__(self) -> None:
        self.kept: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_begin(self, args, state, control, model=None, **_) -> None:
        if state.global_step == 2:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(3 * torch.randn_like(parameter))

    def on_save(self, args, state, control, model=None, **_) -> None:
        self.kept[state.global_step] = held(model)


def test_the_best_model_is_loaded_at_the_end(kind, trainer, tmp_path):
    ruin = Ruin()
    model = kind.model()
    options = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 2, "eval_steps": 2}
    training = trainer(model, tmp_path, kind.batch(8), max_steps=4, load_best_model_at_end=True, **options)
    training.add_callback(ruin)
    training.train()
    assert training.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert same(model, ruin.kept[2])
    assert not same(model, ruin.kept[4]), "the last is another"


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("names", ["a file's", "our own"])
def test_both_sets_of_names_load(kind, names, strict):
    weights = held(other(kind))
    given = weights if names == "our own" else {name.removeprefix(OWN): tensor for name, tensor in weights.items()}
    model = kind.model()
    assert not same(model, weights)
    found = model.load_state_dict(given, strict)
    assert not found.missing_keys
    assert not found.unexpected_keys
    assert same(model, weights)
    assert set(given) == (set(weights) if names == "our own" else {name.removeprefix(OWN) for name in weights})


def nothing(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"module.{name}": tensor for name, tensor in weights.items()}


def half(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(list(weights.items())[::2])


def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    *rest, last = weights
    return {**{name: weights[name] for name in rest}, f"{last}_": weights[last]}


def reshaped(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    *rest, last = weights
    return {**{name: weights[name] for name in rest}, last: weights[last][:-1]}


def empty(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nothing, r"missing \(.*unknown \("),
        (half, r"\d+ missing \("),
        (renamed, r"1 missing \(.*1 unknown \("),
        (reshaped, "1 of another shape"),
        (empty, r"\d+ missing \("),
    ],
)
def test_weights_that_do_not_fit_change_nothing(kind, change, message):
    """As Trainer loads them: ``strict`` is False."""
    weights, model = held(other(kind)), kind.model()
    before = held(model)
    for given in (weights, {name.removeprefix(OWN): tensor for name, tensor in weights.items()}):
        with pytest.raises(CheckpointError, match=f"not those of this {kind.cls.__name__}: .*{message}.* Nothing was"):
            model.load_state_dict(change(given), False)
        assert same(model, before)


def test_a_part_on_purpose_goes_into_the_model_inside(kind):
    model, weights = kind.model(), held(other(kind).model)
    model.model.load_state_dict(half(weights), strict=False)
    assert all(torch.equal(model.model.state_dict()[name], tensor) for name, tensor in half(weights).items())


def test_earlier_names_load():
    config = {"hidden_dim": 8, "num_layers": 1}
    model, weights = SpectralForCausalLM.wrap(build_model(config)), held(build_model(config))
    earlier = {name.replace("frontend.embedding", "embedding"): tensor for name, tensor in weights.items()}
    assert earlier.keys() != weights.keys()
    for given in (earlier, {OWN + name: tensor for name, tensor in earlier.items()}):
        assert model.load_state_dict(given, strict=False).missing_keys == []
        assert same(model.model, weights)


@pytest.mark.parametrize("name", ["language_model", "memories"])
def test_a_checkpoint_with_earlier_names_loads(name):
    """Release 0.1 wrote it; its embedding and the projections of its memories had other names."""
    path = Path(__file__).parents[1] / "data" / "release-0.1" / name
    model = SpectralForCausalLM.from_pretrained(path)
    assert same(model.model, held(load_checkpoint(path)))


def accelerate_state(model, target, directory: Path) -> None:
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(model)
    accelerator.save_state(str(directory))
    prepared.load_state_dict({name: tensor.clone() for name, tensor in target.state_dict().items()})
    accelerator.load_state(str(directory))
    target.load_state_dict(prepared.state_dict())


def safetensors_file(model, target, directory: Path) -> None:
    save_model(model, str(directory / "weights.safetensors"))
    load_model(target, str(directory / "weights.safetensors"))


def checkpoint_file(model, target, directory: Path) -> None:
    save_checkpoint(model.model, directory / "saved")
    load_model(target, str(directory / "saved" / "model.safetensors"))


def distributed(model, target, directory: Path) -> None:
    set_model_state_dict(target, held(model), options=StateDictOptions(full_state_dict=True))


def assigned(model, target, directory: Path) -> None:
    target.load_state_dict({name.removeprefix(OWN): tensor for name, tensor in held(model).items()}, False, assign=True)


@pytest.mark.parametrize(
    "way", [accelerate_state, safetensors_file, checkpoint_file, distributed, assigned], ids=lambda way: way.__name__
)
def test_other_tools_load_what_they_saved(way, kinds, tmp_path):
    kind = kinds["causal"]
    model, target = kind.model(), other(kind)
    expected = held(model)
    way(model, target, tmp_path)
    assert same(target, expected)


def test_an_adapters_weights_are_a_smaller_set(kinds):
    """peft loads them with ``strict=False``, by their own names; one that the model has not is an error."""
    config = LoraConfig(r=2, target_modules=["in_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    model = inject_adapter_in_model(config, kinds["causal"].model())
    again = inject_adapter_in_model(config, kinds["causal"].model())
    adapter = get_peft_model_state_dict(model)
    set_peft_model_state_dict(again, adapter)
    assert same(again, held(model))
    with pytest.raises(CheckpointError, match=r"1 unknown \(.*model\.blocks\.9\.mixer\.in_proj\.lora_A"):
        set_peft_model_state_dict(again, {"model.blocks.9.mixer.in_proj.lora_A.weight": torch.zeros(2, 16)})


def test_a_state_dict_is_what_from_pretrained_takes(kind, tmp_path):
    save_checkpoint(kind.model().model, tmp_path / "saved")
    config = AutoConfig.from_pretrained(tmp_path / "saved")
    weights = held(other(kind))
    for given in (weights, {name.removeprefix(OWN): tensor for name, tensor in weights.items()}):
        assert same(kind.cls.from_pretrained(None, config=config, state_dict=given), weights)
    with pytest.raises(CheckpointError, match="missing: "):
        kind.cls.from_pretrained(None, config=config, state_dict=half(weights))
