"""What a newer program has written stops whoever has to understand it, and nobody else."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore import Recorded, Store
from carstore.canonical import dumps
from carstore.errors import UnknownEvent
from carstore.events import KINDS, SCHEMA_VERSIONS
from carstore.sqlite.verify import verify_file
from projections import LAZY, compare, rebuild, rows
from tests.carstore.attack import insert, next_event
from tests.carstore.helpers import change, everything, in_loop, new_file, open_store, step, stock
from tests.carstore.values import JSON, NAME, TEXT

READ_BY_TRIGGERS = {
    "state_changed",
    "log_epoch_started",
    "blob_forgotten",
    "lease_granted",
    "lease_renewed",
    "lease_released",
}
"""Their fields are part of the schema, whatever version they are of."""

UNKNOWN = st.one_of(
    st.tuples(NAME.filter(lambda kind: kind not in KINDS), st.integers(0, 2**63 - 1)),
    st.sampled_from(sorted(set(KINDS) - READ_BY_TRIGGERS)).flatmap(
        lambda kind: st.tuples(st.just(kind), st.integers(SCHEMA_VERSIONS[kind] + 1, 2**63 - 1))
    ),
)
"""A kind that is not known, or a version of a known one that is not."""

DATA = st.dictionaries(TEXT, JSON, max_size=4).map(dumps)


def write_as_newer(path: Path, kind: str, version: int, data: str) -> int:
    """Append what a newer program might; returns its position."""
    connection = stock(path)
    try:
        event = next_event(
            connection, "log", kind=kind, schema_version=version, data=data, run_id="r"
        )
        insert(connection, event)
    finally:
        connection.close()
    return int(event["position"])


def check_plan(error: UnknownEvent, kind: str, version: int, position: int) -> None:
    """What the message has to say: what, where, and what to do now."""
    assert (error.kind, error.schema_version, error.position) == (kind, version, position)
    assert f"event {position} " in error.message
    assert f"{kind!r}" in error.message
    assert f"schema version {version}," in error.message
    assert "Read the file with the newer carstore" in error.message
    assert "nothing was changed" in error.message


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(UNKNOWN, DATA), min_size=1, max_size=3))
def test_appends_and_followers_go_on_after_what_they_do_not_know(
    unknown: list[tuple[tuple[str, int], str]],
) -> None:
    async def go(path: Path) -> None:
        async with open_store(path) as store, open_store(path, readonly=True) as reader:
            following = asyncio.create_task(follow(reader, 2 + 2 * len(unknown)))
            await store.log.append(step())
            for (kind, version), data in unknown:
                position = write_as_newer(path, kind, version, data)
                done = await store.log.append(step())
                assert done.first == position + 1
            seen = await asyncio.wait_for(following, 10)
            assert [one.position for one in seen] == list(range(1, 3 + 2 * len(unknown)))
            assert seen == await everything(store)
            for ((kind, version), data), recorded in zip(unknown, seen[2::2], strict=True):
                assert (recorded.kind, recorded.schema_version) == (kind, version)
                assert recorded.data == data
                with pytest.raises(UnknownEvent) as stopped:
                    _ = recorded.event
                check_plan(stopped.value, kind, version, recorded.position)

    with tempfile.TemporaryDirectory() as folder:
        path = new_file(Path(folder) / "log.db")
        asyncio.run(go(path))
        problems = verify_file(path).problems
        assert {one.code for one in problems} == {"unknown_event"}
        assert len(problems) == len(unknown)


async def follow(store: Store, count: int) -> list[Recorded]:
    seen: list[Recorded] = []
    async for recorded in store.log.follow():
        seen.append(recorded)
        if len(seen) == count:
            break
    return seen


@in_loop
async def test_a_view_stops_at_a_kind_it_does_not_know_and_goes_on_up_to_it(path: Path) -> None:
    async with open_store(path) as store:
        await store.log.append(change("k", 1))
        before = (await store.log.head()).position
        known = {view.name: await rows(store, view) for view in LAZY}
        position = write_as_newer(path, "wishes_granted", 7, "{}")
        await store.log.append(change("k", 2))
        for view in LAZY:
            for asked in (
                rows(store, view),
                rebuild(store, view),
                rows(store, view, at=position),
            ):
                with pytest.raises(UnknownEvent) as stopped:
                    await asked
                check_plan(stopped.value, "wishes_granted", 7, position)
            assert await rows(store, view, at=before) == known[view.name]
            assert await compare(store, view) == []
        assert (await store.log.append(step())).first == position + 2


@in_loop
async def test_a_view_passes_a_newer_shape_of_a_kind_that_it_does_not_read(path: Path) -> None:
    async with open_store(path) as store:
        write_as_newer(path, "action_logged", 2, '{"new":"shape"}')
        for view in LAZY:
            assert await rows(store, view) == {}
        newer = SCHEMA_VERSIONS["inference_metered"] + 1
        position = write_as_newer(path, "inference_metered", newer, '{"new":"shape"}')
        stops = [view.name for view in LAZY if "inference_metered" in view.reads]
        assert stops
        for view in LAZY:
            if view.name in stops:
                with pytest.raises(UnknownEvent) as stopped:
                    await rows(store, view)
                check_plan(stopped.value, "inference_metered", newer, position)
            else:
                assert await rows(store, view) == {}
