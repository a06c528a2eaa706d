"""The state that runs share."""

from carstore.events import StateChanged
from projections import STATE, fold
from projections.state import StateValue
from tests.projections.plausible import changed, record


def test_a_key_has_its_newest_value() -> None:
    rows = fold(STATE, record(changed("k", {"b": 1, "a": [True, None]}), changed("k", "ü")))
    assert rows == {
        ("main", "k"): StateValue(scope="main", key="k", value='"ü"', position=2, run_id="r1")
    }


def test_the_value_is_canonical_json() -> None:
    rows = fold(STATE, record(changed("k", {"b": 1.5, "a": [True, None]})))
    assert rows[("main", "k")].value == '{"a":[true,null],"b":1.5}'


def test_a_deleted_key_has_no_row_and_one_that_holds_null_has() -> None:
    rows = fold(STATE, record(changed("gone", 1), changed("gone", deleted=True), changed("null")))
    assert list(rows) == [("main", "null")]
    assert rows[("main", "null")].value == "null"


def test_scopes_do_not_mix() -> None:
    other = StateChanged(scope="other", key="k", value=2)
    rows = fold(STATE, record(changed("k", 1), other))
    assert {key: row.value for key, row in rows.items()} == {
        ("main", "k"): "1",
        ("other", "k"): "2",
    }


def test_a_change_outside_of_a_run_counts() -> None:
    rows = fold(STATE, record(changed("k", 1), run=None))
    assert rows[("main", "k")].run_id is None
