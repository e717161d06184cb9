"""Presets: the sizes their names promise, the contexts they state, and the table in the documents."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from spectral_core import ConfigError
from spectral_models import build_model, list_models, load_config
from spectral_models.assembly import count_parameters
from spectral_models.config import parts_of
from spectral_models.model import SpectralModel

CONTEXTS = {"tiny": 16_384, "small": 65_536, "base": 131_072, "medium": 200_000, "large": 200_000, "xlarge": 200_000}
UNITS = {"m": 10**6, "b": 10**9}
TABLE = Path(__file__).parents[2] / "docs" / "presets.md"


@pytest.fixture(scope="module")
def presets() -> dict[str, SpectralModel]:
    """Every preset, built on the meta device."""
    with torch.device("meta"):
        return {name: build_model(name) for name in list_models()}


def size(model: SpectralModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def stack(model: SpectralModel) -> Any:
    """What holds the blocks: a classifier's encoder, a seq2seq's decoder."""
    return getattr(model, "decoder", getattr(model, "encoder", model))


def test_the_presets() -> None:
    assert {*CONTEXTS, "classifier-small", "encoder-small", "seq2seq-small", "vision-small", "audio-small"} == {
        name for name in list_models() if not name.startswith("slm-")
    }
    assert {"slm-100m", "slm-500m", "slm-1b", "slm-3b", "slm-13b", "slm-100b"} <= set(list_models("slm-*"))


def test_a_size_in_a_name_is_within_a_twentieth_of_the_parameters(presets: dict[str, SpectralModel]) -> None:
    for name in list_models("slm-*"):
        number, unit = re.fullmatch(r"slm-(\d+)([mb])", name).groups()  # type: ignore[union-attr]
        said = int(number) * UNITS[unit]
        assert abs(size(presets[name]) - said) <= 0.05 * said, f"{name} has {size(presets[name]):,} parameters"
        assert presets[name].config.type == "language_model"
        assert stack(presets[name]).config.vocab_size == 50_257


def test_sizes_by_word_grow_with_it(presets: dict[str, SpectralModel]) -> None:
    counts = [size(presets[name]) for name in CONTEXTS]
    assert counts == sorted(counts)
    assert counts[-1] > 1000 * counts[0]


@pytest.mark.parametrize("name", list_models())
def test_a_preset_s_first_line_says_its_size(name: str, presets: dict[str, SpectralModel]) -> None:
    text = (resources.files("spectral_models") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    said = re.match(r"# ([\d.]+) (million|billion) parameters", text)
    assert said is not None
    unit, decimals = {"million": 10**6, "billion": 10**9}[said[2]], len(said[1].partition(".")[2])
    assert float(said[1]) == round(size(presets[name]) / unit, decimals)


def test_counting_needs_no_memory_and_counts_what_is_there() -> None:
    """The embedding, which is also the head, counts once."""
    config = load_config("tiny")
    assert count_parameters(config) == size(build_model(config))
    assert count_parameters(load_config(config, tie_embeddings=False)) - count_parameters(config) == 256 * 128


# contexts


@pytest.mark.parametrize(("name", "context"), CONTEXTS.items())
def test_the_contexts_of_the_presets(name: str, context: int) -> None:
    assert load_config(name).max_seq_len == context


def test_memories_last_for_a_quarter_of_the_stated_context(presets: dict[str, SpectralModel]) -> None:
    """The longest time constant a mixer or filter begins with: exp(-4) of it is left a whole context later."""
    for name, model in presets.items():
        config, context = model.config, stack(model).config.max_seq_len
        if context is None:
            assert config.type in ("vision_encoder", "audio_encoder", "seq2seq"), f"{name} says no context"
            continue
        scales = [part.timescales for _, part in parts_of(config) if hasattr(part, "timescales")]
        assert max(longest for _, longest in scales) >= context / 4, name
        assert min(shortest for shortest, _ in scales) <= 8, name


def test_no_preset_is_limited_to_its_context(presets: dict[str, SpectralModel]) -> None:
    """Only parts with a parameter for each position would be, and it is their absence that lets models read on."""
    assert {name for name, model in presets.items() if stack(model).length_limit is not None} == set()


def test_tiny_reads_its_context_in_one_pass_and_in_chunks() -> None:
    torch.manual_seed(0)
    config = load_config("tiny")
    model = build_model(config).eval()
    input_ids = torch.randint(config.vocab_size, (1, config.max_seq_len))
    with torch.no_grad():
        # Logits of the last tokens alone are kept, but every token is read.
        whole = model(input_ids).logits[:, -64:]
        state = None
        for chunk in input_ids.split(config.max_seq_len // 4, 1):
            output = model(chunk, state=state, return_state=True)
            state = output.state
    assert whole.abs().max() > 0.1
    torch.testing.assert_close(output.logits[:, -64:], whole, rtol=1e-3, atol=1e-4)


# documents


def test_the_table_in_the_documents(presets: dict[str, SpectralModel]) -> None:
    found = re.findall(r"^\| `([\w-]+)` \| `(\w+)` \| (.*) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    expected = {name: (model.config.type, cells(model)) for name, model in presets.items()}
    assert {name: (variant, rest) for name, variant, rest in found} == expected


def cells(model: SpectralModel) -> str:
    of = stack(model).config
    vocabulary = getattr(of, "vocab_size", None)
    return " | ".join(
        f"{cell:,}" if cell is not None else "–"
        for cell in (size(model), of.hidden_dim, of.num_layers, vocabulary, of.max_seq_len)
    )


# refusals


@pytest.mark.parametrize(("name", "near"), [("slm-600m", "slm-500m"), ("slm-1B", "slm-1b"), ("xlage", "xlarge")])
def test_an_unknown_size_is_told_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(name)
    assert f"no preset is called {name!r}. Did you mean {near!r}?" in str(caught.value)
