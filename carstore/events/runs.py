"""Facts about runs: one execution of a proposal, from receipt to completion."""

from typing import ClassVar

from attrs import frozen

from carstore.names import Json


@frozen(kw_only=True)
class ProposalReceived:
    """A run began. Everything that a resume needs, but for code, stands here."""

    kind: ClassVar[str] = "proposal_received"
    proposal_id: str
    source: str
    """Who proposed; the acting agent of the run's events."""
    proposal: Json
    """The proposal as received, defaults left out."""
    tools: Json
    """Name -> digest of the schema, for each tool the plan names and the runtime knew."""
    scope: str
    """The scope of state that the run reads and writes."""
    schedule: str
    """`levels`, `eager`, or the name of a schedule that the application gave."""
    concurrency: int
    """How many tool calls may be in flight at once."""
    on_doubt: str
    """`hold`, `fail` or `retry`."""
    log_id: str
    """Of the log when the run began; part of every idempotency key of the run."""
    abort_on_rejection: bool = False
    abort_on_exhausted_retry: bool = False
    policies: Json = None
    """Name -> digest, for each rule that judges the run; None: none does."""
    budget: Json = None
    """`{max_actions, max_tool_calls, max_duration_ms, costs, parent}`, as far as given; `costs` are
    millionths by unit, `parent` the budget it takes them from. None: no limit."""
    deadline_at: int | None = None
    """Microseconds UTC; nothing is begun from then on, and the run ends. None: no limit."""
    replaces: str | None = None
    """The run that was aborted, and in whose place this one came."""
    replans_left: int = 0
    """How often another proposal is asked for if this run is aborted."""
    replan_on_rejection: bool = False
    """Whether it is also asked for if an action was rejected."""
    pursuit: str | None = None
    """The pursuit of which this run is a step."""


@frozen(kw_only=True)
class RunResumed:
    """A process took over an unfinished run."""

    kind: ClassVar[str] = "run_resumed"
    holder: str
    """Host, process and incarnation, for people."""


@frozen(kw_only=True)
class RunPaused:
    """The driver let go of a run that is not finished."""

    kind: ClassVar[str] = "run_paused"
    reason: str
    """`waiting` for a person, `interrupted`, or `copied`: the file is a copy, and the origin may
    have gone on, so nothing is called until somebody has accepted that."""
    waiting_for: Json
    """List of `{action_id, what}`."""


@frozen(kw_only=True)
class CopyAccepted:
    """Somebody decided that a run which was copied unfinished goes on in the copy."""

    kind: ClassVar[str] = "copy_accepted"
    by: str
    epoch: int
    """Of the copy, when it was accepted."""


@frozen(kw_only=True)
class ProposalCompleted:
    """The run's last event: how it ended and what it took."""

    kind: ClassVar[str] = "proposal_completed"
    status: str
    """`succeeded`, `failed`, `rolled_back`, `partially_compensated` or `cancelled`."""
    tool_calls: int
    actions_executed: int
    """Succeeded and failed ones."""
    actions_rejected: int
    actions_skipped: int
    duration_us: int
    """Sum of the durations of the actions, without waits."""
    retries: int
    not_undone: Json
    """List of `{action_id, reason}`: effects that a rollback could not undo."""
    conflicts: Json
    """List of `{key, ours, theirs}`, as in `state_rollback`."""


@frozen(kw_only=True)
class ActionValidated:
    """An action passed every check and is called without an intent: it may be called again."""

    kind: ClassVar[str] = "action_validated"
    action_id: str
    tool: str | None = None
    """None in events of carstore 0.1.0."""


@frozen(kw_only=True)
class ActionRejected:
    """An action did not pass the checks before its call, so it was not called."""

    kind: ClassVar[str] = "action_rejected"
    action_id: str
    error: str
    """All reasons, joined with `; `."""


@frozen(kw_only=True)
class ActionExecuting:
    """The intent to call a tool, durable before the call."""

    kind: ClassVar[str] = "action_executing"
    action_id: str
    attempt: int
    """Counts from 1 over the whole run, restarts included."""
    tool: str
    effect: str
    """`once`, `idempotent` or `read_only`, as the tool declares."""
    parameters_digest: str
    """SHA-256 (hex) of the canonical parameters, references resolved."""
    reserved: Json = None
    """Unit -> millionths: what the call may spend, as its budgets have reserved it."""
    reuse_key: str | None = None
    """Under which its result will be remembered, if the action asks for reuse."""


