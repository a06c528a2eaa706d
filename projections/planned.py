"""What a recorded proposal says of its actions, as far as it says it well."""

from typing import NamedTuple

from carstore.names import Json


class Planned(NamedTuple):
    """An action of a plan."""

    action_id: str
    type: str
    tool: str | None


def planned(proposal: Json) -> list[Planned]:
    """The actions of a proposal, in its order; an id counts once, and what is no action not at all.

    The engine records none but well-formed proposals. A log may hold others.
    """
    actions = proposal.get("actions") if isinstance(proposal, dict) else None
    found: dict[str, Planned] = {}
    for action in actions if isinstance(actions, list) else []:
        match action:
            case {"id": str(action_id)} if action_id not in found:
                kind, tool = action.get("type"), action.get("tool")
                found[action_id] = Planned(
                    action_id,
                    kind if isinstance(kind, str) else "tool_call",
                    tool if isinstance(tool, str) else None,
                )
    return list(found.values())
