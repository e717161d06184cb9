"""An inspection reads what the model computes with and draws what it read; its command fails with a clear line."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from typer.testing import CliRunner

from spectral_core import ConfigError, SpectralError
from spectral_layers import (
    Filter,
    FilterConfig,
    FilterContext,
    Gate,
    LayerContext,
    Mixer,
    MixerOutput,
    Modulation,
    SpectralView,
)
from spectral_layers.filters.resonant import Resonant
from spectral_models import build_model, save_checkpoint
from spectral_models.cli import inspect as command
from spectral_models.cli.commands import app
from spectral_models.inspection.drawing import pages
from spectral_models.inspection.drawing.axes import log_cells, strongest
from spectral_models.inspection.drawing.memories import draw_memories, draw_poles
from spectral_models.inspection.reader import inspect_model
from spectral_models.inspection.readings import (
    FilterReading,
    GateReading,
    MemoryReading,
    Place,
    PoleReading,
    TapReading,
)
from spectral_models.model import SpectralModel

HERE = Place(0, "Mixer")
GATING = {"type": "spectral_gating", "head_dim": 4, "block": 16, "window": 16}


class DelayConfig(FilterConfig):
    type: str = "delay"
    lag: int


class Delay(Filter[DelayConfig]):
    """What a third party's filter may be: a unit tap at one lag."""

    def setup(self, config: DelayConfig, context: FilterContext) -> None:
        self.channels = context.channels
        self.support = config.lag + 1

    def kernel(self, length: int) -> Tensor:
        return torch.eye(length)[self.support - 1 : self.support].expand(self.channels, -1)


class Slope(Gate):
    def forward(self, view: SpectralView) -> Modulation:
        return Modulation(gain=1 - view.frequency, phase=-view.frequency)


class Foreign(Mixer):
    """A mixer nobody here knows, made of the given parts; its gate hears the channels' own spectra, in one head."""

    def setup(self, config: Any, context: LayerContext) -> None:
        super().setup(config, context)
        self.parts = nn.ModuleDict()

    def mix(self, x: Tensor, *_: Any) -> MixerOutput:
        if "gate" in self.parts:
            spectrum = torch.fft.rfft(x.transpose(1, 2))[:, None]
            self.parts["gate"](SpectralView(spectrum.real, spectrum.imag, torch.fft.rfftfreq(x.shape[1])))
        return MixerOutput(x)


def model_of(*mixers: dict[str, Any] | str, **options: Any) -> Any:
    torch.manual_seed(0)
    layers = [{"mixer": mixer, "feedforward": "mlp"} for mixer in mixers]
    return build_model({"hidden_dim": 8, "num_layers": len(layers), "layers": layers, **options})


def with_foreign(**parts: nn.Module) -> Any:
    model = model_of("gated_convolution")
    model.blocks[0].mixer = Foreign(dim=8)
    model.blocks[0].mixer.parts.update(parts)
    return model


def tokens(length: int) -> Tensor:
    return torch.randint(256, (1, length), generator=torch.Generator().manual_seed(1))


# filters


def test_a_delay_is_flat_with_linear_phase() -> None:
    (reading,) = inspect_model(with_foreign(filter=Delay(channels=8, lag=7))).readings
    assert isinstance(reading, FilterReading)
    assert (reading.place.layer, reading.place.part, reading.place.kind) == (0, "parts.filter", "Delay")
    assert reading.frequency[0] == 0
    assert reading.frequency[-1] == 0.5
    torch.testing.assert_close(reading.response.abs(), torch.ones_like(reading.response.abs()))
    turned = reading.response * torch.exp(2j * torch.pi * 7 * reading.frequency)
    torch.testing.assert_close(turned, torch.ones_like(turned))
    assert reading.effective_length.eq(8).all()


def test_the_effective_length_holds_99_percent() -> None:
    kernel = 0.9 ** torch.arange(400, dtype=torch.float64)
    reading = FilterReading(HERE, torch.stack([kernel, kernel.roll(50)]), spacing=3)
    inside = math.ceil(math.log(0.01) / (2 * math.log(0.9)))
    assert reading.effective_length.tolist() == [3 * inside, 3 * (50 + inside)]
    assert "more may follow" not in reading.summary()
    cut = FilterReading(HERE, torch.ones(1, 100))
    assert "99 % of the energy within 99 to 99 tokens of the first 100, and more may follow" in cut.summary()
    assert "more may follow" not in FilterReading(HERE, torch.ones(1, 100), ends=True).summary()


