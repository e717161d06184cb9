"""Training losses. The cross-entropy of tokens is computed in chunks: their logits are never in memory all at once.

A model that learns from labels has ``loss(inputs, labels, attention_mask=None, *, step_count=None, ...)``, with inputs
and mask as in ``forward``, which returns a :class:`StepLoss`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from spectral_core import UnsupportedInputError
from spectral_core.axes import describe
from spectral_core.trees import tree
from spectral_kernels.tracing import readable
from spectral_layers import Report
from spectral_models.labels import Problem

IGNORE = -100
"""Label value ignored by the loss, as in ``torch.nn.functional.cross_entropy``."""

_CHUNK_LOGITS = 1 << 22
"""Logits computed at a time by default: 16 MiB in float32, several times that with temporaries."""


@tree
@dataclass
class StepLoss(Report):
    """The loss of an optimiser step, or of one of its batches.

    loss: scalar to minimise. nats: sum of -log p(label) over the labels, without ignored ones. count: their number.
    losses: auxiliary losses, already weighted and included in ``loss``. metrics: scalars to log. logits: computes the
    logits of ``forward`` for the same inputs, for callers that need them.
    """

    loss: Tensor
    nats: Tensor
    count: Tensor
    logits: Callable[[], Tensor] | None = None

    @classmethod
    def of(
        cls,
        nats: Tensor,
        count: Tensor,
        losses: Mapping[str, Tensor],
        metrics: Mapping[str, Tensor],
        step_count: Tensor | int | None = None,
        logits: Callable[[], Tensor] | None = None,
    ) -> StepLoss:
        """``nats / count``, the mean over labels, plus the auxiliary losses; 0 if ``count`` is 0.

        step_count: number of labels of the whole step, over accumulated batches and processes. The loss is then
        ``nats / step_count``, so that the gradient does not depend on how a step is divided.
        """
        whole = (count if step_count is None else torch.as_tensor(step_count, device=count.device)).clamp(min=1)
        share = 1 if step_count is None else count / whole
        loss = nats / whole + sum(auxiliary * share for auxiliary in losses.values())
        return cls(loss, nats, count, logits, losses=dict(losses), metrics=dict(metrics))

    @classmethod
    def of_logits(
        cls,
        logits: Tensor,
        labels: Tensor,
        losses: Mapping[str, Tensor],
        metrics: Mapping[str, Tensor],
        step_count: Tensor | int | None = None,
        label_smoothing: float = 0.0,
    ) -> StepLoss:
        """The cross-entropy of logits (B, num_labels) of rows, or (B, L, V) of tokens.

        label_smoothing: the share of each label that is spread evenly over all (Szegedy et al., "Rethinking the
        Inception architecture for computer vision", 2016, §7). Raises UnsupportedInputError for labels that do not fit.
        """
        check_labels(labels, logits.shape[:-1], logits.shape[-1])
        flat = _float32(logits.flatten(0, -2))
        nats = F.cross_entropy(flat, labels.long().flatten(), reduction="sum", label_smoothing=label_smoothing)
        return cls.of(nats, counted(labels), losses, metrics, step_count, lambda: logits)

    @classmethod
    def of_labels(
        cls,
        problem: Problem,
        logits: Tensor,
        labels: Tensor,
        losses: Mapping[str, Tensor],
        metrics: Mapping[str, Tensor],
        step_count: Tensor | int | None = None,
        label_smoothing: float = 0.0,
    ) -> StepLoss:
        """The loss of a label set's ``problem``, the mean over all labels.

        single_label_classification: :meth:`of_logits`. The others take floats of the logits' shape (B, K), or (B,) if K
        is 1. multi_label_classification: binary cross-entropy; labels are from 0 to 1. regression: squared error, whose
        sum is in ``nats``. Raises UnsupportedInputError for labels that do not fit, and for label smoothing of these.
        """
        if problem == "single_label_classification":
            return cls.of_logits(logits, labels, losses, metrics, step_count, label_smoothing)
        if label_smoothing:
            raise UnsupportedInputError(f"label_smoothing is for one label of several; this model's are {problem}.")
        binary = problem == "multi_label_classification"
        wanted = labels[:, None] if labels.dim() == 1 and logits.shape[-1] == 1 else labels
        if wanted.shape != logits.shape or not wanted.is_floating_point():
            raise UnsupportedInputError(
                f"labels are numbers in floating point, of shape {tuple(logits.shape)}; got {describe(labels)}."
            )
        if readable(wanted) and not ((wanted >= 0) & (wanted <= 1) if binary else wanted.isfinite()).all():
            raise UnsupportedInputError(f"labels are {'from 0 to 1' if binary else 'finite'}; got {describe(labels)}.")
        measure = F.binary_cross_entropy_with_logits if binary else F.mse_loss
        wide = _float32(logits)
        nats = measure(wide, wanted.to(wide.dtype), reduction="sum")
        return cls.of(nats, counted(wanted), losses, metrics, step_count, lambda: logits)


def counted(labels: Tensor) -> Tensor:
    """The number of labels: all in floating point, and the integers other than IGNORE."""
    return (
        (labels != IGNORE).sum() if not labels.is_floating_point() else torch.tensor(labels.numel()).to(labels.device)
    )


def _float32(logits: Tensor) -> Tensor:
    """The logits in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def token_nats(
    x: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor], *, vocab_size: int, chunk: int | None = None
) -> Tensor:
    """Sum of -log softmax(head(x))[label] over the labels that are not IGNORE: a scalar in float32 at least.

    x: (..., D). labels: (...), valid for :func:`check_labels`. head: (N, D) -> (N, V), token by token. chunk: tokens
    whose logits are in memory at a time; by default as many as have 2^22 logits. With several chunks, the backward pass
    recomputes the logits of each: one more product with the head, and memory O(chunk V) instead of O(B L V).
    """
    size = max(1, _CHUNK_LOGITS // vocab_size) if chunk is None else chunk
    parts = list(zip(x.flatten(0, -2).split(size), labels.flatten().long().split(size), strict=True))
    again = len(parts) > 1 and torch.is_grad_enabled()
    sums = [
        checkpoint(_chunk_nats, head, *part, use_reentrant=False) if again else _chunk_nats(head, *part)
        for part in parts
    ]
    return torch.stack(sums).sum()


def _chunk_nats(head: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(_float32(head(x)), labels, reduction="sum", ignore_index=IGNORE)


def check_labels(labels: Tensor, shape: Sequence[int], count: int) -> None:
    """Raise UnsupportedInputError unless labels are below count, or IGNORE, for all rows (B,) or tokens (B, L)."""
    what, setting = ("row", "num_labels") if len(shape) == 1 else ("token", "vocab_size")
    integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != tuple(shape) or not integers:
        raise UnsupportedInputError(
            f"labels are one integer for each {what}, of shape {tuple(shape)}; got {describe(labels)}."
        )
    # Where values cannot be read, cross_entropy itself asserts.
    if labels.numel() and readable(labels):
        real = labels.where(labels != IGNORE, 0)
        low, high = int(real.min()), int(real.max())
        if low < 0 or high >= count:
            raise UnsupportedInputError(
                f"labels run from 0 to {count - 1} ({setting} {count}), {IGNORE} is ignored; got "
                f"{low} to {high}. Number them from 0, or build the model with a larger {setting}."
            )
