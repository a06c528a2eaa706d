"""Folding in memory."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore.errors import UnknownEvent
from carstore.events import InferenceMetered, StateChanged
from projections import COSTS, STATE, checksum, fold
from projections.costs import Cost
from projections.errors import ViewFailed
from projections.memory import changes, check_rows
from projections.state import StateValue
from projections.view import Key, View
from tests.projections.plausible import changed, metered, received, record


def test_a_fold_goes_on_from_rows_and_leaves_them_as_they_are() -> None:
    events = record(metered(cost_micros=1), metered(cost_micros=2), metered(cost_micros=4))
    first = fold(COSTS, events[:1])
    both = fold(COSTS, events[1:], first)
    assert both == fold(COSTS, events)
    assert both[("planner", "USD")].cost_micros == 7
    assert first[("planner", "USD")].cost_micros == 1


def test_other_events_leave_a_view_as_it_is() -> None:
    assert fold(COSTS, record(received("a1"), changed())) == {}


def test_an_unknown_kind_is_refused_even_by_a_view_that_would_not_read_it() -> None:
    known, unknown = record(metered(), metered())
    unknown = unknown._replace(kind="of_the_future", schema_version=3)
    with pytest.raises(UnknownEvent) as caught:
        fold(COSTS, [known, unknown])
    assert (caught.value.kind, caught.value.schema_version, caught.value.position) == (
        "of_the_future",
        3,
        2,
    )


def test_an_unknown_schema_version_is_refused() -> None:
    (recorded,) = record(metered())
    with pytest.raises(UnknownEvent):
        fold(COSTS, [recorded._replace(schema_version=3)])


def test_a_row_that_the_event_does_not_name_is_refused() -> None:
    careless = attrs.evolve(COSTS, keys=lambda event, recorded: [("somebody", "USD")])
    with pytest.raises(ViewFailed, match=r"`keys` and `evolve` disagree"):
        fold(
            attrs.evolve(careless, evolve=lambda rows, event, _: {("else", "USD"): None}),
            record(metered()),
        )


def test_a_row_under_the_key_of_another_is_refused() -> None:
    careless = attrs.evolve(
        COSTS,
        evolve=lambda rows, event, _: {
            (event.agent, event.currency): Cost(agent="somebody else", currency="USD")
        },
    )
    with pytest.raises(ViewFailed, match=r"event 1, of kind inference_metered.*does not name"):
        fold(careless, record(metered()))


def test_changes_hold_what_is_different_and_what_is_gone() -> None:
    before = fold(STATE, record(changed("a", 1), changed("b", 2), changed("c", 3)))
    later = record(changed("a", 5), changed("b", deleted=True), first=4)
    looked_up: list[tuple[str | int, ...]] = []

    def stored(key: tuple[str | int, ...]) -> StateValue | None:
        looked_up.append(key)
        return before.get(key)

    made = changes(STATE, [*later, *record(changed("a", 6), first=6)], stored)
    assert {key: row and row.value for key, row in made.items()} == {
        ("main", "a"): "6",
        ("main", "b"): None,
    }
    assert looked_up == [("main", "a"), ("main", "b")]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 9))), st.data())
def test_changes_on_top_of_a_fold_are_the_fold_of_all(
    steps: list[tuple[str, int | None]], data: st.DataObject
) -> None:
    events = record(*[StateChanged(scope="s", key=k, value=v, deleted=v is None) for k, v in steps])
    cut = data.draw(st.integers(0, len(events)))
    rows = fold(STATE, events[:cut])
    for key, row in changes(STATE, events[cut:], rows.get).items():
        rows.pop(key, None)
        if row is not None:
            rows[key] = row
    assert rows == fold(STATE, events)


def test_the_checksum_depends_on_rows_and_not_on_their_order() -> None:
    one, two = Cost(agent="a", currency="USD", calls=1), Cost(agent="b", currency="USD", calls=2)
    ordered = checksum(COSTS, {("a", "USD"): one, ("b", "USD"): two})
    assert ordered == checksum(COSTS, {("b", "USD"): two, ("a", "USD"): one})
    assert ordered != checksum(COSTS, {("a", "USD"): one})
    assert ordered != checksum(COSTS, {("a", "USD"): one, ("b", "USD"): attrs.evolve(two, calls=3)})
    assert ordered != checksum(
        attrs.evolve(COSTS, version=3), {("a", "USD"): one, ("b", "USD"): two}
    )


def test_values_that_look_alike_have_different_checksums() -> None:
    def of(value: str | None) -> str:
        row = StateValue(scope="s", key="k", value="1", position=1, run_id=value)
        return checksum(STATE, {("s", "k"): row})

    assert len({of(None), of("null"), of(""), of("1"), of("true"), of('"')}) == 6


def test_the_checksum_is_one_that_another_program_can_compute() -> None:
    rows: dict[Key, Cost] = {
        ("ä", "USD"): Cost(
            agent="ä", currency="USD", calls=1, tokens_in=2, tokens_out=3, cost_micros=4
        )
    }
    columns = '["costs",2,"agent","currency","calls","tokens_in","tokens_out","cost_micros"]'
    text = columns + '\n["ä","USD",1,2,3,4]\n'
    assert checksum(COSTS, rows) == hashlib.sha256(text.encode()).hexdigest()


def raising(*_: object) -> object:
    raise KeyError("x")


def ending(*_: object) -> object:
    """Else a command would print nothing and say that all is well."""
    sys.exit(0)


class Unreadable(Mapping[Key, Cost]):
    def __getitem__(self, key: Key) -> Cost:
        raise KeyError("none at all")

    def __iter__(self) -> Iterator[Key]:
        return iter([("planner", "USD")])

    def __len__(self) -> int:
        return 1


class Unshowable:
    def __repr__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"keys": raising}, r"`keys` raised KeyError: 'x' \(.*test_memory.py, line \d+\)"),
        ({"evolve": raising}, r"`evolve` raised KeyError"),
        ({"keys": lambda event, recorded: None}, "`keys` raised TypeError"),
        ({"keys": lambda event, recorded: ["planner"]}, "named 'planner', no tuple of 2"),
        ({"keys": lambda event, recorded: [("a", "b", "c")]}, "no tuple of 2"),
        (
            {"keys": lambda event, recorded: [([1], "USD")]},
            r"named \(\[1\], 'USD'\), and column 'agent'",
        ),
        (
            {"keys": lambda event, recorded: [("\ud800", "USD")]},
            "column 'agent' of the key holds str",
        ),
        ({"keys": lambda event, recorded: [(5, "USD")]}, "column 'agent' of the key holds str"),
        ({"keys": lambda event, recorded: [(None, "USD")]}, "column 'agent' of the key holds str"),
        (
            {"keys": lambda event, recorded: [(object(), "USD")]},
            "column 'agent' of the key holds str",
        ),
        ({"keys": lambda event, recorded: [Unshowable()]}, "a Unshowable, whose repr raises"),
        ({"keys": ending}, r"`keys` raised SystemExit: 0 \(.*test_memory.py, line \d+\)"),
        ({"evolve": ending}, r"`evolve` raised SystemExit: 0 \(.*test_memory.py, line \d+\)"),
        ({"evolve": lambda rows, event, recorded: Unreadable()}, "`evolve` raised KeyError"),
        ({"evolve": lambda rows, event, recorded: Unshowable()}, "a Unshowable, whose repr"),
        ({"evolve": lambda rows, event, recorded: None}, "answered None, no rows by key"),
        (
            {"evolve": lambda rows, event, recorded: {("planner", "USD"): "row"}},
            "answered 'row', no Cost",
        ),
    ],
)
def test_a_view_that_raises_or_answers_nonsense_is_named_with_the_event(
    parts: dict[str, object], words: str
) -> None:
    view = attrs.evolve(COSTS, **parts)
    with pytest.raises(ViewFailed, match=words) as caught:
        fold(view, record(metered()))
    assert (caught.value.view, caught.value.code) == ("costs", "view_failed")
    assert "at event 1, of kind inference_metered" in caught.value.message


@frozen
class Numbered:
    number: int


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, True, 1.0, "1"], ids=repr)
def test_a_key_that_its_column_cannot_hold_is_refused_before_it_is_looked_up(value: Any) -> None:
    view: View[Any, Any] = View(
        name="numbers",
        version=1,
        kinds=(InferenceMetered,),
        row=Numbered,
        key=("number",),
        keys=lambda event, recorded: [(value,)],
        evolve=lambda rows, event, recorded: {},
    )
    with pytest.raises(ViewFailed, match="column 'number' of the key holds int"):
        changes(view, record(metered()), pytest.fail)


@pytest.mark.parametrize("value", [1.5, True, None, "1", 2**63, -(2**63) - 1], ids=repr)
def test_a_value_that_its_column_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ViewFailed, match=r"column 'calls' of row \('a', 'USD'\).*holds int"):
        check_rows(COSTS, [Cost(agent="a", currency="USD", calls=value)])  # type: ignore[arg-type]
    check_rows(COSTS, [Cost(agent="a", currency="USD", calls=-(2**63)), None])


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(ViewFailed, match="column 'agent'"):
        check_rows(COSTS, [Cost(agent="\ud800", currency="USD")])
    check_rows(COSTS, [Cost(agent="\U0001f600\0", currency="USD")])
