"""A check that a decoder cannot see the future, for models that contain parts we did not write."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectral_core import FFT_BACKENDS, FFTBackendConfig, PluginError
from spectral_core.backends.base import Request
from spectral_core.config import OneOf
from spectral_core.plugins import BUILTIN_PROVIDER
from spectral_models.config import ModelConfig

_TOLERANCE = 1e-9
_FLOAT32 = 1e-5
"""Leaks below it may be rounding errors of a part that computes in float32; what a later token tells is larger."""
_TOKENS = 160
_VOCABULARY = 11
_ROWS = 3
_CHANGED = 1
"""The row whose tokens change, between two others: a part may mix a row with the one before or the one after."""


def check_causality(config: ModelConfig, *, suspects: list[str]) -> None:
    """Raise PluginError if an earlier logit, or another row's, moves when a token changes.

    Runs on a copy of the model with one layer of each kind, on the CPU, in float64, with random parameters (a
    zero-initialised gate passes any test) and three rows of up to 160 tokens, in training and in evaluation mode.
    Our own FFT backends, and any that cannot run there, are replaced by ``torch``. Leaves the random state alone.
    For decoders over a vocabulary. Costs a few small forward passes.
    suspects: the parts to name in the error.
    """
    fields = type(config).model_fields
    changes: dict[str, object] = {"vocab_size": _VOCABULARY}
    if "num_layers" in fields:
        changes["num_layers"] = len(getattr(config, "blocks", (None,)))
    backend = getattr(config, "fft", None)
    if isinstance(backend, FFTBackendConfig) and not _runs_here(backend):
        changes["fft"] = OneOf(FFT_BACKENDS).resolve("torch")
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("cpu"):
        _seed(0)
        model = config.model_copy(update=changes).build().double()
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        limits = [getattr(module, "length_limit", None) for module in model.modules()]
        limits.append(getattr(config, "max_seq_len", None))
        input_ids = torch.randint(_VOCABULARY, (_ROWS, min([_TOKENS, *filter(None, limits)])))
        source = tuple(x.double() if x.is_floating_point() else x for x in model.example_source(_ROWS))
        buffers = [buffer.clone() for buffer in model.buffers()]
        for training in (True, False):
            _Check(model.train(training), source, buffers, suspects).run(input_ids)


def _runs_here(config: FFTBackendConfig) -> bool:
    """Whether the check can use a third party's backend; ours have tests of their own and need none."""
    if FFT_BACKENDS.get(config.type).provider == BUILTIN_PROVIDER:
        return False
    request = Request("convolution", "cpu", torch.float64, _ROWS, 32, _TOKENS, _TOKENS, "causal", grad=False)
    return not config.build().unsupported_reasons(request)


def _seed(seed: int) -> None:
    # torch.manual_seed would also seed every accelerator, whose state fork_rng(devices=[]) does not keep.
    torch.default_generator.manual_seed(seed)


class _Check:
    """One model in one mode. source: what it is given beside tokens. buffers: what they held when it was built."""

    def __init__(
        self, model: nn.Module, source: tuple[Tensor, ...], buffers: list[Tensor], suspects: list[str]
    ) -> None:
        self.model = model
        self.source = source
        self.buffers = buffers
        self.mode = "training" if model.training else "evaluation"
        self.suspects = ", ".join(suspects)

    def run(self, input_ids: Tensor) -> None:
        before = self.logits(input_ids)
        tokens = input_ids.shape[1]
        others = [row for row in range(_ROWS) if row != _CHANGED]
        # With a single token there is no future to see, but there are other rows.
        for position in sorted({1, tokens // 3, tokens // 2, tokens - 1} & set(range(1, tokens))) or [0]:
            changed = input_ids.clone()
            changed[_CHANGED, position:] = (changed[_CHANGED, position:] + 1) % _VOCABULARY
            moved = (self.logits(changed) - before).abs()
            scale = float(moved[_CHANGED, position:].max())
            for what, leak in (
                ("tokens before it", moved[_CHANGED, :position]),
                ("other rows of the batch", moved[others]),
            ):
                if leak.numel() and float(leak.max()) > _TOLERANCE * max(scale, 1e-12):
                    raise PluginError(self._refusal(position, what, float(leak.max()), scale))

    def logits(self, input_ids: Tensor) -> Tensor:
        _seed(1)  # the same dropout masks in every pass
        for buffer, initial in zip(self.model.buffers(), self.buffers, strict=True):
            buffer.copy_(initial)  # running statistics of the last pass must not look like a leak in the next
        try:
            logits: Tensor = self.model(*self.source, input_ids).logits
        except Exception as error:
            raise PluginError(
                f"this decoder has third-party parts and could not be checked for causality: on float64 parameters on "
                f"the CPU, {input_ids.shape[1]} tokens, {self.mode} mode, it raised {type(error).__name__}: {error}. "
                f"A part computes in the dtype and on the device of its input. Third-party parts: {self.suspects}."
            ) from error
        if not logits.isfinite().all():
            raise PluginError(
                f"this decoder has third-party parts and could not be checked for causality: with 0.3 * normal noise "
                f"on its parameters, as training might move them, its logits are not finite ({self.mode} mode). Keep "
                f"parameters in range by softplus or sigmoid. Third-party parts: {self.suspects}."
            )
        return logits

    def _refusal(self, position: int, what: str, leak: float, scale: float) -> str:
        hint = ""
        if leak < _FLOAT32 * scale:
            hint = " So small a leak may be the rounding of a part that casts to float32: compute in the input's dtype."
        return (
            f"this decoder is not causal: changing the tokens from {position} on moves the logits of {what} "
            f"(by {leak:.0e}, later ones by {scale:.0e}; {self.mode} mode). "
            f"One of these parts mixes rows or looks ahead: {self.suspects}.{hint}"
        )
