"""A run, folded from its events. Start and resume look at nothing else.

`Run.apply` is the only way in which a run changes, whether an event comes from the log or is about
to be appended to it; so a run that was resumed is the same value as one that never stopped. What
each kind of event changes stands in `run_events`.
"""

from collections import deque

from attrs import define, field

from carstore import events as e
from carstore.blobs import has_references, references
from carstore.errors import NotFound
from carstore.log import Recorded
from carstore.names import Json, Micros, RunId, inbox_stream, run_stream
from engine.action_state import ActionState
from engine.ir import ActionStatus, FailureBehavior, Proposal, RunStatus
from engine.plan_json import load_proposal
from engine.rules.graph import Graph, build_graph
from engine.run_events import HANDLERS

__all__ = ["Run"]


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
    duration_us: int = 0
    """Of all attempts of all actions, without waits."""
    begun: set[int] = field(factory=set)
    """Indexes of the actions that were judged or begun: they count for `max_actions`."""
    dispatched: int = 0
    """Calls that were begun, compensations not counted: they count for `max_tool_calls`."""
    inbox_version: int = 0
    """Of the newest event of the inbox that was taken in."""
    cancel: e.CancelRequested | None = None
    """What somebody asked, before the driver acted on that."""
    stopping: e.RunStopping | None = None
    declined: bool = False
    """Whether somebody was asked for a proposal in its place, and had none."""
    signals: dict[str, deque[tuple[int, Micros, Json]]] = field(factory=dict)
    """Name -> number, moment and value of each signal that nobody has taken, oldest first."""
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
    aborted_by: set[str] = field(factory=set)
    changing: ActionState | None = None
    unstamped: list[ActionState] = field(factory=list)

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
        stream, inbox = run_stream(run_id), inbox_stream(run_id)
        for recorded in history:
            event = recorded.event
            if run is None:
                if not isinstance(event, e.ProposalReceived):
                    continue
                run = cls.begin(run_id, event, load_proposal(event.proposal))
            if recorded.stream == inbox:
                run.hear(recorded)
            else:
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
        """Whether the run rolls back: an action failed in a way that makes it, or somebody asked
        for that."""
        stopping = self.stopping
        if stopping is not None and stopping.cause != "budget":
            return stopping.compensate
        return bool(self.aborted_by)

    def of(self, action_id: str) -> ActionState:
        """The state of an action.

        Raises:
            NotFound: if the run has no such action.
        """
        if action_id not in self.index:
            raise NotFound("action", action_id, f"`carstore show DB {self.run_id}` lists them.")
        return self.actions[self.index[action_id]]

    def hear(self, recorded: Recorded) -> None:
        """Take in an event of the inbox, once."""
        if recorded.version > self.inbox_version:
            self.inbox_version = recorded.version
            self.refers = self.refers or has_references(recorded.data)
            self.apply(recorded.event, recorded.recorded_at)

    def apply(self, event: e.Event, recorded_at: Micros | None) -> None:
        """Take in one event; `recorded_at` is None while it is on its way to the log."""
        handler = HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event, recorded_at)

    def stamp(self, recorded_at: Micros) -> None:
        """Tell the actions settled by the last append when that was."""
        for state in self.unstamped:
            if state.status is not None:  # else it was to be tried again in the same append
                state.settled_at = recorded_at
        self.unstamped.clear()
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

    def settle(self, state: ActionState, status: ActionStatus, recorded_at: Micros | None) -> None:
        if state.status is None:
            self.settled.append(self.index[state.action.id])
        state.status = status
        state.settled_at = recorded_at
        if self._aborts(state):
            self.aborted_by.add(state.action.id)
        else:
            self.aborted_by.discard(state.action.id)
        if recorded_at is None:
            self.unstamped.append(state)
