"""The table `leases` folded from the events in Python: the twin of the triggers that keep it."""

import json
from typing import NamedTuple

from attrs import Factory, define

from carstore.events import Event, LeaseGranted, LeaseReleased, LeaseRenewed, LogEpochStarted
from carstore.names import Json
from carstore.sqlite.transaction import EPOCH_SHIFT


class FoldedLease(NamedTuple):
    """A row of `leases`, but for its name."""

    token: int | None
    holder: Json
    request_id: str | None
    granted_at: int | None
    expires_at: int | None
    position: int

    def as_stored(self) -> tuple[int | str | None, ...]:
        """The columns, as SQLite takes them from the JSON of the events."""
        token, holder, *others = self
        if holder is not None and not isinstance(holder, str):
            holder = json.dumps(holder, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return (token, holder, *others)


@define
class LeaseFold:
    """All leases after the events that were given to `follow`."""

    rows: dict[str, FoldedLease] = Factory(dict)
    _epoch: int = -1
    _newest_token: int = 0

    def follow(self, position: int, recorded_at: int, event: Event) -> tuple[str, str] | None:
        """Take in the next event. Returns what is wrong with it, as a code and a message."""
        match event:
            case LogEpochStarted():
                before, self._epoch = self._epoch, event.epoch
                if event.epoch <= before:
                    return "epoch", f"epoch {event.epoch} began after {before}"
            case LeaseGranted():
                return self._granted(position, recorded_at, event)
            case LeaseRenewed():
                self._renewed(position, recorded_at + event.ttl_us, event.leases)
            case LeaseReleased():
                held = self.rows.get(event.lease)
                if held is not None and held.token == event.token:
                    self.rows[event.lease] = FoldedLease(None, None, None, None, None, position)
        return None

    def _granted(
        self, position: int, recorded_at: int, event: LeaseGranted
    ) -> tuple[str, str] | None:
        token = (max(self._epoch, 0) << EPOCH_SHIFT) + position
        before, self._newest_token = self._newest_token, max(self._newest_token, token)
        self.rows[event.lease] = FoldedLease(
            token,
            event.holder,
            event.request_id,
            recorded_at,
            recorded_at + event.ttl_us,
            position,
        )
        return ("token", f"token {token} came after {before}") if token <= before else None

    def _renewed(self, position: int, expires_at: int, leases: Json) -> None:
        for named in leases if isinstance(leases, list) else ():
            lease = named.get("lease") if isinstance(named, dict) else None
            if not isinstance(lease, str) or lease not in self.rows:
                continue
            held = self.rows[lease]
            if held.token is not None and held.token == named.get("token"):
                self.rows[lease] = held._replace(
                    expires_at=max(held.expires_at or 0, expires_at), position=position
                )
