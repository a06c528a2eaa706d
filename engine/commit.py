"""Commit: what is recorded of an outcome. Events only; nothing is done here."""

from collections.abc import Iterator, Sequence

from attrs import Factory, frozen

from carstore import events as e
from carstore.errors import StateConflict
from carstore.names import Json
from engine.action_state import ActionState, Doubt
from engine.buffered import DELETED, Deleted
from engine.execute import Ending, Outcome
from engine.ir import Action, FailureBehavior
from engine.rules.retries import Backoff, attempts_allowed
from engine.run import Run

__all__ = ["Policy", "after_answer", "after_call", "changes", "doubtful", "failed"]


@frozen(kw_only=True)
class Policy:
    """What a run does about failures and doubts."""

    on_doubt: str = "hold"
    """`hold`: a person decides. `fail`: it counts as failed. `retry`: it is called again."""
    backoff: Backoff = Factory(Backoff)


def after_call(
    run: Run, outcome: Outcome, stale: StateConflict | None, policy: Policy
) -> Iterator[e.Event]:
    """What to record of a call.

    Args:
        stale: what the action read has changed meanwhile; then its changes are not applied.
    """
    made = outcome.call
    state = run.actions[made.index]
    yield from _side_notes(run, outcome)
    once = not made.tool.schema.repeatable
    if outcome.ending is Ending.UNKNOWN and once:
        yield from doubtful(
            state.action,
            made.attempt,
            made.tool.name,
            made.context.idempotency_key,
            outcome.error,
            policy,
            undo=made.undo,
        )
    elif made.undo:
        yield from _after_undo(state, outcome, policy)
    elif outcome.ending is Ending.RETURNED and stale is None:
        yield e.ActionSucceeded(
            action_id=state.action.id,
            attempt=made.attempt,
            output=outcome.output,
            duration_us=outcome.duration_us,
            reuse_key=made.reuse_key,
        )
        yield from changes(
            run.received.scope, {**outcome.buffered.changes, **state.action.expected_effects}
        )
    else:
        # A call that must not be made again is not, even if what it did could not be applied.
        again = not (stale is not None and once)
        error = stale.message if stale is not None else outcome.error
        yield from failed(
            state.action,
            made.attempt,
            error,
            policy.backoff,
            duration_us=outcome.duration_us,
            output=outcome.output,
            may_retry=again,
        )


def failed(
    action: Action,
    attempt: int,
    error: str,
    backoff: Backoff,
    *,
    duration_us: int | None = None,
    output: Json = None,
    may_retry: bool = True,
) -> Iterator[e.Event]:
    """A failed attempt, and what its `failure_behavior` makes of it."""
    yield e.ActionFailed(
        action_id=action.id, attempt=attempt, error=error, duration_us=duration_us, output=output
    )
    if may_retry and attempt < attempts_allowed(action):
        yield e.ActionRetrying(
            action_id=action.id, attempt=attempt + 1, delay_ms=backoff.delay_ms(attempt)
        )
    elif action.failure_behavior is FailureBehavior.SKIP:
        yield e.ActionSkipped(action_id=action.id, reason=error)


def doubtful(
    action: Action, attempt: int, tool: str, key: str, reason: str, policy: Policy, *, undo: bool
) -> Iterator[e.Event]:
    """An attempt of which nobody knows what became, and what the policy makes of it."""
    yield e.ActionInDoubt(
        action_id=action.id,
        attempt=attempt,
        undo=undo,
        tool=tool,
        idempotency_key=key,
        reason=reason,
    )
    if policy.on_doubt == "hold":
        return
    resolution = "failed" if policy.on_doubt == "fail" else "retry"
    yield e.DoubtResolved(
        action_id=action.id,
        attempt=attempt,
        undo=undo,
        resolution=resolution,
        error=f"in doubt: {reason}" if resolution == "failed" else None,
    )


