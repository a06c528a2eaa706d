"""A history with something for an auditor, and what the queries for audits say of it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from attrs import define

from carstore import Entry, Expect, connect
from carstore import events as e
from carstore.clock import ManualClock
from carstore.events import Event
from carstore.holders import Holder
from carstore.log import Fence
from carstore.names import RunId, StreamName, inbox_stream, run_lease, run_stream
from carstore.redaction import Redaction
from projections.search_index import catch_up_search
from tests.carstore.helpers import FakeProcesses, everything
from tests.projections.plausible import (
    changed,
    completed,
    executing,
    failed,
    in_doubt,
    metered,
    received,
    resolved,
    succeeded,
)

R1 = RunId("r1")
RUN = run_stream(R1)
NOON = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()) * 1_000_000
SECOND = 1_000_000
LONG = "long " * 40


@define
class OneWorker(FakeProcesses):
    """Whoever asks is this process."""

    def current(self, instance: str) -> Holder:
        return attrs.evolve(super().current(instance), host="worker-1", pid=4711)


async def history(path: Path) -> None:
    """From two seconds before noon to the day after."""
    clock = ManualClock(wall=NOON - 2 * SECOND)
    options: dict[str, Any] = {
        "clock": clock,
        "processes": OneWorker(),
        "redaction": Redaction(inline_bytes=100),
        "durability": "crash",
    }
    async with connect(path, instance="night shift", **options) as store:
        held = await store.leases.acquire(run_lease(R1), R1)  # 2

        async def in_run(*events: Event, stream: StreamName = RUN) -> None:
            fence = Fence(held.name, held.token) if stream == RUN else None
            entries = [Entry(stream, event, R1) for event in events]
            await store.log.append(*entries, expect=Expect(fence=fence))

        await in_run(
            received("a1", "a2", {"id": "a3", "tool": "other"}, source="critic"),  # 3
            executing("a1"),
            succeeded("a1"),  # 5
            changed("report", "first"),
            metered("planner", tokens_in=7, cost_micros=5),
            e.ActionValidated(action_id="a3"),
        )
        clock.wall = NOON - SECOND
        await in_run(executing("a2"), in_doubt("a2"))  # 9, 10
        answer = attrs.evolve(resolved("retry", "a2"), by="ann")
        await in_run(answer, stream=inbox_stream(R1))  # 11
        clock.wall = NOON + 2 * SECOND
        await in_run(
            e.ActionValidated(action_id="a2"),  # 12
            failed("a2", attempt=2),
            e.CompensationExecuting(  # 14
                action_id="a1",
                attempt=1,
                tool="fetch",
                effect="idempotent",
                parameters_digest="1" * 64,
            ),
            changed("report", LONG),  # 15
        )
        clock.wall -= SECOND // 2
        await in_run(metered("critic", tokens_out=2, cost_micros=4))  # 16
        clock.wall = NOON + 86_400 * SECOND
        await in_run(metered("planner", tokens_in=1, cost_micros=6))  # 17
        await in_run(attrs.evolve(completed("failed"), tool_calls=3))
        await store.leases.release(held, R1)  # 19
        notes = StreamName("notes")
        await store.log.append(Entry(notes, changed("report", f"second {LONG}")))  # 20
        await store.log.append(Entry(notes, changed("note", 1)))
        for blob in await store.blobs.infos():
            if blob.bytes > len(LONG) + 2:
                await store.blobs.forget(blob.hash, reason="asked to", by="bob")  # 22
        await store.log.append(Entry(notes, changed("gone", "a second")))  # 23
        await catch_up_search(store)


async def hashes(path: Path) -> list[str]:
    """Of the two values that lie beside the log."""
    async with connect(path, readonly=True) as store:
        found = [recorded.event for recorded in await everything(store)]
    values = [event.value for event in found if isinstance(event, e.StateChanged)]
    return [value["$blob"] for value in values if isinstance(value, dict)]


def stamp(micros: int) -> str:
    time = datetime.fromtimestamp(micros / 1_000_000, tz=UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


BEGIN, BEFORE, AFTER = NOON - 2 * SECOND, NOON - SECOND, NOON + 2 * SECOND
NEXT_DAY = NOON + 86_400 * SECOND
_LEASE = ("r1", "run/r1", 2, "night shift", "worker-1", 4711)
_NO_LEASE = (None,) * 6
_DIED = "the process died"

AUDITS: list[tuple[str, list[tuple[Any, ...]]]] = [
    (
        "Who changed what, when, and under which lease",
        [
            (6, stamp(BEGIN), "main", "report", "first", *_LEASE),
            (15, stamp(AFTER), "main", "report", "{blob 0}", *_LEASE),
            (20, stamp(NEXT_DAY), "main", "report", "{blob 1}", *_NO_LEASE),
            (21, stamp(NEXT_DAY), "main", "note", 1, *_NO_LEASE),
            (23, stamp(NEXT_DAY), "main", "gone", "a second", *_NO_LEASE),
        ],
    ),
    (
        "All calls of a tool",
        [
            (4, stamp(BEGIN), "r1", "a1", 0, 1, "0" * 64, "succeeded", None, 500),
            (9, stamp(BEFORE), "r1", "a2", 0, 1, "0" * 64, "in doubt", _DIED, None),
            (12, stamp(AFTER), "r1", "a2", 0, 2, None, "failed", "no", 700),
            (14, stamp(AFTER), "r1", "a1", 1, 1, "1" * 64, None, None, None),
        ],
    ),
    (
        "Cost by agent and day",
        [
            ("2026-01-31", "critic", 1, 0, 2, 4),
            ("2026-01-31", "planner", 1, 7, 0, 5),
            ("2026-02-01", "planner", 1, 1, 0, 6),
        ],
    ),
    ("Runs by duration", [("r1", "critic", "failed", NEXT_DAY - BEGIN, 500, 3)]),
    (
        "Everything one process did",
        [(n,) for n in (*range(2, 11), *range(12, 20))],
    ),
    (
        "What was in doubt, and who answered",
        [
            (10, stamp(BEFORE), "r1", "a2", 1, 0, "fetch", _DIED, stamp(BEFORE), "retry", "ann"),
        ],
    ),
    ("The state as of a time", [("main", "report", "text", "first", 6)]),
    (
        "Events recorded out of clock order",
        [(16, "inference_metered", AFTER - SECOND // 2, SECOND // 2)],
    ),
    (
        "A value that lies beside the log",
        [(15, "{hash 0}", f'"{LONG}"', 0), (20, "{hash 1}", None, 1)],
    ),
    (
        "Values that were forgotten, by whom and why",
        [(stamp(NEXT_DAY), "{hash 1}", "bob", "asked to")],
    ),
    ("Where this log comes from", [(1, 0, "created", None, None)]),
    ("Events with some words in them", [(23,)]),
]
"""By the heading of the query: the rows, or the columns of them that are told here."""

COLUMNS = {
    "Everything one process did": (0,),
    "Where this log comes from": (0, 2, 3, 5, 6),
    "Events with some words in them": (0,),
}
"""Which columns are compared, where it is not all."""
