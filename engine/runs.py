"""Runs of one runtime: found, begun and driven."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from attrs import frozen

from carstore import Store
from carstore.blobs import Blob
from carstore.errors import LeaseHeld, LeaseLost, StaleFence, VersionConflict
from carstore.events import Event, ProposalReceived
from carstore.names import RunId, Scope, run_lease
from engine.authority import Authority
from engine.desk import Desk
from engine.drive import Driver
from engine.equipment import Equipment
from engine.errors import RunOwned
from engine.ir import Proposal
from engine.journal import Journal, StateOverlay
from engine.plan_json import load_proposal
from engine.propose import Options, Terms, received
from engine.rules.sensitive import hidden_in
from engine.run import Run

__all__ = ["Observer", "Runs", "unobserved"]

GRACE_SECONDS = 5.0
"""How long an interrupted run waits for the calls in flight before it gives them up."""

Observer = Callable[[Run], None]
"""Told of a run as it is after each turn of its driver."""


def unobserved(_: Run) -> None:
    """Tell nobody."""


@frozen(eq=False)
class Runs:
    """What it takes to drive a run."""

    store: Store
    equipment: Equipment

    async def find(self, run_id: RunId) -> Run | None:
        """The run of that id, if there is one."""
        history = [recorded async for recorded in self.store.log.read(run=run_id)]
        return Run.fold(run_id, history) if history else None

    async def begin(
        self,
        run_id: RunId,
        proposal: Proposal,
        options: Options,
        terms: Terms,
        authority: Authority,
        observe: Observer,
    ) -> Run:
        """Drive a new run. Its first append is refused if the id is taken meanwhile.

        Raises:
            RunOwned: somebody else drives it.
            Busy, DiskFull, StoreFailed: the store; what was recorded is safe.
        """
        run, blobs = self._begun(run_id, proposal, options, terms)
        journal = self._journal(run, is_new=True, blobs=blobs)
        return await self._drive(Driver(Desk(journal, self.equipment, authority), observe))

    async def go_on(
        self, run: Run, authority: Authority, observe: Observer, accepted_by: str | None = None
    ) -> Run:
        """Drive a run that was recorded; raises as `begin`.

        Args:
            accepted_by: for a run that was copied unfinished, who accepts that it goes on here.
        """
        journal = self._journal(run, is_new=False)
        desk = Desk(journal, self.equipment, authority)
        return await self._drive(Driver(desk, observe, accepted_by))

    def _begun(
        self, run_id: RunId, proposal: Proposal, options: Options, terms: Terms
    ) -> tuple[Run, list[Blob]]:
        """A new run, and the values that go beside the log with its first event."""
        tools = self.equipment.tools
        first: Event = received(proposal, tools, options, self.store.log_id, terms)
        blobs: list[Blob] = []
        hidden = hidden_in(first, tools, None)
        if hidden or self.store.redaction.names:  # what is large goes as it is appended
            first, blobs = self.store.redaction.applied(first, hidden)
        assert isinstance(first, ProposalReceived)
        run = Run.begin(run_id, first, load_proposal(first.proposal) if blobs else proposal)
        return run, blobs

    def _journal(self, run: Run, *, is_new: bool, blobs: list[Blob] | None = None) -> Journal:
        state = StateOverlay(Scope(run.received.scope))
        return Journal(self.store, run, state, is_new, first_blobs=blobs or ())

    async def _drive(self, driver: Driver) -> Run:
        run_id = driver.run_id
        task = asyncio.create_task(driver.drive(), name=f"carstore run {run_id}")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _put_down(driver, task)
            raise
        except LeaseHeld as held:
            raise RunOwned(run_id, held.holder, held.expires_in_us) from held
        except (LeaseLost, StaleFence, VersionConflict) as lost:
            raise RunOwned(run_id, await self._owner(run_id)) from lost

    async def _owner(self, run_id: RunId) -> str:
        found = await self.store.leases.row(run_lease(run_id))
        return "another process" if found is None or found.holder is None else str(found.holder)


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