def test_a_filter_over_blocks_is_read_in_tokens() -> None:
    model = model_of({"type": "multiscale", "scales": [1, 4], "filter": {"type": "resonant", "modes": 2}})
    readings = inspect_model(model, length=64).readings
    fine, coarse = (reading for reading in readings if isinstance(reading, FilterReading))
    assert (fine.spacing, fine.kernel.shape[-1], fine.frequency[-1].item()) == (1, 64, 0.5)
    assert (coarse.spacing, coarse.kernel.shape[-1], coarse.frequency[-1].item()) == (4, 16, 0.125)
    poles = next(reading for reading in readings if isinstance(reading, PoleReading) and reading.spacing == 4)
    long_filter = model.blocks[0].mixer.scales["4"].filter
    torch.testing.assert_close(poles.time_constant, 4 * torch.exp(-long_filter.log_decay.double()))


def test_no_peak_is_lost_between_cells_and_its_phase_is_kept() -> None:
    at = torch.linspace(0, 0.5, 1001, dtype=torch.float64)
    values = torch.full((1, 1001), 0.1, dtype=torch.complex128)
    values[0, 777] = -3j
    cells = strongest(values, at, log_cells(0.0005, 0.5, 20))
    assert cells.shape == (1, 20)
    assert cells.abs().argmax() == (log_cells(0.0005, 0.5, 20) < at[777]).sum() - 1
    assert cells[0, cells.abs().argmax()] == -3j


# poles, memories, taps


def known_pole(turns: float, tau: float) -> Resonant:
    resonant = Resonant(channels=1, modes=1, timescales=(2.0, 4.0)).double()
    with torch.no_grad():
        resonant.frequency.fill_(2 * math.pi * turns)
        resonant.log_decay.fill_(-math.log(tau))
        resonant.coefficient.copy_(torch.tensor([3.0, -4.0]))
    return resonant


@pytest.mark.parametrize("turns", [0.2, -0.2, 0.8, 3.2])
def test_a_known_pole_is_read_and_drawn_where_it_is(turns: float) -> None:
    resonant = known_pole(turns, tau=5.0)
    _, reading = inspect_model(with_foreign(filter=resonant), length=64).readings
    assert isinstance(reading, PoleReading)
    z = math.exp(-1 / 5) * complex(math.cos(0.4 * math.pi), math.sin(0.4 * math.pi))
    assert reading.z.item() == pytest.approx(z)
    assert reading.time_constant.item() == pytest.approx(5.0)
    assert reading.frequency.item() == pytest.approx(0.2)
    assert reading.strength.item() == pytest.approx(5.0)
    # The kernel has this pole: two poles, z and its conjugate, predict each tap from the two before.
    kernel = resonant.kernel(64)[0]
    predicted = 2 * z.real * kernel[1:-1] - abs(z) ** 2 * kernel[:-2]
    torch.testing.assert_close(predicted, kernel[2:])
    if turns == 0.2:
        circle, rim = draw_poles([reading]).axes[:2]
        upper, lower = (points.get_offsets()[0].tolist() for points in circle.collections)
        assert upper == pytest.approx([z.real, z.imag])
        assert lower == pytest.approx([z.real, -z.imag])
        assert rim.collections[0].get_offsets()[0].tolist() == pytest.approx([math.log10(0.2), 5.0])


