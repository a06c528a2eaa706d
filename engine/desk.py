"""What a driver has before it: the run, its journal, its calls, the retries that are due.

Mechanics only. What is next is decided in `forward` and `backward`, in whose hands this is.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial

from attrs import define, field

from carstore import events as e
from carstore.blobs import filled, references
from carstore.errors import StateConflict
from carstore.log import LeaseIs, StateRead
from carstore.names import ActionId, Json, Scope, StateKey
from carstore.redaction import JsonPath
from engine import commit
from engine.action_state import ActionState, Attempts, Doubt
from engine.authority import NOBODY, Authority
from engine.begin import idempotency_key
from engine.bell import Bell
from engine.context import Spender, ToolContext
from engine.declare import Tool
from engine.equipment import Equipment
from engine.in_flight import InFlight, Place
from engine.journal import Journal
from engine.purse import Purse, reservation_name, run_account
from engine.rules.budget import Budget
from engine.rules.schedule import Schedule
from engine.rules.sensitive import hidden_in, secrets_in
from engine.run import Run

__all__ = ["Desk"]

MAX_TURN_EVENTS = 20_000
"""Events recorded in one append, but for those of one action: about 0.2 s of the writer's work."""


@define(eq=False)
class Desk:
    """The working state of one driver. Only its task touches it, so there are no locks."""

    journal: Journal
    equipment: Equipment
    authority: Authority = NOBODY
    wake: Bell = field(factory=Bell)
    timers: dict[Place, asyncio.TimerHandle] = field(factory=dict)
    startable: deque[int] = field(factory=deque)
    contested: dict[str, StateConflict] = field(factory=dict)
    """Keys that changed under every attempt to decide on them."""
    waiting: set[int] = field(factory=set)
    """Actions that are held until a time, a signal, or people's consent."""
    calls: InFlight = field(init=False)
    budget: Budget | None = field(init=False)
    purse: Purse | None = field(init=False)
    schedule: Schedule = field(init=False)
    policy: commit.Policy = field(init=False)
    run: Run = field(init=False)
    """Of the journal; another one once that was read again."""

    def __attrs_post_init__(self) -> None:
        self.run = self.journal.run
        self.calls = InFlight(self.journal, self.equipment, self.wake)
        on_doubt = self.run.received.on_doubt
        self.policy = commit.Policy(on_doubt=on_doubt, backoff=self.equipment.backoff)
        given = self.run.received.budget
        self.budget = None if given is None else Budget.from_json(given)
        self.purse = None
        if self.budget is not None and self.budget.has_account:
            equipment, run_id = self.equipment, self.run.run_id
            account = run_account(run_id)
            self.purse = Purse(equipment.ledger, equipment.ledger_locks, account, run_id)
        self.plan()

    @property
    def scope(self) -> Scope:
        return Scope(self.run.received.scope)

    def plan(self) -> None:
        """Make the schedule from what the run says is settled."""
        run = self.run
        settled = [index for index in run.graph.forward if run.actions[index].status is not None]
        self.schedule = self.equipment.schedules[run.received.schedule](run.graph, settled)
        run.settled.clear()
        self.startable.clear()
        self.waiting.clear()
        self.hand_out()

    def hand_out(self) -> bool:
        """Take from the schedule what may start now; whether there is anything to start."""
        settled = self.run.settled
        if settled:
            for index in settled:
                self.schedule.done(index)
            settled.clear()
        self.startable.extend([i for i in self.schedule.ready() if not self.is_busy((i, False))])
        return bool(self.startable)

    def tool_of(self, state: ActionState) -> Tool | None:
        """The tool that an action calls, if it calls one that is known."""
        name = state.action.tool
        return self.equipment.tools.get(name) if name is not None else None

    def spent(self, reason: str) -> None:
        """Let nothing more begin, because a budget is used up."""
        self.record([e.RunStopping(cause="budget", reason=reason)])

    # --- recording ---

    def record(self, events: Iterable[e.Event]) -> None:
        """Apply events and append them at the end of the turn; set the timers of retries."""
        for event in events:
            self.journal.record(event, self._hidden_in(event))
            if isinstance(event, e.ActionRetrying):
                self.retry_later((self.run.index[event.action_id], False), event.delay_ms)
            elif isinstance(event, e.CompensationRetrying):
                self.retry_later((self.run.index[event.action_id], True), event.delay_ms)

    def _hidden_in(self, event: e.Event) -> list[JsonPath]:
        if not self.equipment.tools.any_sensitive:
            return []
        action_id = getattr(event, "action_id", None)
        tool = None if action_id is None else self.run.of(action_id).action.tool
        return hidden_in(event, self.equipment.tools, tool)

    async def values_for(self, *parameters: Json, judged: Sequence[Json] = ()) -> dict[str, Json]:
        """The values beside the log that a call with `parameters` may need: what they refer to, and
        what the outputs do that they may refer to; and what `judged` refer to."""
        wanted = {one for value in judged for one in references(value)}
        if self.run.refers:
            wanted.update(one for value in parameters for one in references(value))
            for state in self.run.actions:
                wanted.update(references(state.output))
        elif not wanted:
            return {}
        found = self.journal.unwritten_values()
        wanted.difference_update(found)
        wanted.update(one for value in found.values() for one in references(value))
        return {**found, **await self.journal.store.blobs.read(wanted)}

    async def flush(self) -> None:
        """Make everything recorded durable; then the outcomes in it need not be kept."""
        await self.journal.flush()
        if self.purse is not None:
            self.purse.end_turn()
        self.calls.recorded()

    async def make_durable(self) -> None:
        """Flush in the middle of a turn; the calls whose intents are durable then begin."""
        if self.journal.entries:
            await self.flush()
            self.calls.start()

    async def keep_small(self) -> None:
        """Flush in the middle of a turn that has grown beyond what one append should hold."""
        if len(self.journal.entries) > MAX_TURN_EVENTS:
            await self.make_durable()

    async def forget(self) -> None:
        """Drop this turn's decisions and read the run again; outcomes are kept."""
        await self.journal.forget()
        self.run = self.journal.run
        if self.purse is not None:
            self.purse.end_turn()
        self.calls.forget()
        self.plan()

    # --- retries ---

    def retry_later(self, place: Place, delay_ms: float) -> None:
        """Make the action, or its compensation, startable after a delay, and not before."""
        self.stop_timer(place)
        if not place[1] and place[0] in self.startable:
            self.startable.remove(place[0])
        loop = asyncio.get_running_loop()
        self.timers[place] = loop.call_later(delay_ms / 1000, self._retry_now, place)

    def must_wait(self, index: int, attempts: Attempts, *, undo: bool) -> bool:
        """Whether a retry, found by a resume, is not due yet; then its timer is set."""
        if attempts.retry_at_us is None:
            return False
        wait_us = attempts.retry_at_us - self.journal.clock.now()
        attempts.retry_at_us = None
        if wait_us <= 0:
            return False
        self.retry_later((index, undo), min(wait_us / 1000, self.equipment.backoff.cap_ms))
        return True

    def look_again(self, index: int, delay_ms: float) -> None:
        """Let an action that cannot go on for now be looked at again after a while."""
        self.retry_later((index, False), delay_ms)

    def hold(self, index: int) -> None:
        """Put an action off until a time, a signal, or people's consent."""
        self.waiting.add(index)
        self.schedule.hold(index)

    def release(self, index: int, *, start: bool) -> None:
        """What a held action waited for is there; `start`: it is to be begun again."""
        self.waiting.discard(index)
        self.schedule.release(index)
        if start:
            self.startable.append(index)

    def _retry_now(self, place: Place) -> None:
        del self.timers[place]
        if not place[1]:
            self.startable.append(place[0])
        self.wake.ring()

    def stop_timer(self, place: Place) -> None:
        timer = self.timers.pop(place, None)
        if timer is not None:
            timer.cancel()

    # --- calls ---

    def is_busy(self, place: Place) -> bool:
        """Whether something is under way for the action, or what came of it is not recorded."""
        calls = self.calls
        return place in calls.running or place in self.timers or calls.has_outcome(place)

    def key_for(self, state: ActionState, *, undo: bool) -> str:
        """The idempotency key of the calls for one purpose."""
        return idempotency_key(self.run, state, undo=undo)

    def context(
        self, state: ActionState, tool: Tool, attempt: int, secrets: set[str], *, undo: bool
    ) -> ToolContext:
        """What the tool is handed for one attempt; `secrets` grow by those that it reads."""
        return ToolContext(
            run_id=self.run.run_id,
            action_id=ActionId(state.action.id),
            tool=tool.name,
            attempt=attempt,
            idempotency_key=self.key_for(state, undo=undo),
            reader=partial(self._read_state, secrets=secrets),
            loop=asyncio.get_running_loop(),
            may_use=self.authority.may_use(),
            spender=self._spender(state, attempt, undo=undo),
        )

    def _spender(self, state: ActionState, attempt: int, *, undo: bool) -> Spender | None:
        if self.purse is None:
            return None
        name = reservation_name(self.run.run_id, state.action.id, attempt, undo=undo)
        return partial(self._spend, name)

    async def _spend(self, name: str, currency: str, micros: int) -> int | None:
        """Reserve more for a call in flight, by an append of its own under the run's lease."""
        assert self.purse is not None
        self.journal.check_held()
        lease = self.journal.lease
        assert lease is not None  # a call is in flight
        return await self.purse.spend(name, currency, micros, LeaseIs(lease.name, lease.token))

    async def _read_state(self, key: str, *, secrets: set[str]) -> StateRead:
        store = self.journal.store
        found = (await store.log.state(self.scope, [StateKey(key)]))[StateKey(key)]
        wanted = set(references(found.value))
        if not wanted:
            return found
        values = await store.blobs.read(wanted)
        secrets |= secrets_in(found.value, values)
        return found._replace(value=filled(found.value, values))

    async def drop(self) -> None:
        """Stop waiting for anything: the run is finished, or not ours any more."""
        for place in list(self.timers):
            self.stop_timer(place)
        if self.purse is not None:
            self.purse.end_turn()
        await self.calls.drop()

    # --- doubts ---

    def find_doubt(self, state: ActionState, tool: Tool | None, *, undo: bool) -> bool:
        """Whether a resume finds an intent without an outcome that must not be called again."""
        attempts = state.undo if undo else state.do
        if not attempts.open or tool is None or tool.schema.repeatable:
            return False
        key, reason = self.key_for(state, undo=undo), "the process ended during the call"
        self.record(
            commit.doubtful(
                state.action, attempts.number, tool.name, key, reason, self.policy, undo=undo
            )
        )
        return True

    def doubts(self) -> list[tuple[int, ActionState, Doubt]]:
        """All attempts in doubt."""
        found: list[tuple[int, ActionState, Doubt]] = []
        if not self.run.in_doubt:
            return found
        for index in sorted(self.run.in_doubt):
            state = self.run.actions[index]
            pair = (state.do.doubt, state.undo.doubt)
            found.extend((index, state, doubt) for doubt in pair if doubt is not None)
        return found
