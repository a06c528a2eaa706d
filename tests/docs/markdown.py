"""Reading the documentation: tables and code blocks of Markdown files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


class Block(NamedTuple):
    """A fenced block of code."""

    path: Path
    line: int
    """Of its first line of code."""
    language: str
    text: str


def code_blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a file, in order."""
    opened: tuple[int, str] | None = None
    held: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            held.append(line)
        elif opened is None:
            opened, held = (number + 1, line[3:].strip()), []
        else:
            yield Block(path, *opened, "\n".join(held) + "\n")
            opened = None
    assert opened is None, f"{path.name}: the block that begins at line {opened} has no end"


def sections(path: Path) -> dict[str, list[list[str]]]:
    """The rows of the tables below each heading, by the heading's text without its marks."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in _outside_of_blocks(path):
        if line.startswith("#"):
            heading = line.lstrip("# ").strip("`")
            found[heading] = []
        elif line.startswith("|"):
            found[heading].append(_cells(line))
    return found


def body(rows: list[list[str]], *header: str) -> list[list[str]]:
    """The rows of the one table with this header, without its head."""
    starts = [place for place, row in enumerate(rows) if tuple(row) == header]
    assert len(starts) == 1, f"there are {len(starts)} tables with the header {header}"
    found = []
    for row in rows[starts[0] + 2 :]:
        if len(row) != len(header):
            break
        found.append(row)
    return found


def plain(cell: str) -> str:
    """A cell without the marks of code."""
    return cell.strip("`")


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _outside_of_blocks(path: Path) -> Iterator[str]:
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            yield line
