"""From the original's configuration to the data of a config of ours, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from spectral_models.compat.draft import Draft, Step, blocks_of, reads_both_ways
from spectral_models.compat.rules import ENCODERS, RULES
from spectral_models.variants.language_model import LanguageModelConfig

if TYPE_CHECKING:
    from spectral_models.compat.config import SpectralConfig

Variant = Literal["language_model", "encoder", "classifier", "seq2seq"]


def translated(
    config: SpectralConfig, variant: Variant, preset: LanguageModelConfig | None
) -> tuple[dict[str, Any], list[Step]]:
    """The data, and the steps that made it. preset: has the values that are not given; all fields count without one."""
    causal = variant in ("language_model", "seq2seq")
    draft = Draft(config, variant if causal else ENCODERS[config.modality.value], {}, blocks_of("dense"))
    if preset is not None:
        draft.data = preset.model_dump(exclude={"type", "block", "layers"})
        if causal:
            draft.blocks = [block.model_dump() for block in preset.blocks]
        else:
            draft.data = {
                name: draft.data[name] for name in ("vocab_size", "hidden_dim", "num_layers", "max_seq_len", "fft")
            }
            if not draft.text:
                del draft.data["vocab_size"]
    steps = []
    for field, rule in RULES.items():
        given = field in config.given
        if given or preset is None:
            steps.append(Step(field, getattr(config, field), given, rule(draft)))
    data = {**draft.data, "type": draft.type, "layers": draft.blocks}
    if variant == "classifier":
        return {"type": "classifier", "encoder": data, "dropout": config.dropout}, steps
    if variant == "seq2seq":
        kind = config.layer_type
        reading = kind if reads_both_ways(kind.value) else type(kind)("dense")
        data["encoder"], _ = translated(config.model_copy(update={"layer_type": reading}), "encoder", preset)
        steps.append(Step("layer_type", kind, "layer_type" in config.given, f"encoder: the block {reading.value!r}"))
    return data, steps
