"""The driver: it owns one run and moves it on until nothing is next.

Theory of operation. One task does everything that changes the run, so there are no locks. It goes
in turns. A turn takes in the outcomes that have arrived, decides whatever can be decided now,
records all of it in one append, and only then starts the calls that were decided on: so the
intent to call is durable before the call, and the outcome of a call is durable before anything
that depends on it. The append of outcome k carries the intent of call k+1.

If what a decision rests on has changed meanwhile, nothing was recorded; the turn is forgotten, the
run is read again, and the turn is repeated. Outcomes are kept until they are
recorded: their calls have happened.

Start, resume and the end of a compensation are this one loop: what it finds in the run (an open
attempt, a retry that is due, an answer to a doubt, a failure that aborts) is all it goes by.
"""

import asyncio
from collections.abc import Awaitable, Callable

from carstore import events as e
from carstore.errors import Busy, DiskFull, StateConflict
from carstore.log import Entry
from carstore.names import Json, RunId, budget_stream, inbox_stream
from engine import commit
from engine.backward import unwind
from engine.declare import Tool
from engine.desk import Desk
from engine.ending import pause, pause_if_idle
from engine.execute import CANCEL_GRACE_SECONDS
from engine.forward import advance
from engine.journal import Lapsed
from engine.paying import settle_doubt
from engine.purse import Purse
from engine.rules.budget import Budget
from engine.run import Run
from engine.stop import halt, stop_if_due, waits_for_calls
from engine.taking import take
from engine.waits import end_waits, next_due

__all__ = ["Driver"]

MAX_REDECIDED = 3
"""How often a turn is repeated because the state changed under it; then the actions that rest on
the contested key fail."""


INBOX_SECONDS = 0.5
"""How often a driver looks what others ask of its run: one index look-up each time."""

REFUSED_SECONDS = 0.2
"""How long after a store that was busy or full is asked again."""


