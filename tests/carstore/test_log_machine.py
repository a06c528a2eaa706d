"""The log against a plain list: random appends under random conditions, one and many at a time,
through two stores and by hand, with leases that come and go, clocks that jump and stores that are
opened anew."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from carstore import Entry, Expect, Fence, LeaseIs, Recorded, Store
from carstore.chain import GENESIS
from carstore.clock import ManualClock
from carstore.errors import CarstoreError, LeaseHeld, LeaseLost
from carstore.events import ActionValidated, StateChanged
from carstore.leases import GRACE_US, TTL_US, HeldLease
from carstore.names import (
    FencingToken,
    LeaseName,
    Position,
    RunId,
    Scope,
    StateKey,
    StreamName,
    run_lease,
)
from carstore.sqlite.verify import verify, verify_file
from tests.carstore.attack import insert, next_event
from tests.carstore.helpers import (
    FakeProcesses,
    change,
    grant,
    new_file,
    open_store,
    renewal,
    rows_of,
    step,
    stock,
    ungrant,
)
from tests.carstore.log_model import Fact, Lease, LogModel

RUNS = [RunId("x"), RunId("y")]
LEASES = [run_lease(run) for run in RUNS]
STREAMS = ["notes", "run/x", "run/y", "run/x/inbox", "new"]
KEYS = [(Scope("main"), StateKey("a")), (Scope("main"), StateKey("b")), (Scope("s"), StateKey("a"))]

stores = st.sampled_from([0, 1])
streams = st.sampled_from(STREAMS)
leases = st.sampled_from(LEASES)
keys = st.sampled_from(KEYS)
runs = st.none() | st.sampled_from(RUNS)
notes = st.builds(
    lambda stream, run: Entry(StreamName(stream), ActionValidated(action_id="a"), run),
    streams,
    runs,
)
changes = st.builds(
    lambda stream, key, value: change(
        key[1], None if value == "gone" else value, deleted=value == "gone", scope=key[0],
        stream=stream,
    ),
    streams, keys, st.integers(0, 3) | st.just("gone"),
)  # fmt: skip
entries = st.lists(notes | changes, min_size=1, max_size=4)

# What a condition refers to, looked up in the model when it is used: `off` is how far it misses.
off = st.sampled_from([0, 0, 0, 0, 1, -1])
conditions = st.fixed_dictionaries(
    {},
    optional={
        "version": st.tuples(streams, off),
        "unchanged": st.tuples(keys, off),
        "lease": st.tuples(leases, off, st.sampled_from([None, "unexpired", 0, GRACE_US])),
    },
)
fences = st.none() | st.tuples(leases, st.sampled_from(["current", "current", "old", "wrong"]))
appends = st.tuples(entries, conditions, fences)


class LogMachine(RuleBasedStateMachine):
    """Two stores on one file stand for two processes; `self.model` for what they must agree on."""

    held: "Bundle[tuple[int, HeldLease]]" = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="carstore-"))
        self.path = new_file(self.folder / "log.db")
        self.clock, self.processes = ManualClock(), FakeProcesses()
        self.model = LogModel()
        self.runner = asyncio.Runner()
        self.stores: list[Store] = [self._open(), self._open()]
        self.seen: list[Recorded] = []

    def _open(self) -> Store:
        async def opened() -> Store:
            return await open_store(self.path, clock=self.clock, processes=self.processes)

        return self.runner.run(opened())

    @initialize()
    def begin(self) -> None:
        (first,) = self._read(0)
        self.model._add(Entry(first.stream, first.event), None, first.recorded_at)

    def teardown(self) -> None:
        try:
            for store in self.stores:
                assert self.runner.run(verify(store)).problems == ()
                self.runner.run(store.close())
            self._compare_leases()
            assert verify_file(self.path).problems == ()
        finally:
            self.runner.close()
            shutil.rmtree(self.folder)

    # Appending.

    def _expected(self, wanted: dict[str, Any], fence: tuple[LeaseName, str] | None) -> Expect:
        versions, unchanged, conditions = {}, [], []
        if "version" in wanted:
            stream, miss = wanted["version"]
            versions[StreamName(stream)] = self.model.versions.get(stream, 0) + miss
        if "unchanged" in wanted:
            (scope, key), miss = wanted["unchanged"]
            unchanged.append((scope, key, Position(self.model.newest(scope, key) + miss)))
        if "lease" in wanted:
            lease, miss, when = wanted["lease"]
            token = self.model.leases.get(lease, Lease(None, 0)).token
            if miss:
                token = 1 if token is None else token + miss
            conditions.append(
                LeaseIs(
                    lease,
                    None if token is None else FencingToken(token),
                    expired_for_us=when if isinstance(when, int) else None,
                    unexpired=when == "unexpired",
                )
            )
        return Expect(
            versions=versions, unchanged=unchanged, leases=conditions, fence=self._fence(fence)
        )

    def _fence(self, wanted: tuple[LeaseName, str] | None) -> Fence | None:
        if wanted is None:
            return None
        lease, which = wanted
        token = self.model.leases.get(lease, Lease(None, 0)).token
        if which == "old":
            token = self.model.tokens[0] if self.model.tokens else 1
        if which == "wrong" or token is None:
            token = (token or 0) + 1
        return Fence(lease, FencingToken(token))

    def _append(self, store: int, *submissions: tuple[list[Entry], Expect]) -> None:
        """Submit them all at once, and compare each outcome with the model's."""
        log, now, start = self.stores[store].log, self.clock.now(), len(self.model.facts)

        async def submit() -> list[Any]:
            futures = [await log.submit(*e, expect=expect) for e, expect in submissions]
            return await asyncio.gather(*futures, return_exceptions=True)

        outcomes = self.runner.run(submit())
        for (wanted, expect), outcome in zip(submissions, outcomes, strict=True):
            why = self.model.append(wanted, expect, now)
            if why is not None:
                assert type(outcome) is why, (outcome, why)
                continue
            assert not isinstance(outcome, BaseException), outcome
            end = start + len(wanted)
            assert outcome == (start + 1, end, now)
            start = end

    @rule(store=stores, append=appends)
    def append_one(self, store: int, append: Any) -> None:
        wanted, condition, fence = append
        self._append(store, (wanted, self._expected(condition, fence)))

    @rule(store=stores, several=st.lists(appends, min_size=2, max_size=5))
    def append_several(self, store: int, several: list[Any]) -> None:
        """All conditions are drawn up beforehand, so that later ones meet what earlier ones did."""
        self._append(
            store,
            *[(wanted, self._expected(condition, fence)) for wanted, condition, fence in several],
        )

    @rule(lease=leases, ttl_us=st.integers(0, TTL_US), store=stores, more=entries)
    def grant_and_write(self, lease: LeaseName, ttl_us: int, store: int, more: list[Entry]) -> None:
        free = [entry for entry in more if str(entry.stream) not in map(str, LEASES)]
        wanted = [grant(lease, ttl_us), step(lease), *free]
        self._append(store, (wanted, Expect(fence=Fence(lease, None))))

    @rule(lease=leases, store=stores, miss=off)
    def write_and_release(self, lease: LeaseName, store: int, miss: int) -> None:
        token = (self.model.leases.get(lease, Lease(None, 0)).token or 1) + miss
        expect = Expect(fence=Fence(lease, FencingToken(token)))
        self._append(store, ([step(lease), ungrant(lease, token)], expect))

    @rule(store=stores, misses=st.tuples(off, off), ttl_us=st.integers(0, TTL_US))
    def renew_or_release_by_hand(self, store: int, misses: tuple[int, int], ttl_us: int) -> None:
        tokens = [
            (self.model.leases.get(lease, Lease(None, 0)).token or 1) + miss
            for lease, miss in zip(LEASES, misses, strict=True)
        ]
        named = [{"lease": e, "token": t} for e, t in zip(LEASES, tokens, strict=True)]
        self._append(
            store,
            ([renewal(named, ttl_us)], Expect()),
            ([ungrant(LEASES[0], tokens[0])], Expect()),
            ([step(LEASES[0])], Expect(fence=Fence(LEASES[0], FencingToken(tokens[0])))),
        )

    @rule(stream=st.sampled_from(["notes", "run/x/inbox", *LEASES]))
    def append_by_hand(self, stream: str) -> None:
        """Another program writes; what a store knows of the file is no longer true."""
        if stream not in self.model.versions:
            return
        lease = self.model.leases.get(stream)
        if lease is not None and lease.token is None:
            return
        connection = stock(self.path)
        insert(connection, next_event(connection, stream, recorded_at=self.clock.now()))
        connection.close()
        fence = None if lease is None else Fence(LeaseName(stream), FencingToken(lease.token or 0))
        entry = Entry(StreamName(stream), ActionValidated(action_id="x"))
        assert self.model.append([entry], Expect(fence=fence), self.clock.now()) is None

    # Leases, by those who keep them.

    @rule(target=held, store=stores, lease=leases)
    def acquire(self, store: int, lease: LeaseName) -> Any:
        before = self.model.leases.get(lease, Lease(None, 0))
        may = before.token is None or before.expires_at + GRACE_US <= self.clock.now()
        holder = self.runner.run(self.stores[store].leases.row(lease))
        if holder is not None and holder.holder is not None:
            may = may or holder.holder.incarnation in self.processes.gone
        try:
            kept = self.runner.run(self.stores[store].leases.acquire(lease))
        except LeaseHeld:
            assert not may
            return (store, HeldLease(lease, FencingToken(0), 0, lost=True))
        assert may
        self._adopt()
        assert kept.token == self.model.leases[lease].token
        assert kept.is_held(self.clock)
        return (store, kept)

    @rule(kept=held)
    def release(self, kept: tuple[int, HeldLease]) -> None:
        store, lease = kept
        ours = self.model.leases.get(lease.name, Lease(None, 0)).token == lease.token
        self.runner.run(self.stores[store].leases.release(lease))
        assert lease.lost
        self._adopt()
        if ours:
            assert self.model.leases[lease.name].token is None

    @rule(kept=held)
    def write_under(self, kept: tuple[int, HeldLease]) -> None:
        """However it was lost, a lease is good for a write exactly while its token is current."""
        store, lease = kept
        self._append(store, ([step(lease.name)], Expect(fence=Fence(lease.name, lease.token))))

    @rule(store=stores)
    def renew(self, store: int) -> None:
        self.runner.run(self.stores[store].leases.renew())
        self._adopt()

    def _adopt(self) -> None:
        """Take over into the model what a store appended of its own accord."""
        for recorded in self._read(len(self.model.facts)):
            entry = Entry(recorded.stream, recorded.event, recorded.run_id)
            assert self.model.append([entry], Expect(), recorded.recorded_at) is None

    @rule(store=stores)
    def dies(self, store: int) -> None:
        """A process is killed, and started again: under a new incarnation, with nothing held."""
        self.processes.gone.add(self.stores[store].leases.holder.incarnation)
        self.open_anew(store)

    @rule(store=stores)
    def open_anew(self, store: int) -> None:
        self.runner.run(self.stores[store].close())
        self.stores[store] = self._open()

    @rule(micros=st.sampled_from([1, 1000, TTL_US // 2, TTL_US, TTL_US + GRACE_US]))
    def time_passes(self, micros: int) -> None:
        self.clock.advance(micros)

    @rule(micros=st.sampled_from([-3_600_000_000, -1, 3_600_000_000]))
    def the_wall_clock_is_set(self, micros: int) -> None:
        self.clock.wall += micros

    # What must hold.

    def _read(self, after: int, **wanted: Any) -> list[Recorded]:
        async def read() -> list[Recorded]:
            return [r async for r in self.stores[0].log.read(after=after, **wanted)]

        return self.runner.run(read())

    @invariant()
    @precondition(lambda self: self.model.facts)
    def everybody_reads_the_same(self) -> None:
        new = self._read(len(self.seen))
        digest = self.seen[-1].hash if self.seen else GENESIS
        for recorded, fact in zip(new, self.model.facts[len(self.seen) :], strict=True):
            assert _fact(recorded) == fact
            assert recorded.prev_hash == digest
            digest = recorded.hash
        self.seen += new
        for store in self.stores:
            assert self.runner.run(store.log.head()) == (len(self.model.facts), digest)

    @invariant()
    def tokens_grow(self) -> None:
        assert self.model.tokens == sorted(set(self.model.tokens))

    @rule(store=stores, share=st.floats(0, 1), scope=st.sampled_from(["main", "s"]))
    def look_back(self, store: int, share: float, scope: str) -> None:
        at = round(share * len(self.model.facts))
        log, names = self.stores[store].log, [StateKey("a"), StateKey("b"), StateKey("never")]
        expected = {name: self.model.read(scope, name, at) for name in names}
        assert self.runner.run(log.state(Scope(scope), names, at=at)) == expected
        existing = {name: read for name, read in expected.items() if read.exists}
        assert self.runner.run(log.state_of(Scope(scope), at=at)) == existing

    @rule(name=streams, key=keys, run=st.sampled_from(RUNS))
    def read_a_part(self, name: str, key: tuple[Scope, StateKey], run: RunId) -> None:
        facts = self.model.facts
        related = (f"run/{run}", f"run/{run}/inbox", f"lease/run/{run}")
        assert [_fact(r) for r in self._read(0, stream=name)] == [
            fact for fact in facts if fact.stream == name
        ]
        assert [_fact(r) for r in self._read(0, run=run)] == [
            fact for fact in facts if fact.stream in related
        ]
        assert [_fact(r) for r in self._read(0, state=key)] == [
            fact
            for fact in facts
            if isinstance(fact.event, StateChanged) and (fact.event.scope, fact.event.key) == key
        ]

    def _compare_leases(self) -> None:
        rows = {
            name: (token, expires) for name, token, *_, expires, _ in rows_of(self.path)["leases"]
        }
        assert rows == {
            name: (lease.token, None if lease.token is None else lease.expires_at)
            for name, lease in self.model.leases.items()
        }


def _fact(recorded: Recorded) -> Fact:
    return Fact(
        recorded.position,
        recorded.stream,
        recorded.version,
        recorded.recorded_at,
        recorded.run_id,
        recorded.fence,
        recorded.fence_token,
        recorded.event,
    )


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def test_the_log_is_a_list() -> None:
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=QUIET
        ),
    )


@pytest.mark.prove
def test_the_log_is_a_list_however_long_one_looks() -> None:
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=2000, stateful_step_count=50, deadline=None, suppress_health_check=QUIET
        ),
    )


def test_the_errors_a_model_tells_are_those_of_the_store() -> None:
    assert issubclass(LeaseLost, CarstoreError)
