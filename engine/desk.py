"""What a driver has before it: the run, its journal, the calls in flight, the retries that are due.

Mechanics only. What is next is decided in `forward` and `backward`, in whose hands this is.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

from attrs import define, field, frozen

from carstore import events as e
from carstore.blobs import filled, references
from carstore.errors import StateConflict
from carstore.log import LeaseIs, StateRead
from carstore.names import ActionId, Json, Position, Scope, StateKey
from carstore.redaction import JsonPath
from engine import commit
from engine.accounts import Ledger
from engine.action_state import ActionState, Attempts, Doubt
from engine.authority import NOBODY, Authority, Verdict
from engine.begin import flight, idempotency_key
from engine.bell import Bell
from engine.context import Spender, ToolContext
from engine.declare import Tool
from engine.execute import CANCEL_GRACE_SECONDS, Call, Ending, Outcome, masked, perform
from engine.held_values import only_held, referred_by
from engine.ir import Action
from engine.journal import Journal
from engine.purse import Purse, reservation_name, run_account
from engine.rates import Rates
from engine.rules.budget import Budget
from engine.rules.retries import Backoff
from engine.rules.schedule import SCHEDULES, Schedule, ScheduleFactory
from engine.rules.sensitive import hidden_in, secrets_in
from engine.run import Run
from engine.tools import ToolExecutor, Tools

__all__ = ["STOPPED", "Desk", "Equipment", "Place", "Remembered"]

MAX_TURN_EVENTS = 20_000
"""Events recorded in one append, but for those of one action: about 0.2 s of the writer's work."""

STOPPED = {
    "budget": "cost budget exceeded",
    "cancelled": "the run was cancelled",
    "deadline": "the deadline of the run passed",
}
"""Why a run stops, as the actions are told that it left out; the first is the seed's text."""

Place = tuple[int, bool]
"""An action's index, and whether it is being undone."""


@frozen(kw_only=True)
class Remembered:
    """A result that an equal action had before: where it stands, and what it was."""

    position: int
    run_id: str
    action_id: str
    output: Json
    at: int
    """When it succeeded, microseconds UTC."""


@frozen(kw_only=True)
class Equipment:
    """What a runtime gives to the drivers of its runs."""

    tools: Tools
    executor: ToolExecutor | None
    threads: Executor
    backoff: Backoff
    recall: Callable[[str], Awaitable[Remembered | None]]
    """Finds the result that is remembered under a reuse key."""
    rates: Rates
    ledger: Ledger
    ledger_locks: dict[str, asyncio.Lock]
    cache_ttls: Mapping[str, int]
    """Tool -> seconds for which its results are served again, where a runtime says so."""
    schedules: Mapping[str, ScheduleFactory] = SCHEDULES
    """By the name under which a run may have been begun."""


