"""A view that does not fit together, or could not stand in SQL, cannot be made."""

import re
from typing import Any

import attrs
import pytest
from attrs import frozen

from carstore.events import InferenceMetered
from carstore.sqlite.statements import schema_text
from projections import COSTS, VIEWS
from projections.catalog import INLINE, LAZY
from projections.errors import InvalidView
from projections.view import RESERVED, Column, View, add, run_key
from tests.projections.plausible import changed, record


@frozen(kw_only=True)
class Row:
    name: str
    count: int
    note: str | None = None
    done: bool = False


def view(**parts: Any) -> View[Any, Any]:
    usual: dict[str, Any] = {
        "name": "things",
        "version": 1,
        "kinds": (InferenceMetered,),
        "row": Row,
        "key": ("name",),
        "keys": lambda event, recorded: [],
        "evolve": lambda rows, event, recorded: {},
    }
    return View(**{**usual, **parts})


def test_columns_are_the_fields_of_the_row() -> None:
    assert view().columns == (
        Column("name", str, nullable=False),
        Column("count", int, nullable=False),
        Column("note", str, nullable=True),
        Column("done", bool, nullable=False),
    )
    row = Row(name="x", count=1)
    assert view().values_of(row) == ("x", 1, None, False)
    assert view().key_of(row) == ("x",)
    assert view(key=("name", "count")).key_of(row) == ("x", 1)


def test_each_version_has_a_table_of_its_own() -> None:
    assert [view().table, view(version=12).table] == ["view_things_v1", "view_things_v12"]


@pytest.mark.parametrize(
    "name", ["", "Costs", "1st", "a b", 'a"b', "a;b", "a'--", "ä", "x" * 49, "a\n"]
)
def test_a_name_that_cannot_stand_in_sql_is_refused(name: str) -> None:
    with pytest.raises(InvalidView, match="cannot be a name in SQL"):
        view(name=name)


@pytest.mark.parametrize("name", ["Name", "ä", "_private", "x" * 49])
def test_a_column_that_cannot_stand_in_sql_is_refused(name: str) -> None:
    row = attrs.make_class("Odd", {name: attrs.field(type=str)})
    with pytest.raises(InvalidView, match="cannot be a name in SQL"):
        view(row=row, key=(name,))


def test_the_names_that_are_taken_are_those_of_the_schema_and_of_the_search() -> None:
    named = re.findall(r"(?m)^CREATE (?:TABLE|VIEW) (\w+)", schema_text())
    assert {*named, "search"} == RESERVED


@pytest.mark.parametrize("name", ["sqlite_things", "view_things", "view_"])
def test_names_that_begin_as_tables_of_others_do_are_refused(name: str) -> None:
    with pytest.raises(InvalidView, match="no name begins with sqlite_ or view_"):
        view(name=name)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_names_of_the_schema_are_refused_for_stored_views(name: str) -> None:
    with pytest.raises(InvalidView, match="the schema has this name already"):
        view(name=name)


@pytest.mark.parametrize(
    "parts",
    [
        {"key": ()},
        {"key": ("note",)},
        {"key": ("nothing",)},
        {"kinds": ()},
        {"kinds": (Row,)},
        {"version": 0},
        {"row": dict},
        {"row": attrs.make_class("Odd", {"name": attrs.field(type=float)})},
        {"row": attrs.make_class("Odd", {"name": attrs.field(type=bytes)})},
        {"row": attrs.make_class("Odd", {"name": attrs.field(type=list[str])})},
        {"row": attrs.make_class("Odd", {"name": attrs.field(type=str, alias="title")})},
        {"row": attrs.make_class("Odd", {"name": attrs.field(type=str, converter=str.upper)})},
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(InvalidView):
        view(**parts)


def test_an_event_without_a_run_names_no_row_of_a_run() -> None:
    (outside,) = record(changed(), run=None)
    (inside,) = record(changed(), run="r1")
    assert run_key(outside, "a1") == []
    assert run_key(inside, "a1") == [("r1", "a1")]


def test_sums_stay_within_64_bits() -> None:
    assert add(2**63 - 1, 5) == 2**63 - 1
    assert add(-(2**63) + 1, -5) == -(2**63) + 1
    assert add(2, 3) == 5


def test_the_catalog_holds_each_view_once() -> None:
    assert VIEWS == INLINE + LAZY
    assert len({item.name for item in VIEWS}) == len(VIEWS)
    assert {item.name for item in INLINE} == {"streams", "leases"}
    assert COSTS in LAZY
    assert all(item.inline is not None for item in INLINE)
    assert all(item.inline is None for item in LAZY)
