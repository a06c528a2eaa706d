"""The head of each stream.

The file itself knows: it is the last entry of an index that `schema.sql` shows as `stream_heads`.
This view is its twin, folded from the events: it answers for any position, and `carstore verify`
holds the two against each other.
"""

from typing import get_args

from attrs import frozen

from carstore.events import Event
from carstore.log import Recorded
from carstore.names import lease_of
from projections.view import Key, Rows, View


@frozen(kw_only=True)
class StreamHead:
    """A stream that has events."""

    name: str
    lease: str | None
    """The lease that fences it, if any."""
    version: int
    """How many events it has."""
    position: int
    """Of its newest one."""


def keys(_: Event, recorded: Recorded) -> list[Key]:
    return [(recorded.stream,)]


def evolve(_: Rows[StreamHead], __: Event, recorded: Recorded) -> Rows[StreamHead]:
    after = StreamHead(
        name=recorded.stream,
        lease=lease_of(recorded.stream),
        version=recorded.version,
        position=recorded.position,
    )
    return {(recorded.stream,): after}


STREAMS: View[Event, StreamHead] = View(
    name="streams",
    version=1,
    kinds=get_args(Event),
    row=StreamHead,
    key=("name",),
    keys=keys,
    evolve=evolve,
    inline="stream_heads",
)
