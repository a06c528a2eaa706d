"""The process that is killed: it finishes what it finds unfinished, and begins further runs.

Nothing in the engine knows of a kill. What this process adds is notes, each one `write` to a file
opened with O_APPEND, so that notes are whole and a kill takes none that was made:

* the journal: each tool does nothing but note its call, and what the file said at that moment of
  its intent and of its completion. So the note *is* the effect, and nobody can be in doubt of it
  but the engine;
* the acknowledgements: what was about to be appended, and what the log then acknowledged.
"""

import asyncio
import itertools
import json
import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field

from carstore import connect
from carstore.errors import CarstoreError
from carstore.names import RunId
from carstore.sqlite.database import Durability
from carstore.store import Store
from engine import Action, NoDoubt, Proposal, Runtime, Tool, ToolContext, resolve, tool
from engine.ir import ActionType, FailureBehavior, Reversibility
from engine.journal import load_run
from engine.prove.outside import SQL, connected
from engine.rules.retries import Backoff
from projections import DOUBTS, rows

ANYTHING: dict[str, Any] = {"type": "object"}
SHAPES = 3
"""Kinds of runs that `plan_of` makes, in turn."""


def note(path: Path, **what: Any) -> None:
    """Append one line with one write. A process that is killed during it may leave a part, which
    the line end before the next note keeps apart."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"\n{json.dumps(what)}\n".encode())
    finally:
        os.close(file)


def notes(path: Path) -> list[dict[str, Any]]:
    """The notes in a file, which may be written to meanwhile; what is there in part is none."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


