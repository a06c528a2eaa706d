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


def _more_fields(data: dict[str, Json]) -> dict[str, Json]:
    return data  # what was added has a default that says: it was not there


UPCASTS: Mapping[tuple[str, int], Upcast] = {
    ("log_epoch_started", 1): _epoch_has_a_cause,
    ("proposal_received", 1): _more_fields,
    ("action_validated", 1): _more_fields,
    ("action_executing", 1): _more_fields,
    ("action_deduplicated", 1): _more_fields,
    ("inference_metered", 1): _more_fields,
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
