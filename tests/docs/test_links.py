"""Whatever the documentation points at is there."""

import re
from pathlib import Path

import pytest

from tests.docs.markdown import DOCS, ROOT, code_blocks

FILES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
LINK = re.compile(r"\]\(([^)\s]+)\)")
MENTIONED = re.compile(
    r"`((?:tests|docs|examples|benchmarks|carstore|engine|projections)/[\w/.]+)`"
)
TARGET = re.compile(r"`make (\w+)`")


def anchors(path: Path) -> set[str]:
    """The names under which the headings of a file can be linked to."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), f"{path.name} links to {link}"
        if anchor:
            assert anchor in anchors(found), f"{path.name} links to {link}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_and_commands_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    missing = [name for name in MENTIONED.findall(text) if not (ROOT / name).exists()]
    assert missing == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [name for name in TARGET.findall(text) if f"\n{name}:" not in makefile] == []


def test_the_index_lists_every_page() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in DOCS.iterdir() if path.is_file()} - {"index.md"}
    assert pages <= set(LINK.findall(index))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_block_of_code_says_its_language(path: Path) -> None:
    assert all(block.language for block in code_blocks(path))
