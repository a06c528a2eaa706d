"""A run, folded from its events. Start and resume look at nothing else.

`Run.apply` is the only way in which a run changes, whether an event comes from the log or is about
to be appended to it; so a run that was resumed is the same value as one that never stopped.
"""

from collections.abc import Callable
from typing import Any

from attrs import define, field

from carstore import events as e
from carstore.blobs import has_references, references
from carstore.errors import NotFound
from carstore.log import Recorded
from carstore.names import Json, Micros, RunId, run_stream
from engine.ir import Action, ActionStatus, FailureBehavior, Proposal, RunStatus
from engine.plan_json import load_proposal
from engine.rules.graph import Graph, build_graph

__all__ = ["ActionState", "Attempts", "Doubt", "Run"]


@define
class Doubt:
    """An attempt of which nobody knows what became."""

    attempt: int
    tool: str
    reason: str
    answer: e.DoubtResolved | None = None
    """What somebody said about it, before the driver acted on that."""


@define
class Attempts:
    """The calls made for one purpose: to do an action, or to undo it."""

    number: int = 0
    """Of the attempt that was begun last, counted from 1 over the whole run."""
    open: bool = False
    """Whether an intent stands without an outcome."""
    retry_at_us: int | None = None
    """When the next attempt is due, by the wall clock; None: no retry is due."""
    doubt: Doubt | None = None


@define
class ActionState:
    """What is known of one action."""

    action: Action
    status: ActionStatus | None = None
    """None until it is settled."""
    do: Attempts = field(factory=Attempts)
    undo: Attempts = field(factory=Attempts)
    output: Json = None
    error: str | None = None
    duration_us: int | None = None
    """Of all attempts together."""
    settled_at: Micros | None = None
    state_changes: dict[str, Json] = field(factory=dict)
    reuse_key: str | None = None
    deduplicated: bool = False
    rolled_back: bool = False
    maybe_done: bool = False
    """Whether a policy counts it as failed although it may have been carried out."""
    undone: bool | None = None
    """Whether its compensation succeeded; None: there was none, or it is not over."""
    undo_output: Json = None
    undo_error: str | None = None


@define
class Run:
    """One execution of a proposal, as far as its events tell."""

    run_id: RunId
    received: e.ProposalReceived
    proposal: Proposal
    graph: Graph
    actions: list[ActionState]
    started_at: Micros | None = None
    ended_at: Micros | None = None
    version: int = 0
    """Of the run's stream."""
    succeeded: list[int] = field(factory=list)
    """Indexes of the actions that succeeded, in that order."""
    retries: int = 0
    paused: e.RunPaused | None = None
    completed: e.ProposalCompleted | None = None
    index: dict[str, int] = field(factory=dict)
    in_doubt: set[int] = field(factory=set)
    """Indexes of actions that were ever in doubt; whether they are, their attempts tell."""
    state_keys: set[str] = field(factory=set)
    """Keys that the run has written."""
    settled: list[int] = field(factory=list)
    """Indexes settled since somebody last emptied this list; what a live schedule has to hear."""
    refers: bool = False
    """Whether its events refer to values beside the log."""
    _aborted_by: set[str] = field(factory=set)
    _changing: ActionState | None = None
    _unstamped: list[ActionState] = field(factory=list)

    @classmethod
    def begin(cls, run_id: RunId, received: e.ProposalReceived, proposal: Proposal) -> "Run":
        """A run of which nothing has happened but its receipt."""
        actions = [ActionState(action) for action in proposal.actions]
        run = cls(run_id, received, proposal, build_graph(proposal.actions), actions)
        run.index = {action.id: place for place, action in enumerate(proposal.actions)}
        run.refers = any(references(received.proposal))
        return run

    @classmethod
    def fold(cls, run_id: RunId, history: list[Recorded]) -> "Run":
        """The run that `history` tells of: the events of its stream and of its inbox, in order.

        Raises:
            NotFound: if there is no such run.
        """
        run: Run | None = None
        stream = run_stream(run_id)
        for recorded in history:
            event = recorded.event
            if run is None:
                if not isinstance(event, e.ProposalReceived):
                    continue
                run = cls.begin(run_id, event, load_proposal(event.proposal))
            run.apply(event, recorded.recorded_at)
            run.refers = run.refers or has_references(recorded.data)
            if recorded.stream == stream:
                run.version = recorded.version
        if run is None:
            raise NotFound("run", run_id, "`carstore runs` lists them.")
        return run

    @property
    def status(self) -> RunStatus:
        """Where the run stands."""
        if self.completed is not None:
            return RunStatus(self.completed.status)
        if self.held or (self.paused is not None and self.paused.reason == "waiting"):
            return RunStatus.WAITING
        return RunStatus.RUNNING

    @property
    def held(self) -> bool:
        """Whether this is a copy of a run that was not finished, and nobody has accepted yet that
        it goes on here: until then nothing is called for it."""
        return self.paused is not None and self.paused.reason == "copied"

    @property
    def aborting(self) -> bool:
        """Whether an action failed in a way that makes the run roll back."""
        return bool(self._aborted_by)

    def of(self, action_id: str) -> ActionState:
        """The state of an action.

        Raises:
            NotFound: if the run has no such action.
        """
        if action_id not in self.index:
            raise NotFound("action", action_id, f"`carstore show DB {self.run_id}` lists them.")
        return self.actions[self.index[action_id]]

    def apply(self, event: e.Event, recorded_at: Micros | None) -> None:
        """Take in one event; `recorded_at` is None while it is on its way to the log."""
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event, recorded_at)

    def stamp(self, recorded_at: Micros) -> None:
        """Tell the actions settled by the last append when that was."""
        for state in self._unstamped:
            state.settled_at = recorded_at
        self._unstamped.clear()
        self.started_at = self.started_at or recorded_at
        if self.completed is not None:
            self.ended_at = self.ended_at or recorded_at

    def _aborts(self, state: ActionState) -> bool:
        behavior = state.action.failure_behavior
        if state.status is ActionStatus.FAILED:
            return behavior is FailureBehavior.ABORT or (
                behavior is FailureBehavior.RETRY and self.received.abort_on_exhausted_retry
            )
        return state.status is ActionStatus.REJECTED and self.received.abort_on_rejection

    def _settle(self, state: ActionState, status: ActionStatus, recorded_at: Micros | None) -> None:
        if state.status is None:
            self.settled.append(self.index[state.action.id])
        state.status = status
        state.settled_at = recorded_at
        if self._aborts(state):
            self._aborted_by.add(state.action.id)
        else:
            self._aborted_by.discard(state.action.id)
        if recorded_at is None:
            self._unstamped.append(state)


