"""A view of one's own: calls, failures and milliseconds of each tool.

    carstore view agents.db tools --views examples/view_tools.py

An event names every row that it changes. The end of a call names its action but not its tool, so
there is a row for each action that calls a tool, and adding them up by tool is for the reader:

    SELECT tool, sum(calls), sum(failures), sum(duration_us) / 1000.0 AS milliseconds
    FROM tools GROUP BY tool
"""

from attrs import evolve as changed
from attrs import frozen

from carstore import Recorded
from carstore.events import ActionFailed, ActionSucceeded, ProposalReceived
from projections import View
from projections.planned import planned
from projections.view import Key, Rows, add, run_key

ToolEvent = ProposalReceived | ActionSucceeded | ActionFailed


@frozen(kw_only=True)
class ToolUse:
    """What one action of a run has used its tool for."""

    run_id: str
    action_id: str
    tool: str
    calls: int = 0
    """Attempts that have ended."""
    failures: int = 0
    """How many of them failed."""
    duration_us: int = 0
    """Of all of them together, in microseconds."""


def keys(event: ToolEvent, recorded: Recorded) -> list[Key]:
    if not isinstance(event, ProposalReceived):
        return run_key(recorded, event.action_id)
    actions = planned(event.proposal)
    return [key for one in actions for key in run_key(recorded, one.action_id)]


def evolve(rows: Rows[ToolUse], event: ToolEvent, recorded: Recorded) -> Rows[ToolUse]:
    run = recorded.run_id or ""
    if isinstance(event, ProposalReceived):
        uses = [
            ToolUse(run_id=run, action_id=one.action_id, tool=one.tool)
            for one in planned(event.proposal)
            if one.tool is not None
        ]
        return {(run, use.action_id): use for use in uses}
    [(key, use)] = rows.items()
    if use is None:  # an action that calls no tool
        return {}
    after = changed(
        use,
        calls=use.calls + 1,
        failures=use.failures + isinstance(event, ActionFailed),
        duration_us=add(use.duration_us, event.duration_us or 0),
    )
    return {key: after}


TOOLS: View[ToolEvent, ToolUse] = View(
    name="tools",
    version=1,
    kinds=(ProposalReceived, ActionSucceeded, ActionFailed),
    row=ToolUse,
    key=("run_id", "action_id"),
    keys=keys,
    evolve=evolve,
)
