"""Make the golden log of this program's schema, or record what views of this program say of one.

    python -m tests.golden.make tests/golden/schema_2.db
    python -m tests.golden.make --record tests/golden/schema_1.db

The first is done once, right before a schema is released; then the file never changes. Whoever
reads it later, with whatever program, has to find what the JSON beside it says. The second adds to
that JSON what views of a new version make of an old file, and changes nothing that is there.
"""

import argparse
import asyncio
import itertools
import random
import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from carstore import Appended, Entry, Expect, Store, connect, copies
from carstore.copies import export, import_, restore
from carstore.events import KINDS
from carstore.leases import GRACE_US, TTL_US
from carstore.names import RunId
from carstore.origin import Life
from carstore.redaction import Redaction
from carstore.sqlite.life import begin_life
from engine import Proposal, Runtime, resolve
from engine.approvals import approve
from engine.asking import Done
from engine.cancel import cancel
from engine.held import open_run
from engine.ledger import set_budget
from engine.rules.budget import Budget
from engine.rules.retries import Backoff
from engine.signals import signal
from projections import LAZY, rows
from tests.golden import record, workload
from tests.golden.workload import Crew, Ticking, World

MADE_AT = "2026-11-20 00:00:00+00:00"
"""What the file says of when its schema was made: not a word of where and when it really was."""


class Death(Exception):
    """Stands for the end of the process."""


def make(path: Path) -> None:
    """Write a golden log, closed cleanly. Nothing of this machine is in it."""
    if path.exists():
        raise SystemExit(f"{path} exists, and a golden log is never made again")
    chosen = random.Random(path.name)

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=chosen.getrandbits(128), version=4)

    with (
        mock.patch("uuid.uuid4", uuid4),
        mock.patch("os.urandom", chosen.randbytes),
    ):
        asyncio.run(_history(path))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE _sqlite_migrations SET applied_at = ?", (MADE_AT,))
    kinds = {kind for (kind,) in connection.execute("SELECT DISTINCT kind FROM events")}
    connection.execute("VACUUM")
    connection.close()
    if kinds != set(KINDS):
        raise SystemExit(f"the log lacks {sorted(set(KINDS) - kinds)}")


async def _history(path: Path) -> None:
    """A log that was begun, imported into another one, and restored from a backup of that."""
    with TemporaryDirectory() as folder:
        begun, imported = Path(folder) / "begun.db", Path(folder) / "imported.db"
        crew, clock = Crew(), Ticking()
        scene = partial(_as_process, crew, clock)
        await _begun(partial(scene, begun), crew, clock)
        lines = BytesIO()
        await export(begun, lines)
        lines.seek(0)
        life: dict[str, Any] = {"open_runs": open_run, "clock": clock, "processes": crew}
        await import_(lines, imported, **life)
        await scene(imported, _in_a_copy, run_id="imported")
        with mock.patch.object(copies, "begin_life", _begin_from_nowhere):
            await restore(imported, path, **life)
        await scene(path, _in_a_copy, run_id="restored")


def _begin_from_nowhere(connection: sqlite3.Connection, path: str, **how: Any) -> Life:
    """The beginning of a copy that does not say in which folder it was made."""
    assert how["origin_path"]
    return begin_life(connection, path, **{**how, "origin_path": "/backups/größer.db"})


Scene = Callable[..., Awaitable[None]]


async def _as_process(crew: Crew, clock: Ticking, path: Path, act: Scene, **more: Any) -> None:
    """What happens in one process, which opens the file and closes it."""
    async with connect(
        path,
        durability="crash",
        instance="golden",
        redaction=Redaction(names=("*geheim*",), inline_bytes=200),
        clock=clock,
        processes=crew,
    ) as store:
        world = World(store)
        await act(store, world, Runtime(store, world.tools(), backoff=Backoff(base_ms=0)), **more)


async def _begun(scene: Scene, crew: Crew, clock: Ticking) -> None:
    await scene(_ordinary)
    await scene(_doubtful)
    await scene(_dying, run_id="gone", proposal=workload.STEPS)
    crew.all_die()
    await scene(_resuming, run_id="gone")
    await scene(_dying, run_id="expired", proposal=workload.STEPS)
    clock.advance(TTL_US + GRACE_US)
    await scene(_resuming, run_id="expired")
    await scene(_dying, run_id="orphaned", proposal=workload.STEPS)
    await scene(_dying, run_id="unknown", proposal=workload.LETTER)
    await scene(_beside)
    await scene(_ruled)
    await scene(partial(_waiting, clock))
    await scene(_priced)
    await scene(_proposed)


async def _ordinary(store: Store, _: World, runtime: Runtime) -> None:
    await runtime.execute(workload.MIXED, run_id="mixed")
    for run_id in ("first", "again"):
        await runtime.execute(workload.REUSED, run_id=run_id)
    await runtime.execute(workload.SKIPPED, run_id="skipped")
    await _store_views(store)
    await runtime.execute(workload.UNDONE, run_id="undone")
    await runtime.execute(workload.HALF_UNDONE, run_id="half-undone")
    eager = Runtime(store, runtime.tools, schedule="eager", concurrency=1, scope="eigener Bereich")
    await eager.execute(workload.MIXED, run_id="eager")


