"""Short forms for the table: each function gives a plain JSON object."""

from typing import Any

__all__ = ["call", "case", "check", "cost", "ends", "execute", "read", "tool", "write"]


def call(name: str, tool: str, /, **fields: Any) -> dict[str, Any]:
    """An action that calls a tool; `params` are its parameters."""
    given = {"parameters": fields.pop("params")} if "params" in fields else {}
    return {"id": name, "tool": tool, **given, **fields}


def write(name: str, key: str, value: Any, /, **fields: Any) -> dict[str, Any]:
    """An action that writes a key of the state."""
    return {"id": name, "type": "state_write", "parameters": {"key": key, "value": value}, **fields}


def read(name: str, key: str, /, **fields: Any) -> dict[str, Any]:
    """An action that reads a key of the state."""
    return {"id": name, "type": "state_read", "parameters": {"key": key}, **fields}


def check(name: str, key: str, expected: Any, /, **fields: Any) -> dict[str, Any]:
    """An assertion about a key of the state."""
    parameters = {"key": key, "expected": expected}
    return {"id": name, "type": "assertion", "parameters": parameters, **fields}


def tool(*script: Any, by: str = "loop", **declared: Any) -> dict[str, Any]:
    """A tool: what it does, call by call, and what it declares."""
    return {"script": list(script) or [{"return": None}], "declare": declared, "by": by}


def cost(calls: int = 0, executed: int = 0, /, **counted: float) -> dict[str, float]:
    """What a run used, without what is 0: calls that succeeded, actions that ran, and by their
    first words `rejected`, `skipped`, `retries`, `ms`."""
    names = {
        "rejected": "actions_rejected",
        "skipped": "actions_skipped",
        "ms": "total_duration_ms",
    }
    found: dict[str, float] = {"tool_calls": calls, "actions_executed": executed}
    found |= {names.get(name, name): float(n) if name == "ms" else n for name, n in counted.items()}
    return {name: value for name, value in found.items() if value}


def ends(
    status: str,
    actions: dict[str, Any],
    events: list[str],
    state: dict[str, Any],
    cost: dict[str, Any],
    /,
    **more: Any,
) -> dict[str, Any]:
    """What has to be said of every run that was driven, and whatever else."""
    told = {"status": status, "actions": actions, "events": events, "state": state, "cost": cost}
    return {**told, **more}


def execute(actions: list[dict[str, Any]] | None = None, /, **fields: Any) -> dict[str, Any]:
    """A step that executes a plan; without actions, the plan of the case."""
    plan = {} if actions is None else {"plan": {"id": "p", "actions": actions}}
    return {"do": "execute", **plan, **fields}


def case(
    name: str, actions: list[dict[str, Any]] | None = None, /, **fields: Any
) -> dict[str, Any]:
    """A case; without `steps`, its plan is executed once, and `expect` is said of that."""
    made = {"name": name, **fields}
    if actions is not None:
        made["plan"] = {"id": "p", "actions": actions}
    if "steps" not in made:
        made["steps"] = [{"do": "execute", "expect": made.pop("expect")}]
    return made
