"""``spectral plugins``: a new plugin of each kind, built, installed and run through its own tests; and the list."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hatchling.build
import pytest
from typer.testing import CliRunner

from spectral_core import ConfigError, __version__
from spectral_core.plugins import BUILTIN_PROVIDER, HOST, PluginFailure, Provider
from spectral_models.cli.commands import app
from spectral_models.cli.scaffold import Kind

ROOT = Path(__file__).parents[2]
# Long names move line breaks and short ones join lines: style must hold for both.
NAMES = {Kind.gate: "acme", Kind.filter: "b2", Kind.mixer: "signals-and-systems", Kind.backend: "acme-transforms",
         Kind.model: "acme-models", Kind.task: "t3"}  # fmt: skip
PARTS = {
    Kind.gate: ("gate", "acme/wiener"),
    Kind.filter: ("filter", "b2/damped_cosine"),
    Kind.mixer: ("mixer", "signals-and-systems/moving_average"),
    Kind.backend: ("fft", "acme-transforms/numpy"),
    Kind.model: ("model", "acme-models/bag"),
    Kind.task: ("task", "t3/ratings"),
}
# One of each kit that must be among those that ran.
CHECKS = {
    Kind.gate: {"check_samples_do_not_mix", "check_no_output_sees_a_later_token"},
    Kind.filter: {"check_a_tap_depends_on_its_lag_alone", "check_no_output_sees_a_later_token"},
    Kind.mixer: {"check_no_output_sees_a_later_token", "check_rows_continue_from_where_each_ended"},
    Kind.backend: {"check_convolution_gradients", "check_modulation_gradients"},
    Kind.model: {"check_rows_do_not_mix", "check_hugging_faces_class_holds_it"},
    Kind.task: {"check_the_loss_divides_into_batches", "check_training_lowers_the_loss"},
}

RUN = """
import contextlib, io, json, sys
import pytest
from typer.testing import CliRunner
from spectral_models.cli.commands import app

def spectral(*arguments):
    return CliRunner().invoke(app, arguments, catch_exceptions=False).stdout

class Counts:
    def __init__(self):
        self.passed, self.failed = [], []
    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(f"{report.nodeid}: {report.longreprtext[-2000:]}")
        elif report.when == "call":
            (self.passed if report.passed else self.failed).append(report.nodeid)

