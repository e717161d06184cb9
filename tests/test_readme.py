"""The README's quick start runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spectral_core.plugins import HOST

README = Path(__file__).parents[1] / "README.md"


def test_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All Python blocks in order, in one namespace, as a reader would paste them."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    try:
        for block in blocks:
            exec(compile(block, str(README), "exec", dont_inherit=True), namespace)  # noqa: S102
    finally:
        HOST.unregister("acme")
    assert namespace["tokens"].shape == (1, 120)
