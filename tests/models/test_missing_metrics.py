"""A library of metrics that is not installed is one error that says what to install."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from spectral_core import ConfigError
from spectral_models.tasks.classification import Classification, MultiLabelClassification
from spectral_models.tasks.regression import Regression
from spectral_models.tasks.seq2seq_lm import Seq2SeqLM
from spectral_models.tasks.token_classification import TokenClassification

ARRAYS = {name: np.zeros((2, 1)) for name in ("labels", "chosen", "predicted", "losses")}


@pytest.mark.parametrize(
    ("task", "library", "call"),
    [
        (Classification, "sklearn.metrics", lambda task: task.measures(ARRAYS)),
        (MultiLabelClassification, "sklearn.metrics", lambda task: task.measures(ARRAYS)),
        (TokenClassification, "sklearn.metrics", lambda task: task.measures(ARRAYS)),
        (Regression, "scipy.stats", lambda task: task.measures(ARRAYS)),
        (Seq2SeqLM, "sacrebleu", lambda task: task.judge(None)),
    ],
)
def test_it_is_named(task: type[Any], library: str, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"need.* a library that is not installed: {library}.*networks\[train\]"):
        call(object.__new__(task))
