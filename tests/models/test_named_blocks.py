"""Blocks by name: what they stand for, what changes them, and that each is a causal block that learns and streams."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from spectral_core import ConfigError
from spectral_models import MODELS, BlockConfig, ModelConfig, build_model, list_blocks, load_config
from spectral_models.variants.language_model import LanguageModel

VOCABULARY, LENGTH = 29, 75  # two blocks of 32 tokens, and a third begun
MIXERS = {
    "adaptive": ["spectral_gating"],
    "dense": ["gated_convolution"],
    "hybrid": ["gated_convolution", "holographic"],
    "moe": ["gated_convolution"],
    "multiscale": ["multiscale"],
    "sparse": ["spectral_gating"],
}


def small(**data: Any) -> ModelConfig:
    return load_config({"vocab_size": VOCABULARY, "hidden_dim": 32, "num_layers": 2, **data})


def made(name: str, dtype: torch.dtype = torch.float64) -> LanguageModel:
    """A small model of these blocks whose parameters are random: what starts at zero hides what it would do."""
    torch.manual_seed(0)
    model = build_model(small(block=name))
    assert isinstance(model, LanguageModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def tokens(*shape: int) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(1))


def refusal(**data: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        small(**data)
    return str(caught.value)


def test_the_named_blocks() -> None:
    assert list_blocks() == sorted(MIXERS)
    assert list_blocks("[ms]*") == ["moe", "multiscale", "sparse"]


@pytest.mark.parametrize("name", list_blocks())
def test_a_name_stands_for_its_blocks_in_block_and_in_layers(name: str) -> None:
    blocks = small(block=name).blocks
    assert [block.mixer.type for block in blocks] == MIXERS[name]
    assert small(layers=[name]).blocks == small(block={"type": name}).blocks == blocks


def test_what_tells_named_blocks_apart() -> None:
    sparse, adaptive, moe = (BlockConfig.parse(name) for name in ("sparse", "adaptive", "moe"))
    assert (sparse.mixer.sparsity.type, [gate.type for gate in sparse.mixer.gates]) == ("fixed", ["magnitude"])
    assert (adaptive.mixer.sparsity.type, [gate.type for gate in adaptive.mixer.gates]) == ("adaptive", ["advanced"])
    assert (moe.feedforward.type, sparse.feedforward.type) == ("moe", "swiglu")


@pytest.mark.parametrize("name", list_blocks())
@pytest.mark.parametrize("where", ["block", "layers"])
def test_a_dumped_config_holds_the_parts_and_no_name(name: str, where: str) -> None:
    """What a name stands for may change with a release; a checkpoint keeps what it was built of."""
    config = small(**{where: name if where == "block" else ["dense", name]})
    dumped = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(dumped) == config
    assert load_config(config.model_dump()) == config
    assert "type" not in (dumped["block"] or dumped["layers"][0])


@pytest.mark.parametrize("name", list_blocks())
def test_one_step_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(small(block=name)).train()
    input_ids = tokens(4, LENGTH)

    def loss() -> Tensor:
        torch.manual_seed(1)  # fixed and adaptive draw their bins
        output = model(input_ids[:, :-1])
        return F.cross_entropy(output.logits.transpose(1, 2), input_ids[:, 1:]) + sum(output.losses.values())

    before = loss()
    before.backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    torch.optim.Adam(model.parameters(), lr=1e-3).step()
    assert loss() < before - 1e-3


@pytest.mark.parametrize("name", list_blocks())
def test_it_is_causal_and_streams(name: str) -> None:
    model, input_ids = made(name), tokens(2, LENGTH)
    with torch.no_grad():
        logits = model(input_ids).logits
        for position in (1, 33, LENGTH - 1):
            changed = input_ids.clone()
            changed[:, position:] = (changed[:, position:] + 1) % VOCABULARY
            moved = (model(changed).logits - logits).abs()
            assert moved[:, position:].max() > 1e-3, "later logits must move, or this says nothing"
            assert moved[:, :position].max() <= 1e-9 * moved[:, position:].max()
        found, state = [], None
        for token in input_ids.split(1, 1):
            output = model(token, state=state, return_state=True)
            found.append(output.logits)
            state = output.state
    assert (torch.cat(found, 1) - logits).abs().max() <= 1e-9 * logits.abs().max()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("block.mixer.sparsity.share", 0.1),
        ("block.mixer.gates.0.dropout", 0.5),
        ("block.mixer.sparsity", None),
        ("block.mixer.block", 16),
        ("block.norm", "layer_norm"),
    ],
)
def test_an_override_changes_what_it_names_and_leaves_the_rest(path: str, value: object) -> None:
    named = load_config({"block": "adaptive"}, **{path: value})
    written = load_config(load_config({"block": "adaptive"}), **{path: value})
    assert named == written
    assert named != load_config({"block": "adaptive"})


def test_keys_beside_a_name_change_its_blocks() -> None:
    block = BlockConfig.parse({"type": "dense", "mixer": {"filter": {"modes": 8}}, "feedforward": "mlp"})
    assert (block.mixer.filter.modes, block.feedforward.type) == (8, "mlp")
    replaced = BlockConfig.parse({"type": "sparse", "mixer": {"type": "spectral_gating", "block": 16}})
    assert (replaced.mixer.block, replaced.mixer.sparsity) == (16, None), "a part with a type is a new one"
    assert load_config({"block": "dense"}, **{"block.mixer.filter.modes": 8}).block.mixer == block.mixer
    assert [block.dropout for block in small(block={"type": "hybrid", "dropout": 0.1}).blocks] == [0.1, 0.1]


def test_names_and_mappings_take_turns_in_layers() -> None:
    config = small(layers=["dense", "hybrid", {"type": "moe", "feedforward": {"experts": 4}}, {}], num_layers=6)
    mixers = [block.mixer.type for _, block in config.stack()]
    dense = "gated_convolution"
    assert mixers == [dense, dense, "holographic", dense, dense, dense]
    assert config.layers[3].feedforward.experts == 4
    assert config.layers[4] == BlockConfig()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"block": "sprase"}, "block: no block is called 'sprase'. Did you mean 'sparse'? Known: adaptive, dense, "),
        ({"block": "holographic"}, "Or write one: a mapping of mixer, feedforward, norm, dropout, feedforward_chunk."),
        ({"layers": ["hybrid", "x"]}, "layers.1: no block is called 'x'."),
        ({"layers": ["hybrid", {"mixer": {"type": "holographic", "phase": 8}}]}, "layers.1.mixer.phase: unknown key."),
        ({"block": {"type": 3}}, "block: no block is called 3. Known"),
        ({"block": {"type": "sparse", "mixr": "fourier"}}, "block.mixr: unknown key. Did you mean 'mixer'?"),
        ({"block": {"type": "sparse", "mixer": {"filter": {"modes": 8}}}}, "block.mixer.filter: unknown key."),
        ({"block": {"type": "sparse", "mixer": {"gates": {"1": {"bands": 8}}}}}, "block: mixer.gates.1.bands: '1' is"),
        ({"block": "sparse", "layers": ["dense"]}, "config: give either block (one kind) or layers"),
        ({"block": "hybrid", "layers": ["dense"]}, "block: 'hybrid' is 2 blocks in turn, not one. Name it in layers."),
        ({"layers": []}, "layers: The list should have at least 1 item, not 0"),
    ],
)
def test_what_is_wrong_is_said_at_its_path(data: dict[str, Any], message: str) -> None:
    said = refusal(**data)
    assert re.search(f"(^|: |[.?] ){re.escape(message)}", said)
    assert "\n" not in said, "one problem, one line"


def test_the_schema_takes_names() -> None:
    schema = MODELS.get("language_model").load().model_json_schema()
    name, written = schema["$defs"]["BlockConfig"]["anyOf"]
    assert name == {"enum": list_blocks()}
    assert written["properties"]["type"]["enum"] == list_blocks()
    assert set(written["properties"]) == {"type", *BlockConfig.model_fields}
    layers, block = (schema["properties"][field]["anyOf"][0] for field in ("layers", "block"))
    assert layers["items"] == block == {"$ref": "#/$defs/BlockConfig"}
    assert layers["minItems"] == 1