class Driver:
    """Drives one run; `drive` is the loop.

    Args:
        observe: called after each turn with the run as it is then.
        accepted_by: for a run that was copied unfinished, who accepts that it goes on here.
    """

    def __init__(
        self, desk: Desk, observe: Callable[[Run], None], accepted_by: str | None = None
    ) -> None:
        self._desk = desk
        self._observe = observe
        self._accepted_by = accepted_by
        self._interrupted = False
        self._inbox_at = 0.0
        """When to look into the inbox again, by the clock of the loop."""

    @property
    def run_id(self) -> RunId:
        """Of the run that it drives."""
        return self._desk.run.run_id

    async def drive(self) -> Run:
        """Move the run on until it is finished, waits for a person, or was interrupted.

        Raises:
            LeaseHeld, LeaseLost, StaleFence, VersionConflict: somebody else drives the run.
            Busy, DiskFull, StoreFailed: the store does not go on; what was recorded is safe.
        """
        desk = self._desk
        try:
            while True:
                desk.wake.clear()
                await self._turn()
                self._observe(desk.run)
                if desk.journal.ends_turn:
                    return desk.run
                desk.calls.start()
                self._stop_calls()  # those too that began while the interruption arrived
                await self._wait()
        except BaseException:
            await desk.drop()
            await desk.journal.let_go()
            raise
        finally:
            desk.wake.stop()
            await desk.drop()

    async def _wait(self) -> None:
        """Wait until something has happened, but not beyond what is due, nor for long without a
        look at the inbox: nothing else tells what other processes ask of the run."""
        until, due = self._inbox_at, self._due()
        if due is not None:
            seconds = (due - self._desk.journal.clock.now()) / 1e6
            until = min(until, asyncio.get_running_loop().time() + seconds)
        await self._desk.wake.wait(until)

    def _due(self) -> int | None:
        """When the run has to be looked at at the latest, microseconds UTC; None: whenever."""
        desk = self._desk
        deadline = desk.run.received.deadline_at if waits_for_calls(desk.run) else None
        waited_for = next_due(desk) if desk.waiting else None
        return min((one for one in (waited_for, deadline) if one is not None), default=None)

    def interrupt(self) -> None:
        """Start nothing more, wait for the calls in flight, and put the run down."""
        self._interrupted = True
        self._stop_calls()
        self._desk.wake.ring()

    def give_up(self) -> None:
        """Do not wait for the calls in flight any longer: what becomes of them is unknown."""
        self._desk.calls.given_up = True
        self.interrupt()
        asyncio.get_running_loop().call_later(CANCEL_GRACE_SECONDS, self._desk.calls.abandon)

    def _stop_calls(self) -> None:
        if not self._interrupted:
            return
        for made, task in self._desk.calls.running.values():
            made.context.request_cancel()
            if self._desk.calls.given_up:
                task.cancel()

    async def _turn(self) -> None:
        desk, conflicts = self._desk, 0
        while True:
            try:
                await self._decide()
                await self._flush()
                break
            except StateConflict as conflict:
                conflicts += 1
                if conflicts > MAX_REDECIDED:
                    desk.contested[conflict.key] = conflict
                await desk.forget()
            except Lapsed:  # of two drivers one always gets ahead, so this comes to an end
                await desk.forget()
        desk.contested.clear()

    async def _flush(self) -> None:
        """Record the turn. A store that refuses for now is asked again while the run is ours and
        outcomes would be lost: those calls have happened."""
        desk = self._desk
        while True:
            try:
                await desk.flush()
            except (Busy, DiskFull):
                lease = desk.journal.lease
                ours = lease is not None and lease.is_held(desk.journal.clock)
                if not desk.calls.outcomes or not ours or desk.calls.given_up:
                    raise
                await asyncio.sleep(REFUSED_SECONDS)
            else:
                return

    async def _decide(self) -> None:
        desk = self._desk
        journal = desk.journal
        if journal.lease is None and not journal.entries:
            await self._take_up()
        for outcome in list(desk.calls.outcomes):
            await take(desk, outcome)
            await desk.keep_small()
        await self._read_inbox()
        stop_if_due(desk)
        await self._hear_answers()
        if not self._interrupted:
            await self._move_on()
        elif desk.calls.idle:
            pause(desk, "interrupted")

    async def _take_up(self) -> None:
        """Record that the run begins, or goes on with us."""
        desk = self._desk
        journal = desk.journal
        if journal.is_new:
            desk.record([desk.run.received])
            if desk.purse is not None and desk.budget is not None:
                await self._open_account(desk.purse, desk.budget)
            return
        if desk.run.held:
            if self._accepted_by is None:
                raise ValueError(f"run {desk.run.run_id} is a copy that nobody has accepted")
            desk.record([e.CopyAccepted(by=self._accepted_by, epoch=journal.store.epoch)])
        desk.record([e.RunResumed(holder=str(journal.store.leases.holder))])

    async def _open_account(self, purse: Purse, budget: Budget) -> None:
        """Open the run's own budget, from which its calls reserve."""
        desk = self._desk
        stream = budget_stream(purse.account)
        opened = e.BudgetSet(
            budget=purse.account,
            limits=dict(budget.costs),
            parent=budget.parent,
            by=desk.run.received.source,
        )
        desk.journal.add(Entry(stream, opened, desk.run.run_id))
        desk.journal.expected[stream] = 0
        await desk.make_durable()

    async def _move_on(self) -> None:
        """On, back, or to a stop, until nothing turns up on the way that changes what is next."""
        desk = self._desk
        while True:
            way = self._way()
            await way(desk)
            if not await self._hear_answers() and way is self._way():
                break
        if not desk.journal.ends_turn:
            pause_if_idle(desk)

    def _way(self) -> Callable[[Desk], Awaitable[None]]:
        run = self._desk.run
        if run.aborting:
            return unwind
        return advance if run.stopping is None else halt

    async def _read_inbox(self) -> None:
        """Hear what others ask of the run, each time when it was taken up or some time has gone."""
        desk = self._desk
        now = asyncio.get_running_loop().time()
        if now < self._inbox_at:
            return
        self._inbox_at = now + INBOX_SECONDS
        if desk.journal.is_new:
            return
        inbox = inbox_stream(desk.run.run_id)
        async for recorded in desk.journal.store.log.read(stream=inbox):
            desk.run.hear(recorded)

    async def _problems_with(self, answer: Json, tool: Tool | None) -> list[str]:
        if tool is None:
            return []
        blobs = self._desk.journal.store.blobs
        return tool.schema.check_returns(
            await blobs.fill(answer), await blobs.fill(answer, sensitive=False)
        )

    async def _hear_answers(self) -> bool:
        """Act on what policy or people said, and on what was waited for; whether there was any."""
        desk, heard = self._desk, False
        if desk.waiting:
            heard = end_waits(desk) or self._hear_consent()
        for index, state, doubt in desk.doubts():
            if doubt.answer is None:
                continue
            if index in desk.schedule.held and not doubt.answer.undo:
                desk.schedule.release(index)
            tool = desk.equipment.tools.get(doubt.tool)
            problems = await self._problems_with(doubt.answer.output, tool)
            desk.record(commit.after_answer(desk.run, state, doubt, desk.policy, problems))
            await settle_doubt(desk, state, doubt)
            heard = True
        return heard

    def _hear_consent(self) -> bool:
        """Look again at actions for which people have answered, or did not in time."""
        desk = self._desk
        now = desk.journal.clock.now()
        for index in sorted(desk.waiting):
            state = desk.run.actions[index]
            approval = state.approval
            if state.wait is None and approval is not None and not approval.is_open(now):
                desk.release(index, start=True)
                return True
        return False
