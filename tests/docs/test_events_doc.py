"""docs/events.md lists exactly the events there are."""

import re
import sqlite3

import pytest
from attrs import fields

from carstore.codec import encode, with_prev
from carstore.events import KINDS, SCHEMA_VERSIONS, StateChanged
from carstore.names import Json
from carstore.sqlite.statements import schema_text, split
from tests.docs.markdown import DOCS, body, plain, sections

SECTIONS = sections(DOCS / "events.md")
FIELDS = ("Field", "Type", "Meaning")

TYPES = {
    str: "text",
    int: "integer",
    bool: "boolean",
    str | None: "text or null",
    int | None: "integer or null",
    tuple[str, ...]: "list of text",
    Json: "JSON",
}


def documented(heading: str, *header: str) -> list[tuple[str, str]]:
    rows = body(SECTIONS[heading], *header)
    assert all(meaning.endswith((".", ")")) for *_, meaning in rows)
    return [(plain(name), kind) for name, kind, _ in rows]


def test_every_kind_has_a_section_and_no_other_section_is_a_kind() -> None:
    headings = [heading for heading in SECTIONS if heading.islower() and " " not in heading]
    assert sorted(headings) == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fields_of_a_kind_are_those_of_its_class(kind: str) -> None:
    in_columns = {"scope", "key"} if KINDS[kind] is StateChanged else set()
    expected = [
        (attribute.name, TYPES[attribute.type])
        for attribute in fields(KINDS[kind])
        if attribute.name not in in_columns
    ]
    assert documented(kind, *FIELDS) == expected


def test_the_columns_are_those_of_the_table() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in split(schema_text()):
            connection.execute(statement)
        table = connection.execute("PRAGMA table_info(events)").fetchall()
    finally:
        connection.close()
    expected = [
        (name, kind.lower() + ("" if required or key else " or null"))
        for _, name, kind, required, _, key in table
    ]
    assert documented("Columns", "Column", "Type", "Meaning") == expected


def test_the_schema_versions_are_those_that_the_page_says() -> None:
    rows = body(SECTIONS["Columns"], "Column", "Type", "Meaning")
    (said,) = [meaning for name, _, meaning in rows if plain(name) == "schema_version"]
    assert "1 for all others" in said
    later = {kind: int(number) for number, kind in re.findall(r"(\d+) for `(\w+)`", said)}
    assert {**dict.fromkeys(KINDS, 1), **later} == SCHEMA_VERSIONS


def test_the_data_of_a_state_change_is_what_the_page_says() -> None:
    written = encode(StateChanged(scope="main", key="a", value=1))
    assert with_prev(written, None) == '{"prev":null,"value":1}'
    deleted = encode(StateChanged(scope="main", key="a", deleted=True))
    assert with_prev(deleted, 7) == '{"deleted":true,"prev":7}'
