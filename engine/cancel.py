"""Asking a run to stop before its plan does."""

from carstore import Store
from carstore import events as e
from carstore.names import RunId, inbox_stream
from engine.inbox import ask, check_not_over, check_who_and_why

__all__ = ["cancel"]


async def cancel(
    store: Store,
    run_id: RunId,
    *,
    by: str = "somebody",
    reason: str = "",
    compensate: bool = False,
) -> bool:
    """Ask that a run starts nothing more and ends as `cancelled`; its driver acts on it, now or
    when it resumes.

    Args:
        by: who asks.
        reason: why, for those who look later.
        compensate: whether what was done is to be undone, as after an abort. This can be asked for
            after a plain stop, and is never taken back.

    Returns:
        Whether this was recorded; False: as much has been asked already.

    Raises:
        NotFound: there is no such run.
        RunOver: it has ended.
        InvalidEvent: `by` or `reason` is not one that can be recorded.
    """
    check_who_and_why(e.CancelRequested.kind, by, reason)

    async def decide() -> e.Event | None:
        await check_not_over(store, run_id)
        if await _asked(store, run_id, compensate=compensate):
            return None
        return e.CancelRequested(by=by, reason=reason, compensate=compensate)

    return await ask(store, run_id, decide)


async def _asked(store: Store, run_id: RunId, *, compensate: bool) -> bool:
    """Whether somebody has asked for the same, or for more, already."""
    kinds = [e.CancelRequested.kind]
    async for recorded in store.log.read(stream=inbox_stream(run_id), kinds=kinds):
        earlier = recorded.event
        assert isinstance(earlier, e.CancelRequested)
        if earlier.compensate or not compensate:
            return True
    return False
