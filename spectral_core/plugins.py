"""The plugin host: finds plugins, calls each by itself, and keeps one's failure from touching the rest.

A plugin is a module behind an entry point of the group ``spectral.plugins``. The entry point's name is the plugin's
namespace: every part it registers is called ``<namespace>/<part>``. The module says ``SPECTRAL_PLUGIN_API = 1`` and
implements hooks of :mod:`spectral_core.hookspecs` and its siblings with ``@hookimpl``. Our own parts arrive through
the same hooks, first and without a namespace.

pluggy calls all implementations of a hook in one go and stops at the first that raises; here each is called alone,
its registrations staged and committed only when all of them are good.

Environment: ``SPECTRAL_DISABLE_PLUGINS=1`` loads no third party; ``SPECTRAL_PLUGINS=a,b`` loads only those.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from spectral_core.config import PartConfig
from spectral_core.errors import DuplicateComponentError, PluginError, suggestion
from spectral_core.registry import Entry, Registry

ENTRY_POINT_GROUP = "spectral.plugins"
PLUGIN_API = 1
BUILTIN_PROVIDER = "spectral-networks"

hookspec = pluggy.HookspecMarker("spectral")
hookimpl = pluggy.HookimplMarker("spectral")

T = TypeVar("T", bound=PartConfig)
_PART_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Provider:
    """Who supplies a plugin: its namespace (None: built in), distribution and version."""

    namespace: str | None
    distribution: str
    version: str


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin, or one hook of it, that did not work, and why."""

    plugin: str
    distribution: str
    stage: str
    reason: str

    def __str__(self) -> str:
        return f"{self.plugin!r} ({self.distribution}) failed in {self.stage}: {self.reason}"


class Registrar:
    """What a hook is handed: call it once per part.

    ``register("gate", "acme/notch", "acme.gates:NotchConfig", summary="Removes one band.")``
    """

    def __init__(self, provider: Provider, registries: dict[str, Registry[Any]]) -> None:
        self._provider = provider
        self._registries = registries
        self.staged: list[Entry[Any]] = []

    def __call__(self, kind: str, name: str, target: type[PartConfig] | str, *, summary: str) -> None:
        """Stage one part. target: its config class, or ``"module:Class"`` to import it on first use."""
        registry = self._registries.get(kind)
        if registry is None:
            known = ", ".join(self._registries)
            raise PluginError(f"unknown kind {kind!r}.{suggestion(kind, self._registries)} This hook takes: {known}.")
        namespace = self._provider.namespace
        prefix = "" if namespace is None else f"{namespace}/"
        if not (name.startswith(prefix) and _PART_NAME.fullmatch(name.removeprefix(prefix))):
            raise PluginError(
                f"the {kind} name {name!r} must be {prefix + 'name'!r}: lower case, behind the plugin's namespace."
            )
        if isinstance(target, str) and ":" not in target:
            raise PluginError(f"the target {target!r} of {kind} {name!r} must be 'module:Class'.")
        entry = Entry(kind, name, summary, target, self._provider.distribution, self._provider.version, registry.base)
        if any(other.kind == kind and other.name == name for other in self.staged):
            raise DuplicateComponentError(f"{kind} {name!r} is registered twice by {entry.provider}.")
        registry.check_free(entry)
        self.staged.append(entry)

    def commit(self) -> None:
        for entry in self.staged:
            self._registries[entry.kind].add(entry)


class Family:
    """The registries one hook fills: built-ins first, then every plugin by itself."""

    def __init__(self, host: PluginHost, hook: str) -> None:
        self._host = host
        self._hook = hook
        self._registries: dict[str, Registry[Any]] = {}
        self._populated = False
        self._called: set[str] = set()

    def registry(self, kind: str, base: type[T], *, label: str | None = None) -> Registry[T]:
        """A new registry of this family."""
        made = Registry(kind, base, populate=self.populate, failures=self._host.failure_lines, label=label)
        self._registries[kind] = made
        self._host.registries[kind] = made
        return made

    def populate(self) -> None:
        with self._host.lock:
            if self._populated:
                return
            # Set first: a plugin's hook may itself look into a registry.
            self._populated = True
            try:
                for name, provider in self._host.discover().items():
                    if name not in self._called:
                        self.admit(name, provider)
                        self._called.add(name)
            except BaseException:  # Ctrl-C: the next look goes on from here
                self._populated = False
                raise

    def admit(self, name: str, provider: Provider) -> None:
        """Call one plugin's implementation, and keep all of its parts or none."""
        if not self._populated:
            return
        register = Registrar(provider, self._registries)
        try:
            self._host.call_alone(self._hook, name, register)
        except (Exception, SystemExit) as error:
            if provider.namespace is None:
                raise
            self._host.record(PluginFailure(name, provider.distribution, self._hook, _reason(error)))
        else:
            register.commit()


