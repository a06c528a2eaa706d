"""Replanning: when a run was aborted, somebody may propose something else in its place.

The run that comes in the place of another is named after it (`RUN-r1`, `RUN-r2`, ...), so that its
first append can happen once only: whoever goes on after a crash finds it, or asks again because
there is none. Its `proposal_received` says which run it replaces. That nothing was proposed is
recorded too, in the inbox of the aborted run, and so is that what was proposed cannot be run.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

from carstore.errors import VersionConflict
from carstore.events import ReplanDeclined
from carstore.log import Entry, Expect
from carstore.names import RunId, inbox_stream, run_stream
from engine.asking import answer_of
from engine.errors import RunExists
from engine.ir import ActionResult, ActionStatus, Proposal, RunResult, RunStatus
from engine.problems import InvalidProposal
from engine.propose import Lineage, check_run_id
from engine.results import result_of
from engine.rules.budget import Budget
from engine.run import Run
from engine.runs import Observer
from engine.threads import Threads

if TYPE_CHECKING:
    from engine.runtime import Runtime

__all__ = ["Aborted", "Replan", "Replans", "successor_of"]

_REPLAN = re.compile(r"-r(\d+)\Z")

_TOO_LATE = "its time was over before anything else was proposed"

MAX_REASON_CHARS = 4_000
"""Of why nothing comes in the place of a run; as much as is kept of any error."""


@frozen
class _Nothing:
    """That there is no other proposal."""

    why: str


@frozen(kw_only=True)
class Aborted:
    """What somebody who is to propose something else is told."""

    proposal: Proposal
    """That was run, as it was recorded."""
    result: RunResult
    failed: tuple[ActionResult, ...]
    """The actions that failed or were rejected."""
    rolled_back: tuple[ActionResult, ...]
    """Those that had succeeded and were undone."""
    replans_left: int
    """How often one may propose after this time."""


Replan: TypeAlias = Callable[[Aborted], "Proposal | Awaitable[Proposal | None] | None"]
"""Proposes something else, or nothing. A plain function is called in a thread."""


def successor_of(run: Run) -> RunId:
    """The id of the run that comes in the place of `run`."""
    found = _REPLAN.search(run.run_id) if run.received.replaces is not None else None
    if found is None:
        return check_run_id(f"{run.run_id}-r1")
    return check_run_id(f"{run.run_id[: found.start()]}-r{int(found[1]) + 1}")


class Replans:
    """Asks for proposals in the place of those that were aborted, on behalf of a runtime."""

    def __init__(
        self, runtime: "Runtime", replan: Replan | None, most: int, *, on_rejection: bool
    ) -> None:
        if replan is not None and not (type(most) is int and most >= 1):
            raise ValueError(f"max_replans is a whole number from 1, not {most!r:.40}")
        self._runtime = runtime
        self._replan = replan
        self._threads = Threads()
        most = 0 if replan is None else most
        self.lineage = Lineage(replans_left=most, replan_on_rejection=on_rejection and most > 0)

    async def check(self, run_id: RunId) -> None:
        """Refuse an id that leaves no room for those of the runs that may come in its place.

        Raises:
            InvalidRunId: they would be too long.
            RunExists: the first of them belongs to another run.
        """
        most = self.lineage.replans_left
        if most:
            check_run_id(f"{run_id}-r{most}")
            first = check_run_id(f"{run_id}-r1")
            if await self._runtime.find(first) is not None:
                raise RunExists(first)

    @property
    def asks(self) -> bool:
        """Whether there is somebody to ask."""
        return self._replan is not None

    async def follow(self, run: Run, observe: Observer) -> RunResult:
        """What came of a run, or of those that came in its place."""
        result = result_of(run)
        if not _is_asked_for(run):
            return result
        name = successor_of(run)
        found = await self._runtime.find(name)
        if found is not None and found.received.replaces == run.run_id:
            return await self._runtime.resume(name, observe=observe)
        if self._replan is None:
            return result
        told = _told(run, result, run.received.replans_left - 1)
        proposal = await self._asked(self._replan, told, run.received.deadline_at)
        try:
            if isinstance(proposal, _Nothing):
                reason = proposal.why
            else:
                try:
                    return await self._begin(run, name, proposal, observe)
                except InvalidProposal as refused:
                    reason = f"what was proposed cannot be run: {refused.message}"
            await self._decline(run, name, reason[:MAX_REASON_CHARS])
            return result
        except (RunExists, VersionConflict):  # somebody else has proposed meanwhile
            found = await self._runtime.find(name)
            if found is None or found.received.replaces != run.run_id:
                raise
            return await self._runtime.resume(name, observe=observe)

    async def _asked(
        self, replan: Replan, told: Aborted, deadline_at: int | None
    ) -> "Proposal | _Nothing":
        """What is proposed, or why there is nothing. A thread that has not answered when the time
        is over goes on, and nobody waits for it."""
        seconds = None
        if deadline_at is not None:
            seconds = (deadline_at - self._runtime.store.clock.now()) / 1e6
            if seconds <= 0:
                return _Nothing(_TOO_LATE)
        try:
            async with asyncio.timeout(seconds) as limit:
                said: Any = await answer_of(replan, told, self._threads)
        except TimeoutError:
            if not limit.expired():
                raise
            return _Nothing(_TOO_LATE)
        return _Nothing("nothing else was proposed") if said is None else said

    async def _begin(
        self, run: Run, name: RunId, proposal: Proposal, observe: Observer
    ) -> RunResult:
        lineage = Lineage(
            replaces=run.run_id,
            replans_left=run.received.replans_left - 1,
            replan_on_rejection=run.received.replan_on_rejection,
            pursuit=run.received.pursuit,
        )
        return await self._runtime.execute(
            proposal,
            run_id=name,
            budget=Budget.from_json(run.received.budget),
            deadline_at=run.received.deadline_at,
            lineage=lineage,
            observe=observe,
        )

    async def _decline(self, run: Run, name: RunId, reason: str) -> None:
        """Put down that nothing comes in the place of `run`, and why.

        Raises:
            VersionConflict: something has.
        """
        declined = ReplanDeclined(run=run.run_id, reason=reason)
        entry = Entry(inbox_stream(run.run_id), declined, run.run_id)
        expect = Expect(versions={run_stream(name): 0})
        await self._runtime.store.log.append(entry, expect=expect)


def _is_asked_for(run: Run) -> bool:
    """Whether a run ended in a way for which it wanted another proposal."""
    done = run.completed
    if done is None or run.received.replans_left < 1 or run.declined or run.stopping is not None:
        return False
    if RunStatus(done.status) in (RunStatus.ROLLED_BACK, RunStatus.PARTIALLY_COMPENSATED):
        return True
    return run.received.replan_on_rejection and done.actions_rejected > 0


def _told(run: Run, result: RunResult, left: int) -> Aborted:
    bad = (ActionStatus.FAILED, ActionStatus.REJECTED)
    return Aborted(
        proposal=run.proposal,
        result=result,
        failed=tuple(one for one in result.results if one.status in bad),
        rolled_back=tuple(one for one in result.results if one.rolled_back),
        replans_left=left,
    )
