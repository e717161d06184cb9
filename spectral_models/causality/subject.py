"""The subject of the causality check: a small copy of a model with random parameters, and its calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from spectral_core import FFT_BACKENDS, FFTBackendConfig, PluginError
from spectral_core.backends.base import Request
from spectral_core.config import PartConfig
from spectral_layers import FeedForward, Fusion, Mixer, State
from spectral_layers.feedforward.mlp import MLPConfig
from spectral_models.causality.cases import LONG, Setting
from spectral_models.config import BlockConfig, ModelConfig, parts_of, with_inner
from spectral_models.model import SpectralModel

VOCABULARY = 11
_OURS = ("spectral_core", "spectral_layers", "spectral_models")


def is_foreign(part: PartConfig) -> bool:
    """Whether a part is a third party's, by its name and its class, not by the declared provider."""
    return "/" in part.type or type(part).__module__.partition(".")[0] not in _OURS


def is_decoder(config: ModelConfig) -> bool:
    """Whether the variant is a decoder, or derives from one: a third party cannot opt out of its base's promises."""
    return _promises(config, "decoder")


def _promises(declarer: ModelConfig | SpectralModel, name: str) -> bool:
    """Whether a class or any of its bases declares this."""
    return bool(getattr(declarer, name)) or any(vars(base).get(name) is True for base in type(declarer).__mro__)


