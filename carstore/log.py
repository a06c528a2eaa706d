"""The log, as its users see it: append under conditions, read in order, follow.

An implementation keeps five promises, which one contract suite checks for each:

* an append is all or nothing, over as many streams as it names;
* its conditions are judged in the same transaction as its rows are written;
* positions, and versions within a stream, count 1, 2, 3 ... without gaps;
* an append that was acknowledged survives what the store's durability says;
* nothing that was appended ever changes.
"""

from asyncio import Future
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from attrs import Factory, frozen

from carstore.blobs import Blob
from carstore.codec import decode
from carstore.events import Event
from carstore.names import (
    FencingToken,
    Json,
    LeaseName,
    Micros,
    Position,
    RunId,
    Scope,
    StateKey,
    StreamName,
    Version,
)

PAGE_EVENTS = 1000
"""Events read at once: larger pages do not read faster, smaller ones pay for the thread hop."""

MAX_APPEND_EVENTS = 100_000
"""Events of one append. One transaction of this size takes about a second."""


class Recorded(NamedTuple):
    """An event with its place: one row of the log. `event` decodes the data, at each call."""

    position: Position
    stream: StreamName
    version: Version
    kind: str
    schema_version: int
    recorded_at: Micros
    run_id: RunId | None
    scope: Scope | None
    key: StateKey | None
    fence: LeaseName | None
    fence_token: FencingToken | None
    data: str
    prev_hash: str
    hash: str

    @property
    def event(self) -> Event:
        """The fact itself.

        Raises:
            UnknownEvent: if this program does not know the kind or its schema version.
        """
        return decode(
            self.kind, self.schema_version, self.data, self.scope, self.key, self.position
        )


class Entry(NamedTuple):
    """An event to append: to which stream, for which run, and the values it refers to."""

    stream: StreamName
    event: Event
    run_id: RunId | None = None
    blobs: Sequence[Blob] = ()
    """Values that go beside the log with it; `Redaction.applied` makes them."""


class Fence(NamedTuple):
    """The lease under which an append is made. Without a token: the one granted in this append."""

    lease: LeaseName
    token: FencingToken | None


class LeaseIs(NamedTuple):
    """A condition on a lease, judged by the clock of the transaction.

    The lease has `token` (None: it is free or was never granted), and if `expired_for_us` is given
    it expired at least so many microseconds ago; if `unexpired`, it has not.
    """

    lease: LeaseName
    token: FencingToken | None
    expired_for_us: int | None = None
    unexpired: bool = False


@frozen(kw_only=True)
class Expect:
    """What must hold at the moment of an append, or nothing is appended."""

    versions: Mapping[StreamName, int] = Factory(dict)
    """The version each stream is at; 0 for one that has no events."""
    unchanged: Sequence[tuple[Scope, StateKey, Position]] = ()
    """State keys with the position of their newest change when read (0: never written)."""
    fence: Fence | None = None
    leases: Sequence[LeaseIs] = ()


NOTHING = Expect()
"""No condition."""


class Appended(NamedTuple):
    """Where an append went: positions `first` to `last`, `recorded_at` in microseconds UTC."""

    first: Position
    last: Position
    recorded_at: Micros


class StateRead(NamedTuple):
    """The newest change of a state key at some position, as read.

    `position` is 0, and `exists` false, for a key that was never written; a deletion has a position
    and does not exist.
    """

    value: Json
    exists: bool
    position: Position
    run_id: RunId | None = None


class Trail(NamedTuple):
    """The end of a key's history, seen from one run.

    `newest`: its newest change. `ours`: position of the run's newest change, 0 if there is none.
    `base`: the newest change that is not the run's, which is what was there before the run's last
    uninterrupted series of changes, if `newest` is the run's.
    """

    newest: StateRead
    ours: Position
    base: StateRead


NEVER_WRITTEN = StateRead(value=None, exists=False, position=Position(0))


class Head(NamedTuple):
    """The newest event: its position (0: none) and its hash. Kept elsewhere, it proves a prefix."""

    position: Position
    hash: str


class Log(Protocol):
    """The port. See the module for what an implementation promises."""

    async def append(self, *entries: Entry, expect: Expect = NOTHING) -> Appended:
        """Append all entries, or none, and return once they are durable.

        Cancelling the caller does not cancel the append; use `submit` to keep its outcome.

        Raises:
            VersionConflict, StateConflict, StaleFence, LeaseLost: a condition does not hold.
            InvalidEvent: an entry holds what its class does not allow.
            Busy, DiskFull: nothing was written; try again.
            StoreFailed, Closed: the store does not go on.
        """
        ...

    async def submit(self, *entries: Entry, expect: Expect = NOTHING) -> "Future[Appended]":
        """Queue an append, waiting only for room, and return the future of its outcome.

        Appends are judged and carried out in the order of their submission. Once this returns, the
        append happens or is refused whatever becomes of the caller, and the future tells.
        """
        ...

    def read(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        stream: StreamName | None = None,
        run: RunId | None = None,
        state: tuple[Scope, StateKey] | None = None,
        kinds: Collection[str] | None = None,
    ) -> AsyncIterator[Recorded]:
        """Events in order, from position `after` (exclusive) to `until` (inclusive; None: head).

        At most one of `stream`, `run` (its stream, its inbox and its lease) and `state` (the
        changes of one key) narrows the search; `kinds` filters any of them.
        """
        ...

    def pages(
        self, *, after: int = 0, until: int | None = None, kinds: Collection[str] | None = None
    ) -> AsyncIterator[list[Recorded]]:
        """The same for the whole log, a page of up to `PAGE_EVENTS` at a time."""
        ...

    def follow(
        self,
        *,
        after: int = 0,
        kinds: Collection[str] | None = None,
        stream: StreamName | None = None,
        run: RunId | None = None,
    ) -> AsyncGenerator[Recorded, None]:
        """Events after `after` in order, then each new one as it is committed, without end.

        The filters are those of `read`. A follower misses nothing however slow it is, and keeps
        nothing but its place and a page: to go on later, follow after the last position seen.

        Raises:
            NotFound: the log ends before `after`.
            TypeError: `kinds` is a text.
            Closed: the store was closed.
        """
        ...

    def follow_pages(
        self,
        *,
        after: int = 0,
        kinds: Collection[str] | None = None,
        stream: StreamName | None = None,
        run: RunId | None = None,
    ) -> AsyncGenerator[list[Recorded], None]:
        """The same, a page of up to `PAGE_EVENTS` at a time: all that there is by then."""
        ...

    async def state(
        self, scope: Scope, keys: Collection[StateKey], *, at: int | None = None
    ) -> dict[StateKey, StateRead]:
        """The state of `keys` as of position `at` (None: now); an entry for each key asked for."""
        ...

    async def state_of(self, scope: Scope, *, at: int | None = None) -> dict[StateKey, StateRead]:
        """All keys that exist in `scope` as of position `at` (None: now), in order of name."""
        ...

    async def trails(
        self, scope: Scope, keys: Collection[StateKey], run_id: RunId
    ) -> "dict[StateKey, Trail]":
        """What a rollback of a run has to know of `keys`; an entry for each."""
        ...

    async def head(self) -> Head:
        """The newest event's position and hash."""
        ...

    async def close(self) -> None:
        """Commit what was submitted, then stop; later appends raise `Closed`."""
        ...
