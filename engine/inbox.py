"""Asking something of a run: what others append to its inbox.

The inbox has no lease: anybody may write to it, while the run is driven and while it is not.
Whoever asks looks at the run, decides whether what is asked makes sense, and appends it under the
version that the inbox had before that look. So of two who answer one question, in whichever
processes, the second sees the first answer before its own is recorded.
"""

from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeAlias

from attrs import define

from carstore import Entry, Expect, Store
from carstore import events as e
from carstore.errors import CarstoreError, InvalidEvent, NotFound, VersionConflict
from carstore.names import RunId, inbox_stream
from carstore.people import unseen_in
from engine.rules.identifiers import problem_with_state_key
from projections import RUNS, row

__all__ = ["MAX_REASON_CHARS", "Decide", "RunOver", "ask", "check_not_over", "check_who_and_why"]

MAX_REASON_CHARS = 4_000
"""Characters of a reason: a page, which people still read. What is longer belongs in a document."""

Decide: TypeAlias = Callable[[], Awaitable[e.Event | None]]
"""Looks at the run, and gives what to append; None if nothing has to be said. It may raise."""


@define(slots=False, eq=False)
class RunOver(CarstoreError):
    """Something was asked of a run that has ended. Nothing was recorded."""

    code: ClassVar[str] = "run_over"
    run_id: RunId
    status: str
    """How it ended."""

    @property
    def message(self) -> str:
        return (
            f"run {self.run_id} is over: it has {_ENDED.get(self.status, self.status)}. "
            f"`carstore show DB {self.run_id}` tells how it went."
        )

    @property
    def where(self) -> str | None:
        return self.run_id


_ENDED = {
    "rolled_back": "been rolled back",
    "partially_compensated": "been rolled back as far as it could be",
    "cancelled": "been cancelled",
}


async def ask(store: Store, run_id: RunId, decide: Decide) -> bool:
    """Append to the inbox of a run what `decide` gives, unless somebody was faster; then look and
    decide again. Each further time, somebody else's request has been recorded.

    Returns:
        Whether something was appended.

    Raises:
        Whatever `decide` raises, and what an append does.
    """
    inbox = inbox_stream(run_id)
    while True:
        version = 0
        async for recorded in store.log.read(stream=inbox):
            version = recorded.version
        event = await decide()
        if event is None:
            return False
        try:
            await store.log.append(
                Entry(inbox, event, run_id), expect=Expect(versions={inbox: version})
            )
        except VersionConflict:
            continue
        return True


async def check_not_over(store: Store, run_id: RunId) -> None:
    """Check that the run is there and has not ended.

    Raises:
        NotFound: there is no such run.
        RunOver: it has ended.
    """
    run = await row(store, RUNS, (run_id,))
    if run is None:
        raise NotFound("run", run_id, "`carstore runs` lists them.")
    if run.ended_at is not None:
        raise RunOver(run_id, run.status)


def check_who_and_why(kind: str, by: str, reason: str = "") -> None:
    """Check who asks, and why, before anything is looked at.

    Args:
        kind: of the event that is to say so.
        by: a name, spelled like a state key, without space at its ends and without characters that
            nobody sees, so that one person does not pass for two.
        reason: any text of at most `MAX_REASON_CHARS` characters.

    Raises:
        InvalidEvent: naming the field.
    """
    problem = problem_with_state_key(by)
    if problem is None and by != by.strip():
        problem = "begins or ends with a space"
    if problem is None and (unseen := unseen_in(by)) is not None:
        problem = f"holds {unseen!a}, which nobody sees, or takes for a space"
    if problem is not None:
        raise InvalidEvent(kind, "$.by", problem)
    if not isinstance(reason, str):
        raise InvalidEvent(kind, "$.reason", f"is of type {type(reason).__name__}, not a string")
    if len(reason) > MAX_REASON_CHARS:
        found = f"has {len(reason):,} characters; at most {MAX_REASON_CHARS:,} are allowed"
        raise InvalidEvent(kind, "$.reason", found)
