"""The plugin host: finds plugins and calls each separately, so that a failing plugin does not affect the others.

A plugin is a module behind an entry point of the group ``spectral.plugins``. The entry point's name is the plugin's
namespace: every part it registers is called ``<namespace>/<part>``. The module defines ``SPECTRAL_PLUGIN_API = 1`` and
implements hooks of :mod:`spectral_core.hookspecs`, or of the other packages' ``hookspecs``, with ``@hookimpl``. Our own
parts are registered through the same hooks, first and without a namespace.

pluggy calls all implementations of a hook together and stops at the first that raises. Here each is called alone, and
its registrations take effect only if all of them are valid.

All exceptions of plugins except Ctrl-C are recorded. Each plugin is logged before it runs, since it may end the process
or never return (:func:`spectral_core.discovery.announced`).

Environment: ``SPECTRAL_DISABLE_PLUGINS=1`` loads no third party; ``SPECTRAL_PLUGINS=a,b`` loads only those.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from spectral_core.config import PartConfig
from spectral_core.discovery import announced, installed, name_of
from spectral_core.errors import DuplicateComponentError, PluginError, suggestion
from spectral_core.guard import Guard
from spectral_core.registry import Entry, Registry

ENTRY_POINT_GROUP = "spectral.plugins"
PLUGIN_API = 1
BUILTIN_PROVIDER = "spectral-networks"

HOOKS: dict[str, tuple[str, ...]] = {
    "spectral_register_fft_backends": ("fft",),
    "spectral_register_layers": (
        "mixer",
        "filter",
        "gate",
        "sparsity",
        "fusion",
        "feedforward",
        "position",
        "frontend",
    ),
    "spectral_register_models": ("model", "task"),
}
"""The kinds that each hook takes, listed here because the packages that declare them may not be imported yet."""

hookspec = pluggy.HookspecMarker("spectral")
hookimpl = pluggy.HookimplMarker("spectral")

T = TypeVar("T", bound=PartConfig)
_log = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
"""Names of plugins and of their parts."""


@dataclass(frozen=True, slots=True)
class Provider:
    """The source of parts: a plugin's namespace (None for built-in parts), distribution and version."""

    namespace: str | None
    distribution: str
    version: str


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin, or one of its hooks, that failed, and why."""

    plugin: str
    distribution: str
    stage: str
    reason: str

    def __str__(self) -> str:
        return f"{self.plugin!r} ({self.distribution}) failed in {self.stage}: {self.reason}"


class Registrar:
    """The argument of a hook, called once per part.

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
            owner = next((hook for hook, kinds in HOOKS.items() if kind in kinds), None)
            if owner is not None:
                raise PluginError(f"a {kind} is registered in the hook {owner}; this one takes: {known}.")
            raise PluginError(f"unknown kind {kind!r}.{suggestion(kind, self._registries)} This hook takes: {known}.")
        namespace = self._provider.namespace
        prefix = "" if namespace is None else f"{namespace}/"
        if not (name.startswith(prefix) and _NAME.fullmatch(name.removeprefix(prefix))):
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
    """The registries that one hook fills: built-in parts first, then each plugin separately."""

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
            except BaseException:  # Ctrl-C: the next call continues here
                self._populated = False
                raise
            self._host.warn_of_misspelt()

    def admit(self, name: str, provider: Provider) -> None:
        """Call one plugin's implementation, and register all of its parts or none."""
        if not self._populated:
            return
        register = Registrar(provider, self._registries)
        try:
            self._host.call_alone(self._hook, name, register)
            self._host.guard.require_intact()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if provider.namespace is None:
                raise
            self._host.record(PluginFailure(name, provider.distribution, self._hook, _reason(error)))
        else:
            register.commit()


