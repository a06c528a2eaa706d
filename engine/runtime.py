"""The runtime: what an application embeds. It builds, starts and stops parts, and holds no rule."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from carstore import Store
from carstore.blobs import Blob, references
from carstore.canonical import loads_trusted
from carstore.errors import LeaseHeld, LeaseLost, StaleFence, VersionConflict
from carstore.events import Event, ProposalReceived
from carstore.names import MAIN_SCOPE, Json, RunId, Scope, run_lease
from engine.declare import Tool
from engine.desk import Desk, Equipment, Remembered
from engine.drive import Driver
from engine.errors import RunExists, RunOwned
from engine.ir import Proposal, RunResult, RunStatus
from engine.journal import Journal, StateOverlay, load_run
from engine.plan_json import check_proposal, load_proposal, parse_proposal
from engine.propose import (
    Options,
    check_run_id,
    check_tools,
    new_run_id,
    received,
    same_plan,
)
from engine.results import result_of
from engine.rules.retries import Backoff
from engine.rules.sensitive import hidden_in
from engine.run import Run
from engine.threads import Threads
from engine.tool_schema import ToolSchema
from engine.tools import ToolExecutor, Tools
from projections import REUSE, RUNS, row, select

__all__ = ["Runtime"]

GRACE_SECONDS = 5.0
"""How long an interrupted run waits for the calls in flight before it gives them up."""

MAX_RECOVERING = 100
"""Runs that `recover` drives at once."""


def _unobserved(_: Run) -> None:
    pass


class Runtime:
    """Executes proposals on a store, and finishes what a crash interrupted.

    Args:
        store: an open store; closing it is the caller's.
        tools: made with `@tool`, or schemas and names that `executor` carries out.
        executor: carries out tools that have no function of their own.
        scope: which state the runs read and write.
        schedule: `levels` (level by level, the default) or `eager` (each action as soon as it may).
        concurrency: how many calls of one run may be in flight at once.
        on_doubt: `hold` (a person decides, the default), `fail` or `retry`.
        abort_on_rejection: whether a rejected action makes its run roll back.
        abort_on_exhausted_retry: whether an action whose retries are used up does.
        backoff: the delays between retries.
    """

    def __init__(
        self,
        store: Store,
        tools: Iterable[Tool | ToolSchema | str] = (),
        *,
        executor: ToolExecutor | None = None,
        scope: str = MAIN_SCOPE,
        schedule: str = "levels",
        concurrency: int = 16,
        on_doubt: str = "hold",
        abort_on_rejection: bool = False,
        abort_on_exhausted_retry: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        self.store = store
        self.tools = Tools(tools)
        self.tools.check_compensations()
        self.options = Options(
            scope=Scope(scope),
            schedule=schedule,
            concurrency=concurrency,
            on_doubt=on_doubt,
            abort_on_rejection=abort_on_rejection,
            abort_on_exhausted_retry=abort_on_exhausted_retry,
        )
        self._executor = executor
        self._backoff = backoff or Backoff()
        self._threads = Threads()

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

    # --- runs ---

    async def execute(
        self,
        proposal: Proposal | str | bytes | Mapping[str, Json],
        *,
        run_id: str | None = None,
        observe: Callable[[Run], None] = _unobserved,
    ) -> RunResult:
        """Run a proposal and return what came of it, which may be that it waits for a person.

        Without `run_id` it is a new run. With one, calling this again continues the run, or returns
        its recorded result. If the caller is cancelled, nothing more is started, the calls in
        flight are awaited for some seconds, and the run is put down to be resumed.

        Args:
            proposal: a `Proposal`, or its JSON.
            observe: called after each turn of the driver with the run as it is then.

        Raises:
            InvalidProposal, InvalidRunId: bad input; nothing was recorded.
            RunExists: the run id belongs to another proposal.
            RunOwned: another process drives this run.
            ToolsChanged: the run was begun with other tools.
            Busy, DiskFull, StoreFailed: the store; what was recorded is safe.
        """
        checked = (
            check_proposal(proposal) if isinstance(proposal, Proposal) else parse_proposal(proposal)
        )
        name = new_run_id() if run_id is None else check_run_id(run_id)
        if run_id is not None and (found := await self._find(name)) is not None:
            if not same_plan(found, checked):
                raise RunExists(name)
            return await self._go_on(found, observe)
        run, blobs = self._begun(name, checked)
        return await self._drive(run, observe, is_new=True, blobs=blobs)

    def _begun(self, run_id: RunId, proposal: Proposal) -> tuple[Run, list[Blob]]:
        """A new run, and the values that go beside the log with its first event."""
        first: Event = received(proposal, self.tools, self.options, self.store.log_id)
        blobs: list[Blob] = []
        hidden = hidden_in(first, self.tools, None)
        if hidden or self.store.redaction.names:  # what is large goes as it is appended
            first, blobs = self.store.redaction.applied(first, hidden)
        assert isinstance(first, ProposalReceived)
        run = Run.begin(run_id, first, load_proposal(first.proposal) if blobs else proposal)
        return run, blobs

    async def resume(
        self,
        run_id: str,
        *,
        accept_copy: bool = False,
        by: str = "somebody",
        observe: Callable[[Run], None] = _unobserved,
    ) -> RunResult:
        """Continue an unfinished run; return the recorded result of a finished one.

        Args:
            accept_copy: whether a run that was copied unfinished goes on here, although its origin
                may go on too. Without that, no tool is called for it, and it is returned waiting.
            by: who accepts that.

        Raises:
            NotFound: there is no such run. Otherwise as `execute`.
        """
        run = await load_run(self.store, check_run_id(run_id))
        return await self._go_on(run, observe, by if accept_copy else None)

    async def recover(
        self,
        *,
        accept_copies: bool = False,
        by: str = "somebody",
        observe: Callable[[Run], None] = _unobserved,
    ) -> list[RunResult | RunOwned]:
        """Continue every unfinished run, each as `resume` does.

        Args:
            accept_copies, by: as of `resume`, for all that were copied unfinished.

        Returns what came of each, in the order in which they began; for one that another process
        drives, the error that says so.

        Raises:
            ToolsChanged: if one cannot go on with these tools; then none was continued.
        """
        runs = [await load_run(self.store, run_id) for run_id in await self.unfinished()]
        for run in runs:
            if accept_copies or not run.held:
                check_tools(run, self.tools)
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
        """The runs that have begun and not ended, oldest first."""
        found = [
            item
            for status in (RunStatus.RUNNING, RunStatus.WAITING)
            for item in await select(self.store, RUNS, status=status.value)
        ]
        return [RunId(item.run_id) for item in sorted(found, key=lambda item: item.started_at)]

    # --- parts ---

    async def _find(self, run_id: RunId) -> Run | None:
        history = [recorded async for recorded in self.store.log.read(run=run_id)]
        return Run.fold(run_id, history) if history else None

    async def _go_on(
        self, run: Run, observe: Callable[[Run], None], accepted_by: str | None = None
    ) -> RunResult:
        if run.completed is not None or (run.held and accepted_by is None):
            return result_of(run)
        check_tools(run, self.tools)
        return await self._drive(run, observe, is_new=False, accepted_by=accepted_by)

    async def _drive(
        self,
        run: Run,
        observe: Callable[[Run], None],
        *,
        is_new: bool,
        blobs: Sequence[Blob] = (),
        accepted_by: str | None = None,
    ) -> RunResult:
        state = StateOverlay(Scope(run.received.scope))
        journal = Journal(self.store, run, state, is_new, first_blobs=blobs)
        driver = Driver(Desk(journal, self._equipment()), observe, accepted_by)
        task = asyncio.create_task(driver.drive(), name=f"carstore run {run.run_id}")
        try:
            return result_of(await asyncio.shield(task))
        except asyncio.CancelledError:
            await _put_down(driver, task)
            raise
        except LeaseHeld as held:
            raise RunOwned(run.run_id, held.holder, held.expires_in_us) from held
        except (LeaseLost, StaleFence, VersionConflict) as lost:
            raise RunOwned(run.run_id, await self._owner(run.run_id)) from lost

    async def _owner(self, run_id: RunId) -> str:
        found = await self.store.leases.row(run_lease(run_id))
        return "another process" if found is None or found.holder is None else str(found.holder)

    def _equipment(self) -> Equipment:
        return Equipment(
            tools=self.tools,
            executor=self._executor,
            threads=self._threads,
            backoff=self._backoff,
            recall=self._recall,
        )

    async def _recall(self, key: str) -> Remembered | None:
        found = await row(self.store, REUSE, (key,))
        if found is None:
            return None
        output = loads_trusted(found.output)
        if any(references(await self.store.blobs.fill(output))):
            return None  # it was forgotten
        return Remembered(
            position=found.position,
            run_id=found.run_id,
            action_id=found.action_id,
            output=output,
        )


async def _put_down(driver: Driver, task: "asyncio.Task[Run]") -> None:
    """Let an interrupted run end its turn; a second interruption does not wait any longer."""
    driver.interrupt()
    with suppress(asyncio.CancelledError):
        done, _ = await asyncio.wait({task}, timeout=GRACE_SECONDS)
        if done:
            task.exception()
            return
    driver.give_up()
    with suppress(asyncio.CancelledError):
        await asyncio.wait({task})
    if task.done():
        task.exception()
