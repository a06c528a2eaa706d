"""What `carstore.log` promises, as tests that any implementation of the port can be put through."""

import asyncio
import hashlib
import json
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from carstore.canonical import MAX_BYTES
from carstore.chain import GENESIS
from carstore.clock import Clock, ManualClock
from carstore.errors import (
    CarstoreError,
    Closed,
    InvalidEvent,
    InvalidJson,
    LeaseLost,
    StaleFence,
    StateConflict,
    VersionConflict,
)
from carstore.events import (
    KINDS,
    ActionRejected,
    ActionValidated,
    LeaseGranted,
    LogEpochStarted,
    StateChanged,
    StateRollback,
)
from carstore.log import (
    MAX_APPEND_EVENTS,
    PAGE_EVENTS,
    Appended,
    Entry,
    Expect,
    Fence,
    Head,
    LeaseIs,
    Log,
    Recorded,
    StateRead,
)
from carstore.names import (
    FencingToken,
    LeaseName,
    Position,
    RunId,
    Scope,
    StateKey,
    StreamName,
    lease_stream,
)
from tests.carstore.helpers import (
    MAIN,
    TickingClock,
    change,
    grant,
    in_loop,
    key,
    renewal,
    step,
    ungrant,
)

LEASE = LeaseName("run/x")


def fence(token: int | None, lease: LeaseName = LEASE) -> Fence:
    return Fence(lease, None if token is None else FencingToken(token))


async def read_all(log: Log, **wanted: object) -> list[Recorded]:
    return [recorded async for recorded in log.read(**wanted)]  # type: ignore[arg-type]


async def granted(log: Log, lease: LeaseName = LEASE, ttl_us: int = 60_000_000) -> int:
    """Grant `lease`; returns its token."""
    return (await log.append(grant(lease, ttl_us))).first


