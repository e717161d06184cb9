"""What pages take from elsewhere: the README's table of results, and the list of decisions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill in ``{{ measured }}`` and ``{{ decisions }}``; links out of ``docs/`` become plain text."""
    if "{{ measured }}" in markdown:
        markdown = markdown.replace("{{ measured }}", _measured())
    if "{{ decisions }}" in markdown:
        markdown = markdown.replace("{{ decisions }}", _decisions())
    out = r"\.\./" * (page.file.src_uri.count("/") + 1)
    return re.sub(rf"\[([^\]]+)\]\({out}[^)]*\)", r"\1", markdown)


def _measured() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## Measured\n")[1].split("\n## ")[0]
    return re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", section)


def _decisions() -> str:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    titles = {path.name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for path in pages}
    return "\n".join(f"- [{title}](decisions/{name})" for name, title in titles.items())