ran = {}
for folder in json.loads(FOLDERS):
    for module in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[module]  # the last plugin's tests bear the same names
    counts, said = Counts(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        options = ["-q", "-p", "no:cacheprovider", f"--rootdir={folder}", f"--config-file={folder}/pyproject.toml"]
        code = int(pytest.main([*options, folder], plugins=[counts]))
    ran[folder] = {"code": code, "passed": counts.passed, "failed": counts.failed, "said": said.getvalue()[-2000:]}
print(json.dumps({
    "components": json.loads(spectral("components", "--json")),
    "plugins": spectral("plugins"),
    "ran": ran,
}))
"""


def spectral(*arguments: object) -> str:
    ended = CliRunner().invoke(app, ["plugins", *map(str, arguments)], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    """A new plugin of each kind."""
    here = tmp_path_factory.mktemp("made")
    for kind, name in NAMES.items():
        said = spectral("new", name, "--kind", kind.value, "--directory", here)
        assert f"pytest {here}/spectral-{name}\n" in said
    return {kind: here / f"spectral-{name}" for kind, name in NAMES.items()}


@pytest.fixture(scope="module")
def site(made: dict[Kind, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them installed: wheels from their own build backend, unpacked."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    for folder in made.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            name = hatchling.build.build_wheel(str(wheels))
        with zipfile.ZipFile(wheels / name) as archive:
            archive.extractall(target)
    return target


@pytest.fixture(scope="module")
def answer(made: dict[Kind, Path], site: Path, python: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What a fresh process says that has them installed."""
    folders = json.dumps([str(folder) for folder in made.values()])
    return python(f"FOLDERS = {folders!r}\n{RUN}", site)


@pytest.mark.parametrize("kind", Kind)
def test_its_own_tests_pass_as_written(made: dict[Kind, Path], answer: dict[str, Any], kind: Kind) -> None:
    ran = answer["ran"][str(made[kind])]
    assert ran["failed"] == []
    assert ran["code"] == 0, ran["said"]
    files = {test.partition("::")[0] for test in ran["passed"]}
    assert files == {f"tests/{path.name}" for path in (made[kind] / "tests").iterdir() if path.suffix == ".py"}
    conformance = [test for test in ran["passed"] if "test_conformance" in test]
    assert {re.split(r"[\[\]-]", test)[1] for test in conformance} >= CHECKS[kind]
    if kind not in (Kind.backend, Kind.task):  # whose checks are named without it
        assert all(PARTS[kind][1] in test for test in conformance)


@pytest.mark.parametrize("kind", Kind)
def test_installed_it_is_among_the_components(answer: dict[str, Any], kind: Kind) -> None:
    registry, part = PARTS[kind]
    (entry,) = (entry for entry in answer["components"] if entry["name"] == part)
    assert (entry["kind"], entry["provider"], entry["version"]) == (registry, f"spectral-{NAMES[kind]}", "0.1.0")
    assert re.search(rf"^{NAMES[kind]} +spectral-{NAMES[kind]} 0\.1\.0 +{registry} {part}$", answer["plugins"], re.M)


@pytest.mark.parametrize("kind", Kind)
def test_it_keeps_our_style_and_its_own(made: dict[Kind, Path], kind: Kind) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    for options in ([f"--config={ROOT / 'pyproject.toml'}"], []):
        for command in (["check"], ["format", "--check"]):
            done = subprocess.run(
                [*ruff, *command, "--no-cache", *options, "."],
                cwd=made[kind],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", Kind)
def test_nothing_is_left_to_fill_in(made: dict[Kind, Path], kind: Kind) -> None:
    folder = made[kind]
    package = f"spectral_{NAMES[kind].replace('-', '_')}"
    written = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    files = {path.relative_to(folder).as_posix(): path for path in written}
    assert {"pyproject.toml", "README.md", f"src/{package}/__init__.py", f"src/{package}/py.typed"} <= set(files)
    for path in files.values():
        assert "$" not in path.read_text(encoding="utf-8"), path
        assert ".tmpl" not in path.name
    assert f'"spectral-networks>={__version__}"' in files["pyproject.toml"].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["acme", "spectral-acme"])
def test_the_prefix_may_be_written_or_not(tmp_path: Path, name: str) -> None:
    spectral("new", name, "--kind", "gate", "--directory", tmp_path / "deeper")
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["spectral-acme"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Acme", r"'Acme' cannot name a plugin: .* as in acme or spectral-acme\. Try 'acme'\."),
        ("acme_labs", r"Try 'acme-labs'\."),
        ("my--lab", r"Try 'my-lab'\."),
        ("2d", r"Try 'd'\."),
        ("acme/gate", r"Try 'acme-gate'\."),
        ("../acme", r"Try 'acme'\."),
        ("spectral-", r"'spectral-' cannot name a plugin: .*spectral-acme\.$"),
        ("", r"'' cannot name a plugin"),
        ("é", r"cannot name a plugin: .*spectral-acme\.$"),
        ("core", r"'core' would make the package spectral_core, and spectral-core is installed here already\."),
        ("spectral-networks", r"spectral-networks is installed here already\. Choose another name\."),
    ],
)
def test_what_cannot_be_a_name_is_refused_and_nothing_is_written(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spectral("new", name, "--kind", "gate", "--directory", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "spectral-acme").mkdir()
    with pytest.raises(ConfigError, match=r"spectral-acme exists already, and nothing in it is overwritten\."):
        spectral("new", "acme", "--kind", "gate", "--directory", tmp_path)
    assert list((tmp_path / "spectral-acme").iterdir()) == []


def test_a_directory_that_is_a_file_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot write .*: Not a directory\. Choose another --directory\."):
        spectral("new", "acme", "--kind", "gate", "--directory", tmp_path / "file")


def test_a_kind_that_is_none_is_wrong_usage() -> None:
    for options in ([], ["--kind", "norm"]):
        ended = CliRunner().invoke(app, ["plugins", "new", "acme", *options])
        assert ended.exit_code == 2
        assert "--kind" in re.sub(r"\x1b\[[0-9;]*m", "", ended.output)


def test_the_list_says_what_failed_and_what_is_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = PluginFailure("clumsy", "acme-clumsy", "import", "ModuleNotFoundError: No module named 'left_out'")
    monkeypatch.setattr(HOST, "_failures", [broken])
    monkeypatch.setitem(HOST._providers, "empty", Provider("empty", "acme-empty", "2.5"))
    said = spectral()
    assert re.search(r"^empty +acme-empty 2\.5 +no parts$", said, re.M)
    assert re.search(r"^clumsy +acme-clumsy +failed in import: ModuleNotFoundError: No module named", said, re.M)
    monkeypatch.setenv("SPECTRAL_PLUGINS", "empty")
    assert "SPECTRAL_PLUGINS is set: only empty may be loaded" in spectral()


def test_where_there_are_no_plugins_the_list_says_how_to_begin_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HOST, "failures", list)
    monkeypatch.setattr(HOST, "discover", lambda: {"builtin": Provider(None, BUILTIN_PROVIDER, __version__)})
    assert spectral() == "no plugins are installed. Begin one with: spectral plugins new NAME --kind gate\n"
