"""The views that the file keeps, and their twins that are folded."""

from pathlib import Path

import pytest

from carstore import Entry, Store
from carstore.clock import ManualClock
from carstore.events import LeaseGranted, LeaseReleased, LeaseRenewed
from carstore.names import LeaseName, StreamName, lease_stream
from projections import compare, fold, rebuild, rows, select
from projections.catalog import INLINE
from projections.errors import InvalidView
from projections.leases import LEASES
from projections.materialize import row
from projections.streams import STREAMS, StreamHead
from tests.carstore.helpers import in_loop, open_store
from tests.projections.plausible import all_of, append, changed, received

HOUR_US = 3_600_000_000


async def grant(store: Store, lease: str, ttl_us: int = HOUR_US) -> int:
    event = LeaseGranted(lease=lease, holder={"pid": 7}, ttl_us=ttl_us, request_id="q")
    return (await store.log.append(Entry(lease_stream(LeaseName(lease)), event))).last


async def renew(store: Store, *leases: tuple[str, int], ttl_us: int = HOUR_US) -> int:
    items = [{"lease": lease, "token": token} for lease, token in leases]
    event = LeaseRenewed(leases=items, ttl_us=ttl_us)
    return (await store.log.append(Entry(StreamName("lease/renewals"), event))).last


async def release(store: Store, lease: str, token: int) -> int:
    event = LeaseReleased(lease=lease, token=token)
    return (await store.log.append(Entry(lease_stream(LeaseName(lease)), event))).last


@in_loop
async def test_heads_of_streams_now_and_then(path: Path) -> None:
    async with open_store(path) as store:
        first = await append(store, received("a1"), changed("k", 1))
        last = await append(store, changed("k", 2))
        now = await rows(store, STREAMS)
        assert now[("run/r1",)] == StreamHead(
            name="run/r1", lease="run/r1", version=3, position=last
        )
        assert list(now) == sorted(now)
        then = await rows(store, STREAMS, at=first)
        assert then[("run/r1",)].version == 2
        assert await rows(store, STREAMS, at=0) == {}
        assert await row(store, STREAMS, ("run/r1",)) == now[("run/r1",)]
        assert await row(store, STREAMS, ("run/r2",)) is None
        assert [head.name for head in await select(store, STREAMS, lease="run/r1")] == ["run/r1"]


@in_loop
async def test_a_lease_is_granted_renewed_released_and_granted_again(path: Path) -> None:
    clock = ManualClock()
    async with open_store(path, clock=clock) as store:
        token = await grant(store, "agent/x")
        assert (await rows(store, LEASES))[("agent/x",)].granted_position == token
        clock.advance(5)
        renewed = await renew(store, ("agent/x", token), ("agent/x", token), ("agent/y", 3))
        held = (await rows(store, LEASES))[("agent/x",)]
        assert (held.position, held.expires_at) == (renewed, clock.wall + HOUR_US)
        await release(store, "agent/x", token + 1)
        assert (await rows(store, LEASES))[("agent/x",)].granted_position == token
        await release(store, "agent/x", token)
        assert (await rows(store, LEASES))[("agent/x",)].holder is None
        again = await grant(store, "agent/x")
        assert (await rows(store, LEASES))[("agent/x",)].granted_position == again
        assert await rows(store, LEASES) == fold(LEASES, await all_of(store))
        for position in range(again + 1):
            prefix = (await all_of(store))[:position]
            assert await rows(store, LEASES, at=position) == fold(LEASES, prefix)


@in_loop
async def test_a_shorter_renewal_takes_nothing_away(path: Path) -> None:
    async with open_store(path) as store:
        token = await grant(store, "agent/x")
        before = (await rows(store, LEASES))[("agent/x",)].expires_at
        await renew(store, ("agent/x", token), ttl_us=1)
        assert (await rows(store, LEASES))[("agent/x",)].expires_at == before
        assert await compare(store, LEASES) == []


@pytest.mark.parametrize("view", INLINE, ids=lambda view: view.name)
@in_loop
async def test_they_are_never_rebuilt(path: Path, view: object) -> None:
    async with open_store(path) as store:
        with pytest.raises(InvalidView, match="the triggers of the file keep it"):
            await rebuild(store, view)  # type: ignore[arg-type]
