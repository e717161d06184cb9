"""Models whose weights are elsewhere until a module is called: offloaded, sharded, begun without memory."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard

from spectral_core import UnsupportedInputError
from spectral_layers import FILTERS, MIXERS
from spectral_models import build_model
from spectral_models.block import Block

SMALL = {"hidden_dim": 32, "max_seq_len": 64}
IDS = torch.randint(1, 256, (2, 12), generator=torch.Generator().manual_seed(0))
Answers = dict[str, Callable[[], Tensor]]


def language(model: Any) -> Answers:
    def streamed() -> Tensor:
        outputs, state = [], None
        for part in IDS.split([9, 1, 2], 1):
            output = model(part, state=state, return_state=True)
            outputs.append(output.logits)
            state = output.state
        return torch.cat(outputs, 1)

    return {
        "logits": lambda: model(IDS).logits,
        "a stream": streamed,
        "loss": lambda: model.loss(IDS[:, :-1], IDS[:, 1:]).loss,
        "generated": lambda: model.generate(IDS, max_new_tokens=2).double(),
    }


def encoder(model: Any) -> Answers:
    mask, labels = torch.arange(12) < torch.tensor([[12], [7]]), torch.where(IDS > 100, IDS, -100)
    return {
        "pooled": lambda: model(IDS, mask).pooled,
        "logits": lambda: model(IDS).logits,
        "loss": lambda: model.loss(IDS, labels).loss,
    }


def classifier(model: Any) -> Answers:
    return {"logits": lambda: model(IDS).logits, "loss": lambda: model.loss(IDS, torch.tensor([0, 1])).loss}


def token_classifier(model: Any) -> Answers:
    return {"logits": lambda: model(IDS).logits, "loss": lambda: model.loss(IDS, IDS % 2).loss}


def seq2seq(model: Any) -> Answers:
    return {
        "logits": lambda: model(IDS, IDS[:, :5]).logits,
        "loss": lambda: model.loss(IDS, IDS[:, :5]).loss,
        "generated": lambda: model.generate(IDS, max_new_tokens=2, stop_tokens=()).double(),
    }


def multimodal(model: Any) -> Answers:
    generator = torch.Generator().manual_seed(0)
    sound, picture = torch.randn(2, 800, generator=generator), torch.randn(2, 3, 32, 32, generator=generator)
    return {"logits": lambda: model({"text": IDS, "sound": sound, "picture": picture}).logits}


def sounds(model: Any) -> Answers:
    sound = torch.randn(2, 800, generator=torch.Generator().manual_seed(0))
    return {"pooled": lambda: model(sound).pooled}


def mixers() -> list[dict[str, Any]]:
    """Layers with every mixer that decodes, and every filter."""
    named = [{"type": entry.name} for entry in MIXERS if "causal" in entry.load().directions]
    filtered = [{"type": "gated_convolution", "filter": name} for name in FILTERS.names()]
    extra = [{"type": "holographic", "decay": "per_token", "update": "delta"}]
    return [{"mixer": mixer, "feedforward": "mlp"} for mixer in (*named, *filtered, *extra)]


TEXT = {"type": "encoder", "hidden_dim": 32, "num_layers": 1}
ENCODERS = {
    "text": TEXT,
    "sound": {"type": "audio_encoder", "hidden_dim": 16, "num_layers": 2},
    "picture": {"type": "vision_encoder", "hidden_dim": 32, "num_layers": 2},
}
VARIANTS: dict[str, tuple[dict[str, Any], Callable[[Any], Answers]]] = {
    "decoder": ({**SMALL, "num_layers": len(mixers()), "layers": mixers(), "position": "learned"}, language),
    "factorised": ({**SMALL, "num_layers": 1, "embed_dim": 8, "position": "sinusoidal"}, language),
    "untied": ({**SMALL, "num_layers": 1, "tie_embeddings": False, "block": {"feedforward": "moe"}}, language),
    "encoder": ({**TEXT, "pooling": "cls", "masked_lm": True}, encoder),
    "audio_encoder": ({**ENCODERS["sound"], "frontend": {"type": "mel", "bands": 4}}, sounds),
    "classifier": ({"type": "classifier", "encoder": {**TEXT, "pooling": "cls"}}, classifier),
    "token_classifier": ({"type": "token_classifier", "encoder": TEXT}, token_classifier),
    "seq2seq": ({"type": "seq2seq", **SMALL, "num_layers": 2, "encoder": {**TEXT, "hidden_dim": 16}}, seq2seq),
    "multimodal": ({"type": "multimodal", "hidden_dim": 32, "encoders": ENCODERS}, multimodal),
}
EACH = pytest.mark.parametrize("name", VARIANTS)


def built(name: str) -> tuple[Any, Callable[[Any], Answers]]:
    """A model of random weights, none at the values they begin with, which may hide what they do."""
    config, ask = VARIANTS[name]
    torch.manual_seed(0)
    model = build_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model, ask


@torch.no_grad()
def given(model: Any, ask: Callable[[Any], Answers]) -> dict[str, Tensor]:
    return {name: answer() for name, answer in ask(model).items()}


def require(model: Any, ask: Callable[[Any], Answers], wanted: dict[str, Tensor]) -> None:
    for name, found in given(model, ask).items():
        torch.testing.assert_close(found, wanted[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: name + text)


@contextlib.contextmanager
def taken_away(model: nn.Module) -> Iterator[None]:
    """Each module's own parameters are on the meta device outside its call, as accelerate's hooks leave them."""
    hooks, owned = [], []
    for module in model.modules():
        here = dict(module.named_parameters(recurse=False))
        if not here:
            continue
        meta = {name: nn.Parameter(parameter.to("meta")) for name, parameter in here.items()}
        hooks.append(module.register_forward_pre_hook(lambda owner, _, here=here: owner._parameters.update(here)))
        hooks.append(
            module.register_forward_hook(lambda owner, *_, meta=meta: owner._parameters.update(meta), always_call=True)
        )
        module._parameters.update(meta)
        owned.append((module, here))
    yield
    for hook in hooks:
        hook.remove()
    for module, here in owned:
        module._parameters.update(here)


@EACH
def test_parameters_are_read_in_the_call_of_the_module_that_owns_them(name: str) -> None:
    model, ask = built(name)
    wanted = given(model, ask)
    with taken_away(model):
        require(model, ask, wanted)


@EACH
def test_offloaded_to_memory_and_to_disk(name: str, tmp_path: Path) -> None:
    model, ask = built(name)
    wanted = given(model, ask)
    cpu = torch.device("cpu")
    require(disk_offload(copy.deepcopy(model), str(tmp_path), execution_device=cpu), ask, wanted)
    if name != "decoder":
        require(cpu_offload(model, execution_device=cpu), ask, wanted)


@EACH
def test_begun_on_the_meta_device(name: str) -> None:
    model, ask = built(name)
    wanted = given(model, ask)
    with torch.device("meta"):
        empty = build_model(VARIANTS[name][0]).eval()
    empty.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*empty.parameters(), *empty.buffers()):
            tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
    empty.load_state_dict(model.state_dict())
    require(empty, ask, wanted)


@EACH
def test_weights_without_values_are_an_error_and_not_noise(name: str) -> None:
    model, ask = built(name)
    last, owner = [(key, module) for key, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    owner.to("meta")
    for answer, call in ask(model).items():
        with pytest.raises(UnsupportedInputError, match=f"hold no values yet .the first: {last}.weight.: they are on"):
            call()
        assert answer


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view")
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo")
@pytest.mark.parametrize(
    ("name", "fine"),
    [(name, fine) for name in VARIANTS for fine in (False, True) if fine or name != "decoder"],
)
def test_sharded(name: str, fine: bool, group: None) -> None:
    """FSDP2 around blocks and the whole, or around every module with parameters; weights come by DCP's state dicts."""
    model, ask = built(name)
    wanted = given(model, ask)
    if "loss" in wanted:
        ask(model)["loss"]().backward()
    with torch.device("meta"):
        sharded = build_model(VARIANTS[name][0]).eval()
    scalars = {parameter for parameter in sharded.parameters() if parameter.dim() == 0}  # FSDP2 takes none
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    for module in reversed(list(sharded.modules())):
        owns = any(True for _ in module.parameters(recurse=False))
        if module is sharded or isinstance(module, Block) or (fine and owns):
            fully_shard(module, mesh=mesh, ignored_params=scalars)
    sharded.to_empty(device="cpu")
    set_model_state_dict(sharded, get_model_state_dict(model), options=StateDictOptions(full_state_dict=True))
    require(sharded, ask, wanted)
    if "loss" in wanted:
        ask(sharded)["loss"]().backward()
        for (key, parameter), whole in zip(sharded.named_parameters(), model.parameters(), strict=True):
            if whole.grad is not None:
                gradient = parameter.grad if parameter.dim() == 0 else parameter.grad.full_tensor()
                torch.testing.assert_close(gradient, whole.grad, rtol=1e-3, atol=1e-5, msg=key)