@define
class Place:
    """The files of one campaign."""

    folder: Path
    _look: sqlite3.Connection | None = field(default=None, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    @property
    def database(self) -> Path:
        return self.folder / "agents.db"

    @property
    def journal(self) -> Path:
        return self.folder / "calls.jsonl"

    @property
    def acks(self) -> Path:
        return self.folder / "acks.jsonl"

    def look(self, statement: str, *parameters: Any) -> list[Any]:
        """Ask the file from outside, from any thread; `statement` is a name of `queries.sql`."""
        with self._lock:
            if self._look is None:
                self._look = connected(self.database)
            return self._look.execute(SQL[statement], parameters).fetchall()

    def close(self) -> None:
        if self._look is not None:
            self._look.close()
            self._look = None


# --- tools ---


def tools_of(place: Place) -> list[Tool]:
    """Each notes its call. `bad` fails, `flaky` fails once; `undo` undoes `once`."""

    def did(ctx: ToolContext, effect: str, *, undo: bool = False) -> None:
        history = place.look("action_history", f"run/{ctx.run_id}", ctx.action_id)
        family = "compensation" if undo else "action"
        note(
            place.journal,
            run=ctx.run_id,
            action=ctx.action_id,
            undo=undo,
            attempt=ctx.attempt,
            effect=effect,
            key=ctx.idempotency_key,
            intent=(f"{family}_executing", ctx.attempt) in history,
            completed=any(kind == f"{family}_succeeded" for kind, _ in history),
            pid=os.getpid(),
        )

    @tool(parameters=ANYTHING)
    async def undo(ctx: ToolContext, **_: Any) -> str:
        await asyncio.sleep(0.0005)
        did(ctx, "once", undo=True)
        return "undone"

    @tool(parameters=ANYTHING, compensation=undo)
    async def once(ctx: ToolContext, **_: Any) -> str:
        await asyncio.sleep(0.0005)
        did(ctx, "once")
        return ctx.action_id

    @tool(parameters=ANYTHING, idempotent=True)
    def again(ctx: ToolContext, **_: Any) -> str:
        did(ctx, "idempotent")
        return ctx.action_id

    @tool(parameters=ANYTHING, idempotent=True)
    async def flaky(ctx: ToolContext, **_: Any) -> str:
        did(ctx, "idempotent")
        if ctx.attempt == 1:
            raise ValueError("the first attempt fails")
        return ctx.action_id

    @tool(parameters=ANYTHING, read_only=True)
    async def bad(**_: Any) -> str:
        raise ValueError("this always fails")

    return [undo, once, again, flaky, bad]


# --- plans ---


def plan_of(n: int) -> Proposal:
    """Run number `n`: a chain, a chain that is rolled back, or calls side by side."""
    key = f"run {n}"
    begun = Action(
        id="begun", type=ActionType.STATE_WRITE, parameters={"key": key, "value": "begun"}
    )
    if n % SHAPES == 2:
        names = ["once", "again", "flaky", "once", "again"]
        beside = [
            Action(
                id=f"a{i}",
                tool=name,
                dependencies=["begun"],
                failure_behavior=FailureBehavior.RETRY,
                expected_effects={f"{key} a{i}": True},
            )
            for i, name in enumerate(names)
        ]
        return Proposal(id=f"p{n}", actions=[begun, *beside])
    rolls_back = n % SHAPES == 1
    names = ["once", "again", "once", "once"] + (["bad"] if rolls_back else ["again"])
    chain = [
        Action(
            id=f"a{i}",
            tool=name,
            parameters={"after": f"$a{i - 1}.output"} if i else {},
            dependencies=["begun"],
            expected_effects={key: i},
            idempotent=name == "again" and i > 1,
            reversibility=Reversibility.REVERSIBLE,
        )
        for i, name in enumerate(names)
    ]
    return Proposal(id=f"p{n}", actions=[begun, *chain])


def expected_of(n: int) -> tuple[str, dict[str, Any]]:
    """How run `n` ends, and the state it leaves, whatever was killed."""
    key = f"run {n}"
    if n % SHAPES == 0:
        return "succeeded", {key: 4}
    if n % SHAPES == 1:
        return "rolled_back", {}
    return "succeeded", {key: "begun", **{f"{key} a{i}": True for i in range(5)}}


# --- one life ---


def tell_acknowledgements(store: Store, place: Place) -> None:
    """Note what is about to be appended, and what was acknowledged."""
    append, numbers = store.log.append, itertools.count()

    async def told(*entries: Any, **kwargs: Any) -> Any:
        name = f"{os.getpid()}-{next(numbers)}"
        run = entries[0].run_id
        note(place.acks, asked=name, run=run, kinds=[entry.event.kind for entry in entries])
        try:
            done = await append(*entries, **kwargs)
        except CarstoreError:
            note(place.acks, refused=name)
            raise
        note(place.acks, told=name, first=done.first, last=done.last, events=len(entries))
        return done

    store.log.append = told  # type: ignore[method-assign]


async def answer(store: Store, place: Place) -> None:
    """Answer each doubt as a person does who looks at what really happened: after it was asked."""
    doubts = (await rows(store, DOUBTS)).values()
    really = {
        (one["run"], one["action"], one["undo"], one["attempt"]) for one in notes(place.journal)
    }
    for doubt in doubts:
        run = await load_run(store, RunId(doubt.run_id))
        state, undo = run.of(doubt.action_id), doubt.undo
        asked = (state.undo if undo else state.do).doubt
        if asked is None or asked.attempt != doubt.attempt:
            continue  # another process has answered
        happened = (doubt.run_id, doubt.action_id, undo, doubt.attempt) in really
        try:
            await resolve(
                store,
                run.run_id,
                doubt.action_id,
                "succeeded" if happened else "retry",
                output="undone" if undo else doubt.action_id,
            )
        except NoDoubt:
            continue  # another process has answered


async def live(place: Place, runs: int, durability: Durability = "crash") -> None:
    """Go on until `runs` runs are over."""
    async with connect(place.database, durability=durability, busy_timeout_ms=20_000) as store:
        tell_acknowledgements(store, place)
        made = Runtime(store, tools_of(place), backoff=Backoff(base_ms=1), schedule="eager")
        note(place.acks, pid=os.getpid(), phase="open")
        await made.recover()
        note(place.acks, pid=os.getpid(), phase="recovered")
        for n in range(runs):
            while True:
                await answer(store, place)
                try:
                    result = await made.execute(plan_of(n), run_id=f"r{n}")
                except CarstoreError as owned:
                    if owned.code != "run_owned":
                        raise
                    await asyncio.sleep(0.002)  # another process drives it
                    continue
                if result.status != "waiting":
                    break
        note(place.acks, pid=os.getpid(), phase="done")
    place.close()


def main(folder: str, runs: int) -> None:
    """The life of a child process."""
    asyncio.run(live(Place(Path(folder)), runs))
