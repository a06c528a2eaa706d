"""Steps 3 to 6 of a tool call: reuse, rate limit, budget, intent.

Each of the first three may settle the action, put it off, or stop the run; whoever passes all is
recorded as about to be called. The rate limit comes before the budget, because a token can be given
back and what was recorded cannot; a token that was taken is kept until the call is made.
"""

from enum import Enum

from carstore import events as e
from carstore.blobs import filled
from carstore.names import lease_stream
from engine.action_state import ActionState
from engine.begin import Ready, flight, grounds_of, parameters_digest, reuse_key
from engine.bounds import cache_ttl_us, counts_calls, grounds
from engine.declare import Tool
from engine.desk import Desk
from engine.equipment import Remembered
from engine.execute import Call
from engine.paying import forfeit
from engine.purse import reservation_name
from engine.rules.budget import BudgetExhausted
from engine.rules.sensitive import concealing
from engine.rules.values import same

__all__ = ["begin_call"]

FLIGHT_MS = 100
"""Milliseconds after which an action looks again whether an equal call, which it waits for, has
ended. Calls of the same run that end are noticed at once."""

SETTLING_MS = 50
"""The same for one that waits for calls of its run to give back what they have reserved."""


class Put(Enum):
    """What became of an action on its way to a call."""

    ON = "goes on"
    OFF = "settled, or put off"


async def begin_call(
    desk: Desk, index: int, state: ActionState, begun: Ready, secrets: set[str]
) -> None:
    """Decide on one call, and record that it is about to be made.

    Args:
        secrets: texts of the parameters that no message may hold.
    """
    action, tool = state.action, begun.tool
    assert tool is not None
    key = _memory_key(desk, state, tool, begun)
    if key is not None and await _remembered(desk, index, state, tool, key) is Put.OFF:
        return
    attempt = state.do.number + 1
    put = await _rate_limited(desk, index, tool)
    if put is Put.ON:
        put = await _reserve(desk, index, state, tool, attempt)
    if put is Put.OFF:
        if key is not None:
            desk.journal.give_way(flight(key))
        return
    if tool.schema.repeatable and not action.idempotent and not counts_calls(desk):
        desk.record([e.ActionValidated(action_id=action.id, tool=tool.name)])
    else:
        intent = e.ActionExecuting(
            action_id=action.id,
            attempt=attempt,
            tool=tool.name,
            effect=tool.schema.effect.value,
            parameters_digest=parameters_digest(begun.parameters),
            reserved=tool.schema.max_cost_micros or None if desk.purse else None,
            reuse_key=key,
        )
        desk.record([intent])
    made = Call(
        index=index,
        undo=False,
        attempt=attempt,
        tool=tool,
        parameters=begun.given,
        conceal=concealing(tool.schema, desk.journal.store.redaction),
        secrets=secrets,
        timeout_ms=action.timeout_ms or tool.schema.timeout_ms,
        grounds=dict.fromkeys(grounds_of(action), 0),
        reuse_key=key,
        context=desk.context(state, tool, attempt, secrets, undo=False),
    )
    desk.calls.to_start.append(made)


# --- 3: reuse ------------------------------------------------------------------------------------


def _memory_key(desk: Desk, state: ActionState, tool: Tool, begun: Ready) -> str | None:
    """Under which name the result is remembered, if the action or its tool wants that."""
    if not state.action.idempotent and cache_ttl_us(desk, tool) is None:
        return None
    return reuse_key(desk.scope, tool, begun.parameters)


