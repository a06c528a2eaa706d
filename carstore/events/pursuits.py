"""Facts about goals that are pursued by one proposal after the other."""

from typing import ClassVar

from attrs import frozen

from carstore.names import Json


@frozen(kw_only=True)
class PursuitStarted:
    """An agent set out to reach a goal."""

    kind: ClassVar[str] = "pursuit_started"
    pursuit: str
    goal: Json
    max_steps: int
    """Proposals at most."""
    max_cost_micros: int | None = None
    """Millionths of a US dollar at most, of all its runs and of the proposing; None: no limit."""
    ends_at: int | None = None
    """Microseconds UTC; nothing is proposed from then on. None: no limit."""


@frozen(kw_only=True)
class PursuitEnded:
    """The goal was reached, given up, or a limit stopped the pursuit."""

    kind: ClassVar[str] = "pursuit_ended"
    pursuit: str
    status: str
    """`done`, `failed`, `max_steps`, `max_cost`, `deadline` or `cancelled`."""
    steps: int
    """Proposals that were run."""
    answer: Json = None
    """What the proposer said at its end."""
    reason: str | None = None


@frozen(kw_only=True)
class ReplanDeclined:
    """After an abort, whoever was asked for another proposal gave none. It stands in the inbox of
    the run that was aborted."""

    kind: ClassVar[str] = "replan_declined"
    run: str
    reason: str