async def _store_views(store: Store) -> None:
    """So that later programs also find stored rows, of the middle of the log."""
    for view in LAZY:
        await rows(store, view)


async def _doubtful(store: Store, world: World, runtime: Runtime) -> None:
    await runtime.execute(workload.LETTER, run_id="answered")
    answer = {"sent": "von Hand"}
    await resolve(store, RunId("answered"), "send", "succeeded", output=answer, by="Zoë")
    await runtime.resume("answered")
    lenient = Runtime(store, runtime.tools, on_doubt="fail")
    await lenient.execute(workload.LETTER, run_id="given-up")
    await runtime.execute(workload.LETTER, run_id="asked")
    await runtime.execute(workload.UNDONE_BY_LETTER, run_id="asked-undo")
    for run_id in ("stopped", "cut-off"):
        await _interrupt(world, runtime, run_id)
    await _resuming(store, world, runtime, run_id="stopped")


async def _interrupt(world: World, runtime: Runtime, run_id: str) -> None:
    world.reached.clear()
    task = asyncio.create_task(runtime.execute(workload.STEPS, run_id=run_id))
    await world.reached.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _dying(
    store: Store, world: World, runtime: Runtime, *, run_id: str, proposal: Proposal
) -> None:
    """Begin a run in a process that dies before it can record what came of its first call."""
    world.vanishing = False
    append, appends = store.log.append, itertools.count()

    async def append_once(*entries: Entry, expect: Expect) -> Appended:
        if next(appends) > 0:
            raise Death
        return await append(*entries, expect=expect)

    with mock.patch.object(store.log, "append", append_once), suppress(Death):
        await runtime.execute(proposal, run_id=run_id)


async def _resuming(store: Store, world: World, runtime: Runtime, *, run_id: str) -> None:
    world.vanishing = False
    await runtime.resume(run_id)


async def _beside(store: Store, _: World, runtime: Runtime) -> None:
    """Values beside the log: one is forgotten, one is sensitive and stays, one is only large."""
    await runtime.execute(workload.SECRETS, run_id="secrets")
    for blob in await store.blobs.infos():
        if (await store.blobs.read([blob.hash]))[blob.hash] == workload.FORGOTTEN:
            await store.blobs.forget(blob.hash, reason="Vergessenwerden — 忘れて", by="Zoë")


async def _ruled(store: Store, _: World, runtime: Runtime) -> None:
    """A call that is forbidden, and one to which somebody consents."""
    ruled = Runtime(store, runtime.tools, policies=workload.RULES)
    await ruled.execute(workload.RULED, run_id="ruled")
    await _store_views(store)
    await approve(store, RunId("ruled"), "pay", by="Zoë", reason="ja — はい")
    await ruled.resume("ruled")
    for policy in workload.RULES:
        await ruled.remove_policy(policy.name, by="Zoë")


async def _waiting(clock: Ticking, store: Store, _: World, runtime: Runtime) -> None:
    """A time that comes, a signal that is sent, and a wait that is called off."""
    await runtime.execute(workload.WAITING, run_id="waiting")
    clock.advance(2_000_000)
    await runtime.resume("waiting")
    await signal(store, RunId("waiting"), "wort", {"wort": "Uhu — ふくろう"}, by="Zoë")
    await runtime.resume("waiting")
    await runtime.execute(workload.ENDLESS, run_id="called-off")
    await cancel(store, RunId("called-off"), by="Zoë", reason="genug — 十分", compensate=True)
    await runtime.resume("called-off")


async def _priced(store: Store, _: World, runtime: Runtime) -> None:
    """A budget that others draw on, and a run that ends when its own is exhausted."""
    await set_budget(store, "haushalt", {"EUR": "5.00", "USD": None}, by="Zoë")
    shared = Budget(costs={"EUR": "0.80"}, parent="haushalt")
    await runtime.execute(workload.PRICED, run_id="priced", budget=shared)
    await runtime.execute(workload.PRICED, run_id="exhausted", budget=Budget(costs={"EUR": "0.10"}))


async def _proposed(store: Store, _: World, runtime: Runtime) -> None:
    """Proposals that were asked for: in the place of an aborted one, and to reach a goal."""
    answers = iter([workload.REPLACEMENT, None])
    again = Runtime(store, runtime.tools, replan=lambda _: next(answers))
    for run_id in ("replaced", "declined"):
        await again.execute(workload.UNDONE, run_id=run_id)
    steps = iter([workload.REUSED, Done(answer={"ziel": "erreicht — 達成"})])
    await runtime.pursue("ein Ziel — 目標", lambda _: next(steps), pursuit="ziel", max_steps=3)


async def _in_a_copy(store: Store, world: World, runtime: Runtime, *, run_id: str) -> None:
    """One of the runs that the copy holds goes on, and a new one is begun."""
    world.vanishing = False
    held = {"imported": "cut-off", "restored": "orphaned"}[run_id]
    await runtime.resume(held, accept_copy=True, by="Zoë")
    await _store_views(store)
    await runtime.execute(workload.MIXED, run_id=run_id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="only add to the JSON of a file")
    parser.add_argument("path", type=Path)
    given = parser.parse_args()
    if not given.record:
        make(given.path)
    record.add(given.path)
