"""Who owns what.

The table `leases` of the file is kept by a trigger, since appends are judged by it. This view is
its twin, folded from the events: it answers for any position, and `carstore verify` holds the two
against each other.

A token is `epoch * 2**40 + position` of its grant. The position alone names a grant, so this view
leaves the epoch out.
"""

from collections.abc import Iterator
from typing import TypeAlias

from attrs import evolve as changed
from attrs import frozen

from carstore.canonical import dumps
from carstore.events import LeaseGranted, LeaseReleased, LeaseRenewed
from carstore.log import Recorded
from carstore.names import Json
from projections.view import Key, Rows, View

LeaseEvent: TypeAlias = LeaseGranted | LeaseRenewed | LeaseReleased

_POSITIONS = 2**40


@frozen(kw_only=True)
class Lease:
    """A lease that was ever granted. All but `name` and `position` are None while it is free."""

    name: str
    granted_position: int | None
    """Of the grant: its token without the epoch."""
    holder: str | None
    """Canonical JSON."""
    request_id: str | None
    granted_at: int | None
    """Microseconds UTC."""
    expires_at: int | None
    """Microseconds UTC."""
    position: int
    """Of the event that made this row."""


def keys(event: LeaseEvent, _: Recorded) -> list[Key]:
    match event:
        case LeaseGranted() | LeaseReleased():
            return [(event.lease,)]
        case LeaseRenewed():
            return [(name,) for name, _ in _renewed(event.leases)]


def evolve(rows: Rows[Lease], event: LeaseEvent, recorded: Recorded) -> Rows[Lease]:
    match event:
        case LeaseGranted():
            return {(event.lease,): _granted(event, recorded)}
        case LeaseRenewed():
            held = [_held(rows, name, token) for name, token in _renewed(event.leases)]
            until = recorded.recorded_at + event.ttl_us
            return {
                (lease.name,): changed(
                    lease,
                    expires_at=max(lease.expires_at or 0, until),
                    position=recorded.position,
                )
                for lease in held
                if lease
            }
        case LeaseReleased():
            if _held(rows, event.lease, event.token) is None:
                return {}
            return {(event.lease,): _free(event.lease, recorded.position)}


def _granted(event: LeaseGranted, recorded: Recorded) -> Lease:
    return Lease(
        name=event.lease,
        granted_position=recorded.position,
        holder=_text(event.holder),
        request_id=event.request_id,
        granted_at=recorded.recorded_at,
        expires_at=recorded.recorded_at + event.ttl_us,
        position=recorded.position,
    )


def _free(name: str, position: int) -> Lease:
    return Lease(
        name=name,
        granted_position=None,
        holder=None,
        request_id=None,
        granted_at=None,
        expires_at=None,
        position=position,
    )


def _held(rows: Rows[Lease], name: str, token: int) -> Lease | None:
    """The lease, if it is still the one that was granted with `token`."""
    lease = rows[name,]
    return lease if lease and lease.granted_position == token % _POSITIONS else None


def _renewed(leases: Json) -> Iterator[tuple[str, int]]:
    for item in leases if isinstance(leases, list) else []:
        match item:
            case {"lease": str(name), "token": int(token)}:
                yield name, token


def _text(holder: Json) -> str | None:
    """As SQLite extracts it: a JSON text, but a string and nothing as they are."""
    return holder if holder is None or isinstance(holder, str) else dumps(holder)


LEASES: View[LeaseEvent, Lease] = View(
    name="leases",
    version=1,
    kinds=(LeaseGranted, LeaseRenewed, LeaseReleased),
    row=Lease,
    key=("name",),
    keys=keys,
    evolve=evolve,
    inline="lease_rows",
)
