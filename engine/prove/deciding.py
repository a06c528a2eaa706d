"""Runs that wait for people, signals and clocks, while their drivers, and the people, are killed.

People and senders are processes of their own. Each call notes that it was made; everything else is
read from the events, by somebody who was not there.
"""

import asyncio
import itertools
import os
from collections import Counter
from pathlib import Path
from typing import Any

from carstore.errors import CarstoreError
from carstore.names import RunId
from carstore.store import Store
from engine.approvals import approve, reject
from engine.context import ToolContext
from engine.declare import Tool, tool
from engine.ir import Action, FailureBehavior, Proposal
from engine.policies import Judged, ask, policy
from engine.prove.crowd import (
    Life,
    Round,
    call_faults,
    crowd_proof,
    drive,
    note_call,
    opened_by_one,
    story_of,
    until_over,
)
from engine.prove.decided import ASKED, PEOPLE, SIGNALS, OneRun
from engine.prove.workload import Place, notes
from engine.runtime import Runtime
from engine.signals import signal
from projections import APPROVALS, rows

__all__ = ["DECIDING"]

DRIVERS = 2
RUNS = 12
KILLS = 12

SLEEP_SECONDS = 0.15
EXPIRY_SECONDS = 0.2
"""How long a request stands that nobody answers."""

TOO_LATE = {"no_approval", "run_over", "not_found"}
"""Errors that tell a person, or a sender, that somebody else was faster."""


@policy
def people_decide(judged: Judged) -> Any:
    asked = ASKED.get(judged.action.id)
    if asked is None:
        return None
    expires = EXPIRY_SECONDS if asked.silent else None
    return ask("it goes outside", approvers=asked.approvers, expires_secs=expires)


# --- what the processes do ---


def drive_waiting(folder: str) -> None:
    """The life of one driver."""
    place = Place(Path(folder))

    def made(store: Store) -> Runtime:
        return Runtime(store, [_send(place)], policies=[people_decide], schedule="eager")

    asyncio.run(drive(place, {f"r{n}": _plan(n) for n in range(RUNS)}, made))


def _send(place: Place) -> Tool:
    @tool
    async def send(ctx: ToolContext) -> str:
        note_call(place, ctx, "once")
        await asyncio.sleep(0.003)
        return ctx.action_id

    return send


def _plan(n: int) -> Proposal:
    skip = FailureBehavior.SKIP
    sends = [Action(id=name, tool="send", failure_behavior=skip) for name in ASKED]
    waits = [
        Action(id=f"wait{i}", tool="wait_signal", parameters={"name": "go"}) for i in range(SIGNALS)
    ]
    sleep = Action(id="sleep", tool="sleep", parameters={"seconds": SLEEP_SECONDS})
    after = [
        Action(id="after0", tool="send", dependencies=["two", "sleep"], failure_behavior=skip),
        Action(id="after1", tool="send", dependencies=["wait0", "wait1"], failure_behavior=skip),
    ]
    return Proposal(id=f"p{n}", actions=[*sends, *waits, sleep, *after])


def answer_all(folder: str, who: str) -> None:
    """The life of somebody who answers whatever they are asked."""
    asyncio.run(_answer_all(Place(Path(folder)), who))


async def _answer_all(place: Place, who: str) -> None:
    async with opened_by_one(place) as store:

        async def once() -> None:
            for request in (await rows(store, APPROVALS)).values():
                asked = ASKED[request.action_id]
                if request.status != "open" or asked.silent:
                    continue
                say = reject if who in asked.against else approve
                try:
                    run_id = RunId(request.run_id)
                    await say(store, run_id, request.action_id, by=who, binding=request.binding)
                except CarstoreError as error:
                    _check_too_late(error)

        await until_over(place, RUNS, once)


def send_signals(folder: str) -> None:
    """The life of somebody who sends each run what it waits for."""
    asyncio.run(_send_signals(Place(Path(folder))))


async def _send_signals(place: Place) -> None:
    numbers = itertools.count()
    async with opened_by_one(place) as store:

        async def once() -> None:
            sent = dict(place.look("signals_sent"))
            for n in range(RUNS):
                if sent.get(f"r{n}", 0) < SIGNALS:
                    value = f"{os.getpid()}-{next(numbers)}"
                    try:
                        await signal(store, RunId(f"r{n}"), "go", value, by="clock")
                    except CarstoreError as error:
                        _check_too_late(error)

        await until_over(place, RUNS, once)


def _check_too_late(error: CarstoreError) -> None:
    if error.code not in TOO_LATE:
        raise error


# --- the proof ---


def _deciding(one: Round) -> None:
    people: list[Life] = [(answer_all, (who,)) for who in PEOPLE]
    one.live([*[(drive_waiting, ())] * DRIVERS, *people, (send_signals, ())], KILLS)
    story, calls = story_of(one.place), notes(one.place.journal)
    runs = {f"r{n}": OneRun(f"r{n}") for n in range(RUNS)}
    for told in story:
        if told.run in runs:
            runs[told.run].take(told)
    for run in runs.values():
        run.check_end()
        one.broken += run.broken
    one.broken += call_faults(calls)
    kinds = Counter(told.kind for told in story)
    one.counts += Counter({
        "runs finished": RUNS,
        "calls": len(calls),
        "requests for consent": kinds["approval_requested"],
        "answers": kinds["approval_answered"],
        "calls refused, or not consented to in time": kinds["action_rejected"],
        "signals sent": kinds["signal_sent"],
        "signals taken": kinds["signal_taken"],
        "waits for a time": sum("sleep" in run.waits for run in runs.values()),
        "times a run was taken up": kinds["run_resumed"],
    })  # fmt: skip


DECIDING = crowd_proof(
    "people and time",
    "Whoever is killed, nothing is called before people have consented or after they refused, each"
    " signal is taken once, nothing wakes before its time, and every run ends.",
    _deciding,
    (2, 15, 80),
)
