"""What word counts alone can tell: the baseline of text classification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MOST = 100_000
"""Texts that the baseline learns from, at most."""
_WORD = r"(?u)\w+|[^\w\s]"


def tf_idf_accuracy(
    texts: Sequence[str], labels: Sequence[int], held_out: Sequence[str], held_out_labels: Sequence[int]
) -> float | None:
    """Held-out accuracy of logistic regression on TF-IDF weights of words and pairs of words.

    Learns from the first 100,000 texts. None without scikit-learn, and where there is nothing to learn: a single label,
    no word.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        return None
    texts, labels = texts[:_MOST], labels[:_MOST]
    weights = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=_WORD)
    if len(set(labels)) < 2 or not any(weights.build_analyzer()(text) for text in texts):
        return None
    model = LogisticRegression(C=10.0, max_iter=1000).fit(weights.fit_transform(texts), labels)
    return float(np.mean(model.predict(weights.transform(held_out)) == np.asarray(held_out_labels)))