class PluginHost:
    """All plugins of a process. One exists (:data:`HOST`); tests make their own.

    entry_points: yields plugins' entry points; by default those of installed distributions.
    """

    def __init__(self, entry_points: Callable[[], Iterable[importlib.metadata.EntryPoint]] | None = None) -> None:
        self._entry_points = entry_points or self._installed
        self._warned: set[tuple[str, str]] = set()
        self._manager = pluggy.PluginManager("spectral")
        self._families: list[Family] = []
        self._providers: dict[str, Provider] = {}
        self._waiting: list[importlib.metadata.EntryPoint] | None = None
        self._failures: list[PluginFailure] = []
        self.registries: dict[str, Registry[Any]] = {}
        self.guard = Guard()
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

        Raises PluginError for its failures, which for an installed plugin are recorded instead.
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
            failures = [*self._failures[before:], *(found for found in self._misspelt() if found.plugin == namespace)]
            if failures:
                del self._failures[before:]
                self.unregister(namespace)
                raise PluginError(str(failures[0]))

    def unregister(self, namespace: str) -> None:
        """Remove a plugin and its parts. Raises PluginError if no plugin has that name."""
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
        """Load installed plugins, each once. Returns providers by name, built-in ones first."""
        if self._waiting is None:
            self._waiting = self._wanted()
        while self._waiting:
            entry_point = self._waiting.pop(0)
            provider = _provider(entry_point)
            try:
                _check_name(entry_point.name)
                with announced(f"importing the plugin {entry_point.name!r} of {provider.distribution}"):
                    plugin = entry_point.load()
                self.guard.require_intact()
                self._adopt(entry_point.name, plugin, provider)
            except KeyboardInterrupt:
                self._waiting.insert(0, entry_point)
                raise
            except BaseException as error:
                self.record(PluginFailure(entry_point.name, provider.distribution, "import", _reason(error)))
        return dict(self._providers)

    def failures(self) -> list[PluginFailure]:
        """All failures of plugins, including implementations of unknown hooks and parts that cannot be imported."""
        with self.lock:
            for family in self._families:
                family.populate()
            return [*self._failures, *self._misspelt(), *self._unusable()]

    @property
    def restriction(self) -> str:
        """A sentence on the plugins that environment variables disable; empty if they disable none."""
        if _switched_off():
            return "SPECTRAL_DISABLE_PLUGINS is set: no plugin is loaded"
        only = os.environ.get("SPECTRAL_PLUGINS")
        return "" if only is None else f"SPECTRAL_PLUGINS is set: only {only or 'none'} may be loaded"

    def failure_lines(self) -> list[str]:
        """The reasons why a name may be missing, a sentence each."""
        lines = [f"Plugin {str(failure).rstrip('.')}." for failure in self._failures]
        return [*lines, f"{self.restriction}."] if self.restriction else lines

    def record(self, failure: PluginFailure) -> None:
        self._failures.append(failure)

    def call_alone(self, hook: str, name: str, register: Registrar) -> None:
        """Call one plugin's implementation of a hook."""
        # pluggy's subset_hook_caller would call __hash__ of every other plugin.
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin_name == name:
                ours = self._providers[name].namespace is None
                with nullcontext() if ours else announced(f"calling {hook} of the plugin {name!r}"):
                    implementation.function(*[register for _ in implementation.argnames])

    def warn_of_misspelt(self) -> None:
        """Log each implementation of an unknown hook once."""
        for failure in self._misspelt():
            if (failure.plugin, failure.stage) not in self._warned:
                self._warned.add((failure.plugin, failure.stage))
                _log.warning("Plugin %s.", failure)

    def _installed(self) -> list[importlib.metadata.EntryPoint]:
        found, damaged = installed(ENTRY_POINT_GROUP)
        for other in damaged:
            self.record(PluginFailure(other.distribution, other.distribution, "discovery", other.reason))
        return found

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
        _check_name(name)
        if re.sub(r"[-_.]+", "-", provider.distribution).lower() == BUILTIN_PROVIDER:
            raise PluginError(f"{provider.distribution} is the framework's own name; give the plugin's distribution")
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
        """Implementations of unknown hooks, and functions named like a hook without the ``@hookimpl`` marker."""
        found = []
        for name, provider in self._providers.items():
            if provider.namespace is None:
                continue
            plugin = self._manager.get_plugin(name)
            implemented = {caller.name for caller in self._manager.get_hookcallers(plugin) or ()}
            known = {*HOOKS, *(hook for hook in implemented if getattr(self._manager.hook, hook).has_spec())}
            for hook in sorted(implemented.difference(known)):
                reason = f"no hook has this name.{suggestion(hook, known)} Known: {', '.join(sorted(known))}"
                found.append(PluginFailure(name, provider.distribution, hook, reason))
            for attribute in sorted(_hook_like(plugin).difference(implemented)):
                reason = (
                    f"this function is not marked as a hook{suggestion(attribute, known)}. Write @hookimpl above it"
                )
                found.append(PluginFailure(name, provider.distribution, attribute, reason))
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
    """The provider of an entry point; of a distribution with damaged metadata, the entry point's target is the name."""
    distribution = entry_point.dist
    name = None if distribution is None else name_of(distribution)
    version = "unknown" if distribution is None or name is None else distribution.version
    return Provider(entry_point.name, name or entry_point.value, version or "unknown")


def _check_name(name: str) -> None:
    """Raise PluginError for a name that cannot be a namespace."""
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"a plugin's name is a lower-case letter or digit, and then these and _ . -, as in acme; got {name!r}. "
            "Rename its entry point"
        )


def _hook_like(plugin: object) -> set[str]:
    """Functions of a plugin that are named like hooks."""
    return {
        name
        for name, value in {**vars(type(plugin)), **getattr(plugin, "__dict__", {})}.items()
        if name.startswith("spectral_register") and callable(value)
    }


def _switched_off() -> bool:
    return os.environ.get("SPECTRAL_DISABLE_PLUGINS", "") not in ("", "0")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


HOST = PluginHost()
