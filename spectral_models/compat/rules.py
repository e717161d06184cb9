"""One rule for each field of the original's configuration: what it becomes in a config of ours.

A rule's docstring is its line of the table in docs/compat.md; what it returns, its line of a report. Rules run in the
order of :data:`RULES`: what makes the blocks first, then what changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from spectral_core import ConfigError
from spectral_models.compat.draft import Draft, blocks_of, reads_both_ways
from spectral_models.config import list_blocks

if TYPE_CHECKING:
    from spectral_models.compat.config import SpectralConfig

ENCODERS = {"text": "encoder", "vision": "vision_encoder", "audio": "audio_encoder"}
_HEAD = 32
"""Channels of a head where num_heads is not given, or fewer where they do not divide hidden_dim."""


def _vocab_size(draft: Draft) -> str:
    """`vocab_size`, of text."""
    return _text_only(draft, "vocab_size", draft.config.vocab_size)


def _embed_dim(draft: Draft) -> str:
    """`embed_dim`, of text: the embedding's width, and a projection to `hidden_dim` behind it."""
    return _text_only(draft, "embed_dim", draft.config.embed_dim)


def _hidden_dim(draft: Draft) -> str:
    """`hidden_dim`: the width of the residual stream."""
    return draft.set("hidden_dim", draft.config.hidden_dim)


def _num_layers(draft: Draft) -> str:
    """`num_layers`; blocks that take turns are counted each."""
    return draft.set("num_layers", draft.config.num_layers)


def _layer_type(draft: Draft) -> str:
    """The block of that name. `multiscale` and `hybrid` read the past only, so encoders do not have them."""
    name = draft.config.layer_type.value
    blocks = blocks_of(name)
    if not draft.causal:
        fitting = [other for other in list_blocks() if reads_both_ways(other)]
        if name not in fitting:
            raise ConfigError(
                f"layer_type {name!r} reads the past only, and an encoder reads both ways. "
                f"Layer types for it: {', '.join(fitting)}."
            )
    draft.blocks = blocks
    windows = [mixer["window"] for mixer in draft.mixers("window")]
    reach = f", which reads {2 * windows[0] - 1} tokens back in a layer" if draft.causal and windows else ""
    return f"the block {name!r}: {draft.mixed_by}{reach}"


def _max_seq_len(draft: Draft) -> str:
    """`max_seq_len`, which limits parts with a parameter for each position; memories begin at up to a quarter of it."""
    length = draft.config.max_seq_len
    for mixer in draft.mixers("timescales"):
        _reach(mixer, length / 4)
    for mixer in draft.mixers("filter"):
        if "timescales" in mixer["filter"]:
            _reach(mixer["filter"], length / 16)
    return draft.set("max_seq_len", length)


def _num_heads(draft: Draft) -> str:
    """`head_dim` of mixers with heads, `hidden_dim / num_heads`; without it heads have 32 channels, or what divides."""
    size = head_dim(draft.data["hidden_dim"], draft.config.num_heads)
    found = list(draft.mixers("head_dim"))
    for mixer in found:
        mixer["head_dim"] = size
    if draft.type == "seq2seq":
        draft.data["fusion"] = {"type": "source_product", "head_dim": size}
        return f"mixer.head_dim and fusion.head_dim: {size}"
    return f"mixer.head_dim: {size}" if found else f"nothing: {draft.mixed_by} has no heads"


def _adaptive_sparsity(draft: Draft) -> str:
    """`mixer.sparsity` of spectral gates: `adaptive` if true, `fixed` if false; without it as `layer_type` has it."""
    flag = _agreed(draft.config, "adaptive_sparsity", "use_adaptive_sparsity")
    found = list(draft.mixers("sparsity"))
    if flag is None:
        return "nothing: layer_type decides"
    if not found:
        return f"nothing: {draft.mixed_by} drops no frequencies; layer_type sparse and adaptive do"
    for mixer in found:
        mixer["sparsity"] = {"type": "adaptive" if flag else "fixed"}
    return f"mixer.sparsity: {found[0]['sparsity']['type']}"


def _sparsity(draft: Draft) -> str:
    """`mixer.sparsity.share`, the share of frequencies kept, where blocks drop any."""
    found = [mixer for mixer in draft.mixers("sparsity") if mixer["sparsity"]]
    for mixer in found:
        mixer["sparsity"] = {**mixer["sparsity"], "share": draft.config.sparsity}
    if found:
        return f"mixer.sparsity.share: {draft.config.sparsity}"
    return f"nothing: {draft.mixed_by} drops no frequencies; layer_type sparse and adaptive do"


