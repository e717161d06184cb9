"""What the documents list is what is there."""

from __future__ import annotations

import re
from pathlib import Path

from spectral_core.plugins import BUILTIN_PROVIDER, HOST
from spectral_models import list_blocks, list_models
from spectral_models.registries import MODELS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]


def test_the_readme_names_every_part_block_and_preset() -> None:
    assert len(MODELS)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = [e.name for r in HOST.registries.values() for e in r if e.provider == BUILTIN_PROVIDER]
    assert [name for name in (*parts, *list_blocks(), *list_models()) if f"`{name}`" not in readme] == []


def test_no_number_is_left_open() -> None:
    assert [path.name for path in DOCUMENTS if re.search(r"@[A-Z]+@", path.read_text(encoding="utf-8"))] == []


def test_decisions_are_numbered_without_gap_or_repeat() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_links_between_documents_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
