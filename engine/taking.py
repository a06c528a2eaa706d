"""Taking in the outcome of a call: what is recorded of it, and whether its changes apply."""

from carstore.errors import StateConflict
from carstore.names import Position, StateKey
from engine import commit
from engine.begin import flight
from engine.desk import Desk
from engine.execute import Ending, Outcome
from engine.held_values import only_held, referred_by
from engine.paying import settle

__all__ = ["take"]


async def take(desk: Desk, outcome: Outcome) -> None:
    """Record what came of a call, but not its changes if the state it read has changed."""
    made = outcome.call
    state = desk.run.actions[made.index]
    hashes = referred_by(outcome)
    if hashes:
        place = desk.calls.outcomes.index(outcome)
        outcome = desk.calls.outcomes[place] = await only_held(outcome, hashes, desk.journal.store)
        desk.run.refers = True
    if desk.calls.given_up and outcome.ending is Ending.UNKNOWN and made.tool.schema.repeatable:
        desk.calls.outcomes.remove(outcome)  # nothing to record: it will simply be called again
        if made.reuse_key is not None:
            desk.journal.give_back(flight(made.reuse_key))
        return
    stale = None
    if outcome.ending is Ending.RETURNED and not made.undo:
        stale = await _stale(desk, {**made.grounds, **outcome.buffered.reads})
    desk.calls.taken.append(outcome)
    if made.reuse_key is not None:
        desk.journal.give_back(flight(made.reuse_key))
    desk.record(commit.after_call(desk.run, outcome, stale, desk.policy))
    doubt = (state.undo if made.undo else state.do).doubt
    held = doubt is not None and doubt.answer is None
    await settle(desk, state, outcome, held=held)
    if held and not made.undo:
        desk.schedule.hold(made.index)


async def _stale(desk: Desk, reads: dict[str, int]) -> StateConflict | None:
    """The first of `reads` that does not hold any more; otherwise they become conditions."""
    if not reads:
        return None
    if any(key in desk.journal.state.pending for key in reads):
        # Another action of the run has written the key in this very turn; see where.
        await desk.flush()
    await desk.journal.fetch(reads)
    for key, read_at in reads.items():
        now = desk.journal.state.known[key].position
        if now != read_at or key in desk.contested:
            return StateConflict(desk.scope, StateKey(key), Position(read_at), now)
    for key in reads:
        desk.journal.state.read(key)
    return None