def _use_moe(draft: Draft) -> str:
    """`feedforward: moe` in every block; `layer_type` moe has it without."""
    if not draft.config.use_moe:
        return "nothing: layer_type decides"
    for block in draft.blocks:
        block["feedforward"] = {"type": "moe"}
    return "feedforward: moe"


def _num_experts(draft: Draft) -> str:
    """`feedforward.experts`, where there are any."""
    return _experts(draft, "experts", draft.config.num_experts)


def _num_active_experts(draft: Draft) -> str:
    """`feedforward.active`, where there are experts."""
    return _experts(draft, "active", draft.config.num_active_experts)


def _use_phase_aware(draft: Draft) -> str:
    """Phases of spectral gates: true adds a `phase` gate to those that have none, false removes what turns phases."""
    flag, found = draft.config.use_phase_aware, list(draft.mixers("gates"))
    if flag is None:
        return "nothing: layer_type decides"
    if not found:
        return f"nothing: the filters of {draft.mixed_by} have phases of their own"
    for mixer in found:
        gates = [gate for gate in mixer["gates"] if flag or gate["type"] != "phase"]
        gates = [{**gate, "phase_terms": None} if gate["type"] == "advanced" and not flag else gate for gate in gates]
        if flag and not any(gate["type"] in ("advanced", "phase") for gate in gates):
            gates.append({"type": "phase"})
        mixer["gates"] = gates
    return f"mixer.gates: {', '.join(gate['type'] for gate in found[0]['gates'])}, phases {'on' if flag else 'off'}"


def _use_cross_frequency(draft: Draft) -> str:
    """Nothing: in gates of bands (`advanced`, `band`) every band hears the others; other parts have no bands."""
    return "nothing: bands of gates always hear each other"


def _use_rope(draft: Draft) -> str:
    """`position: rope` if true. If false `none` in language models, whose mixers know the order, else `sinusoidal`."""
    position = "rope" if draft.config.use_rope else "none" if draft.causal else "sinusoidal"
    return draft.set("position", position)


def _hierarchical_fft(draft: Draft) -> str:
    """`fft: hierarchical`, second in rank: before `auto`, behind `use_xla`."""
    return _fft(draft, "hierarchical")


def _chunk_size(draft: Draft) -> str:
    """`fft.chunk_size`; at most `max_seq_len`. Given alone it asks for `fft: hierarchical` too."""
    return _fft(draft, "hierarchical")


def _use_xla(draft: Draft) -> str:
    """`fft: xla`, first in rank."""
    return _fft(draft, "xla")


def _kernels(draft: Draft) -> str:
    """`fft: auto`, last in rank: it takes Triton's kernels where they run and are not known to be slower."""
    return _fft(draft, "auto")


def _use_flash_fft(draft: Draft) -> str:
    """Nothing: `fft` names the backend, and none is called so."""
    return "nothing: fft names the backend"


def _use_apex(draft: Draft) -> str:
    """Nothing: training uses PyTorch's own optimizers."""
    return "nothing: PyTorch's own optimizers are used"


def _dropout(draft: Draft) -> str:
    """`dropout` of every block, and of a classifier's pooled vector."""
    for block in draft.blocks:
        block["dropout"] = draft.config.dropout
    return f"block.dropout: {draft.config.dropout}"


def _tie_word_embeddings(draft: Draft) -> str:
    """`tie_embeddings`, of language models."""
    if not draft.causal:
        return f"nothing: {draft.type} has no head over a vocabulary"
    return draft.set("tie_embeddings", draft.config.tie_word_embeddings)


def _use_gradient_checkpointing(draft: Draft) -> str:
    """Nothing in the config: `gradient_checkpointing` of the model, which the classes here set."""
    return f"gradient_checkpointing of the model: {draft.config.use_gradient_checkpointing}"


def _modality(draft: Draft) -> str:
    """The encoder: `encoder`, `vision_encoder` or `audio_encoder`; language models read text."""
    modality = draft.config.modality.value
    if draft.type == "language_model" and modality != "text":
        raise ConfigError(f"a language model reads text; modality is {modality!r}. Use an encoder or a classifier.")
    return f"encoder.type: {ENCODERS[modality]}" if draft.type == "seq2seq" else f"type: {draft.type}"