# --- one function for each kind of event that changes a run --------------------------------------


def _received(run: Run, event: e.ProposalReceived, at: Micros | None) -> None:
    run.started_at = at


def _resumed(run: Run, event: e.RunResumed, at: Micros | None) -> None:
    run.paused = None


def _paused(run: Run, event: e.RunPaused, at: Micros | None) -> None:
    run.paused = event


def _copy_accepted(run: Run, event: e.CopyAccepted, at: Micros | None) -> None:
    run.paused = None


def _completed(run: Run, event: e.ProposalCompleted, at: Micros | None) -> None:
    run.completed, run.ended_at, run.paused = event, at, None


def _rejected(run: Run, event: e.ActionRejected, at: Micros | None) -> None:
    state = run.of(event.action_id)
    state.error = event.error
    run._settle(state, ActionStatus.REJECTED, at)


def _skipped(run: Run, event: e.ActionSkipped, at: Micros | None) -> None:
    state = run.of(event.action_id)
    state.error = event.reason
    state.do.open, state.do.retry_at_us = False, None
    run._settle(state, ActionStatus.SKIPPED, at)


def _executing(run: Run, event: e.ActionExecuting, at: Micros | None) -> None:
    attempts = run.of(event.action_id).do
    attempts.number, attempts.open, attempts.retry_at_us = event.attempt, True, None
    attempts.doubt = None


def _succeeded(run: Run, event: e.ActionSucceeded, at: Micros | None) -> None:
    state = run.of(event.action_id)
    _close(state.do, event.attempt)
    state.output, state.error, state.reuse_key = event.output, None, event.reuse_key
    _add_duration(state, event.duration_us)
    if run.graph.level_of[run.index[event.action_id]] >= 0:  # else it served to undo another
        run.succeeded.append(run.index[event.action_id])
    run._settle(state, ActionStatus.SUCCEEDED, at)
    run._changing = state


def _failed(run: Run, event: e.ActionFailed, at: Micros | None) -> None:
    state = run.of(event.action_id)
    _close(state.do, event.attempt)
    state.output, state.error = event.output, event.error
    _add_duration(state, event.duration_us)
    run._settle(state, ActionStatus.FAILED, at)


