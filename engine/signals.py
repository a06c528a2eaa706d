"""Sending a run a value for which one of its actions waits, or will."""

from carstore import Entry, Store, canonical
from carstore import events as e
from carstore.errors import InvalidEvent
from carstore.names import Json, RunId, inbox_stream
from engine.inbox import check_not_over, check_who_and_why
from engine.rules.identifiers import problem_with_id

__all__ = ["signal"]


async def signal(
    store: Store, run_id: RunId, name: str, value: Json = None, *, by: str = "somebody"
) -> None:
    """Put a value into the inbox of a run. It stays there until an action that waits for a signal
    of this name takes it: the oldest first, each once. So it may be sent before anybody waits.

    Args:
        name: 1 to 128 of `A-Z a-z 0-9 . _ : / -`, first a letter or digit.
        value: what the action that takes it gives as its output.
        by: who sends it.

    Raises:
        NotFound: there is no such run.
        RunOver: it has ended.
        InvalidEvent: `name` or `by` is not spelled so.
        InvalidJson: `value` is none that JSON can hold, or is too large or too deep.
    """
    problem = problem_with_id(name)
    if problem is not None:
        raise InvalidEvent(e.SignalSent.kind, "$.signal", problem)
    check_who_and_why(e.SignalSent.kind, by)
    canonical.check(value, "value")
    await check_not_over(store, run_id)
    sent = e.SignalSent(signal=name, value=value, by=by)
    # Under no version: signals do not exclude each other, so whoever sends many never waits.
    await store.log.append(Entry(inbox_stream(run_id), sent, run_id))
