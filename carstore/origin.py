"""What a copy of a log is made from and comes to: values for whoever copies and whoever goes on."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from attrs import asdict, frozen

from carstore.events import ActionInDoubt
from carstore.log import Head, Recorded
from carstore.names import Json, LogId, Position, RunId

Cause = Literal["restored", "forked", "imported", "salvaged"]
"""How a copy that goes its own way was made."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how far that is, and how far it goes."""


@frozen(kw_only=True)
class Origin:
    """Where a copy was taken, as its epoch event says."""

    log_id: LogId
    epoch: int
    position: Position
    """Of the last event that the copy has in common with its origin."""
    hash: str
    path: str | None
    """The file it was taken from, as it was called then; None if that was no file."""

    def to_json(self) -> Json:
        return asdict(self)


@frozen
class OpenRun:
    """What is to be recorded of a run that is copied unfinished."""

    doubts: tuple[ActionInDoubt, ...] = ()
    """The calls that were under way and must not simply be made again."""
    waiting_for: tuple[Json, ...] = ()
    """As in `run_paused`: all that somebody has to answer."""


OpenRuns: TypeAlias = Callable[[RunId, Sequence[Recorded]], OpenRun | None]
"""Says of a run, from the events of its stream and its inbox in order, what is open about it; None
if nothing is. What events mean for a run is the engine's: it gives `engine.held.open_run`."""


@frozen(kw_only=True)
class Life:
    """The beginning of a copy's own life."""

    log_id: LogId
    epoch: int
    origin: Origin
    held: tuple[RunId, ...]
    """The unfinished runs; they wait until somebody accepts that they go on in the copy."""
    head: Head


@frozen(kw_only=True)
class Copied:
    """A copy that was made and checked."""

    path: str
    head: Head
    """The newest event of the copy."""
    bytes: int
    life: Life | None = None
    """None for a backup or an export, which is the same log and not another one."""


__all__ = ["Cause", "Copied", "Life", "OpenRun", "OpenRuns", "Origin", "Progress"]
