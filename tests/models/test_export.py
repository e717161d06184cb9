"""A language model with ``fft: xla`` leaves PyTorch: torch.export and ONNX give its logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spectral_core.testing import relative_error
from spectral_models import build_model

LENGTH = 150  # longer than one product transforms, and than a chunk of an exported memory
MIXERS = [
    {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}},
    {"type": "holographic", "decay": "per_token", "update": "delta"},
]


class Logits(nn.Module):
    def __init__(self, fft: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = {"vocab_size": 64, "hidden_dim": 32, "num_layers": 2, "layers": [{"mixer": mixer} for mixer in MIXERS]}
        self.model = build_model(config, fft=fft).eval()

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids).logits
        return logits


@pytest.fixture(scope="module")
def model() -> Logits:
    return Logits("xla")


@pytest.fixture(scope="module")
def program(model: Logits) -> torch.export.ExportedProgram:
    ids = torch.zeros(2, LENGTH, dtype=torch.long)
    return torch.export.export(model, (ids,), dynamic_shapes=({0: torch.export.Dim("batch")},))


@pytest.fixture(scope="module")
def ids() -> Tensor:
    """Of another batch size than the exported example's."""
    return torch.randint(0, 64, (5, LENGTH), generator=torch.Generator().manual_seed(0))


def test_an_exported_model_gives_the_same_logits(
    model: Logits, program: torch.export.ExportedProgram, ids: Tensor
) -> None:
    assert relative_error(program.module()(ids), model(ids)) < 1e-6
    graphs = [module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    operators = {str(node.target) for module in graphs for node in module.graph.nodes}
    assert "aten.matmul.default" in operators
    assert "aten.baddbmm.default" in operators, "what stands outside autocast is in graphs of its own"
    assert not {name for name in operators if "fft" in name or "complex" in name or "spectral" in name}


def test_an_exported_model_leaves_no_trace_in_the_next_call(
    model: Logits, program: torch.export.ExportedProgram, ids: Tensor
) -> None:
    # What stands for a table while a model is exported is no table.
    assert type(model(ids)) is Tensor
    assert relative_error(model(ids), Logits("torch")(ids)) < 1e-5


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_onnxruntime_gives_the_same_logits(
    model: Logits, program: torch.export.ExportedProgram, ids: Tensor, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    made = torch.onnx.export(program, verbose=False, optimize=False)
    assert made is not None
    made.save(tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert not {node.op_type for node in graph.node} & {"DFT", "STFT"}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: ids.numpy()})
    assert relative_error(torch.from_numpy(logits), model(ids)) < 1e-5
