"""Detects plugins that replace attributes of modules and classes which check third-party parts."""

from __future__ import annotations

from spectral_core.errors import PluginError


class Guard:
    """The attributes of some modules and classes. Finds mistakes and shortcuts: code in the process can undo it."""

    def __init__(self) -> None:
        self._owners: list[tuple[object, dict[str, object]]] = []

    def watch(self, *owners: object) -> None:
        """From now on no attribute of these modules and classes may be replaced."""
        self._owners += [
            (owner, {name: value for name, value in vars(owner).items() if not name.startswith("__")})
            for owner in owners
        ]

    def require_intact(self, who: str = "it") -> None:
        """Restore replaced attributes, and raise PluginError about ``who`` if there were any."""
        replaced = []
        for owner, originals in self._owners:
            for name, original in originals.items():
                if vars(owner).get(name) is not original:
                    setattr(owner, name, original)
                    replaced.append(f"{getattr(owner, '__module__', None) or owner.__name__}.{name}")  # type: ignore[attr-defined]
        if replaced:
            raise PluginError(
                f"{who} replaced {', '.join(replaced)}, which checks third-party parts; the original is back in place. "
                "A plugin adds parts through its hooks and changes nothing else"
            )
