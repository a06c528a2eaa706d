"""`carstore search`."""

import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from carstore.sqlite.migrations import SCHEMA
from tests.docs.markdown import DOCS
from tests.engine.cli.harness import BAD, Folder, cli, plan, shape, write
from tests.engine.cli.test_process import stdout_on_terminal, without_rights


def found(*words: str) -> list[int]:
    done = cli("search", "a.db", *words, "--json")
    assert (done.code, done.stderr) == (0, ""), done
    return [hit["position"] for hit in done.json]


def positions_of(kind: str) -> list[int]:
    lines = cli("log", "a.db", "--kind", kind, "--json").stdout.splitlines()
    return [json.loads(line)["position"] for line in lines][::-1]


def stored(path: Path) -> list[tuple[int]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(
            "SELECT position FROM view_positions WHERE name = 'search'"
        ).fetchall()
    finally:
        connection.close()


def with_many_events(folder: Folder) -> int:
    """A run of more events than are searched without storing an index."""
    done = folder.run(plan(*[write(f"w{n}", f"key{n}", f"text {n}") for n in range(400)]))
    assert done.code == 0, done
    position = cli("head", "a.db", "--json").json["position"]
    assert isinstance(position, int)
    return position


def test_events_are_found_by_words_newest_first(ran: Folder) -> None:
    ran.run(BAD, "--run-id", "second")
    failures = positions_of("action_failed")
    assert len(failures) == 2
    assert found("ValueError") == failures
    assert found("valueerror", "second") == failures
    assert found("ValueError", "first") == []
    assert found("ValueError: no") == failures
    assert found("ValueError", "--limit", "1") == failures[:1]
    assert found("ValueError", "--at", str(failures[1])) == failures[1:]
    assert found("ValueError", "--kind", "action_failed") == failures
    assert found("ValueError", "--kind", "state_changed") == []
    assert found("ValueError", "--run", "second") == failures
    assert found("ValueError", "--run", "first") == []
    assert sorted(found("ValueError", "--best")) == sorted(failures)
    assert found("--query", "kind:action_failed AND Value*") == failures


def test_documents_have_the_documented_shape(ran: Folder) -> None:
    section = (DOCS / "cli.md").read_text().split("### carstore search")[1].split("\n### ")[0]
    [block] = re.findall(r"(?s)```json\n(.*?)```", section)
    done = cli("search", "a.db", "twice", "--json")
    assert shape(done.json) == shape(json.loads(block))
    [hit, *_] = json.loads(block)
    assert [hit["snippet"][begin:end] for begin, end in hit["marks"]] == ["Hello"]


def test_hits_are_marked_by_brackets_or_on_a_terminal_by_colour(ran: Folder) -> None:
    done = cli("search", "a.db", "PLANNER", "--limit", "1")
    assert (done.code, len(done.stdout.splitlines())) == (0, 2)
    assert "[planner]" in done.stdout
    assert done.stderr == "There are more than 1; --limit shows more.\n"
    shown = stdout_on_terminal("search", "a.db", "planner", "--limit", "1")
    assert re.search(r"\x1b\[[\d;]+mplanner\x1b\[0m", shown)
    assert "[planner]" not in shown


def test_nothing_found_is_no_failure(ran: Folder) -> None:
    assert cli("search", "a.db", "nowhere").stdout == "Nothing was found.\n"
    assert found("nowhere") == []


def test_what_is_printed_cannot_act_on_a_terminal(folder: Folder) -> None:
    folder.run(plan(write("w", "k", "evil \x1b[2J\u202e word\nline")))
    done = cli("search", "a.db", "evil")
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "[evil] \\x1b[2J\\u202e word\\nline" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "path"),
    [
        (["!!!"], "invalid_search", "!!!"),
        (["--query", "a OR"], "invalid_search", "a OR"),
        ([""], "invalid_search", ""),
        ([], "usage", "WORDS..."),
        (["x", "--kind", "state_change"], "usage", "--kind"),
        (["x", "--limit", "0"], "usage", "--limit"),
        (["x", "--at", "9999"], "not_found", "9999"),
        (["x", "--run", "zzz"], "not_found", "zzz"),
        (["x", "--run", "a/b"], "invalid_run_id", "run_id"),
    ],
)
def test_what_cannot_be_searched_for_is_bad_input(
    ran: Folder, words: list[str], code: str, path: str
) -> None:
    done = cli("search", "a.db", *words, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, code)
    assert done.json["error"]["path"] == path
    assert cli("search", "a.db", *words).stderr.rstrip().splitlines()[-1].startswith("Error: ")