def _vision_patch_size(draft: Draft) -> str:
    """`frontend.size` of a `vision_encoder`."""
    return _frontend(draft, "vision_encoder", {"type": "patches", "size": draft.config.vision_patch_size})


def _audio_sample_rate(draft: Draft) -> str:
    """`frontend.sample_rate` of an `audio_encoder`."""
    front = {"type": "mel", "bands": 8, "sample_rate": draft.config.audio_sample_rate}
    return _frontend(draft, "audio_encoder", front)


RULES: dict[str, Callable[[Draft], str]] = {
    "modality": _modality,
    "vocab_size": _vocab_size,
    "embed_dim": _embed_dim,
    "hidden_dim": _hidden_dim,
    "num_layers": _num_layers,
    "layer_type": _layer_type,
    "max_seq_len": _max_seq_len,
    "num_heads": _num_heads,
    "adaptive_sparsity": _adaptive_sparsity,
    "use_adaptive_sparsity": _adaptive_sparsity,
    "sparsity": _sparsity,
    "use_moe": _use_moe,
    "num_experts": _num_experts,
    "num_active_experts": _num_active_experts,
    "use_phase_aware": _use_phase_aware,
    "use_cross_frequency": _use_cross_frequency,
    "use_rope": _use_rope,
    "use_xla": _use_xla,
    "hierarchical_fft": _hierarchical_fft,
    "use_hierarchical_fft": _hierarchical_fft,
    "chunk_size": _chunk_size,
    "use_custom_kernels": _kernels,
    "use_fused_ops": _kernels,
    "use_flash_fft": _use_flash_fft,
    "use_apex": _use_apex,
    "dropout": _dropout,
    "tie_word_embeddings": _tie_word_embeddings,
    "use_gradient_checkpointing": _use_gradient_checkpointing,
    "vision_patch_size": _vision_patch_size,
    "audio_sample_rate": _audio_sample_rate,
}


def head_dim(width: int, heads: int | None) -> int:
    """Channels of each of so many heads. Raises ConfigError where they leave a rest."""
    if heads is None:
        return max(channels for channels in range(1, _HEAD + 1) if width % channels == 0)
    if width % heads:
        raise ConfigError(f"num_heads = {heads} does not divide hidden_dim = {width}.")
    return width // heads


def _text_only(draft: Draft, key: str, value: Any) -> str:
    if not draft.text:
        return f"nothing: {draft.type} has no vocabulary"
    return draft.set(key, value)


def _experts(draft: Draft, key: str, value: int) -> str:
    found = [block for block in draft.blocks if block["feedforward"]["type"] == "moe"]
    for block in found:
        block["feedforward"] = {**block["feedforward"], key: value}
    return (
        f"feedforward.{key}: {value}" if found else "nothing: there are no experts; use_moe or layer_type moe has them"
    )


def _reach(part: dict[str, Any], longest: float) -> None:
    """Let a part's time constants begin at up to so many tokens, if they do not already."""
    part["timescales"] = (part["timescales"][0], max(part["timescales"][1], longest))


def _frontend(draft: Draft, of: str, front: dict[str, Any]) -> str:
    if draft.type != of:
        return f"nothing: for {of} only"
    draft.data["frontend"] = front
    return "frontend: " + ", ".join(f"{option} {value}" for option, value in front.items())


def _agreed(config: SpectralConfig, *names: str) -> bool | None:
    """What two fields for one thing say."""
    said = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    if len(set(said.values())) > 1:
        raise ConfigError(f"{' and '.join(names)} are one switch; they say {' and '.join(map(str, said.values()))}.")
    return next(iter(said.values()), None)


def _fft(draft: Draft, asking: str) -> str:
    """Decides the backend by all fields about it, and says whether the one asking did."""
    config = draft.config
    wanted = _agreed(config, "hierarchical_fft", "use_hierarchical_fft")
    if config.use_xla:
        name, options = "xla", {}
    elif wanted or (wanted is None and "chunk_size" in config.given):
        name, options = "hierarchical", {"chunk_size": config.chunk_size}
    else:
        name, options = "auto", {}
    draft.data["fft"] = {"type": name, **options}
    shown = ", ".join([name, *(f"{option} {value}" for option, value in options.items())])
    return f"fft: {shown}" if name == asking else f"nothing: fft is {shown}"
