"""Cross-entropy over a vocabulary, from features: in chunks, so that the logits of all tokens never exist at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from spectral_core import UnsupportedInputError
from spectral_core.axes import describe

IGNORE = -100
"""The label of a position without a target, as in ``torch.nn.functional.cross_entropy``."""

_CHUNK_LOGITS = 1 << 22
"""Logits made at a time unless told otherwise: 16 MiB in float32, and some times that while they are worked on."""


@dataclass
class StepLoss:
    """What a model makes of a step's labels, or of a part of them.

    loss: scalar to minimise. nats: sum of -log p(label) over the labels that count. count: of these. losses: the
    model's auxiliary ones, already weighted, in the loss already. metrics: scalars to log.
    """

    loss: Tensor
    nats: Tensor
    count: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]

    @classmethod
    def of(
        cls,
        nats: Tensor,
        labels: Tensor,
        losses: Mapping[str, Tensor],
        metrics: Mapping[str, Tensor],
        step_count: Tensor | int | None = None,
    ) -> StepLoss:
        """The mean of what ``nats`` sums over the labels that count, plus the auxiliary losses; 0 where none counts.

        step_count: labels of a whole step, over accumulated batches and processes; each batch then adds its sum over
        that, so that any division of a step into batches and processes gives the same gradient.
        """
        count = (labels != IGNORE).sum()
        whole = (count if step_count is None else torch.as_tensor(step_count, device=count.device)).clamp(min=1)
        share = 1 if step_count is None else count / whole
        loss = nats / whole + sum(auxiliary * share for auxiliary in losses.values())
        return cls(loss, nats, count, dict(losses), dict(metrics))


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


def check_labels(labels: Tensor, input_ids: Tensor, vocab_size: int) -> None:
    """Raise UnsupportedInputError unless labels are a token, or IGNORE, for each of input_ids (B, L)."""
    integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != input_ids.shape or not integers:
        raise UnsupportedInputError(
            f"labels are one integer for each token of {describe(input_ids)}; got {describe(labels)}."
        )
    # Reading the extremes back would stall an accelerator at every step, and split a compiled graph; there the loss
    # asserts.
    if labels.device.type == "cpu" and labels.numel() and not torch.compiler.is_compiling():
        counted = labels.where(labels != IGNORE, 0)
        low, high = int(counted.min()), int(counted.max())
        if low < 0 or high >= vocab_size:
            raise UnsupportedInputError(
                f"labels run from 0 to {vocab_size - 1} (vocab_size {vocab_size}), {IGNORE} where nothing is to be "
                f"predicted; got {low} to {high}."
            )
