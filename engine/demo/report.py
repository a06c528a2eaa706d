"""The report of the demonstration, from what its tools found: text, and nothing else."""

import re
from collections import Counter
from typing import Any

from engine.demo.languages import language_of
from engine.problems import printable

__all__ = ["markdown", "paragraph", "purpose_of"]

MAX_LISTED = 20
"""Entries of a list in the report; what follows is counted."""

_PURPOSES = (
    ("test", re.compile(r"(?:^|[/_.-])(?:tests?|specs?)(?:[/_.-]|$)")),
    ("example", re.compile(r"(?:^|/)(?:examples?|demos?|samples?)/")),
    ("documentation", re.compile(r"(?:^|/)docs?/|readme|changelog|licen[cs]e|\.(?:md|rst)$")),
    ("configuration", re.compile(r"(?:^|/)\.|\.(?:toml|ya?ml|ini|cfg|lock|json)$|makefile$")),
)


def purpose_of(path: str) -> str:
    """What a file is for, judged by its name."""
    for purpose, pattern in _PURPOSES:
        if pattern.search(path.lower()):
            return purpose
    return "source" if language_of(path) not in ("other", "CSV", "text") else "data"


def paragraph(topic: str, facts: Any) -> str:
    """One paragraph of the report, about `contents`, `duplicates` or `sizes`."""
    if topic == "contents":
        unread = f", of which {len(facts['unread']):,} could not be read" if facts["unread"] else ""
        return f"{_many(facts['files'], 'file')}{unread}, {facts['bytes']:,} bytes together."
    if topic == "duplicates":
        if not facts["groups"]:
            return "No two files have the same content."
        groups = _many(len(facts["groups"]), "group")
        return f"{groups} of files with the same content, {facts['wasted_bytes']:,} bytes too many."
    if not facts:
        return "There is nothing to measure."
    return f"The largest file is {code(facts[0]['path'])} with {facts[0]['bytes']:,} bytes."


def markdown(
    *,
    folder: str,
    sections: list[str],
    languages: list[dict[str, Any]],
    purposes: list[dict[str, Any]],
    biggest: list[dict[str, Any]],
    same: list[list[str]],
    unread: list[str],
    left_out: list[dict[str, Any]],
    notes: list[str],
) -> str:
    """The whole report."""
    counted = sorted(languages, key=lambda one: (-one["lines"], one["language"]))
    rows = [[o["language"], o["files"], o["lines"], o["words"]] for o in counted if o["files"]]
    kinds = Counter(one["purpose"] for one in purposes)
    kind_rows = [[name, number] for name, number in sorted(kinds.items(), key=lambda k: -k[1])]
    sizes = [[code(one["path"]), one["bytes"]] for one in biggest]
    parts = [
        f"# What {code(folder)} holds",
        "\n".join(f"- {line}" for line in [*sections, *notes]),
        *_table("Languages", ["language", "files", "lines", "words"], rows),
        *_table("What the looked-at files are for", ["purpose", "files"], kind_rows),
        *_table("Largest files", ["file", "bytes"], sizes),
        *_list("Same content", [" = ".join(map(code, group)) for group in same]),
        *_list("Not read", [code(path) for path in unread]),
        *_list("Left out", [f"{code(one['path'])}: {one['reason']}" for one in left_out]),
    ]
    return "\n\n".join(parts) + "\n"


def code(text: str) -> str:
    """`text` as a code span that holds no control characters, however many backticks it has."""
    shown = printable(text)
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence, space = "`" * (longest + 1), " " if "`" in shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _table(title: str, headings: list[str], rows: list[list[Any]]) -> list[str]:
    if not rows:
        return []
    rule = ["---"] + ["---:"] * (len(headings) - 1)
    lines = [headings, rule, *([_cell(value) for value in row] for row in rows)]
    return [f"## {title}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _list(title: str, items: list[str]) -> list[str]:
    if not items:
        return []
    listed = [f"- {item}" for item in items[:MAX_LISTED]]
    if len(items) > MAX_LISTED:
        listed.append(f"- and {len(items) - MAX_LISTED:,} more")
    return [f"## {title}", "\n".join(listed)]


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
