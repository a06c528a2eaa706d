"""The nouns: what models propose, and what running it came to.

A proposal is a value. Lists given to these classes become tuples; that ids, keys, types and
limits are as they must be is checked when a proposal is read from JSON or handed to the runtime
(`engine.plan_json`), by the same rules in both cases. The annotations name those rules: an `Id` is
not any string.
"""

import os
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, cast

from attrs import Factory, asdict, field, frozen

from carstore.names import Json, RunId

__all__ = [
    "Action",
    "ActionRef",
    "ActionResult",
    "ActionStatus",
    "ActionType",
    "Assumption",
    "Compensation",
    "CostSummary",
    "FailureBehavior",
    "NotUndone",
    "Operator",
    "Precondition",
    "Proposal",
    "Reversibility",
    "RollbackConflict",
    "RunResult",
    "RunStatus",
    "ToolCompensation",
    "new_id",
]

MAX_RETRIES = 100
"""Retries of one action. Their delays double up to a cap; who needs more is polling."""

MAX_TIMEOUT_MS = 30 * 24 * 60 * 60 * 1000
"""Thirty days, in milliseconds: longer than any call that is still alive."""


@frozen
class Bounds:
    """The smallest and the largest integer that a field may hold."""

    least: int
    most: int


Id = Annotated[str, "id"]
"""1 to 128 of `A-Z a-z 0-9 . _ : / -`, first a letter or digit. Tool names are spelled alike."""

Key = Annotated[str, "state key"]
"""A state key: NFC, not empty, no control characters, at most 512 bytes in UTF-8."""

Source = Annotated[str, "source"]
"""Who proposes: the acting agent of the events. Spelled like a state key."""

Timestamp = Annotated[str, "RFC 3339"]
"""An instant as RFC 3339 writes it, kept as it was given."""

Retries = Annotated[int, Bounds(0, MAX_RETRIES)]
TimeoutMs = Annotated[int, Bounds(1, MAX_TIMEOUT_MS)]
Count = Annotated[int, Bounds(0, 2**63 - 1)]


class ActionType(StrEnum):
    """What an action does."""

    TOOL_CALL = "tool_call"
    STATE_WRITE = "state_write"
    STATE_READ = "state_read"
    ASSERTION = "assertion"


class Reversibility(StrEnum):
    """What can be done about an action once it has succeeded."""

    REVERSIBLE = "reversible"
    COMPENSABLE = "compensable"
    IRREVERSIBLE = "irreversible"


class FailureBehavior(StrEnum):
    """What a failure of the action means for the run."""

    ABORT = "abort"
    RETRY = "retry"
    SKIP = "skip"


class Operator(StrEnum):
    """How a precondition compares the state with its value."""

    EQ = "eq"
    NEQ = "neq"
    GT = "gt"
    LT = "lt"
    GTE = "gte"
    LTE = "lte"
    EXISTS = "exists"
    NOT_EXISTS = "not_exists"
    CONTAINS = "contains"


def new_id() -> str:
    """Twelve random hex characters: the id of a proposal or an action that was given none."""
    return os.urandom(6).hex()


def _items(value: Iterable[Any]) -> tuple[Any, ...]:
    # Anything else stays as it is, so that the check can show what was given: tuple("abc") would
    # turn one name into three.
    return tuple(value) if type(value) is list else cast(Any, value)


@frozen(kw_only=True)
class Precondition:
    """What the state must be like just before the action is dispatched."""

    key: Key
    operator: Operator = Operator.EQ
    value: Json = None
    """What `operator` compares with; not looked at by `exists` and `not_exists`."""
    description: str = ""
    """Shown to the person who reads why it did not hold."""


@frozen(kw_only=True)
class Assumption:
    """What the proposer believed about the state when it wrote the proposal."""

    key: Key
    expected_value: Json = None
    """None: nothing is assumed about the value."""
    read_version: Count | None = None
    """The position of the log at which the key was read."""


@frozen(kw_only=True)
class ToolCompensation:
    """Undo by calling a tool. In JSON: `{"type": "tool", "tool": ..., "parameters": {...}}`."""

    tool: Id
    parameters: dict[str, Json] = Factory(dict)
    """May refer to outputs, that of the action itself included."""


@frozen(kw_only=True)
class ActionRef:
    """Undo by another action of the proposal, which then is not run otherwise.

    In JSON: `{"type": "action_ref", "action_id": ...}`.
    """

    action_id: Id


Compensation = ToolCompensation | ActionRef


