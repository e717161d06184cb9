"""The tables of benchmarks: honest baselines, equal sizes, rows that outlive an interruption."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from spectral_core import ConfigError, fft_backend
from spectral_core.plugins import HOST
from spectral_layers import FILTERS, MIXERS, FilterContext, LayerContext
from spectral_layers.testing import FUSION_CHECKS, MIXER_CHECKS, FusionCase, MixerCase

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = {"hidden_dim": 32, "num_layers": 2}


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules, their baselines registered as long as these tests last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        modules = {
            name: importlib.import_module(name)
            for name in ("baselines", "records", "quality", "recall", "sequences", "sst2")
        }
        modules["baselines"].register()
        patch.setattr(modules["baselines"], "register", lambda: None)
        yield modules
        HOST.unregister("baselines")


@pytest.fixture
def quality(scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = scripts["quality"]
    for name, value in (("MODEL", {"vocab_size": 256, **SMALL}), ("PARAMETERS", 40_000), ("TOKENS", 128)):
        monkeypatch.setattr(made, name, value)
    return made


@pytest.fixture
def recall(scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = scripts["recall"]
    for name, value in (("MODEL", {"vocab_size": 32, **SMALL}), ("PARAMETERS", 40_000)):
        monkeypatch.setattr(made, name, value)
    monkeypatch.setattr(made, "WATCHED", 32)
    monkeypatch.setattr(made, "ASKED", 64)
    return made


@pytest.mark.parametrize("short", [False, True])
def test_attention_keeps_every_promise_of_a_mixer(scripts, short: bool) -> None:
    case = MixerCase(scripts["baselines"].AttentionConfig(head_dim=8, short=short), hidden_dim=16)
    for check in MIXER_CHECKS:
        if check.applies(case):
            check(case)


def test_a_long_convolution_keeps_every_promise_of_a_mixer(scripts) -> None:
    case = MixerCase(scripts["baselines"].LongConvolutionConfig(), hidden_dim=16)
    for check in MIXER_CHECKS:
        if check.applies(case):
            check(case)


def test_a_source_s_mean_keeps_every_promise_of_a_fusion(scripts) -> None:
    case = FusionCase(scripts["baselines"].SourceMeanConfig())
    for check in FUSION_CHECKS:
        if check.applies(case):
            check(case)


def test_attention_is_softmax_of_turned_queries_and_keys(scripts) -> None:
    """Written out with complex numbers, head by head."""
    torch.manual_seed(0)
    mixer = scripts["baselines"].AttentionConfig(head_dim=4).build(LayerContext(8, True, fft_backend("torch"))).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 7, 8, dtype=torch.float64)
    query, key, value = mixer.in_proj(x)[0].chunk(3, -1)
    heads = []
    for head in range(2):
        q, k, v = (z[:, 4 * head : 4 * head + 4] for z in (query, key, value))
        angle = torch.outer(torch.arange(7.0, dtype=torch.float64), 10_000.0 ** -(torch.arange(2).double() / 2))
        turn = torch.polar(torch.ones_like(angle), angle)
        q, k = (torch.complex(z[:, :2], z[:, 2:]) * turn for z in (q, k))
        scores = (q @ k.conj().T).real / 2
        heads.append(scores.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf).softmax(-1) @ v)
    torch.testing.assert_close(mixer(x).y[0], mixer.out_proj(torch.cat(heads, -1)))


def test_the_short_convolution_begins_as_a_late_key(scripts) -> None:
    mixer = (
        scripts["baselines"].AttentionConfig(head_dim=8, short=True).build(LayerContext(16, True, fft_backend("torch")))
    )
    newest = mixer.short.weight.detach().view(3, 16, 4).argmax(-1)
    assert newest.unique(dim=1).flatten().tolist() == [3, 2, 3]


def test_a_frozen_filter_rests_and_an_absent_one_is_silent(scripts) -> None:
    frozen = FILTERS.get("baselines/frozen").load()().build(FilterContext(4))
    assert frozen.kernel(9).abs().max() > 0
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    absent = FILTERS.get("baselines/absent").load()().build(FilterContext(4))
    assert torch.equal(absent.kernel(9), torch.zeros(4, 9))


@pytest.mark.parametrize("script", ["quality", "recall"])
def test_every_row_has_as_many_parameters(request, scripts, script: str) -> None:
    made = request.getfixturevalue(script)
    records = scripts["records"]
    sizes = [records.parameters(records.sized(made.MODEL, mixers, made.PARAMETERS)) for mixers in made.ROWS.values()]
    assert max(sizes) <= 1.02 * min(sizes)
    with pytest.raises(ConfigError, match="leave no room"):
        records.sized(made.MODEL, ["holographic"], 1000)


def test_every_mixer_of_ours_that_can_decode_is_in_the_recall_table(scripts) -> None:
    ours = {entry.name for entry in MIXERS if "/" not in entry.name and "causal" in entry.load().directions}
    mixers = [mixer for row in scripts["recall"].ROWS.values() for mixer in row]
    used = {mixer if isinstance(mixer, str) else mixer["type"] for mixer in mixers}
    assert ours <= used


def test_quality_goes_on_with_the_rows_that_are_missing(quality, monkeypatch, tmp_path: Path, capsys) -> None:
    (tmp_path / "text.txt").write_text("".join(f"line {i}: quick brown fox {i * i % 97}\n" for i in range(400)))
    arguments = [
        *("--rows", "attention", "gated_convolution, frozen long filter", "--contexts", "32", "--steps", "4"),
        *("--source", str(tmp_path / "text.txt"), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")),
    ]
    train, trained = quality.train, []

    def interrupted(run: Any, directory: Path, resume: bool) -> Any:
        if trained:
            raise KeyboardInterrupt
        trained.append(directory)
        return train(run, directory, resume=resume)

    monkeypatch.setattr(quality, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quality.main(arguments)
    (first,) = json.loads((tmp_path / "out" / "quality.json").read_text())["rows"]
    monkeypatch.setattr(quality, "train", train)
    quality.main(arguments)
    rows = json.loads((tmp_path / "out" / "quality.json").read_text())["rows"]
    assert rows[0] == first, "a finished row is not run again"
    assert [row["name"] for row in rows] == ["attention", "gated_convolution, frozen long filter"]
    for row in rows:
        assert row["tokens"] == 4 * 128
        assert [step for step, _ in row["curve"]] == [1, 2, 3, 4]
        assert row["curve"][-1][1] == row["bits_per_byte"] < 8.5
        assert {"torch", "device_name", "threads", "date"} <= set(row["environment"])
    lines = csv.DictReader((tmp_path / "out" / "quality.csv").read_text().splitlines())
    assert [line["name"] for line in lines] == [row["name"] for row in rows]
    assert (tmp_path / "out" / "quality.png").read_bytes().startswith(b"\x89PNG")
    ratio = rows[1]["bits_per_byte"] / rows[0]["bits_per_byte"]
    assert f"{ratio:.3f} | – | 0.002 | 1 |" in capsys.readouterr().out


def test_recall_reports_what_was_answered(recall, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    arguments = ["--length", "16", "--pairs", "2", "--steps", "4", "--out", str(out), "--seeds", "0", "1"]
    recall.main([*arguments, "--rows", "attention, short convolution"])
    rows = json.loads((out / "recall.json").read_text())["rows"]
    assert [row["seed"] for row in rows] == [0, 1]
    for row in rows:
        assert row["steps_taken"] == row["curve"][-1][0] <= 4
        assert 0 <= row["accuracy"] <= 1
    mean, worst = sum(row["accuracy"] for row in rows) / 2, min(row["accuracy"] for row in rows)
    assert f"| 16 / 2 | {mean:.3f} | {worst:.3f} |" in capsys.readouterr().out
    before = (out / "recall.json").read_bytes()
    recall.main([*arguments, "--rows", "attention, short convolution"])
    assert (out / "recall.json").read_bytes() == before


def test_recall_of_a_longer_task_after_a_shorter_is_a_row_of_its_own(recall, tmp_path: Path, capsys) -> None:
    arguments = ["--length", "24", "--pairs", "3", "--steps", "4", "--out", str(tmp_path), "--rows", "holographic"]
    recall.main([*arguments, "--first", "16", "2"])
    recall.main(arguments)
    rows = json.loads((tmp_path / "recall.json").read_text())["rows"]
    assert [row["first"] for row in rows] == ["16 / 2", None]
    assert rows[0]["steps_taken_first"] <= 4
    assert 0 <= rows[0]["accuracy_after_first"] <= 1
    assert "of 16 / 2, then " in capsys.readouterr().out


def test_sequences_compare_models_that_differ_in_the_fusion_alone(scripts, monkeypatch, tmp_path: Path, capsys) -> None:
    sequences = scripts["sequences"]
    for name in ("WATCHED", "HELD_OUT"):
        monkeypatch.setattr(sequences, name, 8)
    sequences.main(["--tasks", "sort", "--steps", "2", "--out", str(tmp_path)])
    ours, mean = json.loads((tmp_path / "sequences.json").read_text())["rows"]
    assert (ours["fusion"], mean["fusion"]) == ("source_product", "mean")
    printed = capsys.readouterr().out
    for row in (ours, mean):
        assert row["exact"] == row["curve"][-1][1] == 0.0
        assert {**row["model"], "fusion": None} == {**ours["model"], "fusion": None}
        assert (row["sequences"], row["steps_taken"]) == (8, 2)
        seconds, parameters = row["processor_seconds"], row["parameters"]
        assert f"| sort | {row['fusion']} | 0.0000 | 0.0000 | 2 | {seconds} | {parameters:,} | 1 |" in printed


def test_exact_counts_whole_sequences_with_their_end(scripts) -> None:
    sequences = scripts["sequences"]

    class Sorts:
        """Sorts, but ends one symbol early where the last is even."""

        def __init__(self, early: bool) -> None:
            self.early = early

        def eval(self) -> None: ...

        def train(self) -> None: ...

        def generate(self, input_ids: torch.Tensor, mask: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
            rows = []
            for row, real in zip(input_ids, mask, strict=True):
                done = row[real].sort().values.tolist()
                done = done[:-1] if self.early and done[-1] % 2 == 0 else done
                rows.append(done + [0] * (max_new_tokens - len(done)))
            return torch.tensor(rows)

    assert sequences.exact(Sorts(early=False), "sort", seed=1, count=64) == 1.0
    assert 0.2 < sequences.exact(Sorts(early=True), "sort", seed=1, count=64) < 0.8
    assert sequences.exact(Sorts(early=False), "reverse", seed=1, count=64) == 0.0


def test_accuracy_counts_queries_alone(recall) -> None:
    inputs, labels = torch.tensor([[1, 20, 0, 1]]), torch.tensor([[-100, -100, -100, 20]])

    class Answers(torch.nn.Module):
        def __init__(self, token: int) -> None:
            super().__init__()
            self.token = token

        def forward(self, input_ids: torch.Tensor) -> Any:
            logits = torch.nn.functional.one_hot(torch.full_like(input_ids, self.token), 32)
            return type("Output", (), {"logits": logits})

    assert recall.accuracy(Answers(20), [(inputs, labels)]) == 1.0
    assert recall.accuracy(Answers(21), [(inputs, labels)]) == 0.0


def test_sst2_trains_both_rows_from_the_files_as_they_are(scripts, monkeypatch, tmp_path: Path, capsys) -> None:
    """Whose columns have different names and orders, and whose quotes are part of the text."""
    sst2 = scripts["sst2"]
    monkeypatch.setattr(sst2, "WIDTH", 8)
    monkeypatch.setattr(sst2, "VOCABULARY", 300)
    lines = [f'{i % 2}\t"film" number {i} is {"good" if i % 2 else "bad"}' for i in range(40)]
    (tmp_path / "train.tsv").write_text("\n".join(["label\tsentence", *lines]) + "\n", encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("\n".join(["label\tcontent", *lines[:6]]) + "\n", encoding="utf-8")
    arguments = ["--data", tmp_path, "--steps", 2, "--out", tmp_path / "out", "--work", tmp_path / "work"]
    sst2.main([str(argument) for argument in arguments])
    rows = json.loads((tmp_path / "out" / "sst2.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["gated_convolution", "no mixers"]
    assert rows[0]["parameters"] > rows[1]["parameters"]
    assert all(row["majority"] == 0.5 and 0 <= row["accuracy"] <= 1 for row in rows)
    assert all(row["curve"][-1] == [2, row["accuracy"]] for row in rows)
    texts = [json.loads(line) for line in (tmp_path / "work" / "train.jsonl").read_text().splitlines()]
    assert texts[3] == {"text": '"film" number 3 is good', "label": 1}
    monkeypatch.setattr(sst2, "train", None)  # nothing is run again
    sst2.main([str(argument) for argument in arguments])
    assert capsys.readouterr().out.splitlines()[-1].startswith("| no mixers | ")
    encoders = {name: sst2.described(name, 0, 2, tmp_path).model.encoder.block.mixer.type for name in sst2.ROWS}
    assert {name for name in encoders if encoders[name] == "baselines/nothing"} == {"no mixers", "no mixers, wider"}


def test_sst2_begins_from_an_encoder_that_never_saw_a_label(scripts, monkeypatch, tmp_path: Path) -> None:
    sst2 = scripts["sst2"]
    monkeypatch.setattr(sst2, "WIDTH", 8)
    monkeypatch.setattr(sst2, "VOCABULARY", 300)
    monkeypatch.setattr(sst2, "PRETRAINING", 2)
    lines = [f"{i % 2}\tfilm number {i} is {'good' if i % 2 else 'bad'}" for i in range(1200)]
    (tmp_path / "train.tsv").write_text("\n".join(["label\tsentence", *lines]) + "\n", encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("\n".join(["label\tcontent", *lines[:6]]) + "\n", encoding="utf-8")
    row = sst2.run("1,000 sentences, pretrained", 0, 1, tmp_path, tmp_path / "work")
    assert row["config"]["init_from"] == str(tmp_path / "work" / "pretraining")
    assert len((tmp_path / "work" / "train-1000-0.jsonl").read_text().splitlines()) == 1000


@pytest.fixture
def timed(scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The scripts that time models and mixers, on models of two small layers."""
    made = {name: importlib.import_module(name) for name in ("models", "prompt", "mixers")}
    for name, value in SMALL.items():
        monkeypatch.setitem(made["models"].MODEL, name, 2 * value if name == "hidden_dim" else value)
    monkeypatch.setattr(made["models"], "PARAMETERS", 120_000)
    for script in made.values():
        monkeypatch.setattr(script, "THREADS", torch.get_num_threads())
    return made


