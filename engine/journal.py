"""What a driver has decided but not yet recorded, and the one append that records it.

Decisions rest on state that was read at some position. Everything decided since the last append
goes into one append, whose conditions are all that was read for it, the version of the run's
stream and the fence of the run's lease. So either all of it is true of the moment it was
recorded, or nothing is recorded and the decisions are made again.

Some conditions are about other streams: the ledgers of budgets from which an amount is reserved,
the inbox when the run is put down, and the leases under which a result is worked out that others
ask for too. If one of those does not hold, the decisions are made again as well (`Lapsed`).

The lease rides along: its grant is the first entry of the first append that does not also end the
run, its release the last entry of the append that ends the driver's turn. A run whose whole
history is one append takes no lease.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from attrs import define, field

from carstore import Store
from carstore import events as e
from carstore.blobs import Blob
from carstore.canonical import loads_trusted
from carstore.clock import Clock
from carstore.errors import CarstoreError, LeaseHeld, LeaseLost, VersionConflict
from carstore.leases import Claim, HeldLease, release
from carstore.log import Appended, Entry, Expect, Fence, StateRead
from carstore.names import (
    Json,
    LeaseName,
    Position,
    RunId,
    Scope,
    StateKey,
    StreamName,
    lease_stream,
    run_lease,
    run_stream,
)
from carstore.redaction import JsonPath
from engine.run import Run

__all__ = ["Journal", "Lapsed", "StateOverlay", "load_run"]


class Lapsed(Exception):
    """What a decision rests on outside the run and the state is otherwise; decide again."""


@define
class StateOverlay:
    """What a driver knows of the state: as read from the log, under its own unrecorded writes."""

    scope: Scope
    known: dict[str, StateRead] = field(factory=dict)
    pending: dict[str, tuple[Json, bool]] = field(factory=dict)
    """Key -> value and whether it exists, written by events that wait for their append."""
    reads: dict[str, Position] = field(factory=dict)
    """Key -> position at which a decision that waits for its append read it."""

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that have to be fetched before they can be read."""
        return [key for key in keys if key not in self.pending and key not in self.known]

    def value(self, key: str) -> Json:
        """The value of a key that was fetched."""
        return self.pending[key][0] if key in self.pending else self.known[key].value

    def read(self, key: str) -> StateRead:
        """The state of a key that was fetched, remembered as a ground of the decision."""
        if key in self.pending:
            value, exists = self.pending[key]
            return StateRead(value, exists, Position(0))
        found = self.known[key]
        self.reads[key] = found.position
        return found


