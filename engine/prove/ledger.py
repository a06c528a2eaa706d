"""What a killed process must not have broken, read from the files by somebody who was not there.

The log is read with SQLite alone. What a promise was broken by is a sentence; an empty list is what
everybody hopes for.
"""

import itertools
import json
import sqlite3
from collections import Counter
from typing import Any

from attrs import define, field

from carstore import connect
from carstore.names import MAIN_SCOPE
from carstore.sqlite.verify import verify
from engine.prove.aftermath import view_faults
from engine.prove.outside import SQL, is_made, looking
from engine.prove.workload import Place, expected_of, notes

_MAX_UNTOLD = 4
"""Appends of one run that can be under way when two processes die: a driver's, a person's each."""


@define
class Ledger:
    """What was checked of a campaign's files so far, and what was found."""

    place: Place
    looks_at_effects: bool = True
    """Whether a call that must not be repeated can be made once only: no tool that is called so
    fails, and every doubt is answered by what really happened."""
    head: int = 0
    hash: str = ""
    lines: int = 0
    calls: int = 0
    acknowledged: int = 0
    broken: list[str] = field(factory=list)
    counts: Counter[str] = field(factory=Counter)

    def fail(self, promise: str, text: str) -> None:
        self.counts[promise] += 1
        self.broken.append(f"{promise}: {text}")

    # --- after each kill ---

    def check(self) -> None:
        """Everything that can be said while all processes are dead."""
        if not self.place.database.exists():
            return
        with looking(self.place.database) as log:
            if is_made(log):
                self._check_order(log)
                self._check_acknowledged(log)
        self._check_calls()

    def _check_order(self, log: sqlite3.Connection) -> None:
        count, last = log.execute(SQL["extent"]).fetchone()
        if count != last:
            self.fail("gap", f"{count} events up to position {last}")
        before = log.execute(SQL["hash_at"], (self.head,)).fetchone()
        if self.head and before != (self.hash,):
            self.fail("lost", f"event {self.head} was there before the kill and is not the same")
        after = log.execute(SQL["links_from"], (self.head,)).fetchall()
        for (_, _, digest), (position, prev, _) in itertools.pairwise(after):
            if prev != digest:
                self.fail("gap", f"event {position} does not continue the one before")

    def _check_acknowledged(self, log: sqlite3.Connection) -> None:
        told = notes(self.place.acks)[self.lines :]
        self.lines += len(told)
        asked = {one["asked"]: one for one in told if "asked" in one}
        rows = log.execute(SQL["kinds_after"], (self.head,)).fetchall()
        kinds = {position: kind for position, _, kind in rows}
        runs = {position: run for position, run, _ in rows}
        for one in told:
            if "refused" in one:
                asked.pop(one["refused"], None)
            if "told" not in one:
                continue
            wanted = asked.pop(one["told"])["kinds"]
            self.acknowledged += one["events"]
            found = [kinds.pop(at, None) for at in range(one["first"], one["last"] + 1)]
            if found != wanted:
                self.fail("lost", f"acknowledged {wanted} at {one['first']}, but there is {found}")
        left: dict[Any, list[str]] = {}
        for position, kind in kinds.items():
            left.setdefault(runs[position], []).append(kind)
        for run, tail in left.items():
            if run is not None:
                self._check_whole(
                    run, tail, [o["kinds"] for o in asked.values() if o["run"] == run]
                )
        self.head, self.hash = log.execute(SQL["newest"]).fetchone() or (0, "")

    def _check_whole(self, run: str, tail: list[str], untold: list[list[str]]) -> None:
        """What was not acknowledged is there as a whole, or not at all."""
        for count in range(min(len(untold), _MAX_UNTOLD) + 1):
            for chosen in itertools.permutations(untold, count):
                if list(itertools.chain(*chosen)) == tail:
                    return
        self.fail("partial", f"of {untold} for {run} the log holds {tail}")

    def _check_calls(self) -> None:
        calls = notes(self.place.journal)
        for one in calls[self.calls :]:
            who = f"{one['action']} of {one['run']}{' (undo)' if one['undo'] else ''}"
            if one["completed"]:
                self.fail("repeated", f"{who} was called after its completion was recorded")
            if one["effect"] == "once" and not one["intent"]:
                self.fail("no intent", f"{who} was called without a durable intent")
        self.calls = len(calls)
        if self.looks_at_effects:
            self._check_effects(calls)

    def _check_effects(self, calls: list[dict[str, Any]]) -> None:
        once = Counter(
            (one["run"], one["action"], one["undo"]) for one in calls if one["effect"] == "once"
        )
        for (run, action, undo), count in once.items():
            if count > 1:
                text = f"{action} of {run}{' (undo)' if undo else ''} was carried out {count} times"
                if text not in str(self.broken):
                    self.fail("repeated", text)

    # --- at the end ---

    async def check_end(self, runs: int) -> None:
        """Every run has ended as it had to, once, and the file and its views are sound."""
        async with connect(self.place.database, durability="crash") as store:
            found = await verify(store)
            for problem in found.problems:
                self.fail("chain", problem.message)
            for fault in await view_faults(store):
                self.fail("views", fault)
            state = {k: v.value for k, v in (await store.log.state_of(MAIN_SCOPE)).items()}
            wanted: dict[str, Any] = {}
            events = [one async for one in store.log.read()]
        for n in range(runs):
            status, left = expected_of(n)
            wanted |= left
            self._check_run(f"r{n}", status, [one for one in events if one.run_id == f"r{n}"])
        if state != wanted:
            self.fail("outcome", f"the state is {state}, not {wanted}")

    def _check_run(self, run: str, status: str, history: list[Any]) -> None:
        ends = [one for one in history if one.kind == "proposal_completed"]
        if [json.loads(one.data)["status"] for one in ends] != [status]:
            self.fail("outcome", f"{run} ended {[one.data for one in ends]}, not once as {status}")
        undone = [
            json.loads(one.data)["action_id"]
            for one in history
            if one.kind == "compensation_succeeded"
        ]
        if undone != (["a3", "a2", "a0"] if status == "rolled_back" else []):
            self.fail("compensation", f"{run} undid {undone}")
        owners = _drivers(history)
        if any(a == b for a, b in itertools.pairwise(owners)):
            self.fail("resumed twice", f"{run} was driven under the tokens {owners}")


def _drivers(history: list[Any]) -> list[int]:
    """The token of each time somebody took the run up; a token drives it once."""
    return [
        one.fence_token or 0 for one in history if one.kind in ("proposal_received", "run_resumed")
    ]
