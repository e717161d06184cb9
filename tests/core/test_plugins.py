"""One plugin's failure touches nothing else: not the others, not our own parts, not half of its own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from spectral_core import FFTBackendConfig, hookspecs
from spectral_core.errors import PluginError, UnknownComponentError
from spectral_core.plugins import HOOKS, HOST, PluginHost, hookimpl, hookspec

GOOD = """
class Config(FFTBackendConfig):
    type: str = "{name}"

@hookimpl
def spectral_register_fft_backends(register):
    register("fft", "{name}", Config, summary="Good.")
"""


def good(name: str) -> str:
    return GOOD.format(name=name)


def test_builtins_and_plugins_arrive_by_the_same_hook(world) -> None:
    world.install("acme", good("acme/fast"))
    assert world.registry.names() == ["acme/fast", "torchlike"]
    assert world.registry.get("torchlike").version == "1.2.3"
    assert world.host.failures() == []


def test_nothing_is_loaded_before_a_registry_is_read(world) -> None:
    world.install("acme", "raise RuntimeError('loaded')")
    assert world.host.failure_lines() == []
    world.registry.names()
    assert len(world.host.failure_lines()) == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('needs libfoo')", "failed in import: RuntimeError: needs libfoo"),
        ("import sys; sys.exit('no licence')", "failed in import: SystemExit: no licence"),
        ("class Odd(BaseException): pass\nraise Odd('no')", "failed in import: Odd: no"),
        ("import no_such_module_anywhere", "failed in import: ModuleNotFoundError"),
        ("def broken(:", "failed in import: SyntaxError"),
        (
            "@hookimpl\ndef spectral_register_fft_backends(register):\n    raise SystemExit(3)",
            "failed in spectral_register_fft_backends: SystemExit: 3",
        ),
        (
            "@hookimpl\ndef spectral_register_fft_backends(register):\n    raise GeneratorExit",
            "failed in spectral_register_fft_backends: GeneratorExit",
        ),
        (
            "@hookimpl\ndef spectral_register_fft_backends(registrar):\n    pass",
            "failed in import: PluginValidationError",
        ),
        (
            "@hookimpl\ndef spectral_register_fft_backend(register):\n    pass",
            "no hook has this name. Did you mean 'spectral_register_fft_backends'? Known: "
            "spectral_register_fft_backends",
        ),
        (
            # Read before the hook that is wrong, and left behind by a registration that stopped there.
            "@hookimpl\ndef a_misspelt_hook():\n    pass\n"
            "@hookimpl\ndef spectral_register_fft_backends(wrong):\n    pass",
            "failed in import: PluginValidationError",
        ),
        # An attribute hook that fails for every name it does not know.
        ("def __getattr__(name):\n    raise RuntimeError('no ' + name)", ""),
    ],
    ids=[
        "raises",
        "exits",
        "base-exception",
        "missing",
        "syntax",
        "hook-exits",
        "hook-base-exception",
        "arguments",
        "misspelt",
        "misspelt-and-wrong",
        "getattr",
    ],
)
def test_a_broken_plugin_is_recorded_and_the_others_work(world, source: str, reason: str) -> None:
    world.install("aaa", good("aaa/one"))
    world.install("broken", source)
    world.install("zzz", good("zzz/one"))
    assert world.registry.names() == ["aaa/one", "torchlike", "zzz/one"]
    reasons = world.reasons()
    assert set(reasons) <= {"broken"}
    assert reason in reasons.get("broken", "")
    assert world.host.failures() == world.host.failures(), "asking twice finds the same"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('needs libfoo')", "RuntimeError: needs libfoo"),
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
        ("class Odd(BaseException): pass\nraise Odd('no')", "Odd: no"),
        ("Config = object", "not a subclass of FFTBackendConfig"),
    ],
    ids=["raises", "exits", "base-exception", "wrong"],
)
def test_a_part_that_does_not_import_is_reported_and_hides_no_other(world, source: str, reason: str) -> None:
    (world.folder / "spectral_test_broken_part.py").write_text(source)
    world.install(
        "acme",
        "@hookimpl\ndef spectral_register_fft_backends(register):\n"
        "    register('fft', 'acme/late', 'spectral_test_broken_part:Config', summary='Imported on first use.')",
    )
    assert world.registry.names() == ["acme/late", "torchlike"]
    assert list(world.registry.configs()) == ["torchlike"]
    reported = world.reasons()["acme"]
    assert "failed in loading: fft 'acme/late'" in reported
    assert reason in reported
    sys.modules.pop("spectral_test_broken_part", None)


@pytest.mark.parametrize(
    ("source", "hook", "reason"),
    [
        (
            "@hookimpl\ndef spectral_register_layer(register):\n    pass",
            "spectral_register_layer",
            "no hook has this name",
        ),
        (
            "@hookimpl\ndef spectral_register_modles(register):\n    pass",
            "spectral_register_modles",
            "no hook has this",
        ),
        ("def spectral_register_layers(register):\n    pass", "spectral_register_layers", "Write @hookimpl above it"),
    ],
)
def test_the_first_look_into_a_registry_names_a_hook_that_nobody_calls(
    world, caplog: pytest.LogCaptureFixture, source: str, hook: str, reason: str
) -> None:
    world.install("acme", source + "\n" + good("acme/fast"))
    assert world.registry.names() == ["acme/fast", "torchlike"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"Plugin 'acme' (spectral_test_plugin_0) failed in {hook}: " in line
    assert reason in line
    assert "Did you mean 'spectral_register_" in line
    assert reason in world.reasons()["acme"]
    world.registry.names()
    assert len(caplog.records) == 1, "once is enough"


def test_a_hook_of_a_package_that_is_not_imported_yet_is_not_misspelt(world, caplog: pytest.LogCaptureFixture) -> None:
    hooks = "".join(f"@hookimpl\ndef {hook}(register):\n    pass\n" for hook in HOOKS if hook not in GOOD)
    world.install("acme", hooks + good("acme/fast"))
    assert world.registry.names() == ["acme/fast", "torchlike"]
    assert world.host.failures() == []
    assert caplog.records == []


def test_the_host_knows_the_kinds_of_every_hook() -> None:
    from spectral_models import MODELS

    assert MODELS  # the last of the registries: importing it declares them all
    assert {family._hook: tuple(family._registries) for family in HOST._families} == HOOKS


@pytest.mark.parametrize("kind", [kind for hook, kinds in HOOKS.items() for kind in kinds if hook not in GOOD])
def test_a_part_in_the_wrong_hook_is_told_the_right_one(world, kind: str) -> None:
    world.install("acme", good("acme/fast") + f'    register("{kind}", "acme/x", Config, summary="")\n')
    assert world.registry.names() == ["torchlike"]
    hook = next(hook for hook, kinds in HOOKS.items() if kind in kinds)
    assert f"a {kind} is registered in the hook {hook}; this one takes: fft" in world.reasons()["acme"]


@pytest.mark.parametrize(
    "name", ["*", "?", "[a-z]", "../x", "/", "a/b", "Acme", "", " ", "ac me", "acme\n", "-a", ".a", "é"]
)
def test_a_name_that_no_part_could_begin_with_is_refused(world, name: str) -> None:
    world.install("acme", good("acme/fast"))
    world.install(name, good(f"{name}/fast"))
    assert world.registry.names() == ["acme/fast", "torchlike"]
    assert f"got {name!r}" in world.reasons()[name]
    with pytest.raises(PluginError, match="a plugin's name is"):
        world.host.register(plugin_object(f"{name}/a"), namespace=name)
    assert world.registry.names() == ["acme/fast", "torchlike"]


@pytest.mark.parametrize("distribution", ["spectral-networks", "Spectral_Networks"])
def test_no_plugin_passes_for_one_of_ours(world, distribution: str) -> None:
    with pytest.raises(PluginError, match="the framework's own name"):
        world.host.register(plugin_object("mine/a"), namespace="mine", distribution=distribution)


def test_a_plugin_is_named_before_it_runs_and_when_it_takes_long(
    world, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectral_core.discovery.PATIENCE", 0.01)
    caplog.set_level(logging.INFO, "spectral_core.discovery")
    wait = (
        "import logging, time\n"
        "def wait():\n"
        "    for _ in range(1000):\n"
        "        if any('still' in line for line in lines()): return\n"
        "        time.sleep(0.01)\n"
    )
    monkeypatch.setattr("builtins.lines", lambda: caplog.messages[-1:], raising=False)
    world.install("acme", wait + "wait()\n" + good("acme/fast") + "    wait()\n")
    assert "acme/fast" in world.registry
    assert [message.partition(" after ")[0] for message in caplog.messages] == [
        "importing the plugin 'acme' of spectral_test_plugin_0",
        "still importing the plugin 'acme' of spectral_test_plugin_0",
        "calling spectral_register_fft_backends of the plugin 'acme'",
        "still calling spectral_register_fft_backends of the plugin 'acme'",
    ]
    assert "SPECTRAL_DISABLE_PLUGINS=1" in caplog.messages[1]


@pytest.mark.parametrize("where", ["import", "spectral_register_fft_backends"])
def test_a_plugin_that_replaces_what_is_guarded_is_refused(world, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    checks = types.ModuleType("checks")
    checks.check = original = len
    monkeypatch.setitem(sys.modules, "checks", checks)
    world.host.guard.watch(checks)
    patch = "import checks\ndef patch(): checks.check = print\n"
    world.install("acme", patch + ("patch()\n" if where == "import" else "") + good("acme/fast") + "    patch()\n")
    world.install("other", good("other/part"))
    assert world.registry.names() == ["other/part", "torchlike"]
    assert checks.check is original
    assert f"failed in {where}: PluginError: it replaced checks.check" in world.reasons()["acme"]


def test_a_raising_hook_leaves_none_of_its_parts(world) -> None:
    world.install("acme", good("acme/first") + "    raise ValueError('half way')\n")
    world.install("other", good("other/part"))
    assert world.registry.names() == ["other/part", "torchlike"]
    assert "failed in spectral_register_fft_backends: ValueError: half way" in world.reasons()["acme"]


def test_an_unknown_name_reports_the_plugin_that_might_have_had_it(world) -> None:
    world.install("acme", "raise RuntimeError('needs libfoo')")
    with pytest.raises(UnknownComponentError, match=r"'acme/fast'.*Plugin 'acme' \(.*RuntimeError: needs libfoo"):
        world.registry.get("acme/fast")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fast", "must be 'acme/name': lower case, behind the plugin's namespace"),
        ("other/fast", "must be 'acme/name'"),
        ("acme/", "must be 'acme/name'"),
        ("acme/Fast", "must be 'acme/name'"),
        ("torchlike", "must be 'acme/name'"),
    ],
)
def test_the_prefix_is_enforced(world, name: str, reason: str) -> None:
    world.install("acme", good(name))
    assert world.registry.names() == ["torchlike"]
    assert reason in world.reasons()["acme"]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ('register("ftt", "acme/x", Config, summary="")', "unknown kind 'ftt'. Did you mean 'fft'?"),
        ('register("fft", "acme/x", "no.colon", summary="")', "must be 'module:Class'"),
        ('register("fft", "acme/fast", Config, summary="")', "registered twice by"),
        ('register("fft", "acme/x", Config)', "TypeError"),
    ],
)
def test_a_wrong_registration_teaches(world, call: str, reason: str) -> None:
    world.install("acme", good("acme/fast") + f"    {call}\n")
    assert world.registry.names() == ["torchlike"]
    assert reason in world.reasons()["acme"]


def test_two_plugins_of_one_name_are_both_named_and_the_first_works(world) -> None:
    world.install("acme", good("acme/first"))
    world.install("acme", good("acme/second"))
    assert world.registry.names() == ["acme/first", "torchlike"]
    failure = world.reasons()["acme"]
    assert "spectral_test_plugin_0" in failure, "the distribution that holds the name"
    assert "spectral_test_plugin_1" in failure, "the distribution that wanted it"


@pytest.mark.parametrize(
    ("api", "shown"), [("", "None"), ("SPECTRAL_PLUGIN_API = 2", "2"), ("SPECTRAL_PLUGIN_API = '1'", "'1'")]
)
def test_the_api_version_is_checked(world, api: str, shown: str) -> None:
    world.install("acme", good("acme/fast"), api=api)
    assert world.registry.names() == ["torchlike"]
    reason = world.reasons()["acme"]
    assert f"SPECTRAL_PLUGIN_API = {shown}, this host speaks 1" in reason
    assert "install a release of" in reason


@pytest.mark.parametrize(
    "source",
    ["interrupt()", good("bbb/one").replace('    register("fft"', '    interrupt()\n    register("fft"')],
    ids=["import", "hook"],
)
def test_an_interrupted_load_goes_on_at_the_next_look(world, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Ctrl-C in a notebook, while a slow plugin is imported or registers its parts."""
    pressed = [KeyboardInterrupt]

    def interrupt() -> None:
        if pressed:
            raise pressed.pop()

    monkeypatch.setattr("builtins.interrupt", interrupt, raising=False)
    world.install("aaa", good("aaa/one"))
    world.install("bbb", source)
    world.install("zzz", good("zzz/one"))
    with pytest.raises(KeyboardInterrupt):
        world.registry.names()
    assert {"aaa/one", "torchlike", "zzz/one"} <= set(world.registry.names())
    assert ("bbb/one" in world.registry) == ("bbb/one" in source)
    assert world.host.failures() == []


