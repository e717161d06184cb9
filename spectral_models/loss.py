"""What training minimises: cross-entropy of labels, over tokens in chunks whose logits never all exist at once.

Every model that learns from labels has ``loss(inputs, labels, attention_mask=None, *, step_count=None, ...)``, inputs
and mask as its ``forward`` takes them, and gives a :class:`StepLoss`.
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
"""The label of what counts for nothing, as in ``torch.nn.functional.cross_entropy``."""

_CHUNK_LOGITS = 1 << 22
"""Logits made at a time unless told otherwise: 16 MiB in float32, and some times that while they are worked on."""


@tree
@dataclass
class StepLoss(Report):
    """What a model makes of a step's labels, or of a part of them.

    loss: scalar to minimise. nats: sum of -log p(label) over the labels that count. count: of these. losses: the
    model's auxiliary ones, already weighted, in the loss already. metrics: scalars to log. logits: computes what
    ``forward`` gives for the same inputs, for those who want more than the loss.
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
        """The mean of ``nats``, a sum over ``count`` labels, plus the auxiliary losses; 0 where nothing is counted.

        step_count: labels of a whole step, over accumulated batches and processes; each batch then adds its sum over
        that, so that any division of a step into batches and processes gives the same gradient.
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
        """The same from logits that are made anyway: (B, num_labels) of rows, or (B, L, V) of tokens.

        label_smoothing: the share of each label that is spread evenly over all (Szegedy et al., "Rethinking the
        Inception architecture for computer vision", 2016, §7). Raises UnsupportedInputError for labels that do not fit.
        """
        check_labels(labels, logits.shape[:-1], logits.shape[-1])
        flat = logits.flatten(0, -2)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        nats = F.cross_entropy(flat, labels.long().flatten(), reduction="sum", label_smoothing=label_smoothing)
        return cls.of(nats, (labels != IGNORE).sum(), losses, metrics, step_count, lambda: logits)

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
        """The loss of a label set's ``problem``: :meth:`of_logits`, or :meth:`of_numbers`, which smooths nothing."""
        if problem == "single_label_classification":
            return cls.of_logits(logits, labels, losses, metrics, step_count, label_smoothing)
        if label_smoothing:
            raise UnsupportedInputError(f"label_smoothing is for one label of several; this model's are {problem}.")
        binary = problem == "multi_label_classification"
        return cls.of_numbers(logits, labels, losses, metrics, step_count, binary=binary)

    @classmethod
    def of_numbers(
        cls,
        logits: Tensor,
        numbers: Tensor,
        losses: Mapping[str, Tensor],
        metrics: Mapping[str, Tensor],
        step_count: Tensor | int | None = None,
        *,
        binary: bool,
    ) -> StepLoss:
        """Of numbers (B, K), or (B,) where K is 1, that logits (B, K) predict: the mean over all of them.

        binary: of the binary cross-entropy, numbers being from 0 to 1; else of the squared error, whose sum is then in
        ``nats``. Raises UnsupportedInputError for numbers that do not fit.
        """
        wanted = numbers[:, None] if numbers.dim() == 1 and logits.shape[-1] == 1 else numbers
        if wanted.shape != logits.shape or not wanted.is_floating_point():
            raise UnsupportedInputError(
                f"labels are numbers in floating point, of shape {tuple(logits.shape)}; got {describe(numbers)}."
            )
        if readable(wanted) and not ((wanted >= 0) & (wanted <= 1) if binary else wanted.isfinite()).all():
            raise UnsupportedInputError(f"labels are {'from 0 to 1' if binary else 'finite'}; got {describe(numbers)}.")
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        measure = F.binary_cross_entropy_with_logits if binary else F.mse_loss
        return cls.of(
            measure(wide, wanted.to(wide.dtype), reduction="sum"),
            torch.tensor(wanted.numel(), device=logits.device),
            losses,
            metrics,
            step_count,
            lambda: logits,
        )


def counted(labels: Tensor) -> Tensor:
    """How many labels count: all numbers in floating point, of integers those that are not IGNORE."""
    return (
        torch.tensor(labels.numel(), device=labels.device) if labels.is_floating_point() else (labels != IGNORE).sum()
    )


def token_nats(
    x: Tensor,
    labels: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    vocab_size: int,
    chunk: int | None = None,
) -> Tensor:
    """Sum of -log softmax(head(x))[label] over the labels that are not IGNORE: a scalar in float32 at least.

    x: (..., D). labels: (...), as :func:`check_labels` lets pass. head: (N, D) -> (N, V), token by token. chunk: tokens
    whose logits exist at a time; None takes as many as make 2^22 logits. Where there are several chunks, the backward
    pass makes the logits of each again instead of keeping them: one more product with the head, and memory O(chunk V)
    instead of O(B L V).
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
    logits = head(x)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE)


def check_labels(labels: Tensor, shape: Sequence[int], count: int) -> None:
    """Raise UnsupportedInputError unless labels are below count, or IGNORE, for all rows (B,) or tokens (B, L)."""
    what, setting = ("row", "num_labels") if len(shape) == 1 else ("token", "vocab_size")
    integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != tuple(shape) or not integers:
        raise UnsupportedInputError(
            f"labels are one integer for each {what}, of shape {tuple(shape)}; got {describe(labels)}."
        )
    # Where values cannot be read the loss itself asserts.
    if labels.numel() and readable(labels):
        counted = labels.where(labels != IGNORE, 0)
        low, high = int(counted.min()), int(counted.max())
        if low < 0 or high >= count:
            raise UnsupportedInputError(
                f"labels run from 0 to {count - 1} ({setting} {count}), {IGNORE} where nothing is to be predicted; got "
                f"{low} to {high}. Number them from 0, or build the model with a larger {setting}."
            )