def test_memories_are_those_of_the_heads_and_channels() -> None:
    model = model_of(
        {"type": "holographic", "head_dim": 2, "timescales": [8.0, 512.0]},
        {"type": "spectral_product", "timescales": [4.0, 100.0]},
    )
    heads, channels = (r for r in inspect_model(model).readings if isinstance(r, MemoryReading))
    torch.testing.assert_close(heads.time_constant, torch.tensor([512.0, 128.0, 32.0, 8.0]).double())
    torch.testing.assert_close(heads.bandwidth, model.blocks[0].mixer.bandwidth.double())
    assert (channels.time_constant[0].item(), channels.time_constant[-1].item()) == pytest.approx((100.0, 4.0))
    assert channels.bandwidth is None
    assert "8.0 to 512 tokens" in heads.summary()
    panel = draw_memories([heads]).axes[0]
    drawn = torch.tensor(panel.collections[0].get_offsets().tolist()).double()
    torch.testing.assert_close(drawn, torch.stack([heads.time_constant, heads.bandwidth], -1))


def test_taps_are_those_that_meet_the_lag() -> None:
    model = model_of("gated_convolution")
    short = model.blocks[0].mixer.short
    with torch.no_grad():
        short.weight.zero_()
        short.bias.zero_()
    one = torch.zeros(1, 24, 5)
    one[..., 0] = 1.0
    with torch.no_grad():
        short.weight[:, 0, -2] = 2.0
    reading = next(r for r in inspect_model(model).readings if isinstance(r, TapReading))
    torch.testing.assert_close(reading.taps.float(), short(one).detach()[0, :, :4])
    assert reading.shares.tolist() == [0, 1, 0, 0]


# gates


def test_the_realised_gain_is_that_of_what_the_mixer_applies() -> None:
    model = model_of({**GATING, "gates": ["band"]}).double()
    mixer = model.blocks[0].mixer
    with torch.no_grad():
        for parameter in mixer.gates.parameters():
            parameter.normal_()
        mixer.out_proj.weight.copy_(torch.eye(8))
        mixer.in_proj.weight.normal_()
        mixer.in_proj.weight[:8, 0] = 0.0  # what multiplies the output does not hear channel 0
        mixer.skip.zero_()
    ids = tokens(80)
    (reading,) = inspect_model(model, ids).readings
    assert isinstance(reading, GateReading)
    assert reading.asked.shape == (5, 2, 9)
    assert reading.realised.shape == (5, 2, 33)
    with torch.no_grad():
        x = model.blocks[0].mixer_norm(model.frontend(ids).x)
        nudged = x.clone()
        nudged[0, 64, 0] += 1.0  # the first token of the last block, whose kernel hears only what is before
        moved = (mixer(nudged).y - mixer(x).y)[0, 64:]
        kernel = moved / (nn.functional.silu(mixer.in_proj(x)[0, 64:, :8]) * mixer.in_proj.weight[8:, 0])
    applied = torch.fft.rfft(kernel.T, n=64).abs().unflatten(0, (2, 4))
    torch.testing.assert_close(applied, reading.realised[-1][:, None].expand(-1, 4, -1))
    assert reading.realised[-1].std() > 0.01, "a flat gain would show nothing"
    assert not torch.allclose(reading.realised[-1], reading.realised[-2]), "nor one that every block has"


def test_kept_bins_are_the_sparsity_s_and_phases_are_asked_for() -> None:
    model = model_of({**GATING, "gates": ["phase"], "sparsity": {"type": "fixed", "share": 0.25}})
    with torch.no_grad():
        model.blocks[0].mixer.gates[0].shift.fill_(0.5)
    (reading,) = inspect_model(model, tokens(48)).readings
    assert reading.kept.shape == (3, 2, 9)
    assert reading.kept.mean().item() == pytest.approx(2 / 9)
    assert torch.equal(reading.asked > 0, reading.kept > 0)
    torch.testing.assert_close(reading.phase, torch.full_like(reading.phase, 0.5))
    assert "22.2 % of the bins kept, phases +0.50 to +0.50 rad" in reading.summary()


def test_a_gate_in_a_mixer_that_says_nothing_is_read_as_it_asks() -> None:
    (reading,) = inspect_model(with_foreign(gate=Slope(heads=1, head_dim=8)), tokens(32)).readings
    assert str(reading.place) == "layer 0, Foreign.parts.gate (Slope)"
    torch.testing.assert_close(reading.asked[0, 0], 1 - reading.bins)
    torch.testing.assert_close(reading.phase[0, 0], -reading.bins)
    assert (reading.realised, reading.kept) == (None, None)


