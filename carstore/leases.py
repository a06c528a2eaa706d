"""Leases: who may drive a run, by compare-and-set on the log.

A lease is liveness, a fence is safety. A paused process can believe that it still holds a lease;
only the file, inside the transaction that writes, can know. So every append under a lease carries
its token, and the holder stops by its own clock before anybody else may take over:

    holder stops (its deadline)  <  the store's expiry  <  another may acquire (plus grace)

A grant and a release are entries like any other: they can ride in the append of whatever is done
under them, so that owning something costs no commit of its own.
"""

from collections.abc import Sequence
from typing import Protocol

from attrs import define, frozen

from carstore.clock import Clock
from carstore.errors import LeaseHeld
from carstore.events import LeaseGranted, LeaseReleased, LeaseRenewed
from carstore.holders import Holder
from carstore.log import Entry, LeaseIs
from carstore.names import (
    FencingToken,
    Json,
    LeaseName,
    Micros,
    Position,
    RunId,
    lease_stream,
)

TTL_US = 60_000_000
"""How long a grant holds without a renewal."""

BEAT_US = 20_000_000
"""How often a process renews all its leases: two may fail before one is lost."""

GRACE_US = 5_000_000
"""After the expiry, how long others still wait: clocks of machines differ."""

MARGIN_US = 2_000_000
"""How long before the expiry a holder stops by itself: a call in flight needs time to notice."""


@frozen(kw_only=True)
class LeaseRow:
    """A lease as the file has it. All but `name` and `position` are None while it is free."""

    name: LeaseName
    token: FencingToken | None
    holder: Holder | None
    request_id: str | None
    granted_at: Micros | None
    expires_at: Micros | None
    position: Position


@define
class HeldLease:
    """A lease this process was granted, with the deadline it keeps for itself."""

    name: LeaseName
    token: FencingToken
    deadline_us: int
    """By the clock of the boot."""
    lost: bool = False

    def is_held(self, clock: Clock) -> bool:
        """Whether the holder may still act; looks at the clock each time."""
        return not self.lost and clock.boot() < self.deadline_us


@frozen(kw_only=True)
class Claim:
    """What to put into an append to own a lease from then on: an entry and its condition."""

    entry: Entry
    condition: LeaseIs
    deadline_us: int


def claim(
    row: LeaseRow | None,
    lease: LeaseName,
    holder: Holder,
    request_id: str,
    clock: Clock,
    *,
    gone: bool,
    ttl_us: int = TTL_US,
    run_id: RunId | None = None,
) -> Claim:
    """Decide whether `lease` may be acquired, from what was read of it.

    The answer is a guess until the append: its condition compares the lease with what was read.

    Args:
        row: the lease as read, None if it was never granted.
        gone: whether the present holder is provably gone.

    Raises:
        LeaseHeld: by a process that is alive, or may be.
    """
    taken_over: Json = None
    condition = LeaseIs(lease, None)
    if row is not None and row.token is not None and row.expires_at is not None:
        expired = row.expires_at + GRACE_US <= clock.now()
        if not gone and not expired:
            raise LeaseHeld(lease, str(row.holder), row.expires_at + GRACE_US - clock.now())
        taken_over = {"token": row.token, "reason": "gone" if gone else "expired"}
        condition = LeaseIs(lease, row.token, expired_for_us=None if gone else GRACE_US)
    event = LeaseGranted(
        lease=lease,
        holder=holder.to_json(),
        ttl_us=ttl_us,
        request_id=request_id,
        taken_over=taken_over,
    )
    return Claim(
        entry=Entry(lease_stream(lease), event, run_id),
        condition=condition,
        deadline_us=clock.boot() + ttl_us - MARGIN_US,
    )


def release(lease: HeldLease, run_id: RunId | None = None) -> Entry:
    """The entry that gives a lease back."""
    event = LeaseReleased(lease=lease.name, token=lease.token)
    return Entry(lease_stream(lease.name), event, run_id)


def renewal(leases: Sequence[HeldLease], ttl_us: int = TTL_US) -> tuple[Entry, list[LeaseIs]]:
    """The entry that renews all `leases`, and the conditions under which it may."""
    event = LeaseRenewed(
        leases=[{"lease": lease.name, "token": lease.token} for lease in leases], ttl_us=ttl_us
    )
    conditions = [LeaseIs(lease.name, lease.token, unexpired=True) for lease in leases]
    return Entry(lease_stream(LeaseName("renewals")), event), conditions


class Leases(Protocol):
    """The port: what a process owns, and what the file says of who owns what."""

    holder: Holder
    """Who we are."""

    async def row(self, lease: LeaseName) -> LeaseRow | None:
        """The lease as the file has it; None if it was never granted."""
        ...

    async def rows(self) -> list[LeaseRow]:
        """All leases that are held, expired ones included, by name."""
        ...

    async def claim(self, lease: LeaseName, run_id: RunId | None = None) -> Claim:
        """What to add to an append so that it also acquires `lease`; then call `hold`.

        Raises:
            LeaseHeld: by a process that is not provably gone.
        """
        ...

    def claim_new(self, lease: LeaseName, run_id: RunId | None = None) -> Claim:
        """The same for a lease that nobody can have been granted yet, without reading it."""
        ...

    def hold(self, claimed: Claim, position: Position) -> HeldLease:
        """Begin to keep alive the lease that was granted by the event at `position`."""
        ...

    def forget(self, held: HeldLease) -> None:
        """Stop keeping `held` alive, after its release rode in another append."""
        ...

    async def acquire(self, lease: LeaseName, run_id: RunId | None = None) -> HeldLease:
        """Acquire `lease` by an append of its own.

        Raises:
            LeaseHeld: by a process that is not provably gone.
            LeaseLost: somebody else was faster.
        """
        ...

    async def release(self, held: HeldLease, run_id: RunId | None = None) -> None:
        """Give `held` back by an append of its own. Does nothing if it is not held any more."""
        ...

    async def renew(self) -> None:
        """Renew all leases of this process now. Those that are lost are marked so."""
        ...

    async def close(self) -> None:
        """Stop the renewals. What is still held stays granted until it expires."""
        ...


__all__ = [
    "BEAT_US",
    "GRACE_US",
    "MARGIN_US",
    "TTL_US",
    "Claim",
    "HeldLease",
    "LeaseRow",
    "Leases",
    "claim",
    "release",
    "renewal",
]
