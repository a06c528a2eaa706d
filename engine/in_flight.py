"""The calls of one driver: decided on, in flight, and ended without being recorded yet.

Mechanics only. A call is made once the intent of it is durable; what came of it is kept until that
is recorded, since it has happened.
"""

import asyncio
from functools import partial

from attrs import define, field

from engine.begin import flight
from engine.bell import Bell
from engine.equipment import Equipment
from engine.execute import CANCEL_GRACE_SECONDS, Call, Ending, Outcome, masked, perform
from engine.journal import Journal
from engine.rates import Decided

__all__ = ["STOPPED", "InFlight", "Place"]

STOPPED = {
    "budget": "cost budget exceeded",
    "cancelled": "the run was cancelled",
    "deadline": "the deadline of the run passed",
}
"""Why a run stops, as the actions are told that it left out; the first is the seed's text."""

Place = tuple[int, bool]
"""An action's index, and whether it is being undone."""


@define(eq=False)
class InFlight:
    """Calls, each for one place. Only the task of their driver touches this."""

    journal: Journal
    equipment: Equipment
    wake: Bell
    """Rung when a call has ended."""
    to_start: list[Call] = field(factory=list)
    """Calls to make once what was recorded in this turn is durable."""
    running: dict[Place, tuple[Call, "asyncio.Task[None]"]] = field(factory=dict)
    outcomes: list[Outcome] = field(factory=list)
    """Of calls that have ended, until they are recorded."""
    taken: list[Outcome] = field(factory=list)
    """Those of `outcomes` that what was recorded in this turn includes."""
    given_up: bool = False
    """Whether nobody waits for the calls in flight any longer."""
    interrupted: set[Place] = field(factory=set)
    """Calls that were interrupted because the run stops."""
    tokens: dict[int, tuple[str, int]] = field(factory=dict)
    """Action -> tool and number of the token, for each that has a turn and is not called yet."""
    decided: dict[int, Decided] = field(factory=dict)
    """Action -> its call, which counts for rules of all runs, until it is made or is not to be."""

    def has_outcome(self, place: Place) -> bool:
        """Whether a call has ended, and what came of it is not taken in."""
        if len(self.outcomes) == len(self.taken):
            return False
        taken = {id(one) for one in self.taken}
        return any(
            (one.call.index, one.call.undo) == place
            for one in self.outcomes
            if id(one) not in taken
        )

    @property
    def idle(self) -> bool:
        """Whether no call is in flight, about to start, or ended without being recorded."""
        return not (self.running or self.to_start or len(self.outcomes) > len(self.taken))

    def start(self) -> None:
        """Make the calls of this turn, whose intents are durable now."""
        if self.to_start:
            self.journal.check_held()
        for made in self.to_start:
            for key in made.grounds:
                made.grounds[key] = self.journal.state.known[key].position
            place = (made.index, made.undo)
            self.tokens.pop(made.index, None)
            decided = None if made.undo else self.decided.pop(made.index, None)
            self.equipment.rates.begun(made.tool.name, decided)
            task = asyncio.create_task(self._make(place, made))
            task.add_done_callback(partial(self._end_badly, place, made))
            self.running[place] = (made, task)
        self.to_start.clear()

    def decide(self, index: int, tool: str) -> None:
        """The rules let an action call its tool: from here on, this call counts."""
        self.decided[index] = self.equipment.rates.decided(tool)

    def put_off(self, index: int) -> None:
        """The call of an action is not made in this turn, and does not count."""
        decided = self.decided.pop(index, None)
        if decided is not None:
            self.equipment.rates.undecided(decided)

    def drop_decided(self) -> None:
        """Do not make the calls that were decided on in this turn, but for compensations."""
        self._put_all_off()
        for made in self.to_start:
            if not made.undo and made.reuse_key is not None:
                self.journal.give_way(flight(made.reuse_key))
        self.to_start = [made for made in self.to_start if made.undo]

    async def _make(self, place: Place, made: Call) -> None:
        outcome = await perform(
            made,
            self.equipment.threads,
            self.equipment.executor,
            self.journal.clock,
            partial(self._why_stopped, place),
        )
        if place not in self.running or self.running[place][0] is not made:
            return  # it was abandoned, and that is recorded
        del self.running[place]
        self.outcomes.append(outcome)
        self.wake.ring()

    def _why_stopped(self, place: Place) -> str | None:
        """Why a call was cancelled by its driver; None if it was not."""
        if place in self.interrupted and self.journal.run.stopping is not None:
            return f"{STOPPED[self.journal.run.stopping.cause]} during the call"
        return "the run was interrupted during the call" if self.given_up else None

    def interrupt(self) -> None:
        """Cancel the calls in flight, because the run stops. A thread cannot be: it is left alone,
        and may go on. Compensations are not cancelled."""
        loop = asyncio.get_running_loop()
        for place, (made, task) in list(self.running.items()):
            if place[1] or place in self.interrupted:
                continue
            self.interrupted.add(place)
            made.context.request_cancel()
            if made.tool.function is not None and not made.tool.is_async:
                del self.running[place]
                why = self._why_stopped(place)
                self._unknown(made, f"{why}; a thread cannot be stopped, so it may go on")
                continue
            task.cancel()
            loop.call_later(CANCEL_GRACE_SECONDS, self._abandon, place, made)

    def _abandon(self, place: Place, made: Call) -> None:
        if place in self.running and self.running[place][0] is made:
            del self.running[place]
            self._unknown(made, f"{self._why_stopped(place)}; it does not end")

    def abandon(self) -> None:
        """Take the calls that do not end, although they were cancelled, as ended: who knows how."""
        for place, (made, _) in list(self.running.items()):
            del self.running[place]
            self._unknown(made, "the run was interrupted during the call")

    def _unknown(self, made: Call, error: str) -> None:
        buffered = made.context.close()
        unknown = Outcome(
            call=made, ending=Ending.UNKNOWN, error=error, duration_us=0, buffered=buffered
        )
        self.outcomes.append(masked(unknown))
        self.wake.ring()

    def _end_badly(self, place: Place, made: Call, task: "asyncio.Task[None]") -> None:
        """A call that came to no outcome: it was given up before it began, or `perform` failed."""
        if place not in self.running or self.running[place][0] is not made:
            return
        error = None if task.cancelled() else task.exception()
        if error is None and not self.given_up:
            return  # dropped: the run is not ours any more
        del self.running[place]
        said = "the run was interrupted before the call" if error is None else repr(error)
        self._unknown(made, said)

    def recorded(self) -> None:
        """What was taken in is durable, and need not be kept."""
        for outcome in self.taken:
            self.outcomes.remove(outcome)
        self.taken.clear()

    def forget(self) -> None:
        """What was decided and taken in in this turn was not recorded."""
        self.taken.clear()
        self.to_start.clear()
        self._put_all_off()

    def _put_all_off(self) -> None:
        for index in list(self.decided):
            self.put_off(index)

    async def drop(self) -> None:
        """Stop waiting for anything: the run is finished, or not ours any more."""
        for tool, number in self.tokens.values():
            self.equipment.rates.refund(tool, number)
        self.tokens.clear()
        self._put_all_off()
        dropped = list(self.running.values())
        for made, task in dropped:
            made.context.request_cancel()
            task.cancel()
        if dropped:
            await asyncio.wait([task for _, task in dropped], timeout=CANCEL_GRACE_SECONDS)
        for made, _ in dropped:
            made.context.close()