def after_answer(
    run: Run, state: ActionState, doubt: Doubt, policy: Policy, problems: Sequence[str] = ()
) -> Iterator[e.Event]:
    """What to record when an attempt in doubt was resolved.

    Args:
        problems: in which the output that was given is not what the tool returns.
    """
    action, answer = state.action, doubt.answer
    if answer is None:
        return
    if answer.undo:
        yield from _after_answered_undo(action, answer, doubt.tool)
    elif answer.resolution == "succeeded" and problems:
        error = f"resolved as succeeded, but {'; '.join(problems)}"
        yield from failed(action, answer.attempt, error, policy.backoff, may_retry=False)
    elif answer.resolution == "succeeded":
        yield e.ActionSucceeded(
            action_id=action.id,
            attempt=answer.attempt,
            output=answer.output,
            duration_us=0,
            reuse_key=state.reuse_key,
        )
        yield from changes(run.received.scope, action.expected_effects)
    elif answer.resolution == "failed":
        error = answer.error or "resolved as failed"
        yield from failed(action, answer.attempt, error, policy.backoff, may_retry=False)
    else:
        yield e.ActionRetrying(action_id=action.id, attempt=answer.attempt + 1, delay_ms=0)


def changes(scope: str, written: "dict[str, Json | Deleted]") -> Iterator[e.StateChanged]:
    """One event for each key that an action writes."""
    for key, value in written.items():
        if value is DELETED:
            yield e.StateChanged(scope=scope, key=key, deleted=True)
        else:
            yield e.StateChanged(scope=scope, key=key, value=value)


def _side_notes(run: Run, outcome: Outcome) -> Iterator[e.Event]:
    """What the tool metered and logged, whatever else became of it."""
    made, action_id = outcome.call, run.actions[outcome.call.index].action.id
    for n, metered in enumerate(outcome.buffered.metered):
        yield e.InferenceMetered(
            agent=metered.agent or run.received.source,
            action_id=action_id,
            attempt=made.attempt,
            n=n,
            model=metered.model,
            tokens_in=metered.tokens_in,
            tokens_out=metered.tokens_out,
            cost_micros=metered.cost_micros,
            currency=metered.currency,
        )
    for line in outcome.buffered.lines:
        yield e.ActionLogged(
            action_id=action_id, attempt=made.attempt, message=line.message, data=line.data
        )
    left_out = outcome.buffered.lines_left_out
    if left_out:
        yield e.ActionLogged(
            action_id=action_id,
            attempt=made.attempt,
            message=f"{left_out} more lines were left out",
            data={},
        )


def _after_undo(state: ActionState, outcome: Outcome, policy: Policy) -> Iterator[e.Event]:
    made, action = outcome.call, state.action
    if outcome.ending is Ending.RETURNED:
        yield e.CompensationSucceeded(
            action_id=action.id,
            attempt=made.attempt,
            tool=made.tool.name,
            output=outcome.output,
            duration_us=outcome.duration_us,
        )
        return
    yield e.CompensationFailed(
        action_id=action.id,
        attempt=made.attempt,
        tool=made.tool.name,
        error=outcome.error,
        duration_us=outcome.duration_us,
    )
    if made.attempt <= action.max_retries:
        yield e.CompensationRetrying(
            action_id=action.id,
            attempt=made.attempt + 1,
            delay_ms=policy.backoff.delay_ms(made.attempt),
        )


def _after_answered_undo(action: Action, answer: e.DoubtResolved, tool: str) -> Iterator[e.Event]:
    if answer.resolution == "succeeded":
        yield e.CompensationSucceeded(
            action_id=action.id,
            attempt=answer.attempt,
            tool=tool,
            output=answer.output,
            duration_us=0,
        )
    elif answer.resolution == "failed":
        yield e.CompensationFailed(
            action_id=action.id,
            attempt=answer.attempt,
            tool=tool,
            error=answer.error or "resolved as failed",
        )
    else:
        yield e.CompensationRetrying(action_id=action.id, attempt=answer.attempt + 1, delay_ms=0)
