"""Reports: what parts return beside their tensors, prefixed and added on the way up."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree

from spectral_core.trees import tree
from spectral_layers import FeedForwardOutput, FusionOutput, MixerOutput, Modulation, Report
from spectral_models.block import BlockOutput
from spectral_models.loss import StepLoss
from spectral_models.variants.encoding import EncoderOutput
from spectral_models.variants.labelling import ClassifierOutput
from spectral_models.variants.language_model import LanguageModelOutput
from spectral_models.variants.stack import StackOutput

ONE, TWO = torch.tensor(1.0), torch.tensor(2.0)
SAID = {"losses": {"balance": ONE}, "metrics": {"share": TWO}}
OUTPUTS = [
    Report(**SAID),
    MixerOutput(ONE, **SAID),
    FusionOutput(ONE, **SAID),
    FeedForwardOutput(ONE, **SAID),
    Modulation(ONE, **SAID),
    BlockOutput(ONE, None, **SAID),
    StackOutput(ONE, **SAID),
    EncoderOutput(ONE, TWO, None, **SAID),
    ClassifierOutput(ONE, TWO, **SAID),
    LanguageModelOutput(ONE, None, **SAID),
    StepLoss(ONE, TWO, ONE, **SAID),
]


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: type(output).__name__)
def test_every_output_is_a_report_that_is_prefixed_added_and_flattened(output: Report) -> None:
    assert (output.losses, output.metrics) == (SAID["losses"], SAID["metrics"])
    named = output.under("layers.0")
    assert type(named) is Report
    assert named == Report(losses={"layers.0.balance": ONE}, metrics={"layers.0.share": TWO})
    both = output + named
    assert type(both) is type(output)
    assert list(both.losses) == ["balance", "layers.0.balance"]
    assert list(both.metrics) == ["share", "layers.0.share"]
    assert list(output.losses) == ["balance"], "a sum leaves its terms as they are"
    assert replace(both, losses=output.losses, metrics=output.metrics) == output
    doubled = _pytree.tree_map(lambda leaf: 2 * leaf, both)
    assert type(doubled) is type(output)
    assert doubled.losses == {"balance": TWO, "layers.0.balance": TWO}


def test_of_two_reports_with_one_name_the_second_counts() -> None:
    both = Report(losses={"a": ONE}, metrics={"b": ONE}) + Report(losses={"a": TWO})
    assert both == Report(losses={"a": TWO}, metrics={"b": ONE})


def test_the_output_of_a_class_of_ones_own_is_a_report_too_compiled_as_well() -> None:
    @tree
    @dataclass
    class Forecast(Report):
        values: Tensor

    def collected(x: Tensor) -> Forecast:
        mixed = MixerOutput(x, losses={"l": x.sum()}, metrics={"m": x.mean()})
        return Forecast(mixed.y) + mixed.under("mixer") + Report(metrics={"n": x.amax()})

    found = torch.compile(collected, fullgraph=True, backend="eager")(torch.arange(3.0))
    assert isinstance(found, Forecast)
    assert found.losses == {"mixer.l": torch.tensor(3.0)}
    assert found.metrics == {"mixer.m": torch.tensor(1.0), "n": torch.tensor(2.0)}