def _retrying(run: Run, event: e.ActionRetrying, at: Micros | None) -> None:
    state = run.of(event.action_id)
    state.status, state.settled_at = None, None
    run._aborted_by.discard(event.action_id)
    place = run.index[event.action_id]
    if place in run.settled:
        run.settled.remove(place)
    state.do.open, state.do.doubt = False, None
    state.do.retry_at_us = (at or 0) + event.delay_ms * 1000
    run.retries += 1


def _deduplicated(run: Run, event: e.ActionDeduplicated, at: Micros | None) -> None:
    state = run.of(event.action_id)
    state.output, state.duration_us, state.deduplicated = event.output, 0, True
    run.succeeded.append(run.index[event.action_id])
    run._settle(state, ActionStatus.SUCCEEDED, at)


def _in_doubt(run: Run, event: e.ActionInDoubt, at: Micros | None) -> None:
    state = run.of(event.action_id)
    attempts = state.undo if event.undo else state.do
    attempts.open, attempts.doubt = False, Doubt(event.attempt, event.tool, event.reason)
    run.in_doubt.add(run.index[event.action_id])


def _answered(run: Run, event: e.DoubtResolved, at: Micros | None) -> None:
    state = run.of(event.action_id)
    doubt = (state.undo if event.undo else state.do).doubt
    if doubt is not None and doubt.attempt == event.attempt and doubt.answer is None:
        doubt.answer = event
        if not event.undo and event.resolution == "failed" and event.by == "policy":
            state.maybe_done = True


def _undoing(run: Run, event: e.CompensationExecuting, at: Micros | None) -> None:
    attempts = run.of(event.action_id).undo
    attempts.number, attempts.open, attempts.retry_at_us = event.attempt, True, None
    attempts.doubt = None


def _undone(run: Run, event: e.CompensationSucceeded, at: Micros | None) -> None:
    state = run.of(event.action_id)
    _close(state.undo, event.attempt)
    state.undone, state.undo_output = True, event.output


def _not_undone(run: Run, event: e.CompensationFailed, at: Micros | None) -> None:
    state = run.of(event.action_id)
    _close(state.undo, event.attempt)
    state.undone, state.undo_error = False, event.error


def _undo_retrying(run: Run, event: e.CompensationRetrying, at: Micros | None) -> None:
    state = run.of(event.action_id)
    state.undone = None
    state.undo.open, state.undo.doubt = False, None
    state.undo.retry_at_us = (at or 0) + event.delay_ms * 1000
    run.retries += 1


def _rolled_back(run: Run, event: e.ActionRolledBack, at: Micros | None) -> None:
    run.of(event.action_id).rolled_back = True


def _state_rollback(run: Run, event: e.StateRollback, at: Micros | None) -> None:
    run._changing = None  # what follows are the inverses; no action made them


def _state_changed(run: Run, event: e.StateChanged, at: Micros | None) -> None:
    run.state_keys.add(event.key)
    if run._changing is not None:
        run._changing.state_changes[event.key] = event.value


def _close(attempts: Attempts, number: int) -> None:
    attempts.number = max(attempts.number, number)
    attempts.open, attempts.doubt, attempts.retry_at_us = False, None, None


def _add_duration(state: ActionState, duration_us: int | None) -> None:
    if duration_us is not None:
        state.duration_us = (state.duration_us or 0) + duration_us


_HANDLERS: dict[type, Callable[[Run, Any, Micros | None], None]] = {
    e.ProposalReceived: _received,
    e.RunResumed: _resumed,
    e.RunPaused: _paused,
    e.CopyAccepted: _copy_accepted,
    e.ProposalCompleted: _completed,
    e.ActionRejected: _rejected,
    e.ActionSkipped: _skipped,
    e.ActionExecuting: _executing,
    e.ActionSucceeded: _succeeded,
    e.ActionFailed: _failed,
    e.ActionRetrying: _retrying,
    e.ActionDeduplicated: _deduplicated,
    e.ActionInDoubt: _in_doubt,
    e.DoubtResolved: _answered,
    e.CompensationExecuting: _undoing,
    e.CompensationSucceeded: _undone,
    e.CompensationFailed: _not_undone,
    e.CompensationRetrying: _undo_retrying,
    e.ActionRolledBack: _rolled_back,
    e.StateRollback: _state_rollback,
    e.StateChanged: _state_changed,
}