def test_models_are_timed_at_equal_parameters_and_each_length_once(timed, tmp_path: Path, capsys) -> None:
    arguments = ["--lengths", "40", "64", "--rounds", "2", "--out", str(tmp_path)]
    timed["models"].main(arguments)
    rows = json.loads((tmp_path / "models.json").read_text())["rows"]
    assert [(row["name"], row["length"]) for row in rows] == [(n, t) for t in (40, 64) for n in timed["models"].ROWS]
    assert max(row["parameters"] for row in rows) <= 1.02 * min(row["parameters"] for row in rows)
    assert all(row["transformer_takes"] == 1 for row in rows if row["name"] == "transformer")
    assert "| 64 | gated_convolution |" in capsys.readouterr().out
    timed["models"].main(arguments)
    assert json.loads((tmp_path / "models.json").read_text())["rows"] == rows


def test_no_time_is_taken_of_a_wrong_model(timed, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(timed["models"], "error", lambda model, ids: 0.5)
    with pytest.raises(SystemExit, match="off by"):
        timed["models"].main(["--lengths", "40", "--out", str(tmp_path)])


def test_a_token_behind_a_prompt_leaves_our_state_as_large_as_it_was(timed, tmp_path: Path) -> None:
    timed["prompt"].main(["--prompt", "40", "--rounds", "2", "--out", str(tmp_path)])
    rows = {row["name"]: row for row in json.loads((tmp_path / "prompt.json").read_text())["rows"]}
    assert set(rows) == set(timed["models"].ROWS)
    for name, row in rows.items():
        assert (row["bytes_after_last"] == row["bytes_after_prompt"]) == (name != "transformer")


def test_every_mixer_is_timed_in_each_direction_it_has(timed, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(timed["mixers"], "DIM", 32)
    ours = [entry for entry in MIXERS if not entry.name.startswith("baselines/")]
    assert {name.split(", ")[0] for name in timed["mixers"].contestants([], 64)} == {entry.name for entry in MIXERS}
    names = [entry.name for entry in ours]
    timed["mixers"].main(["--mixers", *names, "--lengths", "16", "64", "--rounds", "1", "--out", str(tmp_path)])
    rows = [row["name"] for row in json.loads((tmp_path / "mixers.json").read_text())["rows"]]
    assert {f"{entry.name}, {way}" for entry in ours for way in entry.load().directions} == set(rows)
