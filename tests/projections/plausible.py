"""What the tests of the views share: events as recorded, and logs that might have happened."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from carstore import Entry, Recorded, Store
from carstore import events as e
from carstore.chain import GENESIS
from carstore.codec import encode, with_prev
from carstore.events import Event
from carstore.names import (
    LeaseName,
    Micros,
    Position,
    RunId,
    StreamName,
    Version,
    inbox_stream,
    lease_stream,
    run_stream,
)

START_US = 1_700_000_000_000_000


def record(
    *events: Event | tuple[str, Event], run: str | None = "r1", first: int = 1
) -> list[Recorded]:
    """Events as the log gives them back, one second apart; `run` may differ as (run, event)."""
    recorded = []
    for position, item in enumerate(events, first):
        run_id, event = item if isinstance(item, tuple) else (run, item)
        encoded = encode(event)
        recorded.append(
            Recorded(
                position=Position(position),
                stream=StreamName("notes" if run_id is None else f"run/{run_id}"),
                version=Version(position),
                kind=encoded.kind,
                schema_version=encoded.schema_version,
                recorded_at=Micros(at(position)),
                run_id=None if run_id is None else RunId(run_id),
                scope=encoded.scope,  # type: ignore[arg-type]
                key=encoded.key,  # type: ignore[arg-type]
                fence=None,
                fence_token=None,
                data=encoded.data if encoded.rest is None else with_prev(encoded, None),
                prev_hash=GENESIS,
                hash=GENESIS,
            )
        )
    return recorded


def at(position: int) -> int:
    """When `record` says that the event at `position` was recorded."""
    return START_US + position * 1_000_000


def received(
    *actions: Any,
    source: str = "planner",
    scope: str = "main",
    proposal: Any = None,
    **more: Any,
) -> e.ProposalReceived:
    """A plan; each action is given by its id, or as the proposal has it."""
    items = [{"id": item, "tool": "fetch"} if isinstance(item, str) else item for item in actions]
    return e.ProposalReceived(
        proposal_id="p1",
        source=source,
        proposal={"actions": items} if proposal is None else proposal,
        tools={},
        scope=scope,
        schedule="levels",
        concurrency=4,
        on_doubt="hold",
        log_id="0" * 32,
        **more,
    )


def executing(action: str = "a1", attempt: int = 1) -> e.ActionExecuting:
    return e.ActionExecuting(
        action_id=action, attempt=attempt, tool="fetch", effect="once", parameters_digest="0" * 64
    )


def succeeded(
    action: str = "a1", attempt: int = 1, output: Any = None, reuse_key: str | None = None
) -> e.ActionSucceeded:
    return e.ActionSucceeded(
        action_id=action, attempt=attempt, output=output, duration_us=500, reuse_key=reuse_key
    )


def failed(action: str = "a1", attempt: int = 1, error: str = "no") -> e.ActionFailed:
    return e.ActionFailed(action_id=action, attempt=attempt, error=error, duration_us=700)


def in_doubt(action: str = "a1", attempt: int = 1, *, undo: bool = False) -> e.ActionInDoubt:
    return e.ActionInDoubt(
        action_id=action,
        attempt=attempt,
        undo=undo,
        tool="fetch",
        idempotency_key="f" * 64,
        reason="the process died",
    )


def resolved(
    resolution: str, action: str = "a1", attempt: int = 1, *, undo: bool = False, output: Any = None
) -> e.DoubtResolved:
    return e.DoubtResolved(
        action_id=action, attempt=attempt, undo=undo, resolution=resolution, output=output
    )


def completed(status: str = "succeeded", rejected: int = 0) -> e.ProposalCompleted:
    return e.ProposalCompleted(
        status=status,
        tool_calls=1,
        actions_executed=1,
        actions_rejected=rejected,
        actions_skipped=0,
        duration_us=500,
        retries=0,
        not_undone=[],
        conflicts=[],
    )


def metered(
    agent: str = "planner",
    *,
    tokens_in: int = 0,
    tokens_out: int = 0,
    cost_micros: int = 0,
    currency: str = "USD",
) -> e.InferenceMetered:
    return e.InferenceMetered(
        agent=agent,
        action_id="a1",
        attempt=1,
        n=0,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost_micros=cost_micros,
        currency=currency,
    )


def changed(key: str = "k", value: Any = None, *, deleted: bool = False) -> e.StateChanged:
    return e.StateChanged(scope="main", key=key, value=value, deleted=deleted)


def asked(action: str = "a1", binding: str = "b", approvers: int = 1) -> e.ApprovalRequested:
    return e.ApprovalRequested(
        action_id=action,
        tool="fetch",
        binding=binding,
        reasons=[{"policy": "require_approval:fetch", "reason": "goes outside"}],
        approvers=approvers,
    )


def waiting(
    action: str = "a1", *, due_at: int | None = None, signal: str | None = None
) -> e.WaitStarted:
    return e.WaitStarted(action_id=action, attempt=1, due_at=due_at, signal=signal)


def registered(policy: str = "deny_tool:fetch", rule: Any = None) -> e.PolicyRegistered:
    return e.PolicyRegistered(policy=policy, digest="d" * 64, rule=rule, by="program")


def budgeted(budget: str = "team", **limits: int | None) -> e.BudgetSet:
    return e.BudgetSet(budget=budget, limits={**limits})


def a_row_of_each_view() -> list[Event]:
    """After these, every view has at least one row, and the run has not ended."""
    return [
        registered(),
        budgeted(USD=5_000_000),
        e.PursuitStarted(pursuit="goal", goal="write it", max_steps=3),
        received("a1", "a2", "a3", "a4"),
        metered(cost_micros=7),
        changed("k", 1),
        in_doubt("a2"),
        asked("a3"),
        waiting("a4", signal="go"),
        succeeded(reuse_key="x"),
    ]


# Logs that might have happened, and some that hardly could: any event in any order.

RUNS = ("r1", "r2", "r3")
ACTIONS = ("a1", "a2", "a3", "a4")

_run = st.sampled_from(RUNS)
_action = st.sampled_from(ACTIONS)
_attempt = st.integers(1, 3)
_text = st.text(max_size=8)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | _text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_text, inner, max_size=2),
    max_leaves=4,
)
_scope = st.sampled_from(["main", "other"])
_key = st.sampled_from(["k1", "k2", "ключ"])
_reuse_key = st.sampled_from(["x", "y"])
_binding = st.sampled_from(["b", "c"])
_count = st.integers(0, 1000) | st.just(2**63 - 1)
_plan = st.lists(_action, unique=True).map(lambda ids: received(*ids)) | _json.map(
    lambda anything: received(proposal=anything)
)
_step = st.builds(
    received,
    _action,
    replaces=st.none() | _run,
    replans_left=st.integers(0, 2),
    replan_on_rejection=st.booleans(),
    pursuit=st.none() | st.just("goal"),
    budget=st.none() | st.just({"max_actions": 3}),
)

_of_a_run: st.SearchStrategy[Event] = st.one_of(
    _plan,
    _step,
    st.builds(e.RunResumed, holder=_text),
    st.builds(
        e.RunPaused, reason=st.sampled_from(["waiting", "interrupted"]), waiting_for=st.just([])
    ),
    st.builds(
        completed,
        st.sampled_from(["succeeded", "failed", "rolled_back", "cancelled"]),
        st.integers(0, 1),
    ),
    st.builds(e.ActionValidated, action_id=_action, tool=st.none() | st.just("fetch")),
    st.builds(e.ActionRejected, action_id=_action, error=_text),
    st.builds(executing, _action, _attempt),
    st.builds(succeeded, _action, _attempt, _json, st.none() | _reuse_key),
    st.builds(failed, _action, _attempt, _text),
    st.builds(e.ActionRetrying, action_id=_action, attempt=_attempt, delay_ms=st.just(100)),
    st.builds(e.ActionSkipped, action_id=_action, reason=_text),
    st.builds(
        e.ActionDeduplicated,
        action_id=_action,
        output=_json,
        reuse_key=_reuse_key,
        original_position=st.just(1),
        original_run_id=_run,
        original_action_id=_action,
        cause=st.sampled_from(["reuse", "cache"]),
    ),
    st.builds(in_doubt, _action, _attempt, undo=st.booleans()),
    st.builds(
        resolved,
        st.sampled_from(["succeeded", "failed", "retry"]),
        _action,
        _attempt,
        undo=st.booleans(),
        output=_json,
    ),
    st.builds(
        e.CompensationSucceeded,
        action_id=_action,
        attempt=_attempt,
        tool=st.just("undo"),
        output=_json,
        duration_us=st.just(1),
    ),
    st.builds(
        e.CompensationFailed,
        action_id=_action,
        attempt=_attempt,
        tool=st.just("undo"),
        error=_text,
    ),
    st.builds(e.ActionRolledBack, action_id=_action, reuse_key=st.none() | _reuse_key),
    st.builds(
        e.ApprovalRequested,
        action_id=_action,
        tool=st.just("fetch"),
        binding=_binding,
        reasons=_json,
        approvers=st.integers(0, 3),
        expires_at=st.none() | st.integers(0, 2**63 - 1),
    ),
    st.builds(
        e.ApprovalAnswered,
        action_id=_action,
        binding=_binding,
        approved=st.sampled_from([True, True, False]),
        by=_text,
        reason=_text,
    ),
    st.builds(
        e.WaitStarted,
        action_id=_action,
        attempt=_attempt,
        due_at=st.none() | st.integers(0, 2**63 - 1),
        signal=st.none() | _text,
    ),
    st.builds(e.SignalSent, signal=_text, value=_json, by=_text),
    st.builds(e.SignalTaken, action_id=_action, signal=_text, number=_attempt),
    st.builds(e.CancelRequested, by=_text, reason=_text, compensate=st.booleans()),
    st.builds(
        e.RunStopping,
        cause=st.sampled_from(["cancelled", "deadline", "budget"]),
        reason=_text,
        compensate=st.booleans(),
        by=st.none() | _text,
    ),
    st.builds(e.ReplanDeclined, run=_run, reason=_text),
    st.builds(e.PolicyViolation, action_id=_action, policy=_text, reason=_text),
    st.builds(e.StateChanged, scope=_scope, key=_key, value=_json),
    st.builds(e.StateChanged, scope=_scope, key=_key, deleted=st.sampled_from([True])),
    st.just(e.StateRollback(keys=("k1",), conflicts=[])),
    st.builds(
        e.InferenceMetered,
        agent=_text,
        action_id=_action,
        attempt=_attempt,
        n=st.just(0),
        tokens_in=_count,
        tokens_out=_count,
        cost_micros=_count,
        currency=st.sampled_from(["USD", "EUR"]),
    ),
)

_policy = st.sampled_from(["deny_tool:fetch", "mine"])
_digest = st.sampled_from(["0" * 64, "1" * 64])
_budget = st.sampled_from(["team", "run/r1"])
_reservation = st.sampled_from(["r1/a1/do/1", "r1/a2/do/1"])
_amounts = st.dictionaries(st.sampled_from(["USD", "tool_calls", ""]), _count, max_size=2) | _json
_pursuit = st.sampled_from(["goal", "other"])
_of_no_run: st.SearchStrategy[Event] = st.one_of(
    st.builds(e.PolicyRegistered, policy=_policy, digest=_digest, rule=_json, by=_text),
    st.builds(e.PolicyRemoved, policy=_policy, digest=_digest, by=_text),
    st.builds(
        e.BudgetSet,
        budget=_budget,
        limits=st.dictionaries(st.sampled_from(["USD", "EUR"]), st.none() | _count) | _json,
        parent=st.none() | _budget,
        by=_text,
    ),
    st.builds(e.BudgetReserved, budget=_budget, reservation=_reservation, amounts=_amounts),
    st.builds(
        e.BudgetSettled,
        budget=_budget,
        reservation=_reservation,
        reserved=_amounts,
        spent=_amounts,
    ),
    st.builds(
        e.PursuitStarted,
        pursuit=_pursuit,
        goal=_json,
        max_steps=_attempt,
        max_cost_micros=st.none() | _count,
        ends_at=st.none() | st.integers(0, 2**63 - 1),
    ),
    st.builds(
        e.PursuitEnded,
        pursuit=_pursuit,
        status=st.sampled_from(["done", "failed", "max_steps", "max_cost"]),
        steps=_attempt,
        answer=_json,
        reason=st.none() | _text,
    ),
)

# SQLite ends a string that it takes out of JSON at a NUL, and the trigger of the leases does so.
_id = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
_lease = st.sampled_from(["agent/x", "agent/y"])
_token = st.integers(1, 60)
_ttl = st.integers(1, 10**9)
_of_a_lease: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        e.LeaseGranted,
        lease=_lease,
        holder=st.fixed_dictionaries({"pid": st.integers(1, 9), "host": _text}),
        ttl_us=_ttl,
        request_id=_id,
    ),
    st.builds(
        e.LeaseRenewed,
        leases=st.lists(st.fixed_dictionaries({"lease": _lease, "token": _token}), max_size=3),
        ttl_us=_ttl,
    ),
    st.builds(e.LeaseReleased, lease=_lease, token=_token),
)


def _in_stream(event: Event, run: RunId | None, *, inbox: bool) -> Entry:
    if run is None:
        return Entry(StreamName("notes"), event)
    return Entry(inbox_stream(run) if inbox else run_stream(run), event, run)


entries: st.SearchStrategy[Entry] = st.builds(
    _in_stream, _of_a_run | _of_no_run, st.none() | _run.map(RunId), inbox=st.booleans()
) | _of_a_lease.map(lambda event: Entry(lease_stream(LeaseName("any")), event))

chunks: st.SearchStrategy[list[Entry]] = st.lists(entries, min_size=1, max_size=12)


# On files.


async def append(store: Store, *events: Event, run: str | None = "r1") -> Position:
    """Append events of one run, and return the position of the last."""
    run_id = None if run is None else RunId(run)
    stream = StreamName("notes") if run_id is None else run_stream(run_id)
    return (await store.log.append(*[Entry(stream, event, run_id) for event in events])).last


async def all_of(store: Store) -> list[Recorded]:
    """The whole log."""
    return [recorded async for recorded in store.log.read()]


def append_unknown(path: Path, kind: str = "of_the_future") -> int:
    """Append, as a newer carstore would, an event that this one does not know."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        position, digest = connection.execute(
            "SELECT position, hash FROM events ORDER BY position DESC LIMIT 1"
        ).fetchone()
        (version,) = connection.execute(
            "SELECT max(version) FROM events WHERE stream_id = 1"
        ).fetchone()
        connection.execute(
            "INSERT INTO events (position, stream_id, version, kind, schema_version, recorded_at,"
            " data, prev_hash, hash) VALUES (?, 1, ?, ?, 1, 0, '{}', ?, ?)",
            (position + 1, version + 1, kind, digest, "f" * 64),
        )
    finally:
        connection.close()
    return int(position) + 1


def sql(path: Path, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """What a program that has never heard of carstore gets."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(statement, parameters).fetchall()
    finally:
        connection.close()


def harm(path: Path, script: str) -> None:
    """What a program that has never heard of carstore may do."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(script)
    finally:
        connection.close()