@define
class Journal:
    """The only writer of a run's stream."""

    store: Store
    run: Run
    state: StateOverlay
    is_new: bool
    """Whether the run has not been recorded yet."""
    lease: HeldLease | None = None
    entries: list[Entry] = field(factory=list)
    first_blobs: Sequence[Blob] = ()
    """Values that go beside the log with the first event of a new run."""
    blobs: list[Blob] = field(init=False)
    """Values that go beside the log with the next append."""
    expected: dict[StreamName, int] = field(factory=dict)
    """Versions of other streams on which what waits for its append rests."""
    claims: list[Claim] = field(factory=list)
    """Leases, other than the run's, to acquire with the next append."""
    flights: dict[LeaseName, HeldLease] = field(factory=dict)
    """The leases, other than the run's, that the driver holds."""
    landed: list[HeldLease] = field(factory=list)
    """Those of `flights` that the next append gives back."""
    ends_turn: bool = False
    """Whether what is recorded next is the driver's last word."""

    stream: StreamName = field(init=False)
    """Of the run."""

    def __attrs_post_init__(self) -> None:
        self.blobs = list(self.first_blobs)
        self.stream = run_stream(self.run.run_id)

    @property
    def clock(self) -> Clock:
        return self.store.clock

    def record(self, event: e.Event, hidden: Sequence[JsonPath] = ()) -> None:
        """Apply an event to the run, and append it with the next flush.

        Args:
            hidden: where in it sensitive values stand; the run is told references to them, as it is
                when it is read from the log.
        """
        if hidden or self.store.redaction.names:
            event, beside = self.store.redaction.applied(event, hidden)
            if beside:
                self.blobs.extend(beside)
                self.run.refers = True
        self.run.apply(event, None)
        if isinstance(event, e.StateChanged):
            self.state.pending[event.key] = (event.value, not event.deleted)
        self.entries.append(Entry(self.stream, event, self.run.run_id))

    def add(self, entry: Entry) -> None:
        """Append an event of another stream with the next flush."""
        self.entries.append(entry)

    async def claim(self, lease: LeaseName) -> bool:
        """Acquire a lease besides the run's with the next flush; whether nobody has it."""
        if lease in self.flights or any(one.condition.lease == lease for one in self.claims):
            return False
        try:
            self.claims.append(await self.store.leases.claim(lease, self.run.run_id))
        except LeaseHeld:
            return False
        return True

    def give_way(self, lease: LeaseName) -> None:
        """What was to be done under a lease is not done in this turn: it is not acquired."""
        self.claims[:] = [one for one in self.claims if one.condition.lease != lease]
        self.expected.pop(lease_stream(lease), None)

    def give_back(self, lease: LeaseName) -> None:
        """Release a lease besides the run's with the next flush, if it is held."""
        held = self.flights.get(lease)
        if held is not None and held not in self.landed:
            self.landed.append(held)
            self.entries.append(release(held, self.run.run_id))

    def unwritten_values(self) -> dict[str, Json]:
        """The values that wait to be written beside the log, by hash."""
        return {blob.hash: loads_trusted(blob.body.decode()) for blob in self.blobs}

    async def fetch(self, keys: Iterable[str]) -> None:
        """Make `keys` readable."""
        missing = self.state.missing(keys)
        if missing:
            found = await self.store.log.state(self.state.scope, [StateKey(k) for k in missing])
            found = await self.store.blobs.fill_reads(found, sensitive=False)
            self.state.known.update({str(key): read for key, read in found.items()})

    async def flush(self) -> Appended | None:
        """Append what was recorded; afterwards it is durable.

        Raises:
            StateConflict, Lapsed: what a decision rests on has changed; `forget` and decide again.
            VersionConflict, LeaseLost, StaleFence: somebody else drives the run.
            LeaseHeld: somebody else drives the run, and is alive.
        """
        if not self.entries and not (self.ends_turn and self.lease):
            return None
        if self.ends_turn:
            self._let_others_call()
        claim = await self._claim() if self.lease is None else None
        claims = [claim, *self.claims] if claim else self.claims
        entries = [*(one.entry for one in claims), *self.entries]
        if self.ends_turn and self.lease is not None:
            entries.append(release(self.lease, self.run.run_id))
        if self.blobs:
            entries[0] = entries[0]._replace(blobs=tuple(self.blobs))
        done = await self._append(entries, claim)
        for place, one in enumerate(self.claims, start=claim is not None):
            held = self.store.leases.hold(one, Position(done.first + place))
            self.flights[held.name] = held
        self._recorded(done, len(claims))
        if claim is not None:
            self.lease = self.store.leases.hold(claim, done.first)
            if self.ends_turn:  # its token was not known in time to release it in the same append
                await self.store.leases.release(self.lease, self.run.run_id)
        elif self.ends_turn and self.lease is not None:
            self.store.leases.forget(self.lease)
        return done

    def _let_others_call(self) -> None:
        """Nobody has to wait for results that this driver will not bring."""
        self.claims.clear()
        for lease in list(self.flights):
            self.give_back(lease)

    async def _append(self, entries: list[Entry], claim: Claim | None) -> Appended:
        """Append, and tell apart what a lost condition is about."""
        try:
            return await self.store.log.append(*entries, expect=self._expect(claim))
        except VersionConflict as conflict:
            if conflict.stream == self.stream:
                raise
            raise Lapsed from conflict
        except LeaseLost as lost:
            if lost.lease == run_lease(self.run.run_id):
                raise
            raise Lapsed from lost

    async def _claim(self) -> Claim | None:
        if self.is_new and self.ends_turn:
            return None
        lease = run_lease(self.run.run_id)
        if self.is_new:
            return self.store.leases.claim_new(lease, self.run.run_id)
        return await self.store.leases.claim(lease, self.run.run_id)

    def _expect(self, claim: Claim | None) -> Expect:
        fence = None
        if self.lease is not None:
            fence = Fence(self.lease.name, self.lease.token)
        elif claim is not None:
            fence = Fence(claim.condition.lease, None)
        scope, reads = self.state.scope, self.state.reads
        claims = self.claims if claim is None else [claim, *self.claims]
        return Expect(
            versions={self.stream: self.run.version, **self.expected},
            unchanged=[(scope, StateKey(key), position) for key, position in reads.items()],
            fence=fence,
            leases=[one.condition for one in claims],
        )

    def _recorded(self, done: Appended, before: int) -> None:
        """Take in that everything is durable; `before` grants stand before it in the append."""
        written = 0
        for position, entry in enumerate(self.entries, start=done.first + before):
            event = entry.event
            written += entry.stream == self.stream
            if isinstance(event, e.StateChanged):
                self.state.known[event.key] = StateRead(
                    event.value, not event.deleted, Position(position), self.run.run_id
                )
        for held in self.landed:
            self.store.leases.forget(held)
            del self.flights[held.name]
        self.run.version += written
        self.run.stamp(done.recorded_at)
        self.is_new = False
        self._clear()
        self.state.pending.clear()
        self.state.reads.clear()

    def _clear(self) -> None:
        self.entries.clear()
        self.blobs.clear()
        self.expected.clear()
        self.claims.clear()
        self.landed.clear()

    async def forget(self) -> None:
        """Drop what was decided since the last append, and read the run again."""
        self._clear()
        self.blobs = list(self.first_blobs) if self.is_new else []
        self.ends_turn = False
        self.state = StateOverlay(self.state.scope)
        if self.is_new:
            self.run = Run.begin(self.run.run_id, self.run.received, self.run.proposal)
        else:
            self.run = await load_run(self.store, self.run.run_id)

    async def let_go(self) -> None:
        """After a failure: leave the run to whoever resumes it, at once if the store allows."""
        for held in [*self.flights.values(), *([self.lease] if self.lease else [])]:
            with suppress(CarstoreError):  # else the lease expires, as nobody renews it any more
                await self.store.leases.release(held, self.run.run_id)

    def check_held(self) -> None:
        """Raise `LeaseLost` unless the run is still ours to act for, by our own clock."""
        if self.lease is not None and not self.lease.is_held(self.clock):
            raise LeaseLost(self.lease.name)


async def load_run(store: Store, run_id: RunId) -> Run:
    """Fold a run from the log.

    Raises:
        NotFound: if there is no such run.
    """
    return Run.fold(run_id, [recorded async for recorded in store.log.read(run=run_id)])
