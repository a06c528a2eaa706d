"""Validate: may this action be dispatched? All reasons against it, as sentences.

The steps of the pipeline before a call, in their order: references are resolved (0); then authority
(1), which has nothing to say yet; then what is checked here (2).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from carstore.log import StateRead
from carstore.names import Json
from engine.declare import Tool
from engine.ir import Action, ActionType
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
) -> list[str]:
    """Everything that forbids to dispatch `action` now; [] if nothing does.

    Args:
        parameters: with output references resolved.
        tool: what `action.tool` names, None if the runtime does not know it.
        read: the state of a key; each key it is asked for becomes a ground of the decision.
        public: `parameters` with references in the place of what is sensitive, if anything is.
        values: beside the log, by hash, as far as preconditions may need them.
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
    return reasons
