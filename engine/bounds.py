"""The bounds of a run: what its rules say of an action, and what its budget and its tools allow."""

from collections.abc import Mapping

from carstore.names import Json
from engine.action_state import ActionState
from engine.authority import Verdict
from engine.begin import grounds_of
from engine.declare import Tool
from engine.desk import Desk
from engine.ir import Action, ActionRef

__all__ = ["cache_ttl_us", "count_calls", "counts_calls", "grounds", "judge", "over_budget"]


def counts_calls(desk: Desk) -> bool:
    """Whether each call has to be known before it is made, because a budget counts it."""
    budget = desk.budget
    return desk.purse is not None or (budget is not None and budget.max_tool_calls is not None)


def cache_ttl_us(desk: Desk, tool: Tool) -> int | None:
    """For how long results of `tool` are served again, in microseconds; None: not at all."""
    seconds = desk.equipment.cache_ttls.get(tool.name, tool.schema.cache_ttl_secs)
    return None if seconds is None else seconds * 1_000_000


async def count_calls(desk: Desk) -> None:
    """Make sure it is known how often those tools were called that rules ask about."""
    rates = desk.equipment.rates
    for policy in desk.authority.policies:
        for tool, interval_us in policy.counts.items():
            rates.watch(tool, interval_us)
            await rates.ready(tool)


def over_budget(desk: Desk, index: int, state: ActionState) -> bool:
    """Stop the run if the action, or its next attempt, is more than it may do."""
    if desk.budget is None:
        return False
    reason = desk.budget.exceeded(
        actions=0 if index in desk.run.begun else len(desk.run.begun),
        tool_calls=desk.run.dispatched,
        duration_us=desk.run.duration_us,
        is_tool_call=(tool := desk.tool_of(state)) is not None and not tool.waits,
    )
    if reason is not None:
        desk.spent(reason)
    return reason is not None


def judge(
    desk: Desk,
    action: Action,
    tool: Tool | None,
    parameters: Mapping[str, Json],
    *,
    limited: bool = True,
) -> Verdict:
    """What the rules say of an action with these parameters.

    Args:
        limited: whether rules hear how often a tool was called lately.
    """
    return desk.authority.judge(
        action,
        len(desk.run.actions),
        tool,
        parameters,
        desk.journal.state.read,
        desk.equipment.rates.recent if limited else _never_called,
        run_id=desk.run.run_id,
        source=desk.run.received.source,
        undo=undone_by(desk, action),
    )


def grounds(desk: Desk, action: Action) -> set[str]:
    """The state keys on which the decision to begin `action` rests, those of rules included."""
    return grounds_of(action) | desk.authority.keys(action, undone_by(desk, action))


def undone_by(desk: Desk, action: Action) -> Action | None:
    """The action of the plan that undoes `action`, if its compensation names one."""
    named = action.compensation
    return desk.run.of(named.action_id).action if isinstance(named, ActionRef) else None


def _never_called(_: str, __: int) -> int:
    return 0
