"""What each field of the original's configuration becomes in a config of ours.

A rule changes the draft by the field's value and returns the field's line of a report. Rules that choose the blocks run
before those that change them. The README's table says the same in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from spectral_core import ConfigError
from spectral_models.config import BlockConfig, list_blocks, spelled_out

if TYPE_CHECKING:
    from spectral_compat.config import SpectralConfig

Variant = Literal["language_model", "encoder", "classifier", "seq2seq"]
_LAYERS_DECIDE = "nothing: layer_type decides"
ENCODERS = {"text": "encoder", "vision": "vision_encoder", "audio": "audio_encoder"}


@dataclass
class Draft:
    """A config of ours while it is made: its variant, its data, and its blocks with every default."""

    config: SpectralConfig
    type: str
    data: dict[str, Any]
    blocks: list[dict[str, Any]]

    @property
    def causal(self) -> bool:
        return self.type in ("language_model", "seq2seq")

    @property
    def mixed_by(self) -> str:
        return " and ".join(dict.fromkeys(block["mixer"]["type"] for block in self.blocks))

    def mixers(self, option: str) -> list[dict[str, Any]]:
        return [block["mixer"] for block in self.blocks if option in block["mixer"]]

    def set(self, key: str, value: Any, unless: str = "") -> str:
        """Set a key of the config, unless there is a reason not to."""
        if unless:
            return f"nothing: {unless}"
        self.data[key] = value
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        return f"{key}: {shown}"


def translated(config: SpectralConfig, variant: Variant, preset: Any) -> tuple[dict[str, Any], list[str]]:
    """The data of our config, and the lines of the report. preset: has the values of fields that are not given."""
    causal = variant in ("language_model", "seq2seq")
    draft = Draft(config, variant if causal else ENCODERS[config.modality.value], {}, _blocks("dense"))
    if preset is not None:
        draft.data = preset.model_dump(exclude={"type", "block", "layers"})
        if causal:
            draft.blocks = [block.model_dump() for block in preset.blocks]
        else:
            sizes = ("hidden_dim", "num_layers", "max_seq_len", "fft", *["vocab_size"] * (draft.type == "encoder"))
            draft.data = {name: draft.data[name] for name in sizes}
    lines = []
    for field, rule in RULES.items():
        given, value = field in config.model_fields_set, getattr(config, field)
        if given or preset is None:
            shown = f"{field} = {getattr(value, 'value', value)}{'' if given else ' (default)'}"
            lines.append(f"{shown} → {rule(draft, value)}")
    data = {**draft.data, "type": draft.type, "layers": draft.blocks}
    if variant == "classifier":
        return {"type": "classifier", "encoder": data, "dropout": config.dropout}, lines
    if variant == "seq2seq":
        kind = config.layer_type
        reading = kind if _reads_both_ways(kind.value) else type(kind)("dense")
        data["encoder"], _ = translated(config.model_copy(update={"layer_type": reading}), "encoder", preset)
        lines.append(f"layer_type = {kind.value} → encoder: the block {reading.value!r}")
    return data, lines


def _blocks(name: str) -> list[dict[str, Any]]:
    return [BlockConfig.parse(block).model_dump() for block in spelled_out(name)]


def _reads_both_ways(name: str) -> bool:
    return all("bidirectional" in BlockConfig.parse(block).mixer.directions for block in spelled_out(name))


def _modality(draft: Draft, value: Any) -> str:
    if draft.type == "language_model" and value.value != "text":
        raise ConfigError(f"a language model reads text; modality is {value.value!r}. Use an encoder or a classifier.")
    return f"encoder.type: {ENCODERS[value.value]}" if draft.type == "seq2seq" else f"type: {draft.type}"


def _text(draft: Draft, field: str, value: int) -> str:
    sees = draft.type in ("vision_encoder", "audio_encoder")
    return draft.set(field, value, unless=f"{draft.type} has no vocabulary" if sees else "")


def _layer_type(draft: Draft, value: Any) -> str:
    if not draft.causal and not _reads_both_ways(value.value):
        fitting = ", ".join(name for name in list_blocks() if _reads_both_ways(name))
        raise ConfigError(
            f"layer_type {value.value!r} reads the past only, and an encoder reads both ways. "
            f"Layer types for it: {fitting}."
        )
    draft.blocks = _blocks(value.value)
    windows = [mixer["window"] for mixer in draft.mixers("window") if draft.causal]
    reach = f", which reads {2 * windows[0] - 1} tokens back in a layer" if windows else ""
    return f"the block {value.value!r}: {draft.mixed_by}{reach}"


def _max_seq_len(draft: Draft, value: int) -> str:
    filters = [mixer["filter"] for mixer in draft.mixers("filter") if "timescales" in mixer["filter"]]
    for part, longest in [*((m, value / 4) for m in draft.mixers("timescales")), *((f, value / 16) for f in filters)]:
        part["timescales"] = (part["timescales"][0], max(part["timescales"][1], longest))
    return draft.set("max_seq_len", value)


def _num_heads(draft: Draft, value: int | None) -> str:
    width = draft.data["hidden_dim"]
    if value and width % value:
        raise ConfigError(f"num_heads = {value} does not divide hidden_dim = {width}.")
    size = width // value if value else max(channels for channels in range(1, 33) if width % channels == 0)
    for mixer in (found := draft.mixers("head_dim")):
        mixer["head_dim"] = size
    if draft.type == "seq2seq":
        draft.data["fusion"] = {"type": "source_product", "head_dim": size}
        return f"mixer.head_dim and fusion.head_dim: {size}"
    return f"mixer.head_dim: {size}" if found else f"nothing: {draft.mixed_by} has no heads"


def _sparsity(draft: Draft, option: str, value: Any) -> str:
    for mixer in (found := draft.mixers("sparsity")):
        mixer["sparsity"] = {**({} if option == "type" else mixer["sparsity"]), option: value}
    return f"mixer.sparsity.{option}: {value}" if found else f"nothing: {draft.mixed_by} drops no frequencies"


def _adaptive(draft: Draft, _: Any) -> str:
    flag = _agreed(draft.config, "adaptive_sparsity", "use_adaptive_sparsity")
    return _LAYERS_DECIDE if flag is None else _sparsity(draft, "type", "adaptive" if flag else "fixed")


def _experts(draft: Draft, option: str, value: int) -> str:
    found = [block for block in draft.blocks if block["feedforward"]["type"] == "moe"]
    for block in found:
        block["feedforward"] = {**block["feedforward"], option: value}
    return f"feedforward.{option}: {value}" if found else "nothing: no experts; use_moe or layer_type moe has them"


def _each_block(draft: Draft, option: str, value: Any) -> str:
    for block in draft.blocks:
        block[option] = value
    return f"block.{option}: {value}"


def _use_phase_aware(draft: Draft, flag: bool | None) -> str:
    found = draft.mixers("gates")
    if flag is None:
        return _LAYERS_DECIDE
    if not found:
        return f"nothing: the filters of {draft.mixed_by} have phases of their own"
    for mixer in found:
        gates = [gate for gate in mixer["gates"] if flag or gate["type"] != "phase"]
        gates = [{**gate, "phase_terms": None} if gate["type"] == "advanced" and not flag else gate for gate in gates]
        if flag and not any(gate["type"] in ("advanced", "phase") for gate in gates):
            gates.append({"type": "phase"})
        mixer["gates"] = gates
    return f"mixer.gates: {', '.join(gate['type'] for gate in found[0]['gates'])}, phases {'on' if flag else 'off'}"


def _fft(draft: Draft, asking: str) -> str:
    """All fields about backends decide together; the report says of the one asking whether it did."""
    config, fft = draft.config, {"type": "xla" if draft.config.use_xla else "auto"}
    wanted = _agreed(config, "hierarchical_fft", "use_hierarchical_fft")
    if not config.use_xla and (wanted or (wanted is None and "chunk_size" in config.model_fields_set)):
        fft = {"type": "hierarchical", "chunk_size": min(config.chunk_size, config.max_seq_len)}
    draft.data["fft"] = fft
    shown = fft["type"] + (f", chunk_size {fft['chunk_size']}" if len(fft) > 1 else "")
    return f"fft: {shown}" if fft["type"] == asking else f"nothing: fft is {shown}"


def _frontend(draft: Draft, of: str, front: dict[str, Any]) -> str:
    return draft.set("frontend", front, unless="" if draft.type == of else f"for {of} only")


def _agreed(config: SpectralConfig, *names: str) -> bool | None:
    """The value of two fields for one switch."""
    said = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    if len(set(said.values())) > 1:
        raise ConfigError(f"{' and '.join(names)} are one switch; they say {' and '.join(map(str, said.values()))}.")
    return next(iter(said.values()), None)


RULES: dict[str, Callable[[Draft, Any], str]] = {
    "modality": _modality,
    "vocab_size": lambda draft, value: _text(draft, "vocab_size", value),
    "embed_dim": lambda draft, value: _text(draft, "embed_dim", value),
    "hidden_dim": lambda draft, value: draft.set("hidden_dim", value),
    "num_layers": lambda draft, value: draft.set("num_layers", value),
    "layer_type": _layer_type,
    "max_seq_len": _max_seq_len,
    "num_heads": _num_heads,
    "adaptive_sparsity": _adaptive,
    "use_adaptive_sparsity": _adaptive,
    "sparsity": lambda draft, value: _sparsity(draft, "share", value),
    "use_moe": lambda draft, value: _each_block(draft, "feedforward", {"type": "moe"}) if value else _LAYERS_DECIDE,
    "num_experts": lambda draft, value: _experts(draft, "experts", value),
    "num_active_experts": lambda draft, value: _experts(draft, "active", value),
    "use_phase_aware": _use_phase_aware,
    "use_cross_frequency": lambda draft, value: "nothing: bands of gates always hear each other",
    "use_rope": lambda draft, value: draft.set(
        "position", "rope" if value else "none" if draft.causal else "sinusoidal"
    ),
    "use_xla": lambda draft, value: _fft(draft, "xla"),
    "hierarchical_fft": lambda draft, value: _fft(draft, "hierarchical"),
    "use_hierarchical_fft": lambda draft, value: _fft(draft, "hierarchical"),
    "chunk_size": lambda draft, value: _fft(draft, "hierarchical"),
    "use_custom_kernels": lambda draft, value: _fft(draft, "auto"),
    "use_fused_ops": lambda draft, value: _fft(draft, "auto"),
    "use_flash_fft": lambda draft, value: "nothing: fft names the backend",
    "use_apex": lambda draft, value: "nothing: PyTorch's own optimizers are used",
    "dropout": lambda draft, value: _each_block(draft, "dropout", value),
    "tie_word_embeddings": lambda draft, value: draft.set(
        "tie_embeddings", value, unless="" if draft.causal else f"{draft.type} has no head over a vocabulary"
    ),
    "use_gradient_checkpointing": lambda draft, value: f"gradient_checkpointing of the model: {value}",
    "vision_patch_size": lambda draft, value: _frontend(draft, "vision_encoder", {"type": "patches", "size": value}),
    "audio_sample_rate": lambda draft, value: _frontend(
        draft, "audio_encoder", {"type": "mel", "bands": 8, "sample_rate": value}
    ),
}
