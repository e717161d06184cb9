"""The labels of a model, and the meaning of its logits."""

from __future__ import annotations

from typing import Literal, NamedTuple

Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What logits are, in Hugging Face's terms: scores of exclusive labels (softmax), of independent labels (sigmoid), or
numbers."""


class LabelSet(NamedTuple):
    """size: number of labels. names: in order, if known. problem: what logits are. of: what is labelled."""

    size: int
    names: tuple[str, ...] | None
    problem: Problem = "single_label_classification"
    of: Literal["row", "token"] = "row"
