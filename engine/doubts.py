"""Answering for an attempt of which nobody knows what became."""

from typing import Literal, get_args

from carstore import Store, canonical
from carstore import events as e
from carstore.names import Json, RunId
from engine.errors import NoDoubt
from engine.inbox import ask
from engine.journal import load_run

__all__ = ["Resolution", "resolve"]

Resolution = Literal["succeeded", "failed", "retry"]


async def resolve(
    store: Store,
    run_id: RunId,
    action_id: str,
    resolution: Resolution,
    *,
    output: Json = None,
    error: str | None = None,
    by: str = "somebody",
) -> None:
    """Say what became of an attempt in doubt; the run's driver acts on it, now or when it resumes.

    Args:
        resolution: `succeeded` (with its `output`), `failed` (with its `error`), or `retry`: it is
            called once more, on your word that this does no harm.
        by: who says so.

    Raises:
        NotFound: there is no such run or action.
        NoDoubt: the action is not in doubt, or somebody has answered already.
        ValueError: `resolution` is none of the three.
    """
    if resolution not in get_args(Resolution):
        raise ValueError(f"resolution is 'succeeded', 'failed' or 'retry', not {resolution!r:.80}")
    canonical.dumps(output, "output")

    async def decide() -> e.Event:
        run = await load_run(store, run_id)
        state = run.of(action_id)
        for attempts, undo in ((state.do, False), (state.undo, True)):
            if attempts.doubt is not None and attempts.doubt.answer is None:
                return e.DoubtResolved(
                    action_id=action_id,
                    attempt=attempts.doubt.attempt,
                    undo=undo,
                    resolution=resolution,
                    output=output,
                    error=error,
                    by=by,
                )
        raise NoDoubt(run_id, action_id)

    await ask(store, run_id, decide)
