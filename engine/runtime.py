"""The runtime: what an application embeds. It builds, starts and stops parts, and holds no rule."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from types import MappingProxyType

from carstore import Store
from carstore.names import MAIN_SCOPE, Json, RunId, Scope
from engine.accounts import Ledger
from engine.authority import NOBODY, Authority
from engine.declare import Tool
from engine.equipment import Equipment
from engine.errors import RunExists, RunOwned
from engine.ir import MAX_TIMEOUT_MS, Proposal, RunResult, RunStatus
from engine.journal import load_run
from engine.plan_json import check_proposal, parse_proposal
from engine.propose import (
    Lineage,
    Options,
    Terms,
    check_run_id,
    check_schedule,
    check_tools,
    new_run_id,
    same_plan,
)
from engine.pursue import Propose, PursuitResult, pursue
from engine.pursuit import Terms as PursuitTerms
from engine.rates import Rates
from engine.recall import recall
from engine.replan import Replan, Replans
from engine.rulebook import Rulebook
from engine.rules.budget import Budget
from engine.rules.capabilities import CapabilitySet
from engine.rules.policies import Policy
from engine.rules.retries import Backoff
from engine.rules.schedule import ScheduleFactory, known_schedules
from engine.run import Run
from engine.runs import Observer, Runs, unobserved
from engine.stop import calls_nothing
from engine.threads import Threads
from engine.tool_schema import RateLimit, ToolSchema
from engine.tools import ToolExecutor, Tools
from engine.waits import can_go_on
from projections import RUNS, select

__all__ = ["Runtime"]

MAX_RECOVERING = 100
"""Runs that `recover` drives at once."""


class Runtime:
    """Executes proposals on a store, and finishes what a crash interrupted.

    Args:
        store: an open store; closing it is the caller's.
        tools: made with `@tool`, or schemas and names that `executor` carries out.
        executor: carries out tools that have no function of their own.
        scope: which state the runs read and write.
        schedule: `levels` (level by level, the default), `eager` (each action as soon as it may),
            or a name of `schedules`.
        schedules: schedules of your own, by name: classes or functions that take the graph of a run
            and the actions that are settled already. A resume needs the one that a run began with.
        concurrency: how many calls of one run may be in flight at once.
        on_doubt: `hold` (a person decides, the default), `fail` or `retry`.
        abort_on_rejection: whether a rejected action makes its run roll back.
        abort_on_exhausted_retry: whether an action whose retries are used up does.
        backoff: the delays between retries.
        policies: rules that judge every action of the runs that begin here.
        capabilities: what these runs may use at all.
        budget: what each of them may take, unless `execute` is told otherwise.
        replan: asked for another proposal when a run was aborted.
        max_replans: how often in a row.
        replan_on_rejection: whether it is also asked when an action was rejected.
    """

    def __init__(
        self,
        store: Store,
        tools: Iterable[Tool | ToolSchema | str] = (),
        *,
        executor: ToolExecutor | None = None,
        scope: str = MAIN_SCOPE,
        schedule: str = "levels",
        schedules: Mapping[str, ScheduleFactory] = MappingProxyType({}),
        concurrency: int = 16,
        on_doubt: str = "hold",
        abort_on_rejection: bool = False,
        abort_on_exhausted_retry: bool = False,
        backoff: Backoff | None = None,
        policies: Sequence[Policy] = (),
        capabilities: CapabilitySet | None = None,
        budget: Budget | None = None,
        replan: Replan | None = None,
        max_replans: int = 2,
        replan_on_rejection: bool = False,
    ) -> None:
        self.store = store
        self.tools = Tools(tools)
        self.tools.check_compensations()
        self.options = Options(
            scope=Scope(scope),
            schedule=schedule,
            schedules=known_schedules(schedules),
            concurrency=concurrency,
            on_doubt=on_doubt,
            abort_on_rejection=abort_on_rejection,
            abort_on_exhausted_retry=abort_on_exhausted_retry,
        )
        self._rules = Rulebook(store, policies, capabilities)
        self._budget = budget
        self._rate_limits: dict[str, RateLimit] = {}
        self._cache_ttls: dict[str, int] = {}
        self._ledger = Ledger(store)
        self._rates = Rates(store, self._limit_of)
        self._runs = Runs(
            store,
            Equipment(
                tools=self.tools,
                executor=executor,
                threads=Threads(),
                backoff=backoff or Backoff(),
                recall=partial(recall, store),
                rates=self._rates,
                ledger=self._ledger,
                ledger_locks={},
                cache_ttls=self._cache_ttls,
                schedules=self.options.schedules,
            ),
        )
        self._replans = Replans(self, replan, max_replans, on_rejection=replan_on_rejection)

    # --- the seed's surface ---

    def register_tool(self, tool: Tool | ToolSchema | str) -> None:
        """Add a tool; a bare name or a schema is carried out by the executor.

        Raises:
            InvalidTool: if it cannot be used, or its name is taken.
        """
        self.tools.register(tool)

    def tool_schemas(self) -> list[dict[str, Json]]:
        """All schemas, as JSON: what a model is shown."""
        return [schema.to_dict() for schema in self.tools.schemas()]

    def set_cost_budget(self, budget: Budget | None) -> None:
        """What each run that begins from now on may take; None: as much as it likes."""
        self._budget = budget

    def set_capabilities(self, capabilities: CapabilitySet | None) -> None:
        """What runs that begin from now on may use; None: everything. It is put down in the log
        with the first of them."""
        self._rules.permit(capabilities)

    def add_policy(self, policy: Policy) -> None:
        """Let a rule judge the runs that begin from now on; one of the same name makes way for it.
        It is put down in the log with the first of them."""
        self._rules.add(policy)

    async def remove_policy(self, name: str, *, by: str = "somebody") -> None:
        """Take a rule out of force. Runs that have begun stay bound to it.

        Raises:
            NotFound: it is not in force.
        """
        await self._rules.remove(name, by)

    def set_rate_limit(self, tool: str, max_calls: int, interval_secs: float) -> None:
        """Let at most `max_calls` of a tool begin at once, refilled within `interval_secs`; calls
        beyond wait for their turn. Goes before what the tool declares."""
        self._rate_limits[tool] = RateLimit(max_calls, interval_secs)
        self._rates.limit_changed(tool)

    def enable_tool_cache(self, tool: str, ttl_secs: int) -> None:
        """Serve a result of `tool` again for the same parameters, for so many seconds."""
        if type(ttl_secs) is not int or ttl_secs < 1:
            raise ValueError(f"ttl_secs is a whole number from 1, not {ttl_secs!r:.40}")
        self._cache_ttls[tool] = ttl_secs

    # --- runs ---

    async def execute(
        self,
        proposal: Proposal | str | bytes | Mapping[str, Json],
        *,
        run_id: str | None = None,
        budget: Budget | None = None,
        timeout_secs: float | None = None,
        deadline_at: int | None = None,
        lineage: Lineage | None = None,
        observe: Observer = unobserved,
    ) -> RunResult:
        """Run a proposal and return what came of it, which may be that it waits for something.

        Without `run_id` it is a new run. With one, calling this again continues the run, or returns
        its recorded result. If the caller is cancelled, nothing more is started, the calls in
        flight are awaited for some seconds, and the run is put down to be resumed.

        Args:
            proposal: a `Proposal`, or its JSON.
            budget: what this run may take, instead of the runtime's.
            timeout_secs: after so many seconds nothing is begun any more, and the run ends; waits
                and times without a process count too.
            deadline_at: the same as an instant, microseconds UTC; the earlier of both counts.
            lineage: where the proposal comes from; given by what asks for proposals.
            observe: called after each turn of the driver with the run as it is then.

        Returns the result of the last run, if others came in the place of this one.

        Raises:
            InvalidProposal, InvalidRunId: bad input; nothing was recorded.
            NotFound: there is no such budget to take from.
            RunExists: the run id belongs to another proposal.
            RunOwned: another process drives this run.
            ToolsChanged, ScheduleMissing, PolicyChanged: the run was begun with other tools,
                another schedule or other rules.
            Busy, DiskFull, StoreFailed: the store; what was recorded is safe.
        """
        checked = (
            check_proposal(proposal) if isinstance(proposal, Proposal) else parse_proposal(proposal)
        )
        name = new_run_id() if run_id is None else check_run_id(run_id)
        if run_id is not None and (found := await self._runs.find(name)) is not None:
            is_other = lineage is not None and found.received.replaces != lineage.replaces
            if is_other or not same_plan(found, checked):
                raise RunExists(name)
            return await self._go_on(found, observe)
        if lineage is None:
            await self._replans.check(name)
        budget = budget or self._budget
        if budget is not None and budget.parent is not None:
            await self._ledger.load(budget.parent)
        authority = await self._rules.current()
        if lineage is not None and lineage.replaces is not None:
            before = await load_run(self.store, RunId(lineage.replaces))
            authority = (await self._rules.binding(before)).joined(authority)
        terms = Terms(
            policies=authority.digests,
            budget=None if budget is None else budget.to_json(),
            deadline_at=self._deadline(timeout_secs, deadline_at),
            lineage=lineage or self._replans.lineage,
        )
        run = await self._runs.begin(name, checked, self.options, terms, authority, observe)
        return await self._replans.follow(run, observe)

    async def resume(
        self,
        run_id: str,
        *,
        accept_copy: bool = False,
        by: str = "somebody",
        observe: Observer = unobserved,
    ) -> RunResult:
        """Continue an unfinished run; return the recorded result of a finished one.

        A run that waits for something that is not there yet is returned as it is.

        Args:
            accept_copy: whether a run that was copied unfinished goes on here, although its origin
                may go on too. Without that, no tool is called for it, and it is returned waiting.
            by: who accepts that.

        Raises:
            NotFound: there is no such run. Otherwise as `execute`.
        """
        run = await load_run(self.store, check_run_id(run_id))
        return await self._go_on(run, observe, by if accept_copy else None)

    async def pursue(
        self,
        goal: Json,
        propose: Propose,
        *,
        pursuit: str | None = None,
        max_steps: int = 20,
        max_cost: Decimal | str | None = None,
        timeout_secs: float | None = None,
        observe: Observer = unobserved,
    ) -> PursuitResult:
        """Ask for proposals and run them, one after the other, until there is nothing to propose.

        Without `pursuit` it is a new one. With an id, calling this again goes on where the log
        ends, within the limits that it began with, or returns its recorded end; a proposal that
        was recorded is not asked for again. One whose last run waits is returned `waiting`.

        Args:
            goal: any JSON; handed to `propose`.
            propose: gives the next proposal, or `Done`, of what it is told of the situation.
            max_steps: proposals at most, 1 to 10,000.
            max_cost: US dollars, of all runs and of what `propose` meters; the next step is not
                    asked for once they are spent, and no call may reserve more than is left.
            timeout_secs: after so many seconds nothing is asked for or begun any more.
            observe: as of `execute`, for all its runs.

        Raises:
            InvalidRunId, InvalidJson, InvalidBudget, ValueError: bad input; nothing was recorded.
            PursuitExists: the id belongs to another goal.
            PursuitOwned: somebody else drives it.
            RunExists: the id of a step is that of a run of something else.
            TypeError: `propose` gave no answer; or what it raises. It is asked again next time.
            Otherwise as `execute`.
        """
        terms = PursuitTerms(
            max_steps=max_steps,
            max_cost=max_cost,
            ends_at=self._deadline(timeout_secs, None),
            budget=self._budget,
            lineage=self._replans.lineage,
        )
        return await pursue(self, goal, propose, terms, pursuit, observe)

    async def recover(
        self,
        *,
        accept_copies: bool = False,
        by: str = "somebody",
        observe: Observer = unobserved,
    ) -> list[RunResult | RunOwned]:
        """Continue every unfinished run, each as `resume` does.

        Args:
            accept_copies, by: as of `resume`, for all that were copied unfinished.

        Returns what came of each, in the order in which they began; for one that another process
        drives, the error that says so.

        Raises:
            ToolsChanged, ScheduleMissing, PolicyChanged: if one cannot go on with these tools,
                schedules and rules; then none was continued.
        """
        runs = [await load_run(self.store, run_id) for run_id in await self.unfinished()]
        for run in runs:
            if run.completed is None and (accept_copies or not run.held):
                await self._bound(run)
        gate = asyncio.Semaphore(MAX_RECOVERING)

        async def one(run: Run) -> RunResult | RunOwned:
            async with gate:
                try:
                    return await self._go_on(run, observe, by if accept_copies else None)
                except RunOwned as owned:
                    return owned

        ended = await asyncio.gather(*[one(run) for run in runs], return_exceptions=True)
        results: list[RunResult | RunOwned] = []
        for item in ended:
            if isinstance(item, BaseException) and not isinstance(item, RunOwned):
                raise item  # one that is owned by another is an answer, not a failure
            results.append(item)
        return results

    async def unfinished(self) -> list[RunId]:
        """The runs that have begun and not ended, oldest first; also those that were aborted, if
        this runtime is to ask for a proposal in their place and has not done so."""
        found = [
            item
            for status in (RunStatus.RUNNING, RunStatus.WAITING)
            for item in await select(self.store, RUNS, status=status.value)
        ]
        if self._replans.asks:
            found += await select(self.store, RUNS, replan="pending")
        return [RunId(item.run_id) for item in sorted(found, key=lambda item: item.started_at)]

    # --- parts ---

    async def find(self, run_id: str) -> Run | None:
        """The run of that id as the log tells it, if there is one."""
        return await self._runs.find(check_run_id(run_id))

    def _limit_of(self, tool: str) -> RateLimit | None:
        limit = self._rate_limits.get(tool)
        known = self.tools.get(tool) if limit is None else None
        return limit if known is None else known.schema.rate_limit

    def _deadline(self, timeout_secs: float | None, deadline_at: int | None) -> int | None:
        if timeout_secs is None:
            return deadline_at
        if not 0 < timeout_secs <= MAX_TIMEOUT_MS / 1000:
            most = MAX_TIMEOUT_MS // 1000
            raise ValueError(f"timeout_secs is above 0, at most {most:,}, not {timeout_secs!r:.40}")
        ends_at = self.store.clock.now() + round(timeout_secs * 1_000_000)
        return ends_at if deadline_at is None else min(ends_at, deadline_at)

    async def _bound(self, run: Run) -> Authority:
        """The rules that bind a run, which its tools and its schedule have to be there for too.

        Raises:
            ToolsChanged, ScheduleMissing, PolicyChanged: it was begun with others.
        """
        check_schedule(run, self.options.schedules)
        if calls_nothing(run, self.store.clock.now()):
            return NOBODY
        check_tools(run, self.tools)
        return await self._rules.binding(run)

    async def _go_on(
        self, run: Run, observe: Observer, accepted_by: str | None = None
    ) -> RunResult:
        if run.completed is None and not (run.held and accepted_by is None):
            authority = await self._bound(run)
            if can_go_on(run, self.store.clock.now()):
                run = await self._runs.go_on(run, authority, observe, accepted_by)
        return await self._replans.follow(run, observe)
