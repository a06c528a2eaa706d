"""Validate: may this action be dispatched? All reasons against it, as sentences.

Step 2 of the pipeline; `engine.begin` has the others.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from carstore.log import StateRead
from carstore.names import Json
from engine.declare import Tool
from engine.ir import Action, ActionType
from engine.rules.assumptions import stale
from engine.rules.preconditions import violation

__all__ = ["reasons_against"]


def reasons_against(
    action: Action,
    parameters: dict[str, Json],
    tool: Tool | None,
    read: Callable[[str], StateRead],
    *,
    public: Json = None,
    values: Mapping[str, Json] = MappingProxyType({}),
    run_id: str | None = None,
) -> list[str]:
    """Everything that forbids to dispatch `action` now; [] if nothing does.

    Args:
        parameters: with output references resolved.
        tool: what `action.tool` names, None if the runtime does not know it.
        read: the state of a key; each key it is asked for becomes a ground of the decision.
        public: `parameters` with references in the place of what is sensitive, if anything is.
        values: beside the log, by hash, as far as preconditions and assumptions may need
            them.
        run_id: what this run has written itself is no surprise to its proposer; what it has not
            recorded yet has no position.
    """
    reasons = []
    if action.type is ActionType.TOOL_CALL:
        if tool is None:
            reasons.append(f"unknown tool '{action.tool}'")
        else:
            reasons += tool.schema.check_parameters(parameters, public)
    for condition in action.preconditions:
        reason = violation(condition, read(condition.key), values)
        if reason is not None:
            reasons.append(reason)
    reasons += [
        f"state dependency '{key}' does not exist"
        for key in action.state_dependencies
        if not read(key).exists
    ]
    for assumption in action.assumptions:
        found = read(assumption.key)
        ours = found.run_id == run_id or (found.exists and found.position == 0)
        if not ours:
            reason = stale(assumption, found, values)
            if reason is not None:
                reasons.append(reason)
    return reasons
