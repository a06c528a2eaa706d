"""Runs that wait for people, signals and clocks, while their drivers, and the people, are killed.

People and senders are processes of their own. Each call notes that it was made; everything else is
read from the events, by somebody who was not there.
"""

import asyncio
import itertools
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

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
    Told,
    call_faults,
    crowd_proof,
    drive,
    note_call,
    opened_by_one,
    story_of,
    until_over,
)
from engine.prove.workload import Place, notes
from engine.runtime import Runtime
from engine.signals import signal
from projections import APPROVALS, rows

__all__ = ["DECIDING"]

DRIVERS = 2
PEOPLE = ("ann", "bob")
RUNS = 12
KILLS = 12

SIGNALS = 2
"""Waits for a signal of one name in each run."""

SLEEP_SECONDS = 0.15
EXPIRY_SECONDS = 0.2
"""How long a request stands that nobody answers."""

TOO_LATE = {"no_approval", "run_over", "not_found"}
"""Errors that tell a person, or a sender, that somebody else was faster."""


@frozen
class Asked:
    """What people are asked about one action, and what they say."""

    approvers: int = 1
    against: tuple[str, ...] = ()
    """Who refuses; the others consent."""
    silent: bool = False
    """Whether nobody says anything, so that it expires."""


ASKED = {
    "one": Asked(),
    "two": Asked(approvers=2),
    "refused": Asked(against=PEOPLE),
    "contested": Asked(against=PEOPLE[1:]),
    "late": Asked(silent=True),
}
"""By the id of the action."""


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


# --- what came of it ---


@define
class _OneRun:
    """What one run was told, and what it did, in order."""

    name: str
    requests: dict[str, Told] = field(factory=dict)
    consents: dict[str, set[str]] = field(factory=lambda: defaultdict(set))
    refused: set[str] = field(factory=set)
    waits: dict[str, Told] = field(factory=dict)
    sent: dict[int, Told] = field(factory=dict)
    """By the number in the inbox; those that are not taken."""
    taken: dict[str, Told] = field(factory=dict)
    """Action -> the signal that it took."""
    came: dict[str, str] = field(factory=dict)
    """Action -> the event that settled it."""
    ends: int = 0
    broken: list[str] = field(factory=list)

    def take(self, told: Told) -> None:
        """Take in one event, and say what must not be."""
        handler = getattr(self, f"_{told.kind}", None)
        if handler is not None:
            handler(told)

    def _fault(self, told: Told, text: str) -> None:
        self.broken.append(f"event {told.position}: {told.action} of {self.name} {text}")

    def _approval_requested(self, told: Told) -> None:
        if told.action in self.requests:
            self._fault(told, "was asked about a second time")
        self.requests[told.action] = told

    def _approval_answered(self, told: Told) -> None:
        action, asked = told.action, ASKED[told.action]
        decided = action in self.refused or len(self.consents[action]) >= asked.approvers
        if decided:
            self._fault(told, "was answered after that was decided")
        elif told.data["approved"]:
            self.consents[action].add(told.data["by"])
        else:
            self.refused.add(action)

    def _action_executing(self, told: Told) -> None:
        asked = ASKED.get(told.action)
        if asked is None:
            return
        if told.action in self.refused:
            self._fault(told, "was called although people refused")
        elif len(self.consents[told.action]) < asked.approvers:
            self._fault(told, "was called before people had consented")

    def _action_rejected(self, told: Told) -> None:
        self.came[told.action] = told.kind
        if told.action in self.refused:
            return
        ends_at = self.requests[told.action].data["expires_at"]
        if ends_at is None:
            self._fault(told, "was rejected, and nobody had refused")
        elif told.at < ends_at:
            self._fault(told, f"was rejected {ends_at - told.at} us before the request expired")

    def _wait_started(self, told: Told) -> None:
        if told.action in self.waits:
            self._fault(told, "began to wait a second time")
        self.waits[told.action] = told

    def _signal_sent(self, told: Told) -> None:
        self.sent[told.version] = told

    def _signal_taken(self, told: Told) -> None:
        found = self.sent.pop(told.data["number"], None)
        if found is None:
            self._fault(told, "took a signal that was not there, or was taken")
            return
        if any(number < found.version for number in self.sent):
            self._fault(told, "took a signal that was not the oldest")
        self.taken[told.action] = found

    def _action_succeeded(self, told: Told) -> None:
        self.came[told.action] = told.kind
        wait = self.waits.get(told.action)
        if wait is None:
            return
        due_at, signalled = wait.data["due_at"], self.taken.get(told.action)
        if due_at is not None and told.at < due_at:
            self._fault(told, f"woke {due_at - told.at} us early")
        if wait.data["signal"] is None:
            return
        if signalled is None or signalled.data["value"] != told.data["output"]:
            self._fault(told, "ended its wait without a signal, or with another's value")

    def _action_failed(self, told: Told) -> None:
        self._fault(told, f"failed: {told.data['error']}")

    def _proposal_completed(self, told: Told) -> None:
        self.ends += 1

    def check_end(self) -> None:
        """Whether it ended once, and every action came to what was decided."""
        if self.ends != 1:
            self.broken.append(f"{self.name} ended {self.ends} times")
        for action in (*ASKED, *self.waits):
            no = action in self.refused or (action in ASKED and ASKED[action].silent)
            wanted = "action_rejected" if no else "action_succeeded"
            if self.came.get(action) != wanted:
                self.broken.append(f"{action} of {self.name} did not end as people decided")
        if len(self.taken) != SIGNALS:
            self.broken.append(f"{self.name} took {len(self.taken)} signals, of {SIGNALS}")


def _deciding(one: Round) -> None:
    asyncio.run(_made(one.place))
    people: list[Life] = [(answer_all, (who,)) for who in PEOPLE]
    one.live([*[(drive_waiting, ())] * DRIVERS, *people, (send_signals, ())], KILLS)
    story, calls = story_of(one.place), notes(one.place.journal)
    runs = {f"r{n}": _OneRun(f"r{n}") for n in range(RUNS)}
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
        "waits for a time": sum(run.waits["sleep"].kind == "wait_started" for run in runs.values()),
        "times a run was taken up": kinds["run_resumed"],
    })  # fmt: skip


async def _made(place: Place) -> None:
    async with opened_by_one(place):
        pass


DECIDING = crowd_proof(
    "people and time",
    "Whoever is killed, nothing is called before people have consented or after they refused, each"
    " signal is taken once, nothing wakes before its time, and every run ends.",
    _deciding,
    (2, 15, 80),
)
