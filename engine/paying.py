"""Paying: what the calls of a run cost is taken from its budgets as their outcomes are recorded."""

from engine.action_state import ActionState, Doubt
from engine.desk import Desk
from engine.execute import Outcome
from engine.purse import reservation_name

__all__ = ["forfeit", "settle", "settle_doubt"]


async def settle(desk: Desk, state: ActionState, outcome: Outcome, *, held: bool) -> None:
    """Take what a call has cost.

    Args:
        held: it is in doubt, and may have cost more: the rest of what it has reserved stays so.
    """
    if desk.purse is None:
        return
    made, spent = outcome.call, dict[str, int]()
    for one in outcome.buffered.metered:
        spent[one.currency] = spent.get(one.currency, 0) + one.cost_micros
    name = reservation_name(desk.run.run_id, state.action.id, made.attempt, undo=made.undo)
    for entry in await desk.purse.settle(name, spent, keep=held):
        desk.journal.add(entry)


async def forfeit(desk: Desk, state: ActionState, attempt: int, *, undo: bool) -> None:
    """Take in full what a call may have spent that ended with its process."""
    if desk.purse is not None:
        name = reservation_name(desk.run.run_id, state.action.id, attempt, undo=undo)
        for entry in await desk.purse.forfeit(name):
            desk.journal.add(entry)


async def settle_doubt(desk: Desk, state: ActionState, doubt: Doubt) -> None:
    """End what an attempt in doubt had reserved, once somebody has said what became of it: if it
    was carried out, or may have been, it counts in full."""
    answer = doubt.answer
    if desk.purse is None or answer is None:
        return
    name = reservation_name(desk.run.run_id, state.action.id, doubt.attempt, undo=answer.undo)
    idle = answer.resolution != "succeeded" and not state.maybe_done
    entries = await (desk.purse.settle(name) if idle else desk.purse.forfeit(name))
    for entry in entries:
        desk.journal.add(entry)
