"""Hypothesis strategies: JSON values, and events of every kind built from their fields."""

from typing import Any

from attrs import fields
from hypothesis import strategies as st

from carstore.events import KINDS, Event
from carstore.names import Json

INT64 = st.integers(-(2**63), 2**63 - 1)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""Any text but lone surrogates."""

NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
"""What names a stream, a scope or a key: no NUL either."""

JSON = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=12,
)

_FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: INT64,
    bool: st.booleans(),
    str | None: st.none() | TEXT,
    int | None: st.none() | INT64,
    tuple[str, ...]: st.lists(TEXT, max_size=4).map(tuple),
    Json: JSON,
}


def events_of(kind: str) -> st.SearchStrategy[Event]:
    """Any event of a kind. A deletion has no value, and the log fills in `prev`."""
    cls: type[Event] = KINDS[kind]
    values = {field.name: _FIELDS[field.type] for field in fields(cls)}
    if kind == "state_changed":
        values |= {"scope": NAME, "key": NAME, "prev": st.none() | st.integers(1, 2**53)}
        values |= {"deleted": st.just(value=False)}
        deletions = {**values, "deleted": st.just(value=True), "value": st.none()}
        return st.one_of(st.builds(cls, **values), st.builds(cls, **deletions))
    if kind.startswith("lease_"):
        held = st.fixed_dictionaries({"lease": NAME, "token": INT64})
        values |= {
            name: strategy
            for name, strategy in (
                ("lease", NAME),
                ("request_id", NAME),
                ("ttl_us", st.integers(0, 2**40)),
                ("holder", st.dictionaries(NAME, NAME, max_size=3)),
                ("leases", st.lists(held, max_size=3)),
            )
            if name in values
        }
    return st.builds(cls, **values)


EVENTS = st.sampled_from(sorted(KINDS)).flatmap(events_of)
