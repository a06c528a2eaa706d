"""Facts about runs that wait for a time or a signal, or are asked to stop."""

from typing import ClassVar

from attrs import frozen

from carstore.names import Json


@frozen(kw_only=True)
class WaitStarted:
    """An action waits: until `due_at`, or for a signal, whichever it names and comes first."""

    kind: ClassVar[str] = "wait_started"
    action_id: str
    attempt: int
    due_at: int | None = None
    """Microseconds UTC."""
    signal: str | None = None
    times_out: bool = False
    """Whether `due_at` is the end of the time that the action may take: then it fails."""


@frozen(kw_only=True)
class SignalSent:
    """Somebody sent a run a value. It stands in the inbox of the run until an action takes it."""

    kind: ClassVar[str] = "signal_sent"
    signal: str
    value: Json
    by: str


@frozen(kw_only=True)
class SignalTaken:
    """An action that waited took a signal; `action_succeeded` with its value follows."""

    kind: ClassVar[str] = "signal_taken"
    action_id: str
    signal: str
    number: int
    """Version of `signal_sent` in the inbox: each is taken once."""


@frozen(kw_only=True)
class CancelRequested:
    """Somebody asks that a run stops. It stands in the inbox of the run."""

    kind: ClassVar[str] = "cancel_requested"
    by: str
    reason: str
    compensate: bool
    """Whether what was done is to be undone."""


@frozen(kw_only=True)
class RunStopping:
    """The run ends before its plan does: nothing new starts, and what is left is skipped."""

    kind: ClassVar[str] = "run_stopping"
    cause: str
    """`cancelled`, `deadline` or `budget`."""
    reason: str
    compensate: bool = False
    by: str | None = None
    """Who asked, if somebody did."""