async def _remembered(desk: Desk, index: int, state: ActionState, tool: Tool, key: str) -> Put:
    """Settle the action with a remembered result, or wait for an equal call that is under way."""
    if any(other.reuse_key == key and other.status is not None for other in desk.run.actions):
        await desk.make_durable()  # the log is the memory, and this may not be in it yet
        for name in grounds(desk, state.action):
            desk.journal.state.read(name)  # what was validated is a condition of what comes now
    found = await _served(desk, state, tool, key)
    if found is None and state.action.idempotent:
        if not await _claimed(desk, key):
            desk.look_again(index, FLIGHT_MS)
            return Put.OFF
        # Whoever had it may have succeeded after that look; from here on, what is decided lapses.
        found = await _served(desk, state, tool, key)
        if found is not None:
            desk.journal.give_way(flight(key))
    if found is None:
        return Put.ON
    hit = e.ActionDeduplicated(
        action_id=state.action.id,
        output=found.output,
        reuse_key=key,
        original_position=found.position,
        original_run_id=found.run_id,
        original_action_id=found.action_id,
        cause="reuse" if state.action.idempotent else "cache",
    )
    desk.record([hit])
    return Put.OFF


async def _served(desk: Desk, state: ActionState, tool: Tool, key: str) -> Remembered | None:
    """The remembered result that the action takes over, if there is one."""
    found = await desk.equipment.recall(key)
    if found is None or not _is_young(desk, state, tool, found):
        return None
    return found if await _effects_hold(desk, state) else None


async def _claimed(desk: Desk, key: str) -> bool:
    """Claim the lease of equal calls. That nobody was granted it, and gave it back, before the
    append is a condition too: a lease that is free looks the same as before."""
    stream, version = lease_stream(flight(key)), 0
    async for recorded in desk.journal.store.log.read(stream=stream):
        version = recorded.version
    if not await desk.journal.claim(flight(key)):
        return False
    desk.journal.expected[stream] = version
    return True


def _is_young(desk: Desk, state: ActionState, tool: Tool, found: Remembered) -> bool:
    """Whether a result may still be taken over; who asks for reuse may have one of any age."""
    if state.action.idempotent:
        return True
    ttl_us = cache_ttl_us(desk, tool)
    return ttl_us is not None and desk.journal.clock.now() - found.at < ttl_us


async def _effects_hold(desk: Desk, state: ActionState) -> bool:
    """Whether the state is as the action is to leave it: a hit changes nothing."""
    effects = state.action.expected_effects
    await desk.journal.fetch(effects)
    values = await desk.values_for(judged=list(effects.values()))
    for name, value in effects.items():
        now = desk.journal.state.read(name)
        wanted = filled(value, values, sensitive=False)
        if not (now.exists and same(now.value, wanted)):
            return False
    return True


# --- 5: rate limit -------------------------------------------------------------------------------


async def _rate_limited(desk: Desk, index: int, tool: Tool) -> Put:
    """Wait for the action's turn to call the tool, if the tool has a limit."""
    if index in desk.calls.tokens:
        return Put.ON
    rates = desk.equipment.rates
    await rates.ready(tool.name)
    wait_us = rates.take(tool.name)
    desk.calls.tokens[index] = tool.name, rates.taken(tool.name)
    if wait_us <= 0:
        return Put.ON
    desk.look_again(index, wait_us / 1000)
    return Put.OFF


# --- 4: budget -----------------------------------------------------------------------------------


async def _reserve(desk: Desk, index: int, state: ActionState, tool: Tool, attempt: int) -> Put:
    """Set aside what the call may cost; what cannot be had stops the run."""
    purse = desk.purse
    if purse is None:
        return Put.ON
    run_id, action_id = desk.run.run_id, state.action.id
    if state.do.open:  # the process ended during the call
        await forfeit(desk, state, attempt - 1, undo=False)
    name = reservation_name(run_id, action_id, attempt, undo=False)
    try:
        entries, versions = await purse.reserve(name, tool.schema.max_cost_micros)
    except BudgetExhausted as exhausted:
        # Those under way may give back some of what they have reserved.
        if desk.calls.running or desk.calls.to_start:
            desk.look_again(index, SETTLING_MS)
        else:
            desk.spent(exhausted.brief)
        return Put.OFF
    for entry in entries:
        desk.journal.add(entry)
    desk.journal.expected.update(versions)
    return Put.ON
