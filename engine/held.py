"""Runs that were copied unfinished: what is open about them, and when they may go on.

A copy of a log is taken while its runs are under way, and the origin may go on with them. So a copy
holds each: no tool is called for it until somebody has accepted that, and a call that was under way
when the copy was taken is in doubt, whatever the run's policy on doubts is. That policy is for a
crash, after which nobody else can have gone on.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from carstore import Store
from carstore import events as e
from carstore.errors import CarstoreError
from carstore.log import Recorded
from carstore.names import Json, RunId
from carstore.origin import OpenRun
from engine.begin import idempotency_key
from engine.ir import RunStatus
from engine.run import Run
from projections import RUNS, select

__all__ = ["REASON", "held_runs", "is_held", "open_run"]

REASON = "the file was copied during the call, and its origin may have ended it"
"""Why such a call is in doubt."""

_Intent: TypeAlias = e.ActionExecuting | e.CompensationExecuting


def open_run(run_id: RunId, history: Sequence[Recorded]) -> OpenRun | None:
    """What is open about a run, from the events of its stream and its inbox; None if nothing is."""
    if not any(recorded.kind == e.ProposalReceived.kind for recorded in history):
        return None
    try:
        run = Run.fold(run_id, list(history))
    except CarstoreError:
        return OpenRun()  # nothing can drive a run that cannot be read; but it is not finished
    if run.completed is not None:
        return None
    doubts = tuple(_doubts(run, history))
    waiting = [doubt.action_id for doubt in doubts]
    waiting += [
        state.action.id
        for state in run.actions
        for doubt in (state.do.doubt, state.undo.doubt)
        if doubt is not None and doubt.answer is None
    ]
    waiting_for: list[Json] = [{"action_id": name, "what": "doubt"} for name in waiting]
    return OpenRun(doubts=doubts, waiting_for=tuple(waiting_for))


async def held_runs(store: Store) -> list[RunId]:
    """The runs of a copy that wait until somebody accepts that they go on here, oldest first."""
    waiting = await select(store, RUNS, status=RunStatus.WAITING.value)
    found = sorted(waiting, key=lambda run: run.started_at)
    return [RunId(run.run_id) for run in found if await is_held(store, RunId(run.run_id))]


async def is_held(store: Store, run_id: RunId) -> bool:
    """Whether a run that waits does so since the file is a copy, and nobody has accepted that."""
    newest: e.Event | None = None
    kinds = [e.RunPaused.kind, e.RunResumed.kind, e.CopyAccepted.kind]
    async for recorded in store.log.read(run=run_id, kinds=kinds):
        newest = recorded.event
    return isinstance(newest, e.RunPaused) and newest.reason == "copied"


def _doubts(run: Run, history: Sequence[Recorded]) -> Iterator[e.ActionInDoubt]:
    """Of each call that must not be made again and has no outcome."""
    for (action_id, undo), intent in _intents(history).items():
        state = run.of(action_id)
        attempts = state.undo if undo else state.do
        if attempts.open and intent.effect == "once":
            yield e.ActionInDoubt(
                action_id=action_id,
                attempt=attempts.number,
                undo=undo,
                tool=intent.tool,
                idempotency_key=idempotency_key(run, state, undo=undo),
                reason=REASON,
            )


def _intents(history: Sequence[Recorded]) -> dict[tuple[str, bool], _Intent]:
    """The newest of each action, and of each compensation."""
    found: dict[tuple[str, bool], _Intent] = {}
    for recorded in history:
        if recorded.kind in (e.ActionExecuting.kind, e.CompensationExecuting.kind):
            event = recorded.event
            assert isinstance(event, e.ActionExecuting | e.CompensationExecuting)
            found[event.action_id, isinstance(event, e.CompensationExecuting)] = event
    return found