@frozen(kw_only=True)
class ActionSucceeded:
    """An action did what it was asked to."""

    kind: ClassVar[str] = "action_succeeded"
    action_id: str
    attempt: int
    output: Json
    duration_us: int
    reuse_key: str | None = None
    """Under which the result is remembered, if the action asks for reuse."""


@frozen(kw_only=True)
class ActionFailed:
    """An attempt failed; finally, unless `action_retrying` follows."""

    kind: ClassVar[str] = "action_failed"
    action_id: str
    attempt: int
    error: str
    duration_us: int | None = None
    output: Json = None
    """The output of a call whose effects could not be applied, or what is known of a bad one."""


@frozen(kw_only=True)
class ActionRetrying:
    """Another attempt will be made."""

    kind: ClassVar[str] = "action_retrying"
    action_id: str
    attempt: int
    """The number of the coming attempt."""
    delay_ms: int
    """How long after `recorded_at`."""


@frozen(kw_only=True)
class ActionSkipped:
    """An action was not done, and the run goes on without it."""

    kind: ClassVar[str] = "action_skipped"
    action_id: str
    reason: str


@frozen(kw_only=True)
class ActionDeduplicated:
    """An action asked for reuse, and its result was remembered: no call was made."""

    kind: ClassVar[str] = "action_deduplicated"
    action_id: str
    output: Json
    reuse_key: str
    original_position: int
    """Position of the `action_succeeded` that is reused."""
    original_run_id: str
    original_action_id: str
    cause: str = "reuse"
    """`reuse`: the action asked for that; `cache`: its tool allows it, for some time."""


@frozen(kw_only=True)
class ActionLogged:
    """A tool wrote a line with `ctx.log`."""

    kind: ClassVar[str] = "action_logged"
    action_id: str
    attempt: int
    message: str
    data: Json


@frozen(kw_only=True)
class ActionInDoubt:
    """A call that must not be repeated began, and nobody knows whether it was carried out."""

    kind: ClassVar[str] = "action_in_doubt"
    action_id: str
    attempt: int
    undo: bool
    """Whether the call was the action's compensation."""
    tool: str
    idempotency_key: str
    """What the tool was handed; look for it at the other side."""
    reason: str


@frozen(kw_only=True)
class DoubtResolved:
    """Somebody, or a policy, said what became of an attempt in doubt."""

    kind: ClassVar[str] = "doubt_resolved"
    action_id: str
    attempt: int
    undo: bool
    resolution: str
    """`succeeded`, `failed` or `retry`."""
    output: Json = None
    error: str | None = None
    by: str = "policy"


@frozen(kw_only=True)
class CompensationExecuting:
    """The intent to call a compensation, durable before the call."""

    kind: ClassVar[str] = "compensation_executing"
    action_id: str
    """The action that is undone."""
    attempt: int
    tool: str
    effect: str
    parameters_digest: str
    reuse_key: str | None = None
    """Of the result that is undone: from here on it is not served again."""


@frozen(kw_only=True)
class CompensationSucceeded:
    """What an action did outside was undone."""

    kind: ClassVar[str] = "compensation_succeeded"
    action_id: str
    attempt: int
    tool: str
    output: Json
    duration_us: int


@frozen(kw_only=True)
class CompensationFailed:
    """An attempt to undo failed; finally, unless `compensation_retrying` follows."""

    kind: ClassVar[str] = "compensation_failed"
    action_id: str
    attempt: int
    tool: str
    error: str
    duration_us: int | None = None


@frozen(kw_only=True)
class CompensationRetrying:
    """Another attempt to undo will be made."""

    kind: ClassVar[str] = "compensation_retrying"
    action_id: str
    attempt: int
    delay_ms: int


@frozen(kw_only=True)
class ActionRolledBack:
    """A succeeded action was undone, as far as it could be."""

    kind: ClassVar[str] = "action_rolled_back"
    action_id: str
    reuse_key: str | None = None
    """The remembered result that is forgotten."""