def test_a_file_that_is_missing_or_another_is_told(folder: Folder) -> None:
    assert cli("search", "a.db", "x", "--json").json["error"]["code"] == "not_found"
    (folder / "a.db").write_bytes(b"text" * 1000)
    done = cli("search", "a.db", "x", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_a_database")


def test_a_few_events_are_searched_without_writing(ran: Folder) -> None:
    before = (ran / "a.db").read_bytes()
    assert found("planner")
    assert (ran / "a.db").read_bytes() == before


def test_the_index_of_many_events_is_stored_once(folder: Folder) -> None:
    head = with_many_events(folder)
    assert len(found("text", "--limit", "999", "--kind", "state_changed")) == 400
    assert stored(folder / "a.db") == [(head,)]
    before = (folder / "a.db").read_bytes()
    [position] = found("key399", "--kind", "state_changed")
    assert position
    assert (folder / "a.db").read_bytes() == before
    assert cli("verify", "a.db").code == 0


@pytest.mark.parametrize("obstacle", ["locked", "older"])
def test_a_file_that_cannot_be_written_now_is_searched_too(folder: Folder, obstacle: str) -> None:
    with_many_events(folder)
    other = sqlite3.connect(folder / "a.db", isolation_level=None)
    try:
        if obstacle == "locked":
            other.execute("BEGIN IMMEDIATE")
        else:
            other.execute(f"PRAGMA user_version = {SCHEMA - 1}")
        assert len(found("key399", "--kind", "state_changed")) == 1
    finally:
        other.close()
    assert stored(folder / "a.db") == []


@pytest.mark.parametrize("rights", [0o755, 0o555])
def test_a_file_that_may_not_be_written_is_searched_too(folder: Folder, rights: int) -> None:
    with_many_events(folder)
    place = folder / "readonly"
    place.mkdir()
    shutil.copy(folder / "a.db", place / "a.db")
    (place / "a.db").chmod(0o444)
    place.chmod(rights)
    try:
        [done] = without_rights(("search", str(place / "a.db"), "key399", "--json"))
        assert (done.code, done.stderr) == (0, "")
        assert {hit["key"] for hit in done.json} == {"key399", None}
    finally:
        place.chmod(0o755)
    assert stored(place / "a.db") == []


def test_verify_compares_the_index_and_rebuild_makes_it_anew(folder: Folder) -> None:
    with_many_events(folder)
    assert cli("rebuild", "a.db", "--view", "search", "--json").json[0]["before"] == "none"
    assert cli("verify", "a.db").code == 0
    other = sqlite3.connect(folder / "a.db", isolation_level=None)
    other.execute("INSERT INTO view_search_v1 (rowid, text) VALUES (3, 'key399')")
    other.close()
    done = cli("verify", "a.db", "--json")
    assert (done.code, [problem["code"] for problem in done.json["problems"]]) == (1, ["view"])
    assert "the word 'key399' is in" in done.json["problems"][0]["message"]
    done = cli("search", "a.db", "key399", "--at", "3", "--json")
    assert (done.code, done.json["error"]["code"]) == (1, "view_damaged")
    [rebuilt] = cli("rebuild", "a.db", "--view", "search", "--json").json
    assert (rebuilt["view"], rebuilt["before"]) == ("search", "different")
    assert cli("verify", "a.db").code == 0


def test_copies_take_their_index_with_them(folder: Folder) -> None:
    with_many_events(folder)
    assert found("key399", "--kind", "state_changed")
    shutil.copy(folder / "a.db", folder / "b.db")
    assert (
        cli("search", "b.db", "key399", "--json").json
        == cli("search", "a.db", "key399", "--json").json
    )
