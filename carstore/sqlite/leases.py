"""The leases of one process on SQLite: read, claim, keep alive, give back."""

import asyncio
import uuid
from contextlib import suppress
from typing import Any

from carstore.canonical import loads_trusted
from carstore.clock import Clock
from carstore.errors import CarstoreError, LeaseLost
from carstore.holders import Holder, Processes
from carstore.leases import (
    BEAT_US,
    MARGIN_US,
    TTL_US,
    Claim,
    HeldLease,
    LeaseRow,
    claim,
    release,
    renewal,
)
from carstore.log import Expect, LeaseIs, Log
from carstore.names import FencingToken, LeaseName, Position, RunId
from carstore.sqlite.database import Database
from carstore.sqlite.prepare import check_names
from carstore.sqlite.statements import SQL
from carstore.sqlite.transaction import EPOCH_SHIFT


class SqliteLeases:
    """What this process owns. One renewal event a beat for all of it, none while it owns none."""

    def __init__(
        self,
        database: Database,
        log: Log,
        clock: Clock,
        processes: Processes,
        holder: Holder,
        epoch: int,
    ) -> None:
        self.holder = holder
        self._database = database
        self._log = log
        self._clock = clock
        self._processes = processes
        self._epoch = epoch
        self._held: dict[LeaseName, HeldLease] = {}
        self._beating: asyncio.Task[None] | None = None

    async def row(self, lease: LeaseName) -> LeaseRow | None:
        """The lease as the file has it; None if it was never granted."""
        check_names("lease", (lease,))
        rows = await self._database.fetch(SQL["lease_row"], (lease,))
        return _lease_row(rows[0]) if rows else None

    async def rows(self) -> list[LeaseRow]:
        """All leases that are held, expired ones included, by name."""
        return [_lease_row(row) for row in await self._database.fetch(SQL["lease_rows"])]

    async def claim(self, lease: LeaseName, run_id: RunId | None = None) -> Claim:
        """What to add to an append so that it also acquires `lease`; then call `hold`.

        Raises:
            LeaseHeld: by a process that is not provably gone.
        """
        row = await self.row(lease)
        gone = row is not None and row.holder is not None and self._processes.is_gone(row.holder)
        return claim(
            row, lease, self.holder, uuid.uuid4().hex, self._clock, gone=gone, run_id=run_id
        )

    def claim_new(self, lease: LeaseName, run_id: RunId | None = None) -> Claim:
        """The same for a lease that nobody can have been granted yet, without reading it."""
        return claim(
            None, lease, self.holder, uuid.uuid4().hex, self._clock, gone=False, run_id=run_id
        )

    def hold(self, claimed: Claim, position: Position) -> HeldLease:
        """Begin to keep alive the lease that was granted by the event at `position`."""
        lease = claimed.condition.lease
        token = FencingToken((self._epoch << EPOCH_SHIFT) + position)
        held = self._held[lease] = HeldLease(lease, token, claimed.deadline_us)
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name="carstore leases")
        return held

    async def acquire(self, lease: LeaseName, run_id: RunId | None = None) -> HeldLease:
        """Acquire `lease` by an append of its own.

        Raises:
            LeaseHeld: by a process that is not provably gone.
            LeaseLost: somebody else was faster.
        """
        claimed = await self.claim(lease, run_id)
        done = await self._log.append(claimed.entry, expect=Expect(leases=[claimed.condition]))
        return self.hold(claimed, done.first)

    async def release(self, held: HeldLease, run_id: RunId | None = None) -> None:
        """Give `held` back. Does nothing if it is not held any more."""
        self.forget(held)
        expect = Expect(leases=[LeaseIs(held.name, held.token)])
        with suppress(LeaseLost):
            await self._log.append(release(held, run_id), expect=expect)

    def forget(self, held: HeldLease) -> None:
        """Stop keeping `held` alive, after its release rode in another append."""
        held.lost = True
        if self._held.get(held.name) is held:
            del self._held[held.name]

    async def renew(self) -> None:
        """Renew all leases of this process now. Those that are lost are marked so."""
        while self._held:
            held = list(self._held.values())
            entry, conditions = renewal(held)
            deadline = self._clock.boot() + TTL_US - MARGIN_US
            try:
                await self._log.append(entry, expect=Expect(leases=conditions))
            except LeaseLost as lost:
                for lease in held:
                    if lease.name == lost.lease:
                        self.forget(lease)
                continue
            for lease in held:
                lease.deadline_us = deadline
            return

    async def _beat(self) -> None:
        while self._held:
            await asyncio.sleep(BEAT_US / 1e6)
            try:
                await self.renew()
            except CarstoreError:
                # Busy or full: the next beat tries again; until then each holder has its deadline.
                continue
        self._beating = None

    async def close(self) -> None:
        """Stop the renewals. What is still held stays granted until it expires."""
        self._held.clear()
        if self._beating is not None:
            self._beating.cancel()
            with suppress(asyncio.CancelledError):
                await self._beating


def _lease_row(row: tuple[Any, ...]) -> LeaseRow:
    name, token, holder, request_id, granted_at, expires_at, position = row
    return LeaseRow(
        name=name,
        token=token,
        holder=None if holder is None else Holder.from_json(loads_trusted(holder)),
        request_id=request_id,
        granted_at=granted_at,
        expires_at=expires_at,
        position=position,
    )
