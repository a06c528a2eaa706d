"""Shapes of events as they once were, and how each becomes the next.

What is in a log never changes, so a program reads what all earlier ones wrote. When the fields of a
kind change, its number in `carstore.events.SCHEMA_VERSIONS` grows, and a function here makes of
data of the version before what the new one would have written. They are pure, are chained, and are
never changed once they were released.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from carstore.names import Json

Upcast: TypeAlias = Callable[[dict[str, Json]], dict[str, Json]]


def _epoch_has_a_cause(data: dict[str, Json]) -> dict[str, Json]:
    return {**data, "cause": "created"}  # there were no copies before


def _more_fields(**added: str | int | None) -> Upcast:
    """Fields that were added, each with the value that says: it was not there."""

    def upcast(data: dict[str, Json]) -> dict[str, Json]:
        return {**data, **added}

    return upcast


UPCASTS: Mapping[tuple[str, int], Upcast] = {
    ("log_epoch_started", 1): _epoch_has_a_cause,
    ("proposal_received", 1): _more_fields(
        policies=None,
        budget=None,
        deadline_at=None,
        replaces=None,
        replans_left=0,
        replan_on_rejection=False,
        pursuit=None,
    ),
    ("action_validated", 1): _more_fields(tool=None),
    ("action_executing", 1): _more_fields(reserved=None, reuse_key=None),
    ("action_deduplicated", 1): _more_fields(cause="reuse"),
    ("compensation_executing", 1): _more_fields(reuse_key=None),
    ("inference_metered", 1): _more_fields(currency="USD"),
}
"""From data of a kind in that schema version to the next version."""


def upcast(kind: str, version: int, newest: int, data: dict[str, Json]) -> dict[str, Json]:
    """`data` of `kind`, as the version `newest` would have written it.

    Raises:
        KeyError: there is no way from `version` to `newest`.
    """
    for number in range(version, newest):
        data = UPCASTS[kind, number](data)
    return data