class Subject:
    """A copy of the model in one dtype, on the CPU; the caller keeps the random state.

    limit: the longest sequence of its parts; None for no limit. streams: whether it can continue a state.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype) -> None:
        _seed(0)
        self.model = _reduced(config, dtype).build().to(dtype)
        self.dtype = dtype
        self._initial = [
            (parameter, parameter.clone(), torch.randn_like(parameter)) for parameter in self.model.parameters()
        ]
        self._buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        self._prepared: dict[tuple[bool, bool, int], State] = {}
        self._begins = self.model.config.reads_source and _promises(self.model, "streams")
        of_source = self._of_source()
        modules = [module for module in self.model.modules() if module not in of_source]
        limits = [getattr(module, "length_limit", None) for module in modules]
        self.limit: int | None = min((limit for limit in limits if isinstance(limit, int)), default=None)
        self.streams = _promises(self.model, "streams") and all(
            module.streams for module in modules if isinstance(module, Mixer | Fusion)
        )
        for module in modules:
            if isinstance(module, Mixer | FeedForward):
                _watch_input(module)

    def _of_source(self) -> set[nn.Module]:
        """The modules that see only a source."""
        if not self.model.config.reads_source:
            return set()
        readers = (model for model in self.model.submodels().values() if not is_decoder(model.config))
        return {module for model in readers for module in model.modules()}

    def randomise(self, scale: float) -> None:
        """Set each parameter to its initial value plus normal noise of that size, the same noise at every call."""
        self._prepared.clear()
        for parameter, initial, noise in self._initial:
            parameter.copy_(initial + scale * noise)

    def logits(self, setting: Setting, tokens: Tensor) -> Tensor:
        """(B, L) tokens → (B, L, V) in a full pass; of an encoder its features (B, L, D)."""
        with torch.set_grad_enabled(setting.grad):
            if self._begins:
                state = self._state(setting, tokens.shape[0])
                self._restore(setting)
                logits: Tensor = self.model(None, tokens, state=state).logits
            else:
                source = self._source(tokens.shape[0])
                self._restore(setting)
                output = self.model(*source, tokens)
                logits = output.logits if is_decoder(self.model.config) else output.hidden
        return logits.detach()

    def streamed(self, setting: Setting, chunks: Sequence[Tensor]) -> Tensor:
        """The joined logits of consecutive chunks (B, n)."""
        model: Any = self.model
        front = (None,) if self._begins else ()
        state = self._state(setting, chunks[0].shape[0]) if front else None
        self._restore(setting)
        found = []
        for chunk in chunks:
            output = model(*front, chunk, state=state, return_state=True)
            state = output.state
            found.append(output.logits)
        return torch.cat(found, 1)

    def _state(self, setting: Setting, rows: int) -> State:
        """The state of encoded sources, which targets continue; each source is encoded once."""
        model: Any = self.model
        key = (setting.training, setting.grad, rows)
        if key not in self._prepared:
            source = self._source(rows)
            self._restore(setting)
            self._prepared[key] = model.prepare(*source)
        return self._prepared[key].clone()

    def _source(self, rows: int) -> tuple[Tensor, ...]:
        """Examples of the inputs before the tokens."""
        if not self.model.config.reads_source:
            return ()
        specs = self.model.input_specs()[:-1]
        if not specs:
            raise PluginError(
                f"this {self.model.config.type} reads a source and could not be checked for causality: it, or its "
                "encoder, declares no input_specs()."
            )
        _seed(2)
        examples = (spec.example(rows) for spec in specs)
        return tuple(x.to(self.dtype) if x.is_floating_point() else x for x in examples)

    def _restore(self, setting: Setting) -> None:
        """Restore mode, random state (the same dropout masks in every pass) and buffers.

        Otherwise running statistics of one pass would look like a leak in the next.
        """
        if self.model.training != setting.training:
            self.model.train(setting.training)
        with torch.no_grad():
            for buffer, initial in self._buffers:
                if not torch.equal(buffer, initial):
                    buffer.copy_(initial)
        _seed(1)


def _reduced(config: ModelConfig, dtype: torch.dtype) -> ModelConfig:
    """The config with a small vocabulary and one block of each kind to check."""
    changes: dict[str, object] = {"vocab_size": VOCABULARY}

    def backend(model: ModelConfig) -> dict[str, object]:
        stays = model.fft is None or _runs_here(model.fft, dtype)
        return {} if stays else {"fft": FFT_BACKENDS.get("torch").load().parse({"type": "torch"})}

    changes.update(with_inner(config, backend), **backend(config))
    if blocks := config.blocks:
        if not is_foreign(config):
            blocks = _about(config)
            changes.update(block=None, layers=blocks)
        changes["num_layers"] = len(blocks)
    # Not the config's own method, which a third party's variant may override.
    return BaseModel.model_copy(config, update=changes)


def _about(config: ModelConfig) -> tuple[BlockConfig, ...]:
    """The blocks with third-party parts; all if one is shared by all blocks, one if no block has any.

    Our feed-forwards are replaced by narrow ones: they take most of the time and process each token alone.
    """
    shared = [value for name in type(config).model_fields if isinstance(value := getattr(config, name), PartConfig)]
    blocks = [block for block in config.blocks if any(is_foreign(part) for _, part in parts_of(block))]
    if any(is_foreign(part) for part in shared):
        blocks = list(config.blocks)
    narrow = MLPConfig(expansion=1e-6)  # one channel
    found: list[BlockConfig] = []
    for block in blocks or config.blocks[:1]:
        if not is_foreign(block.feedforward):
            block = block.model_copy(update={"feedforward": narrow})
        if block not in found:
            found.append(block)
    return tuple(found)


def _runs_here(config: FFTBackendConfig, dtype: torch.dtype) -> bool:
    """Whether the check runs on this backend: a third party's that supports this machine and dtype."""
    if not is_foreign(config):
        return False
    backend = config.build()
    requests = (
        Request("convolution", "cpu", dtype, 9, 32, length, length, "causal", grad=grad)
        for length in (160, LONG)
        for grad in (False, True)
    )
    return not any(backend.unsupported_reasons(request) for request in requests)


def _watch_input(module: nn.Module) -> None:
    """Make calls of the module raise PluginError if they write into their input."""
    versions: list[int] = []

    def before(module: nn.Module, given: tuple[Any, ...]) -> None:
        versions.append(given[0]._version)

    def after(module: nn.Module, given: tuple[Any, ...], output: object) -> None:
        if given[0]._version != versions.pop():
            raise PluginError(
                f"{type(module).__name__} writes into its input, which others read after it. Work on a copy: "
                "x = x.clone(), or use operations without a trailing underscore."
            )

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


def _seed(seed: int) -> None:
    # torch.manual_seed would also seed every accelerator, whose state fork_rng(devices=[]) does not keep.
    torch.default_generator.manual_seed(seed)