@frozen(kw_only=True)
class Action:
    """One step of a proposal."""

    id: Id = Factory(new_id)
    type: ActionType = ActionType.TOOL_CALL
    tool: Id | None = None
    """The tool that a `tool_call` calls."""
    parameters: dict[str, Json] = Factory(dict)
    """Handed to the tool, output references replaced. State actions: `key`, `value`, `expected`."""
    preconditions: tuple[Precondition, ...] = field(default=(), converter=_items)
    expected_effects: dict[Key, Json] = Factory(dict)
    """State written when the action succeeds."""
    state_dependencies: tuple[Key, ...] = field(default=(), converter=_items)
    """Keys that must be present before the action."""
    dependencies: tuple[Id, ...] = field(default=(), converter=_items)
    """Actions that must have succeeded before, wherever they stand in the proposal."""
    read_set: tuple[Key, ...] = field(default=(), converter=_items)
    """Keys declared as read, for conflict checks between proposals; they make no order."""
    write_set: tuple[Key, ...] = field(default=(), converter=_items)
    """Keys declared as written, for conflict checks between proposals; they make no order."""
    assumptions: tuple[Assumption, ...] = field(default=(), converter=_items)
    reversibility: Reversibility = Reversibility.IRREVERSIBLE
    compensation: Compensation | None = None
    """How to undo it; goes before what the tool declares."""
    idempotent: bool = False
    """Asks for the remembered result of an equal action; that a call can be repeated only its tool
    can say."""
    max_retries: Retries = 3
    """Further attempts after the first, where `failure_behavior` is `retry`."""
    failure_behavior: FailureBehavior = FailureBehavior.ABORT
    timeout_ms: TimeoutMs | None = None
    """Milliseconds that one attempt may take; None: as long as it likes."""
    metadata: dict[str, Json] = Factory(dict)
    """Free: kept, and not looked at."""


@frozen(kw_only=True)
class Proposal:
    """What a model, or a program, wants done."""

    id: Id = Factory(new_id)
    source: Source = "unknown"
    timestamp: Timestamp | None = None
    actions: tuple[Action, ...] = field(converter=_items)
    """In declaration order, which is also the order of the results."""
    context: dict[str, Json] = Factory(dict)
    """Free: kept, and not looked at."""


class ActionStatus(StrEnum):
    """What an action came to."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    SKIPPED = "skipped"


class RunStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    PARTIALLY_COMPENSATED = "partially_compensated"
    CANCELLED = "cancelled"


@frozen(kw_only=True)
class ActionResult:
    """What one action came to."""

    action_id: str
    status: ActionStatus
    output: Json = None
    error: str | None = None
    state_changes: dict[str, Json] = Factory(dict)
    """Keys and values that the action wrote."""
    duration_ms: float | None = None
    """Milliseconds of all its attempts together, without waits; None: it never ran."""
    attempts: int = 0
    rolled_back: bool = False
    timestamp: str | None = None
    """When it was settled: RFC 3339, UTC."""

    def to_dict(self) -> dict[str, Json]:
        """As JSON, the fields by their names."""
        return {**asdict(self, recurse=False), "status": self.status.value}


@frozen(kw_only=True)
class CostSummary:
    """What a run used."""

    tool_calls: int = 0
    actions_executed: int = 0
    """Succeeded and failed ones."""
    actions_rejected: int = 0
    actions_skipped: int = 0
    total_duration_ms: float = 0.0
    """Milliseconds: the sum over the actions, without waits."""
    retries: int = 0


@frozen
class NotUndone:
    """An action that succeeded, whose run was rolled back, and whose effect remains."""

    action_id: str
    reason: str


@frozen
class RollbackConflict:
    """A key that a rollback left alone, because somebody else has written it since.

    `ours` and `theirs` are positions of the log: the run's last write, and the later one.
    """

    key: str
    ours: int
    theirs: int


@frozen(kw_only=True)
class RunResult:
    """What a run came to, or where it stands."""

    run_id: RunId
    proposal_id: str
    status: RunStatus
    results: tuple[ActionResult, ...] = field(default=(), converter=_items)
    """In the order in which the proposal declares the actions."""
    not_undone: tuple[NotUndone, ...] = field(default=(), converter=_items)
    conflicts: tuple[RollbackConflict, ...] = field(default=(), converter=_items)
    cost: CostSummary = CostSummary()
    waits_for: str | None = None
    """What a waiting run waits for, of several the first: `acceptance` (it was copied unfinished,
    and nothing is called for it until `resume` is told to accept that), `answer` (to what became of
    calls in doubt), `approval`, `signal` or `time`."""
    stopped: str | None = None
    """Why the run ended before its plan did: `budget: ...`, `cancelled: ...`, `deadline: ...`."""
    replaces: str | None = None
    """The run that was aborted, in whose place this one came."""

    def to_dict(self) -> dict[str, Json]:
        """The JSON that `run`, `resume` and `show` print; what is None in `waits_for`,
        `stopped` and `replaces` is left out."""
        names = ("waits_for", "stopped", "replaces")
        told = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {
            "run_id": self.run_id,
            "proposal_id": self.proposal_id,
            "status": self.status.value,
            **told,
            "results": [result.to_dict() for result in self.results],
            "not_undone": [asdict(item) for item in self.not_undone],
            "conflicts": [asdict(conflict) for conflict in self.conflicts],
            "cost": asdict(self.cost),
        }
