"""The driver: it owns one run and moves it on until nothing is next.

Theory of operation. One task does everything that changes the run, so there are no locks. It goes
in turns. A turn takes in the outcomes that have arrived, decides whatever can be decided now,
records all of it in one append, and only then starts the calls that were decided on: so the
intent to call is durable before the call, and the outcome of a call is durable before anything
that depends on it. The append of outcome k carries the intent of call k+1.

If the state on which a decision rests has changed meanwhile, nothing was recorded; the turn is
forgotten, the run is read again, and the turn is repeated. Outcomes are kept until they are
recorded: their calls have happened.

Start, resume and the end of a compensation are this one loop: what it finds in the run (an open
attempt, a retry that is due, an answer to a doubt, a failure that aborts) is all it goes by.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from carstore import events as e
from carstore.errors import Busy, DiskFull, StateConflict
from carstore.names import Json, inbox_stream
from engine import commit
from engine.backward import unwind
from engine.declare import Tool
from engine.desk import Desk
from engine.ending import pause
from engine.execute import CANCEL_GRACE_SECONDS
from engine.forward import advance
from engine.run import Run

__all__ = ["Driver"]

MAX_REDECIDED = 3
"""How often a turn is repeated because the state changed under it; then the actions that rest on
the contested key fail."""


INBOX_SECONDS = 0.5
"""How often a driver looks for answers while calls are in flight: one index look-up each time."""

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
                desk.start_calls()
                self._stop_calls()  # those too that began while the interruption arrived
                await self._wait()
        except BaseException:
            await desk.drop_calls()
            await desk.journal.let_go()
            raise
        finally:
            await desk.drop_calls()

    async def _wait(self) -> None:
        """Wait until something has happened. While somebody is asked, look whether they answered:
        nothing else tells, because the answer is another process's append."""
        asked = any(doubt.answer is None for _, _, doubt in self._desk.doubts())
        with suppress(TimeoutError):
            async with asyncio.timeout(INBOX_SECONDS if asked else None):
                await self._desk.wake.wait()

    def interrupt(self) -> None:
        """Start nothing more, wait for the calls in flight, and put the run down."""
        self._interrupted = True
        self._stop_calls()
        self._desk.wake.set()

    def give_up(self) -> None:
        """Do not wait for the calls in flight any longer: what becomes of them is unknown."""
        self._desk.given_up = True
        self.interrupt()
        asyncio.get_running_loop().call_later(CANCEL_GRACE_SECONDS, self._desk.abandon_calls)

    def _stop_calls(self) -> None:
        if not self._interrupted:
            return
        for made, task in self._desk.calls.values():
            made.context.request_cancel()
            if self._desk.given_up:
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
                if not desk.outcomes or not ours or desk.given_up:
                    raise
                await asyncio.sleep(REFUSED_SECONDS)
            else:
                return

    async def _decide(self) -> None:
        desk = self._desk
        journal = desk.journal
        if journal.lease is None and not journal.entries:
            self._take_up()
        for outcome in list(desk.outcomes):
            await desk.take(outcome)
            await desk.keep_small()
        await self._read_inbox()
        await self._hear_answers()
        if not self._interrupted:
            await self._move_on()
        elif desk.idle:
            pause(desk, "interrupted")

    def _take_up(self) -> None:
        """Record that the run begins, or goes on with us."""
        desk = self._desk
        journal = desk.journal
        if journal.is_new:
            desk.record([desk.run.received])
            return
        if desk.run.held:
            if self._accepted_by is None:
                raise ValueError(f"run {desk.run.run_id} is a copy that nobody has accepted")
            desk.record([e.CopyAccepted(by=self._accepted_by, epoch=journal.store.epoch)])
        desk.record([e.RunResumed(holder=str(journal.store.leases.holder))])

    async def _move_on(self) -> None:
        """Forward or back, until nothing turns up on the way that changes what is next."""
        desk = self._desk
        while True:
            back = desk.run.aborting
            await (unwind(desk) if back else advance(desk))
            if not await self._hear_answers() and back == desk.run.aborting:
                return

    async def _read_inbox(self) -> None:
        """See what people said about attempts in doubt."""
        desk = self._desk
        if any(doubt.answer is None for _, _, doubt in desk.doubts()):
            inbox = inbox_stream(desk.run.run_id)
            async for recorded in desk.journal.store.log.read(stream=inbox):
                desk.run.apply(recorded.event, recorded.recorded_at)

    async def _problems_with(self, answer: Json, tool: Tool | None) -> list[str]:
        if tool is None:
            return []
        blobs = self._desk.journal.store.blobs
        return tool.schema.check_returns(
            await blobs.fill(answer), await blobs.fill(answer, sensitive=False)
        )

    async def _hear_answers(self) -> bool:
        """Act on what policy or people said about attempts in doubt; whether they said anything."""
        desk, heard = self._desk, False
        for index, state, doubt in desk.doubts():
            if doubt.answer is None:
                continue
            if index in desk.schedule.held and not doubt.answer.undo:
                desk.schedule.release(index)
            tool = desk.equipment.tools.get(doubt.tool)
            problems = await self._problems_with(doubt.answer.output, tool)
            desk.record(commit.after_answer(desk.run, state, doubt, desk.policy, problems))
            heard = True
        return heard
