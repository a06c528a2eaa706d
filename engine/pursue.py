"""The agent loop: one proposal after the other, until whoever proposes says that the goal is met.

A pursuit is a stream (`engine.pursuit`), and its steps are runs: step `n` of the pursuit `ID` is
the run `ID-sn`. So a proposal is an event before anything of it is done, and there is one for each
step. Whoever goes on after a crash finds the run and goes on with it, and asks only for a step of
which there is no run.

What a pursuit may spend is a budget like any other, `pursuit/ID`, of which the budgets of its runs
are a part: what a call reserves is held back from the pursuit too. The proposing is taken from it
when it is metered.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from carstore import canonical
from carstore import events as e
from carstore.blobs import references
from carstore.errors import LeaseHeld, LeaseLost, StaleFence, VersionConflict
from carstore.names import Json, RunId, is_run_id
from engine.asking import Done, Left, Propose, Situation, ask, situation_of
from engine.errors import InvalidRunId, RunExists
from engine.ir import Proposal, RunResult, RunStatus
from engine.problems import InvalidProposal
from engine.propose import check_run_id, new_run_id
from engine.pursuit import (
    MAX_STEPS,
    Pursuit,
    PursuitExists,
    PursuitOwned,
    PursuitResult,
    PursuitStatus,
    Terms,
    step_id,
)
from engine.replan import successor_of
from engine.results import result_of
from engine.rules.budget import Budget
from engine.rules.money import units_of
from engine.run import Run
from engine.runs import Observer
from engine.threads import Threads
from engine.waits import can_go_on

if TYPE_CHECKING:
    from engine.runtime import Runtime

__all__ = [
    "MAX_REFUSALS",
    "MAX_STEPS",
    "Done",
    "Left",
    "Propose",
    "PursuitExists",
    "PursuitOwned",
    "PursuitResult",
    "PursuitStatus",
    "Situation",
    "pursue",
]

MAX_REFUSALS = 3
"""Answers in a row that are no valid proposal, after which a pursuit has failed: a model that is
told twice what is wrong, and cannot correct it, will not."""


async def pursue(
    runtime: "Runtime",
    goal: Json,
    propose: Propose,
    terms: Terms,
    pursuit: str | None,
    observe: Observer,
) -> PursuitResult:
    """What `Runtime.pursue` does; raises as that."""
    canonical.check(goal, "goal")
    name: str = new_run_id() if pursuit is None else pursuit
    if not is_run_id(name):
        raise InvalidRunId(name)
    most, last = terms.lineage.replans_left, step_id(name, MAX_STEPS)
    check_run_id(f"{last}-r{most}" if most else last)  # no id that it may need is longer
    record = Pursuit(runtime.store, name)
    loop = _Loop(runtime, record, goal, propose, terms, observe)
    try:
        return await loop.drive()
    except LeaseHeld as held:
        raise PursuitOwned(name, held.holder, held.expires_in_us) from held
    except (LeaseLost, StaleFence, VersionConflict) as lost:
        row = await runtime.store.leases.row(record.lease)
        holder = None if row is None else row.holder
        raise PursuitOwned(name, str(holder or "another process")) from lost
    finally:
        await record.let_go()


@define(eq=False)
class _Loop:
    """One call of `pursue`."""

    runtime: "Runtime"
    record: Pursuit
    goal: Json
    propose: Propose
    terms: Terms
    observe: Observer
    runs: list[Run] = field(factory=list)
    """Of each step the last run, as they were recorded when this call began."""
    results: list[RunResult] = field(factory=list)
    source: str = "unknown"
    """Of the newest proposal: whom metering is put down to that names nobody."""
    threads: Threads = field(factory=Threads)

    @property
    def started(self) -> e.PursuitStarted:
        assert self.record.started is not None
        return self.record.started

    async def drive(self) -> PursuitResult:
        await self._load()
        if self.record.ended is not None or self._only_waits():
            return await self._outcome()
        if self.record.started is None:
            await self._begin()
        else:
            await self.record.own()
            await self._load()  # somebody else may have gone on before the lease was ours
        if self.record.ended is None:
            await self._go_on()
        return await self._outcome()

    # --- what is recorded ---

    async def _load(self) -> None:
        await self.record.load()
        if self.record.started is not None:
            await self._check_goal(self.started.goal)
        self.runs.clear()
        while (run := await self.runtime.find(self._next_id(self.runs))) is not None:
            if run.received.pursuit != self.record.name:
                raise RunExists(run.run_id)
            self.runs.append(await self._last_of(run))
            self.source = self.runs[-1].received.source
        self.results = [result_of(run) for run in self.runs]

    def _next_id(self, before: Sequence[object]) -> RunId:
        return step_id(self.record.name, len(before) + 1)

    async def _check_goal(self, recorded: Json) -> None:
        known = await self.record.store.blobs.fill(recorded)
        forgotten = any(references(known))
        if not forgotten and canonical.dumps(known) != canonical.dumps(self.goal):
            raise PursuitExists(self.record.name)

    async def _last_of(self, run: Run) -> Run:
        """The run that stands for the step: the last of those that replace each other."""
        while run.completed is not None and run.received.replans_left > 0:
            found = await self.runtime.find(successor_of(run))
            if found is None or found.received.replaces != run.run_id:
                break
            run = found
        return run

    def _only_waits(self) -> bool:
        """Whether what the last run waits for is not there yet: then nothing has to be recorded."""
        if not self.runs or self.runs[-1].status is not RunStatus.WAITING:
            return False
        return self.runs[-1].held or not can_go_on(self.runs[-1], self.record.store.clock.now())

    async def _begin(self) -> None:
        terms = self.terms
        started = e.PursuitStarted(
            pursuit=self.record.name,
            goal=self.goal,
            max_steps=terms.max_steps,
            max_cost_micros=terms.max_cost_micros,
            ends_at=terms.ends_at,
        )
        await self.record.own(started, None if terms.budget is None else terms.budget.parent)

    async def _outcome(self) -> PursuitResult:
        ended = self.record.ended
        return PursuitResult(
            pursuit=self.record.name,
            status=PursuitStatus.WAITING if ended is None else PursuitStatus(ended.status),
            steps=len(self.results) if ended is None else ended.steps,
            answer=None if ended is None else await self.record.store.blobs.fill(ended.answer),
            reason=None if ended is None else ended.reason,
            results=tuple(self.results),
        )

    # --- the loop ---

    async def _go_on(self) -> None:
        """Until the pursuit ends, or its last run waits."""
        if self.runs:
            last = self.runs[-1].run_id
            self.results[-1] = await self.runtime.resume(last, observe=self.observe)
        while not self.results or self.results[-1].status is not RunStatus.WAITING:
            came = await self._next()
            if isinstance(came, e.PursuitEnded):
                await self.record.end(came)
                return
            self.results.append(await self._run(came))

    async def _run(self, proposal: Proposal) -> RunResult:
        name = self._next_id(self.results)
        await self.record.check_held()
        try:
            return await self.runtime.execute(
                proposal,
                run_id=name,
                budget=await self._budget(),
                deadline_at=self.started.ends_at,
                lineage=evolve(self.terms.lineage, pursuit=self.record.name),
                observe=self.observe,
            )
        except RunExists as exists:  # there was none before: whoever took over was faster
            raise LeaseLost(self.record.lease) from exists

    async def _budget(self) -> Budget | None:
        """Of a run: that of the runtime, as a part of the pursuit's."""
        if not await self.record.accounts():
            return self.terms.budget
        given = None if self.terms.budget is None else self.terms.budget.to_json()
        return Budget.from_json({**(given or {}), "parent": self.record.account})

    async def _next(self) -> Proposal | e.PursuitEnded:
        """The next proposal, or the end."""
        problem = None
        for _ in range(MAX_REFUSALS):
            end = await self._limit()
            if end is not None:
                return end
            said = await self._asked(problem)
            match said:
                case None:
                    return self._ended(PursuitStatus.DEADLINE, "its time is over")
                case Done():
                    status = PursuitStatus.FAILED if said.failed else PursuitStatus.DONE
                    return self._ended(status, said.reason, said.answer)
            most = self.started.max_steps
            if len(self.results) >= most:
                return self._ended(PursuitStatus.MAX_STEPS, f"{most:,} proposals were run")
            if self.record.is_late():
                return self._ended(PursuitStatus.DEADLINE, "its time is over")
            if isinstance(said, Proposal):
                return said
            problem = said.message
        reason = f"{MAX_REFUSALS} answers in a row were no proposal that can be run: {problem}"
        return self._ended(PursuitStatus.FAILED, reason)

    async def _limit(self) -> e.PursuitEnded | None:
        """The end, if nothing may be proposed any more."""
        last = self.results[-1] if self.results else None
        stopped = "" if last is None or last.stopped is None else last.stopped
        if stopped.startswith("cancelled"):
            return self._ended(PursuitStatus.CANCELLED, stopped)
        if self.record.is_late():
            return self._ended(PursuitStatus.DEADLINE, "its time is over")
        for account in await self.record.accounts():
            shortage = account.covers({})
            if shortage is not None:
                left = f"{units_of(shortage.remaining)} {shortage.unit} left"
                return self._ended(PursuitStatus.MAX_COST, f"budget {account.name!r}: {left}")
        return None

    def _ended(
        self, status: PursuitStatus, reason: str | None, answer: Json = None
    ) -> e.PursuitEnded:
        return e.PursuitEnded(
            pursuit=self.record.name,
            status=status.value,
            steps=len(self.results),
            answer=answer,
            reason=reason,
        )

    # --- asking ---

    async def _asked(self, problem: str | None) -> Proposal | Done | InvalidProposal | None:
        """An answer, what is wrong with it, or None if it did not come in time."""
        situation = await situation_of(
            self.record.store,
            self.runtime.options.scope,
            self.started,
            self.goal,
            self.results,
            await self.record.accounts(),
            problem,
        )
        try:
            said = await ask(self.propose, situation, self.threads)
            if isinstance(said, Proposal):
                self.source = said.source
            return said
        finally:  # what was spent is spent, whatever was said
            await self.record.meter(situation.step, self.source, situation.close())