def test_disable_plugins(world, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRAL_DISABLE_PLUGINS", "1")
    monkeypatch.setenv("SPECTRAL_PLUGINS", "acme")
    world.install("acme", "raise RuntimeError('loaded')")
    assert world.registry.names() == ["torchlike"]
    assert world.host.failures() == []


def test_disable_plugins_zero_disables_nothing(world, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRAL_DISABLE_PLUGINS", "0")
    world.install("acme", good("acme/fast"))
    assert "acme/fast" in world.registry


def test_only_these_plugins(world, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRAL_PLUGINS", "acme, absent")
    world.install("acme", good("acme/fast"))
    world.install("other", "raise RuntimeError('loaded')")
    assert world.registry.names() == ["acme/fast", "torchlike"]
    reasons = world.reasons()
    assert set(reasons) == {"absent"}
    assert "no such plugin is installed" in reasons["absent"]


def test_an_entry_point_may_lead_to_any_object(world) -> None:
    # A namespace object has no hash; others' hooks must still be callable without it.
    source = (
        "import types\n" + good("acme/fast") + "\nplugin = types.SimpleNamespace("
        "SPECTRAL_PLUGIN_API=1, spectral_register_fft_backends=spectral_register_fft_backends)\n"
    )
    world.install("acme", source)
    world.install("other", good("other/part"))
    found = world.entry_points[0]
    world.entry_points[0] = type(found)(found.name, f"{found.value}:plugin", found.group)
    assert {"other/part", "torchlike"} <= set(world.registry.names())


def test_a_plugin_older_than_a_hook_with_wrong_arguments(world) -> None:
    # The plugins are loaded for the first package's hook; a second package then declares one that they got wrong.
    world.install("acme", "@hookimpl\ndef spectral_register_shapes(wrong):\n    pass\n" + good("acme/fast"))
    world.install("other", good("other/part"))
    assert "acme/fast" in world.registry
    specs, builtin = types.ModuleType("late_specs"), types.ModuleType("late_builtin")

    @hookspec
    def spectral_register_shapes(register):
        """Register shapes."""

    specs.spectral_register_shapes = spectral_register_shapes
    late = world.host.family("spectral_register_shapes", specs=specs, builtin=builtin, version="1").registry(
        "shape", FFTBackendConfig
    )
    assert late.names() == []
    assert "failed in spectral_register_shapes: PluginValidationError" in world.reasons()["acme"]
    assert {"other/part", "torchlike"} <= set(world.registry.names())


def plugin_object(*names: str, fail: bool = False) -> types.ModuleType:
    module = types.ModuleType("in_process")
    module.SPECTRAL_PLUGIN_API = 1

    @hookimpl
    def spectral_register_fft_backends(register) -> None:
        for name in names:
            register("fft", name, FFTBackendConfig, summary="In process.")
        if fail:
            raise ValueError("half way")

    module.spectral_register_fft_backends = spectral_register_fft_backends
    return module


def test_register_and_unregister_in_process(world) -> None:
    world.host.register(plugin_object("mine/a", "mine/b"), namespace="mine")
    assert world.registry.names("mine/*") == ["mine/a", "mine/b"]
    world.host.unregister("mine")
    assert world.registry.names() == ["torchlike"]
    world.host.register(plugin_object("mine/a"), namespace="mine")
    assert world.registry.names("mine/*") == ["mine/a"]


def test_unregistering_what_is_not_there_names_what_is(world) -> None:
    world.install("acme", good("acme/fast"))
    world.host.register(plugin_object("mine/a"), namespace="mine")
    with pytest.raises(PluginError, match=r"no plugin is called 'mime'. Did you mean 'mine'\? Known: acme, mine\."):
        world.host.unregister("mime")
    with pytest.raises(PluginError, match="no plugin is called 'builtin_parts'"):
        world.host.unregister("builtin_parts")  # ours are no plugin's to forget
    world.host.unregister("mine")
    with pytest.raises(PluginError, match="Known: acme"):
        world.host.unregister("mine")
    assert world.registry.names() == ["acme/fast", "torchlike"]


def wrong_arguments() -> types.ModuleType:
    module = plugin_object()

    @hookimpl
    def spectral_register_fft_backends(registrar) -> None:
        pass

    module.spectral_register_fft_backends = spectral_register_fft_backends
    return module


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (plugin_object("mine/a", fail=True), "half way"),
        (plugin_object("unprefixed"), "must be 'mine/name'"),
        (wrong_arguments(), "registrar"),
        (types.ModuleType("without_api"), "SPECTRAL_PLUGIN_API = None"),
    ],
)
@pytest.mark.parametrize("read_first", [True, False])
def test_register_in_process_raises_and_leaves_nothing(world, broken, message: str, read_first: bool) -> None:
    if read_first:
        world.registry.names()
    with pytest.raises(PluginError, match=message):
        world.host.register(broken, namespace="mine")
    assert world.registry.names() == ["torchlike"]
    assert world.host.failures() == [], "it was raised, so it is not recorded as well"
    # The cell of a notebook is corrected and run again.
    world.host.register(plugin_object("mine/a"), namespace="mine")
    assert world.registry.names("mine/*") == ["mine/a"]


def test_register_in_process_refuses_a_name_that_is_taken(world) -> None:
    world.install("acme", good("acme/fast"))
    world.registry.names()
    with pytest.raises(PluginError, match="acme"):
        world.host.register(plugin_object("acme/other"), namespace="acme")
    assert world.registry.names("acme/*") == ["acme/fast"], "the plugin that has the name keeps its parts"


def test_our_own_parts_must_work() -> None:
    host = PluginHost(list)
    specs, builtin = types.ModuleType("specs"), plugin_object("wrong name")
    specs.spectral_register_fft_backends = hookspecs.spectral_register_fft_backends
    registry = host.family("spectral_register_fft_backends", specs=specs, builtin=builtin, version="1").registry(
        "fft", FFTBackendConfig
    )
    with pytest.raises(PluginError, match="wrong name"):
        registry.names()


def _distribution(folder: Path, name: str, source: str, *, metadata: bool = True) -> None:
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir()
    if metadata:
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-fft\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[spectral.plugins]\n{name} = {name}_plugin\n")
    (folder / f"{name}_plugin.py").write_text(
        f"from spectral_core import FFTBackendConfig, hookimpl\nSPECTRAL_PLUGIN_API = 1\n{source}"
    )


def test_installed_distributions_are_found(tmp_path: Path) -> None:
    """The one test with what pip leaves behind: a good distribution, broken ones, and one whose metadata is gone."""
    _distribution(tmp_path, "acme", good("acme/fast"))
    _distribution(tmp_path, "sad", "raise RuntimeError('needs libfoo')")
    _distribution(tmp_path, "torn", good("torn/part"), metadata=False)
    # Entry points of packages that are none of ours, and that nothing can read.
    for name, damaged in (
        ("wordy", b"[console_scripts]\nno entry point\n"),
        ("binary", b"[console_scripts]\n\xff = x\n"),
    ):
        _distribution(tmp_path, name, "")
        (tmp_path / f"{name}-1.5.dist-info" / "entry_points.txt").write_bytes(damaged)
    script = (
        "import json\n"
        "import importlib.metadata, spectral_models\n"
        "from spectral_core import FFT_BACKENDS, convolve\n"
        "from spectral_core.plugins import HOST\n"
        "importlib.metadata.entry_points()\n"  # as torch, triton, pydantic and fsspec do at import
        "entry = FFT_BACKENDS.get('acme/fast')\n"
        "print(json.dumps([FFT_BACKENDS.names(), entry.provider, entry.version, [str(f) for f in HOST.failures()]]))\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SPECTRAL_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, provider, version, failures = json.loads(done.stdout)
    assert {"acme/fast", "auto", "torch", "hierarchical"} <= set(names)
    assert (provider, version) == ("acme-fft", "1.5")
    assert any("'sad' (sad-fft) failed in import: RuntimeError: needs libfoo" in failure for failure in failures)
    for name in ("wordy", "binary"):
        (line,) = [failure for failure in failures if f"{name}-fft" in failure]
        assert "its entry_points.txt cannot be read" in line
        assert f"delete {tmp_path / name}-1.5.dist-info" in line