class LogContract:
    """Subclass as `Test...`, with `opened`."""

    def opened(self, path: Path, clock: Clock) -> AbstractAsyncContextManager[Log]:
        """The log at `path`; each call is another user of it, as another process would be."""
        raise NotImplementedError

    # Appending.

    @in_loop
    async def test_positions_and_versions_count_without_gaps(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            start = (await log.head()).position
            first = await log.append(step("a"), step("b"), step("a"))
            second = await log.append(step("b"))
            assert (first.first, first.last) == (start + 1, start + 3)
            assert (second.first, second.last) == (start + 4, start + 4)
            recorded = await read_all(log, after=start)
            assert [r.position for r in recorded] == [start + n for n in (1, 2, 3, 4)]
            assert [(r.stream, r.version) for r in recorded] == [
                ("a", 1), ("b", 1), ("a", 2), ("b", 2)
            ]  # fmt: skip

    @in_loop
    async def test_what_is_read_is_what_was_appended(self, path: Path) -> None:
        clock = ManualClock(wall=1_234_567)
        async with self.opened(path, clock) as log:
            event = ActionRejected(action_id="a", error='"\\ \x00\x1f\x7fé😀')
            done = await log.append(Entry(StreamName("s"), event, RunId("r")))
            (recorded,) = await read_all(log, after=done.first - 1)
        assert recorded.event == event
        assert done.recorded_at == recorded.recorded_at == 1_234_567
        assert (recorded.kind, recorded.run_id) == ("action_rejected", "r")
        assert (recorded.scope, recorded.key) == (None, None)
        assert (recorded.fence, recorded.fence_token) == (None, None)

    @in_loop
    async def test_the_log_outlives_the_ones_who_use_it(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            await log.append(step("a"), change("k", [1]))
            before, head = await read_all(log), await log.head()
        async with self.opened(path, ManualClock()) as log:
            assert await read_all(log) == before
            assert await log.head() == head
            assert (await log.append(step("a"))).first == head.position + 1

    @in_loop
    async def test_each_event_is_hashed_together_with_the_one_before(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            token = await granted(log)
            await log.append(
                change("k", {"é": None}), step(LEASE), expect=Expect(fence=fence(token))
            )
            recorded, head = await read_all(log), await log.head()
        digest = GENESIS
        for r in recorded:
            assert r.prev_hash == digest
            covered = [
                digest, r.position, r.stream, r.version, r.kind, r.schema_version, r.recorded_at,
                r.run_id, r.scope, r.key, r.fence, r.fence_token, r.data,
            ]  # fmt: skip
            text = json.dumps(covered, separators=(",", ":"), ensure_ascii=False)
            digest = hashlib.sha256(text.encode()).hexdigest()
            assert r.hash == digest
        assert head == Head(recorded[-1].position, digest)

    @in_loop
    async def test_an_append_that_is_refused_leaves_nothing(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            before = await log.head()
            bad = Entry(StreamName("b"), ActionValidated(action_id=7))  # type: ignore[arg-type]
            with pytest.raises(InvalidEvent):
                await log.append(step("a"), bad)
            with pytest.raises(VersionConflict):
                await log.append(step("a"), step("b"), expect=Expect(versions={StreamName("b"): 1}))
            assert await log.head() == before
            assert await read_all(log, stream=StreamName("a")) == []

    @in_loop
    async def test_an_append_over_several_streams_is_seen_whole_or_not_at_all(
        self, path: Path
    ) -> None:
        async with (
            self.opened(path, ManualClock()) as log,
            self.opened(path, ManualClock()) as other,
        ):
            start = (await log.head()).position

            async def writes() -> None:
                for _ in range(30):
                    await log.append(*[step(f"s{n}") for n in range(7)])

            writing = asyncio.create_task(writes())
            sizes = set()
            while not writing.done():
                sizes.add(((await other.head()).position - start) % 7)
                sizes.add(len(await read_all(other, after=start)) % 7)
            await writing
        assert sizes == {0}

    @pytest.mark.parametrize("count", [0, MAX_APPEND_EVENTS + 1])
    @in_loop
    async def test_the_size_of_an_append_is_bounded(self, path: Path, count: int) -> None:
        async with self.opened(path, ManualClock()) as log:
            with pytest.raises(InvalidEvent, match=str(MAX_APPEND_EVENTS)):
                await log.append(*[step()] * count)

    # Conditions.

    @in_loop
    async def test_versions_are_compared(self, path: Path) -> None:
        stream = StreamName("a")
        async with self.opened(path, ManualClock()) as log:
            await log.append(step(stream), expect=Expect(versions={stream: 0}))
            await log.append(step("b"), expect=Expect(versions={stream: 1}))
            with pytest.raises(VersionConflict) as conflict:
                await log.append(step("b"), expect=Expect(versions={stream: 0}))
            assert (conflict.value.stream, conflict.value.expected, conflict.value.actual) == (
                "a", 0, 1
            )  # fmt: skip

    @in_loop
    async def test_state_keys_are_compared(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            never = Expect(unchanged=[(*key("k"), Position(0))])
            written = (await log.append(change("k", 1), expect=never)).first
            with pytest.raises(StateConflict) as conflict:
                await log.append(step(), expect=never)
            assert (conflict.value.read_at, conflict.value.now) == (0, written)
            then = Expect(unchanged=[(*key("k"), Position(written)), (*key("j"), Position(0))])
            await log.append(step(), expect=then)
            deleted = (await log.append(change("k", deleted=True))).first
            with pytest.raises(StateConflict):
                await log.append(step(), expect=then)
            await log.append(step(), expect=Expect(unchanged=[(*key("k"), Position(deleted))]))

    @in_loop
    async def test_scopes_keep_their_keys_apart(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            await log.append(change("k", 1, scope="other"))
            await log.append(step(), expect=Expect(unchanged=[(*key("k"), Position(0))]))

    @in_loop
    async def test_a_stream_needs_no_fence_before_its_lease_was_granted(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            await log.append(step(LEASE))
            with pytest.raises(StaleFence):
                await log.append(step(LEASE), expect=Expect(fence=fence(1)))

    @in_loop
    async def test_a_granted_lease_fences_its_stream(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            token = await granted(log)
            for wrong in (None, fence(token - 1), fence(token + 1), fence(token, LeaseName("y"))):
                with pytest.raises(StaleFence) as stale:
                    await log.append(step("free"), step(LEASE), expect=Expect(fence=wrong))
                assert stale.value.current == token
            done = await log.append(
                step(LEASE), step("free"), step(f"{LEASE}/inbox"), expect=Expect(fence=fence(token))
            )
            fenced, *free = await read_all(log, after=done.first - 1)
            assert (fenced.fence, fenced.fence_token) == (LEASE, token)
            assert {(r.fence, r.fence_token) for r in free} == {(None, None)}

    @in_loop
    async def test_a_later_grant_fences_the_earlier_one_off(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            old, new = await granted(log), await granted(log)
            with pytest.raises(StaleFence):
                await log.append(step(LEASE), expect=Expect(fence=fence(old)))
            await log.append(step(LEASE), expect=Expect(fence=fence(new)))

    @in_loop
    async def test_nobody_writes_to_the_stream_of_a_free_lease(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            token = await granted(log)
            await log.append(ungrant(LEASE, token))
            for any_fence in (None, fence(token), fence(token + 2)):
                with pytest.raises(StaleFence):
                    await log.append(step(LEASE), expect=Expect(fence=any_fence))

    @in_loop
    async def test_an_append_may_write_under_the_lease_it_grants(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            done = await log.append(grant(LEASE), step(LEASE), expect=Expect(fence=fence(None)))
            _, written = await read_all(log, after=done.first - 1)
            assert int(written.fence_token or 0) == done.first
            await log.append(
                step(LEASE),
                ungrant(LEASE, done.first),
                expect=Expect(fence=fence(done.first)),
            )

    @in_loop
    async def test_an_expired_lease_still_fences(self, path: Path) -> None:
        clock = ManualClock()
        async with self.opened(path, clock) as log:
            token = await granted(log, ttl_us=1000)
            clock.advance(10_000)
            await log.append(step(LEASE), expect=Expect(fence=fence(token)))
            with pytest.raises(StaleFence):
                await log.append(step(LEASE))

    @in_loop
    async def test_conditions_on_leases_compare_the_token(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            await log.append(step(), expect=Expect(leases=[LeaseIs(LEASE, None)]))
            token = await granted(log)
            for wrong in (None, token + 1):
                condition = LeaseIs(LEASE, None if wrong is None else FencingToken(wrong))
                with pytest.raises(LeaseLost):
                    await log.append(step(), expect=Expect(leases=[condition]))
            await log.append(step(), expect=Expect(leases=[LeaseIs(LEASE, FencingToken(token))]))
            await log.append(ungrant(LEASE, token))
            await log.append(step(), expect=Expect(leases=[LeaseIs(LEASE, None)]))

    @in_loop
    async def test_conditions_on_leases_compare_the_time(self, path: Path) -> None:
        clock = ManualClock()
        async with self.opened(path, clock) as log:
            token = FencingToken(await granted(log, ttl_us=1000))
            expired = Expect(leases=[LeaseIs(LEASE, token, expired_for_us=500)])
            unexpired = Expect(leases=[LeaseIs(LEASE, token, unexpired=True)])
            for passed_us, holds, fails in ((0, unexpired, expired), (999, unexpired, expired),
                                            (1, None, unexpired), (499, None, expired),
                                            (1, expired, unexpired)):  # fmt: skip
                clock.advance(passed_us)
                if holds is not None:
                    await log.append(step(), expect=holds)
                with pytest.raises(LeaseLost):
                    await log.append(step(), expect=fails)

    @in_loop
    async def test_a_renewal_never_shortens_a_lease(self, path: Path) -> None:
        clock = ManualClock()
        async with self.opened(path, clock) as log, self.opened(path, clock) as other:
            token = FencingToken(await granted(log, ttl_us=1000))
            named = [{"lease": LEASE, "token": token}]
            clock.wall -= 500
            await log.append(renewal(named, ttl_us=1000))
            clock.wall += 1499
            unexpired = Expect(leases=[LeaseIs(LEASE, token, unexpired=True)])
            for user in (log, other, log):
                await user.append(step(), expect=unexpired)
            clock.wall += 1
            for user in (log, other):
                with pytest.raises(LeaseLost):
                    await user.append(step(), expect=unexpired)
            await log.append(renewal(named, ttl_us=1000))  # nobody asked whether it had expired
            for user in (log, other):
                await user.append(step(), expect=unexpired)

    @pytest.mark.parametrize("together", ["one append", "one batch", "one by one"])
    @in_loop
    async def test_tokens_granted_in_a_new_epoch_are_larger_than_all_before(
        self, path: Path, together: str
    ) -> None:
        began = Entry(StreamName("log"), LogEpochStarted(log_id="x", epoch=1))
        async with self.opened(path, ManualClock()) as log:
            old = await granted(log, LeaseName("run/y"))
            if together == "one append":
                position = (await log.append(began, grant(LEASE))).last
            elif together == "one batch":
                await log.submit(began)
                position = (await (await log.submit(grant(LEASE)))).last
            else:
                await log.append(began)
                position = (await log.append(grant(LEASE))).last
            token = 2**40 + position
            assert token > old
            held = LeaseIs(LEASE, FencingToken(token))
            await log.append(step(LEASE), expect=Expect(fence=fence(token), leases=[held]))
            with pytest.raises(StaleFence):
                await log.append(step(LEASE), expect=Expect(fence=fence(position)))

    @pytest.mark.parametrize("epochs", [(0,), (-1,), (2, 2), (3, 1), (2**23,), (2**63 - 1,)])
    @in_loop
    async def test_an_epoch_that_is_not_larger_than_the_one_before_is_refused(
        self, path: Path, epochs: tuple[int, ...]
    ) -> None:
        began = [
            Entry(StreamName("log"), LogEpochStarted(log_id="x", epoch=epoch)) for epoch in epochs
        ]
        async with self.opened(path, ManualClock()) as log:
            before = await log.head()
            with pytest.raises(InvalidEvent, match=r"\$\.epoch"):
                await log.append(step(), *began)
            assert await log.head() == before
            await log.append(Entry(StreamName("log"), LogEpochStarted(log_id="x", epoch=5)))
            with pytest.raises(InvalidEvent, match=r"\$\.epoch"):
                await log.append(*began[:1])
            position = (await log.append(grant(LEASE))).last
            held = LeaseIs(LEASE, FencingToken(5 * 2**40 + position))
            await log.append(step(), expect=Expect(leases=[held]))

    @pytest.mark.parametrize("holder", [None, 5, 1.5, True, "me", [], [{}]])
    @in_loop
    async def test_a_holder_is_an_object(self, path: Path, holder: Any) -> None:
        event = LeaseGranted(lease=LEASE, holder=holder, ttl_us=1, request_id="q")
        async with self.opened(path, ManualClock()) as log:
            before = await log.head()
            with pytest.raises(InvalidEvent, match=r"\$\.holder.* is no object"):
                await log.append(step(), Entry(lease_stream(LEASE), event))
            assert await log.head() == before
            await log.append(step())

    # Several appends at once.

    @in_loop
    async def test_of_two_that_expect_the_same_version_the_first_wins(self, path: Path) -> None:
        expect = Expect(versions={StreamName("a"): 0})
        async with self.opened(path, ManualClock()) as log:
            first = await log.submit(step("a"), expect=expect)
            second = await log.submit(step("a"), expect=expect)
            assert isinstance(await first, Appended)
            with pytest.raises(VersionConflict):
                await second

    @in_loop
    async def test_an_append_sees_what_the_ones_before_it_leave(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            at = (await log.head()).position
            told = [
                await log.submit(change("k", 1)),
                await log.submit(
                    change("k", 2), expect=Expect(unchanged=[(*key("k"), Position(at + 1))])
                ),
                await log.submit(grant(LEASE), expect=Expect(leases=[LeaseIs(LEASE, None)])),
                await log.submit(grant(LEASE), expect=Expect(leases=[LeaseIs(LEASE, None)])),
                await log.submit(step(LEASE), expect=Expect(fence=fence(at + 3))),
                await log.submit(ungrant(LEASE, at + 3)),
                await log.submit(step(LEASE), expect=Expect(fence=fence(at + 3))),
            ]
            outcomes = await asyncio.gather(*told, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [
                Appended, Appended, Appended, LeaseLost, Appended, Appended, StaleFence
            ]  # fmt: skip
            assert [r.position for r in await read_all(log, after=at)] == [
                at + n for n in range(1, 6)
            ]

    @in_loop
    async def test_a_refused_append_fails_alone(self, path: Path) -> None:
        impossible = Expect(versions={StreamName("a"): 99})
        async with self.opened(path, ManualClock()) as log:
            start = (await log.head()).position
            futures = [
                await log.submit(
                    step("a", f"{n}"), change("k", n), expect=impossible if n % 3 == 1 else Expect()
                )
                for n in range(30)
            ]
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            assert [isinstance(o, VersionConflict) for o in outcomes] == [
                n % 3 == 1 for n in range(30)
            ]
            recorded = await read_all(log, after=start, kinds=["action_validated"])
            ids = [r.event.action_id for r in recorded if isinstance(r.event, ActionValidated)]
            assert ids == [f"{n}" for n in range(30) if n % 3 != 1]
            changes = [r.event for r in await read_all(log, state=key("k"))]
            prevs = [event.prev for event in changes if isinstance(event, StateChanged)]
            assert prevs == [None, *[start + 2 + 2 * n for n in range(19)]]

    @in_loop
    async def test_appends_happen_in_the_order_of_their_submission(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            futures = []
            for n in range(300):
                futures.append(await log.submit(step(f"s{n % 7}")))
                if n % 50 == 0:
                    await asyncio.sleep(0.001)
            positions = [(await future).first for future in futures]
        assert positions == list(range(positions[0], positions[0] + 300))

    @in_loop
    async def test_many_appends_share_a_transaction(self, path: Path) -> None:
        """The clock is read once for each transaction, so its readings count them."""
        async with self.opened(path, TickingClock()) as log:
            start = (await log.head()).position
            await asyncio.gather(*[log.append(step(f"s{n}")) for n in range(400)])
            times = [r.recorded_at for r in await read_all(log, after=start)]
        assert len(times) == 400
        assert len(set(times)) <= 10
        assert times == sorted(times)

    @in_loop
    async def test_an_append_has_one_time(self, path: Path) -> None:
        async with self.opened(path, TickingClock()) as log:
            done = await log.append(step("a"), step("b"), change("k"))
            assert {r.recorded_at for r in await read_all(log, after=done.first - 1)} == {
                done.recorded_at
            }

    @in_loop
    async def test_two_users_of_a_log_lose_nothing(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as one, self.opened(path, ManualClock()) as two:
            start = (await one.head()).position
            await asyncio.gather(
                *[(one, two)[n % 2].append(step("a"), change("k", n)) for n in range(100)]
            )
            assert (await two.head()).position == start + 200
            recorded = await read_all(two, stream=StreamName("a"))
            assert [r.version for r in recorded] == list(range(1, 101))

    # Cancelling and closing.

    @pytest.mark.parametrize("turns", range(6))
    @in_loop
    async def test_cancelling_the_caller_leaves_the_log_in_order(
        self, path: Path, turns: int
    ) -> None:
        async with self.opened(path, ManualClock()) as log:
            waiting = [asyncio.create_task(log.append(step("a"), step("b"))) for _ in range(8)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in waiting[::2]:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            done = await log.append(step("a"))
            recorded = await read_all(log)
            assert [r.position for r in recorded] == list(range(1, done.last + 1))
            assert len([r for r in recorded if r.stream == "a"]) == 1 + len(
                [r for r in recorded if r.stream == "b"]
            )

    @in_loop
    async def test_the_future_tells_what_became_of_an_append(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            future = await log.submit(step("a"))
            refused = await log.submit(step("a"), expect=Expect(versions={StreamName("a"): 9}))

            async def waits() -> Appended:
                return await asyncio.shield(future)

            task = asyncio.create_task(waits())
            await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            done = await future
            assert [r.position for r in await read_all(log, stream=StreamName("a"))] == [done.first]
            with pytest.raises(VersionConflict):
                await refused

    @in_loop
    async def test_closing_commits_what_was_submitted_and_then_refuses(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            start = (await log.head()).position
            futures = [await log.submit(step("a")) for _ in range(50)]
        assert [future.result().first for future in futures] == [start + n for n in range(1, 51)]
        with pytest.raises(Closed):
            await log.append(step("a"))
        with pytest.raises(Closed):
            await read_all(log)
        async with self.opened(path, ManualClock()) as log:
            assert (await log.head()).position == start + 50

    # Reading.

    @in_loop
    async def test_reads_of_more_than_a_page_are_complete(self, path: Path) -> None:
        count = 2 * PAGE_EVENTS + 7
        streams = ("run/r", "run/r/inbox", "lease/run/r", "other")
        async with self.opened(path, ManualClock()) as log:
            start = (await log.head()).position
            await log.append(
                *[step(streams[n % 4], f"{n}") for n in range(count)],
                *[change("k", n) for n in range(count)],
                *[step("single", f"{n}") for n in range(count)],
            )
            recorded = await read_all(log)
            assert [r.position for r in recorded] == list(range(1, start + 3 * count + 1))
            assert await read_all(log, kinds=["state_changed"]) == [
                r for r in recorded if r.kind == "state_changed"
            ]
            assert await read_all(log, run=RunId("r")) == [
                r for r in recorded if r.stream in streams[:3]
            ]
            assert await read_all(log, state=key("k")) == [r for r in recorded if r.key == "k"]
            single = await read_all(log, stream=StreamName("single"))
            assert single == [r for r in recorded if r.stream == "single"]
            pages = [page async for page in log.pages()]
            assert [r for page in pages for r in page] == recorded
            assert max(map(len, pages)) <= PAGE_EVENTS

    @in_loop
    async def test_reads_keep_to_their_range_and_kinds(self, path: Path) -> None:
        wants: list[dict[str, object]] = [
            {}, {"stream": StreamName("a")}, {"run": RunId("r")}, {"state": key("k")}
        ]  # fmt: skip
        async with self.opened(path, ManualClock()) as log:
            for n in range(5):
                await log.append(
                    step("a"), step("run/r"), change("k", n), change("j", n, stream="a")
                )
            for want in wants:
                whole = await read_all(log, **want)
                assert whole
                for after, until in ((0, 0), (3, 11), (7, None), (5, 5), (99, None), (9, 4)):
                    expected = [
                        r for r in whole if after < r.position <= (999 if until is None else until)
                    ]
                    assert await read_all(log, after=after, until=until, **want) == expected
                    for kinds in (["state_changed"], [], [*KINDS], ["no such kind"]):
                        assert await read_all(
                            log, after=after, until=until, kinds=kinds, **want
                        ) == [r for r in expected if r.kind in kinds]

    @in_loop
    async def test_state_is_known_as_of_every_position(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            start = (await log.head()).position
            moves = [
                ("a", 1),
                ("b", None),
                ("a", None),
                ("b", ...),
                ("c", [0]),
                ("a", ...),
                ("b", 2),
            ]
            model: dict[str, StateRead] = {}
            models = {start: dict(model)}
            for name, value in moves:
                exists = value is not ...
                done = await log.append(change(name, value if exists else None, deleted=not exists))
                kept = value if exists else None
                model[name] = StateRead(kept, exists, done.first, RunId("r"))
                models[done.first] = dict(model)
            never = StateRead(value=None, exists=False, position=Position(0))
            keys = [StateKey(name) for name in "abcd"]
            for at, expected in [*models.items(), (None, model)]:
                found = await log.state(MAIN, keys, at=at)
                assert found == {name: expected.get(name, never) for name in keys}
                existing = await log.state_of(MAIN, at=at)
                assert list(existing.items()) == [
                    (name, read) for name, read in sorted(expected.items()) if read.exists
                ]
            assert await log.state(MAIN, []) == {}

    @pytest.mark.parametrize(
        "name", ["", " ", "é", "😀\U0010ffff", '"', "\\", "\x01\x7f", "a'b", "%"]
    )
    @in_loop
    async def test_any_name_will_do_for_a_key_and_a_stream(self, path: Path, name: str) -> None:
        async with self.opened(path, ManualClock()) as log:
            await log.append(change(name, 1, stream=name))
            done = await log.append(change(name, 2, stream=name))
            found = await log.state(MAIN, [StateKey(name)])
            assert found[StateKey(name)].value == 2
            assert [r.version for r in await read_all(log, stream=StreamName(name))] == [1, 2]
            with pytest.raises(StateConflict):
                await log.append(step(), expect=Expect(unchanged=[(*key(name), Position(1))]))
            await log.append(step(), expect=Expect(unchanged=[(*key(name), done.first)]))

    @pytest.mark.parametrize("name", ["\ud800", "k\0b"], ids=ascii)
    @in_loop
    async def test_a_name_that_nothing_can_have_finds_nothing_or_is_refused(
        self, path: Path, name: str
    ) -> None:
        async with self.opened(path, ManualClock()) as log:
            await log.append(change("k", 1, stream="k", scope="k"), change("k", 1))
            with suppress(CarstoreError):
                found = await log.state(MAIN, [StateKey(name)])
                assert [(key, read.exists) for key, read in found.items()] == [(name, False)]
            with suppress(CarstoreError):
                assert await log.state_of(Scope(name)) == {}
            for scope, of, run in ((MAIN, name, "r"), (name, "k", "r"), (MAIN, "k", name)):
                with pytest.raises(InvalidEvent):
                    await log.trails(Scope(scope), [StateKey(of)], RunId(run))
            wants: list[dict[str, object]] = [
                {"stream": name}, {"run": name}, {"state": (MAIN, name)}, {"kinds": [name]}
            ]  # fmt: skip
            for want in wants:
                with suppress(CarstoreError):
                    assert await read_all(log, **want) == []
            await log.append(step())

    # Following.

    @in_loop
    async def test_a_follower_catches_up_and_then_sees_each_new_event(self, path: Path) -> None:
        async with (
            self.opened(path, ManualClock()) as log,
            self.opened(path, ManualClock()) as other,
        ):
            start = (await log.head()).position
            await log.append(*[step("a") for _ in range(PAGE_EVENTS + 3)])
            tail = start + PAGE_EVENTS + 3
            followers = [
                asyncio.create_task(_follow(reader, after, kinds, tail + 20, "action_validated"))
                for reader in (log, other)
                for after in (start, tail)
                for kinds in (None, ["action_validated"])
            ]
            for n in range(20):
                writer = (log, other)[n % 2]
                await writer.append(step("a") if n % 3 else change("k", n))
                await asyncio.sleep(0.001 * (n % 3))
            done = await log.append(step("a"))
            assert done.first == tail + 21
            recorded = await read_all(log)
            found = await asyncio.gather(*followers)
        for n, seen in enumerate(found):
            after, kinds = (start, tail)[n // 2 % 2], (None, ["action_validated"])[n % 2]
            assert seen == [
                r.position
                for r in recorded
                if r.position > after and (kinds is None or r.kind in kinds)
            ]

    @in_loop
    async def test_a_follower_is_told_when_the_log_is_closed(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            task = asyncio.create_task(_follow(log, 0, None, 10**9, ""))
            await asyncio.sleep(0.05)
        with pytest.raises(Closed):
            await task

    # Whatever is handed in, the log goes on.

    @pytest.mark.parametrize(
        "entry",
        [
            pytest.param(step("\ud800"), id="surrogate in a stream"),
            pytest.param(step("a\0b"), id="NUL in a stream"),
            pytest.param(step("a", run="\ud800"), id="surrogate in a run"),
            pytest.param(step("a", run="a\0b"), id="NUL in a run"),
            pytest.param(change("\ud800"), id="surrogate in a key"),
            pytest.param(change("a\0b"), id="NUL in a key"),
            pytest.param(change("k", scope="\ud800"), id="surrogate in a scope"),
            pytest.param(change("k", scope="a\0b"), id="NUL in a scope"),
            pytest.param(change("k", "\ud800"), id="surrogate in a value"),
            pytest.param(change("k", float("nan")), id="NaN"),
            pytest.param(change("k", 2**63), id="large integer"),
            pytest.param(change("k", {1: 2}), id="key that is no string"),
            pytest.param(change("k", object()), id="no JSON"),
            pytest.param(change("k", deleted=1), id="truth that is no bool"),  # type: ignore[arg-type]
            pytest.param(change("k", 7, deleted=True), id="deletion with a value"),
            pytest.param(grant("\ud800"), id="surrogate in a lease"),
            pytest.param(grant("a\0b"), id="NUL in a lease"),
            pytest.param(grant("x", ttl_us=2**63 - 1), id="lease for ever"),
            pytest.param(renewal("no list"), id="renewal of no list"),
            pytest.param(renewal([{}]), id="renewal of nothing"),
            pytest.param(renewal([{"lease": [], "token": 1}]), id="renewal of a list"),
            pytest.param(
                Entry(StreamName("s"), StateRollback(keys=(1,), conflicts=[])),  # type: ignore[arg-type]
                id="tuple of integers",
            ),
            pytest.param(
                Entry(StreamName("s"), ActionRejected(action_id="a", error="x" * (MAX_BYTES + 1))),
                id="large string",
            ),
        ],
    )
    @in_loop
    async def test_an_entry_that_cannot_be_kept_is_refused_and_the_log_goes_on(
        self, path: Path, entry: Entry
    ) -> None:
        async with self.opened(path, ManualClock()) as log:
            before = await log.head()
            for _ in range(2):
                with pytest.raises((InvalidEvent, InvalidJson)):
                    await asyncio.wait_for(log.append(entry), 1)
            assert await log.head() == before
            assert (await asyncio.wait_for(log.append(step()), 1)).first == before.position + 1

    @pytest.mark.parametrize(
        "entry",
        [
            Entry(StreamName("s"), "no event"),  # type: ignore[arg-type]
            Entry(StreamName("s"), ActionValidated(action_id="a"), 5),  # type: ignore[arg-type]
            Entry(5, ActionValidated(action_id="a")),  # type: ignore[arg-type]
        ],
    )
    @in_loop
    async def test_an_entry_of_other_types_is_a_mistake_of_the_program_and_the_log_goes_on(
        self, path: Path, entry: Entry
    ) -> None:
        async with self.opened(path, ManualClock()) as log:
            before = await log.head()
            with pytest.raises((CarstoreError, TypeError, AttributeError)):
                await asyncio.wait_for(log.append(entry), 1)
            assert (await asyncio.wait_for(log.append(step()), 1)).first == before.position + 1

    @pytest.mark.parametrize(
        "expect",
        [
            Expect(unchanged=[(*key("\ud800"), Position(0))]),
            Expect(unchanged=[(*key("a\0b"), Position(0))]),
            Expect(versions={StreamName("\ud800"): 0}),
            Expect(versions={StreamName("a\0b"): 0}),
            Expect(leases=[LeaseIs(LeaseName("\ud800"), None)]),
            Expect(leases=[LeaseIs(LeaseName("a\0b"), None)]),
            Expect(fence=fence(None, LeaseName("\ud800"))),
        ],
        ids=ascii,
    )
    @in_loop
    async def test_a_condition_that_makes_no_sense_does_not_stop_the_log(
        self, path: Path, expect: Expect
    ) -> None:
        async with self.opened(path, ManualClock()) as log:
            with suppress(CarstoreError):
                await asyncio.wait_for(log.append(step(), expect=expect), 1)
            await asyncio.wait_for(log.append(step()), 1)

    @in_loop
    async def test_a_fence_without_its_grant_is_stale(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            with pytest.raises(StaleFence):
                await log.append(step(LEASE), expect=Expect(fence=fence(None)))
            with pytest.raises(StaleFence):  # the grant comes too late
                await log.append(step(LEASE), grant(LEASE), expect=Expect(fence=fence(None)))

    @in_loop
    async def test_an_append_cannot_write_under_the_lease_it_gives_back(self, path: Path) -> None:
        async with self.opened(path, ManualClock()) as log:
            token = await granted(log)
            with pytest.raises(StaleFence):
                await log.append(
                    ungrant(LEASE, token), step(LEASE), expect=Expect(fence=fence(token))
                )


async def _follow(
    log: Log, after: int, kinds: list[str] | None, until: int, last_kind: str
) -> list[int]:
    """Positions up to the first event of `last_kind` past `until`."""
    found: list[int] = []
    async for recorded in log.follow(after=after, kinds=kinds):
        found.append(recorded.position)
        if recorded.position > until and recorded.kind == last_kind:
            break
    return found