def test_an_encoder_realises_what_is_asked() -> None:
    class Encoder(SpectralModel):
        def __init__(self) -> None:
            decoder = model_of({**GATING, "gates": ["band"]})
            super().__init__(decoder.config)
            self.frontend = decoder.frontend
            context = LayerContext(8, causal=False, fft=decoder.blocks[0].mixer.fft)
            self.mixer = decoder.config.blocks[0].mixer.build(context)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.mixer(self.frontend(input_ids).x).y

    (reading,) = inspect_model(Encoder(), tokens(30)).readings
    assert reading.realised.shape == (1, 2, 16)
    torch.testing.assert_close(reading.realised, reading.asked)


# the whole model


def test_every_registered_mixer_of_a_decoder_has_something_to_show() -> None:
    mixers = ("gated_convolution", "holographic", "multiscale", "spectral_product", "spectral_gating")
    wide = [{"type": name, "head_dim": 4} if name in ("holographic", "spectral_gating") else name for name in mixers]
    inspection = inspect_model(model_of(*wide), tokens(64))
    assert {reading.place.layer for reading in inspection.readings} == set(range(5))
    assert inspection.silent == []


def test_what_has_nothing_to_show_is_listed_with_the_reason() -> None:
    (silent,) = inspect_model(with_foreign(), tokens(16)).silent
    assert str(silent) == "layer 0, Foreign: nothing known to show"
    inspection = inspect_model(model_of({**GATING, "gates": ["band"]}))
    assert inspection.readings == []
    assert "none was given" in inspection.silent[0].why
    diverged = known_pole(0.2, tau=5.0)
    with torch.no_grad():
        diverged.coefficient.fill_(math.nan)
    inspection = inspect_model(with_foreign(filter=diverged, other=Delay(channels=8, lag=1)))
    assert [type(reading) for reading in inspection.readings] == [FilterReading]
    assert [str(part) for part in inspection.silent] == [
        "layer 0, Foreign.parts.filter (Resonant): its numbers are not finite"
    ] * 2


def test_an_inspection_leaves_the_model_as_it_was() -> None:
    model = model_of(GATING, "gated_convolution").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inspect_model(model, tokens(40))
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_layers_are_chosen_and_unknown_ones_refused() -> None:
    model = model_of("gated_convolution", "gated_convolution")
    assert {reading.place.layer for reading in inspect_model(model, layers=[1]).readings} == {1}
    with pytest.raises(ConfigError, match=r"no layer 2: this model's are 0 to 1"):
        inspect_model(model, layers=[0, 2])


def test_silence_and_single_taps_are_drawn_too() -> None:
    silent = known_pole(0.2, tau=5.0)
    with torch.no_grad():
        silent.coefficient.zero_()
    inspection = inspect_model(with_foreign(filter=silent, now=Delay(channels=8, lag=0)))
    inspection.readings.append(TapReading(HERE, torch.zeros(3, 1, dtype=torch.float64)))
    inspection.readings.append(MemoryReading(HERE, torch.ones(1, dtype=torch.float64)))
    inspection.readings.append(GateReading(HERE, torch.zeros(1).double(), torch.ones(1, 1, 1).double()))
    for _, kind, draw in pages._KINDS:
        draw([reading for reading in inspection.readings if isinstance(reading, kind)]).canvas.draw()