class PluginHost:
    """All plugins of a process. One exists (:data:`HOST`); tests make their own.

    entry_points: where plugins are found; by default the installed distributions'.
    """

    def __init__(self, entry_points: Callable[[], Iterable[importlib.metadata.EntryPoint]] | None = None) -> None:
        self._entry_points = entry_points or (lambda: importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
        self._manager = pluggy.PluginManager("spectral")
        self._families: list[Family] = []
        self._providers: dict[str, Provider] = {}
        self._waiting: list[importlib.metadata.EntryPoint] | None = None
        self._failures: list[PluginFailure] = []
        self.registries: dict[str, Registry[Any]] = {}
        self.lock = threading.RLock()

    def family(self, hook: str, *, specs: ModuleType, builtin: ModuleType, version: str) -> Family:
        """Declare a hook: the module with its spec, and the module that registers our own parts through it."""
        with self.lock:
            try:
                self._manager.add_hookspecs(specs)
            except pluggy.PluginValidationError as error:
                # A plugin loaded before this hook was declared implements it with the wrong arguments.
                name = self._manager.get_name(error.plugin) or "unknown"
                self._manager.unregister(error.plugin)
                provider = self._providers.pop(name)
                self.record(PluginFailure(name, provider.distribution, hook, _reason(error)))
        name = builtin.__name__
        self._manager.register(builtin, name=name)
        self._providers[name] = Provider(None, BUILTIN_PROVIDER, version)
        made = Family(self, hook)
        self._families.append(made)
        return made

    def register(self, plugin: object, *, namespace: str, distribution: str = "this process") -> None:
        """Add a plugin that is not installed: a module or object with hook implementations (notebooks, tests).

        Raises PluginError when it does not work, where an installed one would be recorded and passed over.
        """
        with self.lock:
            for family in self._families:
                family.populate()
            provider = Provider(namespace, distribution, "0")
            try:
                self._adopt(namespace, plugin, provider)
            except (pluggy.PluginValidationError, ValueError) as error:
                raise PluginError(f"{namespace!r} cannot be registered: {_reason(error)}") from error
            before = len(self._failures)
            for family in self._families:
                family.admit(namespace, provider)
            failures = self._failures[before:]
            if failures:
                del self._failures[before:]
                self.unregister(namespace)
                raise PluginError(str(failures[0]))

    def unregister(self, namespace: str) -> None:
        """Forget a plugin and its parts. Raises PluginError when there is none of that name."""
        with self.lock:
            known = [name for name, provider in self.discover().items() if provider.namespace is not None]
            if namespace not in known:
                hint = suggestion(namespace, known)
                raise PluginError(f"no plugin is called {namespace!r}.{hint} Known: {', '.join(known) or 'none'}.")
            self._manager.unregister(name=namespace)
            del self._providers[namespace]
            for registry in self.registries.values():
                registry.drop(f"{namespace}/*")

    def discover(self) -> dict[str, Provider]:
        """Load installed plugins once, one by one; name to provider, built-ins first."""
        if self._waiting is None:
            self._waiting = self._wanted()
        while self._waiting:
            entry_point = self._waiting.pop(0)
            provider = _provider(entry_point)
            try:
                self._adopt(entry_point.name, entry_point.load(), provider)
            except (Exception, SystemExit) as error:
                self.record(PluginFailure(entry_point.name, provider.distribution, "import", _reason(error)))
            except BaseException:  # Ctrl-C, while a plugin is imported
                self._waiting.insert(0, entry_point)
                raise
        return dict(self._providers)

    def failures(self) -> list[PluginFailure]:
        """Everything that went wrong with plugins, hooks nobody calls and parts that cannot be imported included."""
        with self.lock:
            for family in self._families:
                family.populate()
            return [*self._failures, *self._misspelt(), *self._unusable()]

    @property
    def restriction(self) -> str:
        """Which plugins the environment keeps out, in words; empty when none."""
        if _switched_off():
            return "SPECTRAL_DISABLE_PLUGINS is set: no plugin is loaded"
        only = os.environ.get("SPECTRAL_PLUGINS")
        return "" if only is None else f"SPECTRAL_PLUGINS is set: only {only or 'none'} may be loaded"

    def failure_lines(self) -> list[str]:
        """Why a name may be missing, a sentence each."""
        lines = [f"Plugin {str(failure).rstrip('.')}." for failure in self._failures]
        return [*lines, f"{self.restriction}."] if self.restriction else lines

    def record(self, failure: PluginFailure) -> None:
        self._failures.append(failure)

    def call_alone(self, hook: str, name: str, register: Registrar) -> None:
        """Call one plugin's implementation of a hook and no other's."""
        # Not through pluggy's subset caller, which asks every other plugin for its hash.
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin_name == name:
                implementation.function(*[register for _ in implementation.argnames])

    def _wanted(self) -> list[importlib.metadata.EntryPoint]:
        if _switched_off():
            return []
        found = sorted(self._entry_points(), key=lambda entry_point: entry_point.name)
        only = os.environ.get("SPECTRAL_PLUGINS")
        if only is None:
            return found
        wanted = {name.strip() for name in only.split(",") if name.strip()}
        for missing in sorted(wanted - {entry_point.name for entry_point in found}):
            self.record(PluginFailure(missing, "SPECTRAL_PLUGINS", "discovery", "no such plugin is installed"))
        return [entry_point for entry_point in found if entry_point.name in wanted]

    def _adopt(self, name: str, plugin: object, provider: Provider) -> None:
        api = getattr(plugin, "SPECTRAL_PLUGIN_API", None)
        if api != PLUGIN_API:
            raise PluginError(
                f"it declares SPECTRAL_PLUGIN_API = {api!r}, this host speaks {PLUGIN_API}; "
                f"install a release of {provider.distribution} made for it"
            )
        holder = self._providers.get(name)
        if holder is not None:
            raise PluginError(f"the name {name!r} is held by {holder.distribution} {holder.version}; uninstall one")
        try:
            self._manager.register(plugin, name=name)
        except pluggy.PluginValidationError:
            # Before pluggy 1.7 the hooks that were read before the wrong one stay.
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            raise
        self._providers[name] = provider

    def _misspelt(self) -> list[PluginFailure]:
        hooks = {name: caller for name, caller in vars(self._manager.hook).items() if not name.startswith("_")}
        known = [name for name, caller in hooks.items() if caller.has_spec()]
        found = []
        for name, caller in hooks.items():
            for implementation in [] if caller.has_spec() else caller.get_hookimpls():
                provider = self._providers[implementation.plugin_name]
                reason = f"no hook has this name.{suggestion(name, known)} Known: {', '.join(sorted(known))}"
                found.append(PluginFailure(implementation.plugin_name, provider.distribution, name, reason))
        return found

    def _unusable(self) -> list[PluginFailure]:
        found = []
        for name, provider in self._providers.items():
            for registry in self.registries.values() if provider.namespace else ():
                for part in registry.names(f"{provider.namespace}/*"):
                    entry = registry.get(part)
                    try:
                        entry.load()
                    except PluginError as error:
                        found.append(PluginFailure(name, provider.distribution, "loading", str(error).rstrip(".")))
        return found


def _provider(entry_point: importlib.metadata.EntryPoint) -> Provider:
    """Who supplies an entry point; a distribution whose metadata is damaged goes by the module it points to."""
    distribution = entry_point.dist
    try:
        name, version = (distribution.name, distribution.version) if distribution else (None, None)
    except Exception:
        name, version = None, None
    return Provider(entry_point.name, name or entry_point.value, version or "unknown")


def _switched_off() -> bool:
    return os.environ.get("SPECTRAL_DISABLE_PLUGINS", "") not in ("", "0")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


HOST = PluginHost()
