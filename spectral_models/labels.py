"""The labels of a model, and what its logits over them mean."""

from __future__ import annotations

from typing import Literal, NamedTuple

Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What logits over labels mean, in Hugging Face's words: scores of labels, of which one is right (softmax); of labels,
each right or not (sigmoid); or numbers."""


class LabelSet(NamedTuple):
    """size: how many labels there are. names: of them, in order, if they are known.

    problem: what logits mean. of: what has labels, each row or each of its tokens.
    """

    size: int
    names: tuple[str, ...] | None
    problem: Problem = "single_label_classification"
    of: Literal["row", "token"] = "row"