@define(eq=False)
class Desk:
    """The working state of one driver. Only its task touches it, so there are no locks."""

    journal: Journal
    equipment: Equipment
    authority: Authority = NOBODY
    wake: Bell = field(factory=Bell)
    calls: dict[Place, tuple[Call, "asyncio.Task[None]"]] = field(factory=dict)
    timers: dict[Place, asyncio.TimerHandle] = field(factory=dict)
    outcomes: list[Outcome] = field(factory=list)
    """Of calls that have ended, until they are recorded."""
    taken: list[Outcome] = field(factory=list)
    """Those of `outcomes` that what was recorded in this turn includes."""
    startable: deque[int] = field(factory=deque)
    to_start: list[Call] = field(factory=list)
    """Calls to make once what was recorded in this turn is durable."""
    contested: dict[str, StateConflict] = field(factory=dict)
    """Keys that changed under every attempt to decide on them."""
    given_up: bool = False
    interrupted: set[Place] = field(factory=set)
    """Calls that were interrupted because the run stops."""
    tokens: dict[int, tuple[str, int]] = field(factory=dict)
    """Action -> tool and number of the token, for each that has a turn and is not called yet."""
    waiting: set[int] = field(factory=set)
    """Actions that are held until a time, a signal, or people's consent."""
    budget: Budget | None = field(init=False)
    purse: Purse | None = field(init=False)
    schedule: Schedule = field(init=False)
    policy: commit.Policy = field(init=False)
    run: Run = field(init=False)
    """Of the journal; another one once that was read again."""

    def __attrs_post_init__(self) -> None:
        self.run = self.journal.run
        on_doubt = self.run.received.on_doubt
        self.policy = commit.Policy(on_doubt=on_doubt, backoff=self.equipment.backoff)
        given = self.run.received.budget
        self.budget = None if given is None else Budget.from_json(given)
        self.purse = None
        if self.budget is not None and (self.budget.costs or self.budget.parent):
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

    # --- what limits the run ---

    @property
    def counts_calls(self) -> bool:
        """Whether each call has to be known before it is made, because a budget counts it."""
        budget = self.budget
        return self.purse is not None or (budget is not None and budget.max_tool_calls is not None)

    def cache_ttl_us(self, tool: Tool) -> int | None:
        """For how long results of `tool` are served again, in microseconds; None: not at all."""
        seconds = self.equipment.cache_ttls.get(tool.name, tool.schema.cache_ttl_secs)
        return None if seconds is None else seconds * 1_000_000

    async def count_calls(self) -> None:
        """Make sure it is known how often those tools were called that rules ask about."""
        rates = self.equipment.rates
        for policy in self.authority.policies:
            for tool, interval_us in policy.counts.items():
                rates.watch(tool, interval_us)
                await rates.ready(tool)

    def over_budget(self, index: int, state: ActionState) -> bool:
        """Stop the run if the action, or its next attempt, is more than it may do."""
        if self.budget is None:
            return False
        reason = self.budget.exceeded(
            actions=0 if index in self.run.begun else len(self.run.begun),
            tool_calls=self.run.dispatched,
            duration_us=self.run.duration_us,
            is_tool_call=(tool := self.tool_of(state)) is not None and not tool.waits,
        )
        if reason is not None:
            self.stop("budget", reason)
        return reason is not None

    def stop(
        self, cause: str, reason: str, *, compensate: bool = False, by: str | None = None
    ) -> None:
        """Let nothing more begin; the run ends, or is undone."""
        stopping = e.RunStopping(cause=cause, reason=reason, compensate=compensate, by=by)
        self.record([stopping])

    def judge(
        self,
        action: Action,
        tool: Tool | None,
        parameters: Mapping[str, Json],
        *,
        limited: bool = True,
    ) -> Verdict:
        """What the rules say of an action with these parameters.

        Args:
            limited: whether rules hear how often a tool was called lately.
        """
        return self.authority.judge(
            action,
            len(self.run.actions),
            tool,
            parameters,
            self.journal.state.read,
            self._recent_calls if limited else _never_called,
            run_id=self.run.run_id,
            source=self.run.received.source,
        )

    def _recent_calls(self, tool: str, interval_us: int) -> int:
        decided = sum(made.tool.name == tool for made in self.to_start)
        return self.equipment.rates.recent(tool, interval_us) + decided

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
        for outcome in self.taken:
            self.outcomes.remove(outcome)
        self.taken.clear()

    async def make_durable(self) -> None:
        """Flush in the middle of a turn; the calls whose intents are durable then begin."""
        if self.journal.entries:
            await self.flush()
            self.start_calls()

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
        self.taken.clear()
        self.to_start.clear()
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
        return place in self.calls or place in self.timers or self.has_outcome(place)

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
        return not (self.calls or self.to_start or len(self.outcomes) > len(self.taken))

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

    def start_calls(self) -> None:
        """Make the calls of this turn, whose intents are durable now."""
        if self.to_start:
            self.journal.check_held()
        for made in self.to_start:
            for key in made.grounds:
                made.grounds[key] = self.journal.state.known[key].position
            place = (made.index, made.undo)
            self.tokens.pop(made.index, None)
            self.equipment.rates.begun(made.tool.name)
            task = asyncio.create_task(self._call(place, made))
            task.add_done_callback(partial(self._end_badly, place, made))
            self.calls[place] = (made, task)
        self.to_start.clear()

    def drop_decided(self) -> None:
        """Do not make the calls that were decided on in this turn, but for compensations."""
        for made in self.to_start:
            if not made.undo and made.reuse_key is not None:
                self.journal.give_way(flight(made.reuse_key))
        self.to_start = [made for made in self.to_start if made.undo]

    async def _call(self, place: Place, made: Call) -> None:
        outcome = await perform(
            made,
            self.equipment.threads,
            self.equipment.executor,
            self.journal.clock,
            partial(self._why_stopped, place),
        )
        if place not in self.calls or self.calls[place][0] is not made:
            return  # it was abandoned, and that is recorded
        del self.calls[place]
        self.outcomes.append(outcome)
        self.wake.ring()

    def _why_stopped(self, place: Place) -> str | None:
        """Why a call was cancelled by its driver; None if it was not."""
        if place in self.interrupted and self.run.stopping is not None:
            return f"{STOPPED[self.run.stopping.cause]} during the call"
        return "the run was interrupted during the call" if self.given_up else None

    def interrupt_calls(self) -> None:
        """Cancel the calls in flight, because the run stops. A thread cannot be: it is left alone,
        and may go on. Compensations are not cancelled."""
        loop = asyncio.get_running_loop()
        for place, (made, task) in list(self.calls.items()):
            if place[1] or place in self.interrupted:
                continue
            self.interrupted.add(place)
            made.context.request_cancel()
            if made.tool.function is not None and not made.tool.is_async:
                del self.calls[place]
                why = self._why_stopped(place)
                self._unknown(made, f"{why}; a thread cannot be stopped, so it may go on")
                continue
            task.cancel()
            loop.call_later(CANCEL_GRACE_SECONDS, self._abandon, place, made)

    def _abandon(self, place: Place, made: Call) -> None:
        if place in self.calls and self.calls[place][0] is made:
            del self.calls[place]
            self._unknown(made, f"{self._why_stopped(place)}; it does not end")

    def abandon_calls(self) -> None:
        """Take the calls that do not end, although they were cancelled, as ended: who knows how."""
        for place, (made, _) in list(self.calls.items()):
            del self.calls[place]
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
        if place not in self.calls or self.calls[place][0] is not made:
            return
        error = None if task.cancelled() else task.exception()
        if error is None and not self.given_up:
            return  # dropped: the run is not ours any more
        del self.calls[place]
        said = "the run was interrupted before the call" if error is None else repr(error)
        self._unknown(made, said)

    async def drop_calls(self) -> None:
        """Stop waiting for anything: the run is finished, or not ours any more."""
        for place in list(self.timers):
            self.stop_timer(place)
        for tool, number in self.tokens.values():
            self.equipment.rates.refund(tool, number)
        self.tokens.clear()
        if self.purse is not None:
            self.purse.end_turn()
        dropped = list(self.calls.values())
        for made, task in dropped:
            made.context.request_cancel()
            task.cancel()
        if dropped:
            await asyncio.wait([task for _, task in dropped], timeout=CANCEL_GRACE_SECONDS)
        for made, _ in dropped:
            made.context.close()

    # --- outcomes ---

    async def take(self, outcome: Outcome) -> None:
        """Record what came of a call, but not its changes if the state it read has changed."""
        made = outcome.call
        state = self.run.actions[made.index]
        hashes = referred_by(outcome)
        if hashes:
            place = self.outcomes.index(outcome)
            outcome = self.outcomes[place] = await only_held(outcome, hashes, self.journal.store)
            self.run.refers = True
        if self.given_up and outcome.ending is Ending.UNKNOWN and made.tool.schema.repeatable:
            self.outcomes.remove(outcome)  # nothing to record: it will simply be called again
            if made.reuse_key is not None:
                self.journal.give_back(flight(made.reuse_key))
            return
        stale = None
        if outcome.ending is Ending.RETURNED and not made.undo:
            stale = await self._stale({**made.grounds, **outcome.buffered.reads})
        self.taken.append(outcome)
        if made.reuse_key is not None:
            self.journal.give_back(flight(made.reuse_key))
        self.record(commit.after_call(self.run, outcome, stale, self.policy))
        doubt = (state.undo if made.undo else state.do).doubt
        held = doubt is not None and doubt.answer is None
        if self.purse is not None:
            await self._settle(state, made, outcome, held=held)
        if held and not made.undo:
            self.schedule.hold(made.index)

    async def _settle(
        self, state: ActionState, made: Call, outcome: Outcome, *, held: bool
    ) -> None:
        """Take what a call has cost from the budgets; what is in doubt stays reserved besides."""
        assert self.purse is not None
        spent: dict[str, int] = {}
        for one in outcome.buffered.metered:
            spent[one.currency] = spent.get(one.currency, 0) + one.cost_micros
        name = reservation_name(self.run.run_id, state.action.id, made.attempt, undo=made.undo)
        for entry in await self.purse.settle(name, spent, keep=held):
            self.journal.add(entry)

    async def forfeit(self, state: ActionState, attempt: int, *, undo: bool) -> None:
        """Take in full what a call may have spent that ended with its process."""
        if self.purse is not None:
            name = reservation_name(self.run.run_id, state.action.id, attempt, undo=undo)
            for entry in await self.purse.forfeit(name):
                self.journal.add(entry)

    async def settle_doubt(self, state: ActionState, doubt: Doubt) -> None:
        """End what an attempt in doubt had reserved, once somebody has said what became of it: if
        it was carried out, or may have been, it counts in full."""
        answer = doubt.answer
        if self.purse is None or answer is None:
            return
        name = reservation_name(self.run.run_id, state.action.id, doubt.attempt, undo=answer.undo)
        idle = answer.resolution != "succeeded" and not state.maybe_done
        entries = await (self.purse.settle(name) if idle else self.purse.forfeit(name))
        for entry in entries:
            self.journal.add(entry)

    async def _stale(self, reads: dict[str, int]) -> StateConflict | None:
        """The first of `reads` that does not hold any more; otherwise they become conditions."""
        if not reads:
            return None
        if any(key in self.journal.state.pending for key in reads):
            # Another action of the run has written the key in this very turn; see where.
            await self.flush()
        await self.journal.fetch(reads)
        for key, read_at in reads.items():
            now = self.journal.state.known[key].position
            if now != read_at or key in self.contested:
                return StateConflict(self.scope, StateKey(key), Position(read_at), now)
        for key in reads:
            self.journal.state.read(key)
        return None

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


def _never_called(_: str, __: int) -> int:
    return 0
