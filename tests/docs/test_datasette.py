"""What the example shows in Datasette is there; its queries say what those of docs/sql.md do."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from projections import LAZY, catch_up
from projections.search_index import INDEX
from tests.carstore.helpers import in_loop, open_store
from tests.docs.markdown import DOCS, ROOT
from tests.projections.audits import history
from tests.projections.sql_page import QUERIES

EXAMPLE = ROOT / "examples" / "datasette"
METADATA = json.loads((EXAMPLE / "metadata.json").read_text(encoding="utf-8"))
[AGENTS] = METADATA["databases"].values()
CANNED = {one["title"]: one["sql"] for one in AGENTS["queries"].values()}

ANSWERS = {
    "run": "r1",
    "key": "report",
    "scope": "main",
    "tool": "fetch",
    "host": "worker-1",
    "pid": "4711",
    "time": "2026-01-31T12:00:00Z",
    "position": "20",
    "after": "10",
    "until": "20",
    "words": "second",
}
"""What to write into the forms, to ask what the page asks; Datasette passes texts."""

MAX_IMAGE_BYTES = 150_000


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A file with all views, opened as Datasette opens it."""
    path = tmp_path_factory.mktemp("datasette") / "agents.db"

    async def make() -> None:
        await history(path)
        async with open_store(path) as store:
            for view in LAZY:
                await catch_up(store, view)

    in_loop(make)()
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    yield connection
    connection.close()


def test_the_metadata_are_those_that_the_script_prints() -> None:
    command = [sys.executable, "-I", EXAMPLE / "make_metadata.py", "some/agents.db"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout == (EXAMPLE / "metadata.json").read_text(encoding="utf-8")
    assert list(METADATA["databases"]) == ["agents"]
    wrong = subprocess.run(command[:-1], capture_output=True, text=True, timeout=60)
    assert (wrong.returncode, wrong.stderr) == (1, "usage: make_metadata.py FILE.db\n")


def test_every_query_of_the_page_is_there() -> None:
    assert list(CANNED) == list(QUERIES)


@pytest.mark.parametrize("title", CANNED)
def test_a_query_gives_what_that_of_the_page_gives(agents: sqlite3.Connection, title: str) -> None:
    asked = set(re.findall(r"(?<!\w):([a-z]+)", CANNED[title]))
    assert asked <= ANSWERS.keys()
    examples = r"'r1'|'report'|'main'|'fetch'|'worker-1'|4711|'2026|\b20\n|> 10|'second'"
    assert not re.search(examples, CANNED[title].replace("LIMIT 20", ""))
    answers = {name: ANSWERS[name] for name in asked}
    found = agents.execute(CANNED[title], answers).fetchall()
    assert found == agents.execute(QUERIES[title]).fetchall()
    if asked:
        nothing = agents.execute(CANNED[title], dict.fromkeys(asked, "0")).fetchall()
        assert found != nothing, "the answers make no difference"


def columns_of(agents: sqlite3.Connection, table: str) -> set[str]:
    return {column[0] for column in agents.execute(f'SELECT * FROM "{table}" LIMIT 0').description}


def test_the_tables_that_are_described_have_the_columns_that_are_named(
    agents: sqlite3.Connection,
) -> None:
    shown = {name: one for name, one in AGENTS["tables"].items() if not one.get("hidden")}
    assert set(shown) == {"log", *[view.name for view in LAZY]}
    for name, one in shown.items():
        named: list[Any] = [*one.get("facets", []), *one.get("columns", {})]
        named += [one[key] for key in ("sort_desc", "fts_pk") if key in one]
        assert set(named) <= columns_of(agents, name), name
    assert shown["log"]["fts_table"] == INDEX


def test_what_is_hidden_is_there_and_so_are_the_tables_of_the_views(
    agents: sqlite3.Connection,
) -> None:
    hidden = {name for name, one in AGENTS["tables"].items() if one.get("hidden")}
    assert hidden == {"_sqlite_migrations", "blobs", *[view.table for view in LAZY]}
    tables = {name for (name,) in agents.execute("SELECT name FROM sqlite_master")}
    assert hidden <= tables


def test_the_search_box_of_datasette_finds_events(agents: sqlite3.Connection) -> None:
    """Datasette makes this query of `fts_table` and `fts_pk`."""
    rowids = f"SELECT rowid FROM {INDEX} WHERE {INDEX} MATCH ?"
    box = f"SELECT position FROM log WHERE position IN ({rowids})"
    assert agents.execute(box, ('"second"',)).fetchall() == [(23,)]


def test_the_pictures_are_small_and_shown() -> None:
    pictures = sorted(DOCS.glob("images/datasette-*.png"))
    page = (DOCS / "datasette.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\(images/(datasette-\w+\.png)\)", page)) == [
        picture.name for picture in pictures
    ]
    assert len(pictures) == 3
    for picture in pictures:
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(content) < MAX_IMAGE_BYTES
        assert size_of(picture)[0] == 1280


def size_of(picture: Path) -> tuple[int, int]:
    header = picture.read_bytes()[16:24]
    return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")
