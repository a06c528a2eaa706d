"""Facts about who owns what."""

from typing import ClassVar

from attrs import frozen

from carstore.names import Json


@frozen(kw_only=True)
class LeaseGranted:
    """A holder became the owner of a name. Its token: `epoch * 2**40 + position` of this event."""

    kind: ClassVar[str] = "lease_granted"
    lease: str
    holder: Json
    """Who: instance, incarnation, machine, boot, host, pid, pid namespace, start of the process."""
    ttl_us: int
    """How long it holds from `recorded_at` on without a renewal, in microseconds."""
    request_id: str
    """Names the acquire, so that a retry after a lost reply finds its grant."""
    taken_over: Json = None
    """The token taken over and the reason (expired, gone), if it was not free."""


@frozen(kw_only=True)
class LeaseRenewed:
    """The leases of one process go on: one event for all of them."""

    kind: ClassVar[str] = "lease_renewed"
    leases: Json
    """List of `{lease, token}`."""
    ttl_us: int


@frozen(kw_only=True)
class LeaseReleased:
    """The owner is done; the name is free at once."""

    kind: ClassVar[str] = "lease_released"
    lease: str
    token: int
