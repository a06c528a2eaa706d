"""The log and its leases as plain lists and dictionaries: what any log must be equal to."""

from collections.abc import Sequence
from typing import NamedTuple

from attrs import Factory, define, evolve

from carstore.errors import CarstoreError, LeaseLost, StaleFence, StateConflict, VersionConflict
from carstore.events import Event, LeaseGranted, LeaseReleased, LeaseRenewed, StateChanged
from carstore.log import Entry, Expect, Fence, LeaseIs, StateRead
from carstore.names import Position, RunId, lease_of


class Fact(NamedTuple):
    """An event as the model has it."""

    position: int
    stream: str
    version: int
    recorded_at: int
    run_id: str | None
    fence: str | None
    token: int | None
    event: Event


class Lease(NamedTuple):
    token: int | None
    expires_at: int


@define
class LogModel:
    """One list of facts, and what follows from it."""

    facts: list[Fact] = Factory(list)
    versions: dict[str, int] = Factory(dict)
    changes: dict[tuple[str, str], list[int]] = Factory(dict)
    """Positions of the changes of each key."""
    leases: dict[str, Lease] = Factory(dict)
    tokens: list[int] = Factory(list)
    """In the order in which they were granted."""

    def append(
        self, entries: Sequence[Entry], expect: Expect, now: int
    ) -> type[CarstoreError] | None:
        """Append, or say why not."""
        why = self._refusal(entries, expect, now)
        if why is not None:
            return why
        for entry in entries:
            self._add(entry, expect.fence, now)
        return None

    def newest(self, scope: str, key: str, at: int | None = None) -> int:
        positions = [p for p in self.changes.get((scope, key), []) if at is None or p <= at]
        return positions[-1] if positions else 0

    def read(self, scope: str, key: str, at: int | None = None) -> StateRead:
        position = self.newest(scope, key, at)
        if position == 0:
            return StateRead(value=None, exists=False, position=Position(0))
        fact = self.facts[position - 1]
        assert isinstance(fact.event, StateChanged)
        run_id = None if fact.run_id is None else RunId(fact.run_id)
        return StateRead(fact.event.value, not fact.event.deleted, Position(position), run_id)

    def _refusal(
        self, entries: Sequence[Entry], expect: Expect, now: int
    ) -> type[CarstoreError] | None:
        for entry in entries:
            if not self._may_write(entry, expect.fence):
                return StaleFence
        if any(self.versions.get(name, 0) != version for name, version in expect.versions.items()):
            return VersionConflict
        if not all(self._holds(condition, now) for condition in expect.leases):
            return LeaseLost
        if any(self.newest(scope, key) != at for scope, key, at in expect.unchanged):
            return StateConflict
        return None

    def _may_write(self, entry: Entry, fence: Fence | None) -> bool:
        lease = lease_of(entry.stream)
        if lease is None:
            return True
        presented = fence.token if fence is not None and fence.lease == lease else None
        if fence is not None and fence.lease == lease and fence.token is None:
            return True  # granted by an earlier entry of this append
        if lease not in self.leases:
            return presented is None
        return presented is not None and presented == self.leases[lease].token

    def _holds(self, condition: LeaseIs, now: int) -> bool:
        lease = self.leases.get(condition.lease, Lease(None, 0))
        if lease.token != condition.token:
            return False
        if lease.token is None:
            return True
        if condition.unexpired and lease.expires_at <= now:
            return False
        spare = condition.expired_for_us
        return spare is None or lease.expires_at + spare <= now

    def _add(self, entry: Entry, fence: Fence | None, now: int) -> None:
        position = len(self.facts) + 1
        version = self.versions[entry.stream] = self.versions.get(entry.stream, 0) + 1
        lease, event = lease_of(entry.stream), entry.event
        under = fence is not None and fence.lease == lease and lease in self.leases
        token = self.leases[lease].token if under and lease is not None else None
        if isinstance(event, StateChanged):
            event = evolve(event, prev=self.newest(event.scope, event.key) or None)
            self.changes.setdefault((event.scope, event.key), []).append(position)
        self._follow(event, position, now)
        run_id = entry.run_id
        self.facts.append(
            Fact(
                position, entry.stream, version, now, run_id, lease if under else None, token, event
            )
        )

    def _follow(self, event: Event, position: int, now: int) -> None:
        match event:
            case LeaseGranted():
                self.leases[event.lease] = Lease(position, now + event.ttl_us)
                self.tokens.append(position)
            case LeaseReleased():
                if self.leases.get(event.lease, Lease(None, 0)).token == event.token:
                    self.leases[event.lease] = Lease(None, 0)
            case LeaseRenewed():
                for renewed in event.leases:
                    lease = self.leases.get(renewed["lease"], Lease(None, 0))
                    if lease.token == renewed["token"]:
                        expires_at = max(lease.expires_at, now + event.ttl_us)
                        self.leases[renewed["lease"]] = Lease(lease.token, expires_at)