# the command


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["inspect", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = model_of("gated_convolution", {**GATING, "sparsity": "energy"}, {"type": "holographic", "head_dim": 4})
    return save_checkpoint(model, tmp_path_factory.mktemp("inspect") / "first")


@pytest.fixture(scope="module")
def inspected(checkpoint: Path) -> tuple[Path, str, dict[str, Figure]]:
    """The checkpoint after the command: what was printed, and the figures that were written."""
    figures = {}

    def save(figure: Figure, path: Path, **how: Any) -> None:
        figures[path.name] = figure
        written(figure, path, **how)

    written = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        return checkpoint, run(checkpoint), figures


def test_pictures_are_written_beside_the_checkpoint_and_listed(inspected: tuple[Path, str, Any]) -> None:
    checkpoint, out, _ = inspected
    directory = checkpoint.with_name("first-inspection")
    names = {"filters.png", "poles.png", "memories.png", "taps.png", "gates.png"}
    assert {path.name for path in directory.iterdir()} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in directory.iterdir())
    lines = out.splitlines()
    assert {line.split()[0] for line in lines[:-1]} == names
    assert lines[-1] == f"written to {directory}"
    assert any("GatedConvolution.filter (Resonant)" in line and "99 % of the energy" in line for line in lines)
    assert any("SpectralGating (Magnitude, Energy)" in line and "of the bins kept" in line for line in lines)
    save_checkpoint(model_of("gated_convolution"), checkpoint)  # which refuses a directory that holds anything else


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ("filters.png", {"frequency (cycles per token)", "period (tokens)", "age (tokens; the newest is 1)"}),
        ("filters.png", {"magnitude (dB)", "phase (rad), grey where faint"}),
        ("poles.png", {"frequency (cycles per token)", "period (tokens)", "time constant (tokens)", "|z|"}),
        ("memories.png", {"time constant (tokens)", "bandwidth (rad)"}),
        ("taps.png", {"lag (tokens)", "energy (%)"}),
        ("gates.png", {"frequency (cycles per token)", "period (tokens)", "gain asked for (dB)", "gain realised (dB)"}),
        ("gates.png", {"head", "block of the text", "blocks in which a bin is kept (%)"}),
    ],
)
def test_panels_say_what_is_on_their_axes_and_in_which_unit(
    inspected: tuple[Path, str, dict[str, Figure]], picture: str, expected: set[str]
) -> None:
    axes = inspected[2][picture].axes
    every = [*axes, *(child for panel in axes for child in panel.child_axes)]
    assert expected <= {label for panel in every for label in (panel.get_xlabel(), panel.get_ylabel())}


def test_a_run_holds_its_pictures_and_a_preset_s_go_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_KINDS", pages._KINDS[3:4])
    monkeypatch.setattr(pages, "_ROWS", 1)
    save_checkpoint(model_of("gated_convolution", "gated_convolution"), tmp_path / "run" / "model")
    run(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run" / "inspection").iterdir()) == ["taps-2.png", "taps.png"]
    monkeypatch.chdir(tmp_path)
    assert "written to tiny-inspection" in run("tiny", "--layers", "1")


def refused(message: str, *arguments: object) -> None:
    with pytest.raises(SpectralError, match=message):
        run(*arguments)


def test_errors_say_what_to_do(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(r"no checkpoint directory at .*/runs, .*Presets: .*, base, .*, tiny", tmp_path / "runs")
    refused(r"preset has this name\. Did you mean 'tiny'", "tinny")
    refused(r"no layer 9", checkpoint, "--layers", "0,9")
    refused(r"--layers 1,x: 'x' is no layer\. Write", checkpoint, "--layers", "1,x")
    refused(r"'3-1' is no layer", checkpoint, "--layers", "3-1")
    refused(r"cannot read the text .*nowhere.txt: No such file", checkpoint, "--text", tmp_path / "nowhere.txt")
    refused(r"cannot read the text .*: Is a directory", checkpoint, "--text", tmp_path)
    empty = tmp_path / "empty.txt"
    empty.touch()
    refused(r"empty.txt is empty", checkpoint, "--text", empty)
    refused(r"cannot write plots to .*empty.txt.*--out", checkpoint, "--out", empty, "--layers", "0")
    monkeypatch.setattr(command, "_model", lambda _: with_foreign())
    refused(r"nothing to draw of it\. layer 0, Foreign: nothing known to show", "it")
    monkeypatch.setattr(command, "_model", lambda _: model_of({**GATING, "gates": ["band"]}, vocab_size=65))
    refused(r"nothing to draw of it\. layer 0, SpectralGating: its gates depend on an input", "it")
    (tmp_path / "text.txt").write_bytes(b"a")
    refused(r"text.txt has the token 97, and this model's vocabulary is 65", "it", "--text", tmp_path / "text.txt")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    refused(r"not installed: matplotlib.figure\. Run: pip install 'spectral-networks\[train\]'", checkpoint)


def test_layers_are_numbers_and_ranges() -> None:
    assert command.parse_layers("0, 2,4-6") == [0, 2, 4, 5, 6]
