"""Leases: claimed, kept, given back and taken over; two stores on one file stand for two processes.

The clocks are set by hand and processes live until a test says otherwise.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from attrs import define, field

from carstore import Expect, Fence, LeaseIs, Store
from carstore.clock import ManualClock
from carstore.errors import DiskFull, InvalidEvent, LeaseHeld, LeaseLost, StaleFence
from carstore.leases import (
    BEAT_US,
    GRACE_US,
    MARGIN_US,
    TTL_US,
    HeldLease,
    claim,
    release,
    renewal,
)
from carstore.names import FencingToken, LeaseName, RunId, StreamName, lease_stream
from carstore.sqlite import leases as sqlite_leases
from tests.carstore.helpers import FakeProcesses, everything, in_loop, open_store, step

LEASE = LeaseName("run/x")


@define
class Machine:
    """One file, one clock, and the processes of a machine."""

    path: Path
    clock: ManualClock = field(factory=ManualClock)
    processes: FakeProcesses = field(factory=FakeProcesses)

    @asynccontextmanager
    async def process(self, name: str) -> AsyncIterator[Store]:
        async with open_store(
            self.path, clock=self.clock, processes=self.processes, instance=name
        ) as store:
            yield store

    def dies(self, store: Store) -> None:
        self.processes.gone.add(store.leases.holder.incarnation)


@pytest.fixture
def machine(path: Path) -> Machine:
    return Machine(path)


async def write(store: Store, held: HeldLease) -> None:
    await store.log.append(step(held.name), expect=Expect(fence=Fence(held.name, held.token)))


def test_a_holder_stops_before_the_expiry_and_others_wait_beyond_it() -> None:
    assert 0 < MARGIN_US < TTL_US
    assert GRACE_US > 0
    assert 2 * BEAT_US + MARGIN_US < TTL_US


@in_loop
async def test_the_one_who_acquires_a_lease_may_write(machine: Machine) -> None:
    async with machine.process("a") as store:
        assert await store.leases.row(LEASE) is None
        held = await store.leases.acquire(LEASE, RunId("x"))
        await write(store, held)
        row = await store.leases.row(LEASE)
        assert row is not None
        assert (row.token, row.holder) == (held.token, store.leases.holder)
        assert row.granted_at == machine.clock.now()
        assert row.expires_at == machine.clock.now() + TTL_US
        assert await store.leases.rows() == [row]
        (granted,) = await everything(store, stream=lease_stream(LEASE))
        assert int(granted.position) == row.position == int(held.token)
        assert granted.run_id == "x"


@in_loop
async def test_a_lease_of_a_living_process_is_held(machine: Machine) -> None:
    async with machine.process("a") as one, machine.process("b") as two:
        await one.leases.acquire(LEASE)
        machine.clock.advance(TTL_US + GRACE_US - 1)
        for store in (one, two):
            with pytest.raises(LeaseHeld) as held:
                await store.leases.acquire(LEASE)
            assert held.value.expires_in_us == 1
            assert "process 1 on h" in held.value.message


@in_loop
async def test_a_lease_is_taken_over_after_its_expiry_and_the_grace(machine: Machine) -> None:
    async with machine.process("a") as one, machine.process("b") as two:
        old = await one.leases.acquire(LEASE)
        machine.clock.advance(TTL_US + GRACE_US)
        new = await two.leases.acquire(LEASE)
        assert new.token > old.token
        with pytest.raises(StaleFence):
            await write(one, old)
        await write(two, new)
        granted = (await everything(two, stream=lease_stream(LEASE)))[-1].event
        assert granted.taken_over == {"token": old.token, "reason": "expired"}  # type: ignore[union-attr]


@in_loop
async def test_a_lease_of_a_process_that_is_gone_is_taken_over_at_once(machine: Machine) -> None:
    async with machine.process("a") as one, machine.process("b") as two:
        old = await one.leases.acquire(LEASE)
        machine.dies(one)
        new = await two.leases.acquire(LEASE)
        with pytest.raises(StaleFence):
            await write(one, old)
        await write(two, new)
        granted = (await everything(two, stream=lease_stream(LEASE)))[-1].event
        assert granted.taken_over == {"token": old.token, "reason": "gone"}  # type: ignore[union-attr]


@in_loop
async def test_a_released_lease_is_free_at_once(machine: Machine) -> None:
    async with machine.process("a") as one, machine.process("b") as two:
        old = await one.leases.acquire(LEASE)
        await one.leases.release(old)
        assert old.lost
        assert await one.leases.rows() == []
        row = await two.leases.row(LEASE)
        assert row is not None
        assert (row.token, row.holder, row.request_id, row.granted_at, row.expires_at) == (
            None,
        ) * 5
        with pytest.raises(StaleFence):
            await write(one, old)
        new = await two.leases.acquire(LEASE)
        assert new.token > old.token
        await write(two, new)


@in_loop
async def test_to_release_what_is_lost_does_nothing(machine: Machine) -> None:
    async with machine.process("a") as one, machine.process("b") as two:
        old = await one.leases.acquire(LEASE)
        machine.dies(one)
        new = await two.leases.acquire(LEASE)
        await one.leases.release(old)
        await one.leases.release(old)
        await write(two, new)


@in_loop
async def test_of_two_who_claim_one_lease_one_gets_it(machine: Machine) -> None:
    async with machine.process("a") as one, machine.process("b") as two:
        gone = await one.leases.acquire(LEASE)
        machine.dies(one)
        claims = [await store.leases.claim(LEASE) for store in (two, two)]
        outcomes = await asyncio.gather(
            *[two.log.append(c.entry, expect=Expect(leases=[c.condition])) for c in claims],
            return_exceptions=True,
        )
        assert isinstance(outcomes[1], LeaseLost)
        held = two.leases.hold(claims[0], outcomes[0].first)  # type: ignore[union-attr]
        assert held.token > gone.token


@in_loop
async def test_a_claim_is_judged_when_it_is_appended(machine: Machine) -> None:
    """The clock may have been set back, or the lease renewed, since it was read."""
    async with machine.process("a") as one, machine.process("b") as two:
        await one.leases.acquire(LEASE)
        machine.clock.advance(TTL_US + GRACE_US)
        late = await two.leases.claim(LEASE)
        machine.clock.wall -= 1
        with pytest.raises(LeaseLost):
            await two.log.append(late.entry, expect=Expect(leases=[late.condition]))


@in_loop
async def test_tokens_grow_over_releases_takeovers_and_restarts(machine: Machine) -> None:
    tokens = []
    for n in range(6):
        async with machine.process(f"p{n}") as store:
            await store.log.append(step())
            held = await store.leases.acquire(LEASE)
            tokens.append(held.token)
            if n % 3 == 0:
                await store.leases.release(held)
                again = await store.leases.acquire(LEASE)
                tokens.append(again.token)
            machine.dies(store)
        if n % 2:
            machine.clock.wall -= 3_600_000_000
    assert tokens == sorted(set(tokens))


@in_loop
async def test_a_clock_that_is_set_back_takes_nothing_from_a_holder(machine: Machine) -> None:
    async with machine.process("a") as one, machine.process("b") as two:
        held = await one.leases.acquire(LEASE)
        machine.clock.wall -= 3_600_000_000
        assert held.is_held(machine.clock)
        await write(one, held)
        with pytest.raises(LeaseHeld):
            await two.leases.acquire(LEASE)


@in_loop
async def test_a_clock_that_is_set_forward_lets_nobody_write_under_an_old_token(
    machine: Machine,
) -> None:
    async with machine.process("a") as one, machine.process("b") as two:
        old = await one.leases.acquire(LEASE)
        machine.clock.wall += 3_600_000_000
        assert old.is_held(machine.clock)  # by the clock of the boot: it cannot know yet
        await write(one, old)
        new = await two.leases.acquire(LEASE)
        with pytest.raises(StaleFence):
            await write(one, old)
        await write(two, new)


# The deadline a holder keeps for itself.


@in_loop
async def test_a_holder_stops_by_its_own_clock_before_anybody_may_take_over(
    machine: Machine,
) -> None:
    async with machine.process("a") as one, machine.process("b") as two:
        held = await one.leases.acquire(LEASE)
        machine.clock.advance(TTL_US - MARGIN_US - 1)
        assert held.is_held(machine.clock)
        machine.clock.advance(1)
        assert not held.is_held(machine.clock)
        with pytest.raises(LeaseHeld):
            await two.leases.acquire(LEASE)


def test_the_deadline_counts_from_before_the_grant() -> None:
    clock, processes = ManualClock(), FakeProcesses()
    claimed = claim(None, LEASE, processes.current("a"), "q", clock, gone=False, ttl_us=5_000_000)
    assert claimed.deadline_us == clock.boot() + 5_000_000 - MARGIN_US
    assert claimed.condition == LeaseIs(LEASE, None)
    held = HeldLease(LEASE, FencingToken(1), claimed.deadline_us)
    assert held.is_held(clock)
    held.lost = True
    assert not held.is_held(clock)


# Renewals.


@in_loop
async def test_one_event_renews_all_leases_of_a_process(machine: Machine) -> None:
    names = [LeaseName(f"run/{n}") for n in range(3)]
    async with machine.process("a") as one, machine.process("b") as two:
        held = [await one.leases.acquire(name) for name in names]
        before = await one.log.head()
        machine.clock.advance(BEAT_US)
        await one.leases.renew()
        assert (await one.log.head()).position == before.position + 1
        rows = await two.leases.rows()
        assert [row.expires_at for row in rows] == [machine.clock.now() + TTL_US] * 3
        assert [row.token for row in rows] == [lease.token for lease in held]
        assert [row.granted_at for row in rows] == [machine.clock.now() - BEAT_US] * 3
        machine.clock.advance(TTL_US - MARGIN_US - 1)
        assert all(lease.is_held(machine.clock) for lease in held)
        with pytest.raises(LeaseHeld):
            await two.leases.acquire(names[0])


@in_loop
async def test_who_owns_nothing_renews_nothing(machine: Machine) -> None:
    async with machine.process("a") as store:
        held = await store.leases.acquire(LEASE)
        await store.leases.release(held)
        before = await store.log.head()
        await store.leases.renew()
        assert await store.log.head() == before


@in_loop
async def test_an_expired_lease_is_not_renewed(machine: Machine) -> None:
    async with machine.process("a") as one, machine.process("b") as two:
        old = await one.leases.acquire(LEASE)
        machine.clock.advance(TTL_US - 1)
        young = await one.leases.acquire(LeaseName("run/y"))
        machine.clock.advance(1)
        await one.leases.renew()
        assert old.lost
        assert not young.lost
        machine.clock.advance(GRACE_US)
        await two.leases.acquire(LEASE)


@in_loop
async def test_what_was_taken_over_is_lost_and_the_rest_is_renewed(machine: Machine) -> None:
    names = [LeaseName(f"run/{n}") for n in range(4)]
    async with machine.process("a") as one, machine.process("b") as two:
        held = [await one.leases.acquire(name) for name in names]
        machine.dies(one)
        await two.leases.acquire(names[1])
        await two.leases.acquire(names[2])
        machine.clock.advance(BEAT_US)
        await one.leases.renew()
        assert [lease.lost for lease in held] == [False, True, True, False]
        assert [lease.is_held(machine.clock) for lease in held] == [True, False, False, True]
        expiries = {row.name: row.expires_at for row in await two.leases.rows()}
        now = machine.clock.now()
        assert [expiries[name] for name in names] == [
            now + TTL_US, now - BEAT_US + TTL_US, now - BEAT_US + TTL_US, now + TTL_US
        ]  # fmt: skip


@in_loop
async def test_a_clock_set_back_does_not_shorten_a_lease(machine: Machine) -> None:
    async with machine.process("a") as store:
        await store.leases.acquire(LEASE)
        (before,) = await store.leases.rows()
        machine.clock.wall -= 3_600_000_000
        await store.leases.renew()
        (after,) = await store.leases.rows()
        assert after.expires_at == before.expires_at


@in_loop
async def test_a_lease_given_back_while_it_is_renewed_harms_no_other(machine: Machine) -> None:
    """The release rides in another append, which is judged before the renewal."""
    async with machine.process("a") as store:
        given = await store.leases.acquire(LEASE)
        kept = await store.leases.acquire(LeaseName("run/y"))
        machine.clock.advance(BEAT_US)
        released = await store.log.submit(release(given))
        renewing = asyncio.create_task(store.leases.renew())
        await asyncio.sleep(0)
        await released
        store.leases.forget(given)
        await renewing
        assert given.lost
        assert not kept.lost
        assert kept.deadline_us == machine.clock.boot() + TTL_US - MARGIN_US


@in_loop
async def test_a_lease_acquired_anew_while_the_old_one_is_renewed_is_kept(machine: Machine) -> None:
    async with machine.process("a") as store:
        old = await store.leases.acquire(LEASE)
        released = await store.log.submit(release(old))
        renewing = asyncio.create_task(store.leases.renew())
        await asyncio.sleep(0)
        await released
        store.leases.forget(old)
        claimed = store.leases.claim_new(LEASE)
        new = store.leases.hold(
            claimed,
            (
                await store.log.append(claimed.entry, expect=Expect(leases=[claimed.condition]))
            ).first,
        )
        await renewing
        await store.leases.renew()
        assert not new.lost
        await write(store, new)


@in_loop
async def test_leases_are_renewed_by_themselves(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_leases, "BEAT_US", 5_000)
    async with machine.process("a") as store:
        held = await store.leases.acquire(LEASE)
        for _ in range(3):
            machine.clock.advance(TTL_US - MARGIN_US - 1)
            deadline = held.deadline_us
            async with asyncio.timeout(5):
                while held.deadline_us == deadline:
                    await asyncio.sleep(0.002)
        await store.leases.release(held)
        await asyncio.sleep(0.02)
        head = await store.log.head()
        await asyncio.sleep(0.02)
        assert await store.log.head() == head
        again = await store.leases.acquire(LEASE)
        async with asyncio.timeout(5):
            while (await store.log.head()).position == int(again.token):
                await asyncio.sleep(0.002)


@in_loop
async def test_a_renewal_that_fails_is_tried_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_leases, "BEAT_US", 5_000)
    async with machine.process("a") as store:
        held = await store.leases.acquire(LEASE)
        failed: list[object] = []
        append = store.log.append

        async def fails_twice(*entries: object, **options: object) -> object:
            if len(failed) < 2:
                failed.append(entries)
                raise DiskFull(store.path)
            return await append(*entries, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(store.log, "append", fails_twice)
        deadline = held.deadline_us
        machine.clock.advance(1000)
        async with asyncio.timeout(5):
            while held.deadline_us == deadline:
                await asyncio.sleep(0.002)
        assert len(failed) == 2


@in_loop
async def test_a_closed_store_keeps_what_it_was_granted_until_it_expires(machine: Machine) -> None:
    async with machine.process("a") as one:
        await one.leases.acquire(LEASE)
    async with machine.process("b") as two:
        with pytest.raises(LeaseHeld):
            await two.leases.acquire(LEASE)
        machine.clock.advance(TTL_US + GRACE_US)
        await two.leases.acquire(LEASE)


# Riding along.


@in_loop
async def test_a_grant_and_a_release_can_ride_in_the_append_of_what_is_done(
    machine: Machine,
) -> None:
    async with machine.process("a") as store:
        claimed = store.leases.claim_new(LEASE, RunId("x"))
        done = await store.log.append(
            claimed.entry,
            step(LEASE, "one"),
            expect=Expect(leases=[claimed.condition], fence=Fence(LEASE, None)),
        )
        held = store.leases.hold(claimed, done.first)
        await store.log.append(
            step(LEASE, "two"),
            release(held),
            expect=Expect(fence=Fence(LEASE, held.token), leases=[LeaseIs(LEASE, held.token)]),
        )
        store.leases.forget(held)
        assert [r.fence_token for r in await everything(store, stream=StreamName(LEASE))] == [
            held.token
        ] * 2
        with pytest.raises(LeaseLost):
            claimed = store.leases.claim_new(LEASE)
            await store.leases.acquire(LEASE)
            await store.log.append(claimed.entry, expect=Expect(leases=[claimed.condition]))


def test_a_renewal_names_its_leases_and_their_conditions() -> None:
    held = [HeldLease(LeaseName(f"run/{n}"), FencingToken(n), 0) for n in (1, 2)]
    entry, conditions = renewal(held, ttl_us=7)
    assert entry.event.leases == [  # type: ignore[union-attr]
        {"lease": "run/1", "token": 1}, {"lease": "run/2", "token": 2}
    ]  # fmt: skip
    assert conditions == [
        LeaseIs(LeaseName("run/1"), FencingToken(1), unexpired=True),
        LeaseIs(LeaseName("run/2"), FencingToken(2), unexpired=True),
    ]


@in_loop
async def test_a_process_that_was_asleep_cannot_write_when_it_wakes(machine: Machine) -> None:
    """Its clock of the boot ran on meanwhile; whatever it does not know, the file does."""
    async with machine.process("a") as sleeper, machine.process("b") as other:
        old = await sleeper.leases.acquire(LEASE)
        machine.clock.advance(10 * TTL_US)
        new = await other.leases.acquire(LEASE)
        assert not old.is_held(machine.clock)
        for _ in range(2):
            with pytest.raises(StaleFence):
                await write(sleeper, old)
            with suppress(LeaseLost):
                await sleeper.leases.renew()
            await write(other, new)
        assert old.lost


@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=ascii)
@in_loop
async def test_a_name_that_no_lease_can_have_is_refused(machine: Machine, name: str) -> None:
    async with machine.process("a") as store:
        with pytest.raises(InvalidEvent):
            await store.leases.row(LeaseName(name))
