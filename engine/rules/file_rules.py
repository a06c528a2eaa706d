"""The rules of a policy file: what each says of an action.

Each function makes a policy of one rule whose fields have been read and are known to be sound
(`engine.policy_file`). A rule about a tool judges every call that an action stands for: its own,
and the one that it says undoes it, since otherwise an aborted plan could call what is denied.

Whoever consents to an action consents to its being undone, and is not asked again for that. So
where it cannot be told beforehand what the call that undoes it is given, `require_approval` asks.

Where a rule forbids what a parameter holds, it looks into it at any depth, at names as well as
values. Where two readings of a path are possible, a rule that forbids goes by either and one that
allows by both. Reasons name the rule's tool, parameter and key, and never what stands there.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from carstore import canonical
from carstore.names import Json
from engine.ir import ActionType
from engine.rules.policies import Ask, Judged, Policy, Violation, calls_of, undo_of
from engine.rules.texts import Search, holds, is_open, texts_in
from engine.rules.values import same

__all__ = ["MAKERS", "Body", "denied_by_pattern", "values_at"]

Body: TypeAlias = dict[str, Json]
"""The fields of a rule, by their names in the file."""

_Answer: TypeAlias = Iterator[Violation | Ask]


def values_at(parameters: Json, path: str) -> Iterator[Json]:
    """Every value that a dotted path may mean: `a.b` is the parameter `a.b`, or `b` in `a`; in a
    list, a step is the number of an item, from 0."""
    if isinstance(parameters, dict) and path in parameters:
        yield parameters[path]
    end = path.find(".")
    while end >= 0:
        step, rest = path[:end], path[end + 1 :]
        for item in _items_at(parameters, step):
            yield from values_at(item, rest)
        end = path.find(".", end + 1)
    if isinstance(parameters, list):
        yield from _items_at(parameters, path)


def _items_at(value: Json, step: str) -> Iterator[Json]:
    if isinstance(value, dict) and step in value:
        yield value[step]
    elif isinstance(value, list) and step.isascii() and step.isdecimal() and len(step) < 10:
        yield from value[int(step) : int(step) + 1]


def _is_meant(judged: Judged, value: Json, body: Body) -> bool:
    """Whether `equals` and `contains`, as far as they are given, both hold."""
    if "equals" in body and not same(value, body["equals"]):
        return False
    return "contains" not in body or holds(judged.texts, value, body["contains"])


def _policy(
    name: str,
    kind: str,
    body: Json,
    decide: Callable[[Judged], object],
    counts: Mapping[str, int] = MappingProxyType({}),
) -> Policy:
    rule: Json = {kind: body}
    tool = body.get("tool") if isinstance(body, dict) else None
    reads = (body["key"],) if kind == "require_state" else ()
    digest = canonical.digest(rule)
    return Policy(
        name=name,
        digest=digest,
        rule=rule,
        reads=reads,
        counts=dict(counts),
        tool=tool,
        decide=decide,
    )


def _mark(*parts: Json) -> str:
    """Tells apart rules whose names would be equal, without showing what they look for."""
    return canonical.digest(list(parts))[:8]


def _name(kind: str, body: Body, *told_apart_by: str) -> str:
    """`KIND:TOOL[PARAM]`, and a mark of those of the fields named that are given. The signs between
    the parts are none of a tool's name, so no two rules about different things share one."""
    name = f"{kind}:{body['tool']}"
    if "param" in body:
        name += f"[{body['param']}]"
    given = {field: body[field] for field in told_apart_by if field in body}
    return f"{name}#{_mark(given)}" if given else name


def deny_tool(tool: str) -> Policy:
    """No call of a tool."""
    kind = "deny_tool"

    def decide(_: Judged) -> _Answer:
        yield Violation("", f"tool '{tool}' is denied")

    name, rule = f"{kind}:{tool}", {kind: tool}
    digest = canonical.digest(rule)
    return Policy(name=name, digest=digest, rule=rule, tool=tool, decide=decide)


def deny_keyword(keyword: str) -> Policy:
    """No action with a text in its parameters."""
    name = f"deny_keyword#{_mark(keyword)}"

    def decide(judged: Judged) -> _Answer:
        if holds(judged.texts, judged.parameters, keyword):
            yield Violation("", "its parameters hold a denied keyword")
        elif judged.action.compensation is not None and any(
            holds(judged.texts, parameters, keyword) for _, parameters in calls_of(judged)
        ):
            yield Violation("", "the parameters of its compensation hold a denied keyword")

    return _policy(name, "deny_keyword", keyword, decide)


def deny_tool_param(body: Body) -> Policy:
    """No call of a tool with a parameter that is there, or holds something."""
    tool, param = body["tool"], body["param"]
    what = "holds what is denied" if {"equals", "contains"} & body.keys() else "is denied"

    def decide(judged: Judged) -> _Answer:
        for _, parameters in calls_of(judged, tool):
            if any(_is_meant(judged, value, body) for value in values_at(parameters, param)):
                yield Violation("", f"tool '{tool}': parameter '{param}' {what}")
                return

    name = _name("deny_tool_param", body, "equals", "contains")
    return _policy(name, "deny_tool_param", body, decide)


def allow_tool_param(body: Body) -> Policy:
    """No call of a tool unless a parameter is one of those listed. Fails closed."""
    tool, param, allowed = body["tool"], body["param"], body["allow"]

    def decide(judged: Judged) -> _Answer:
        for _, parameters in calls_of(judged, tool):
            values = list(values_at(parameters, param))
            if not values:
                yield Violation("", f"tool '{tool}': parameter '{param}' is missing")
                return
            if not all(any(same(value, one) for one in allowed) for value in values):
                yield Violation("", f"tool '{tool}': parameter '{param}' is not an allowed one")
                return

    return _policy(_name("allow_tool_param", body), "allow_tool_param", body, decide)


def denied_by_pattern(body: Body, search: Search | None) -> Policy:
    """No call of a tool with a parameter in which a pattern is found.

    Args:
        search: None for a pattern that cannot be used: then no call of the tool at all.
    """
    tool, param = body["tool"], body["param"]

    def decide(judged: Judged) -> _Answer:
        if search is None:
            yield Violation("", f"tool '{tool}': the pattern for '{param}' cannot be used")
            return
        for _, parameters in calls_of(judged, tool):
            texts = (text for value in values_at(parameters, param) for text in texts_in(value))
            if any(search(text) for text in texts):
                yield Violation("", f"tool '{tool}': parameter '{param}' matches a denied pattern")
                return

    kind = "deny_tool_param_matching"
    return _policy(_name(kind, body, "matches"), kind, body, decide)


def require_state(body: Body) -> Policy:
    """No call of a tool, or no action, unless a key of the state has a value."""
    key, value = body["key"], body["value"]

    def decide(judged: Judged) -> _Answer:
        found = judged.state(key)
        if not found.exists:
            yield Violation("", f"state key '{key}' does not exist")
        elif not same(found.value, value):
            yield Violation("", f"state key '{key}' has not the required value")

    name = f"require_state:{body.get('tool', '*')}[{key}]"
    return _policy(name, "require_state", body, decide)


def rate_limit_tool(body: Body) -> Policy:
    """No more calls of a tool than so many within any stretch of time of some length."""
    tool, most, seconds = body["tool"], body["max_calls"], body["interval_secs"]
    interval_us = max(1, round(seconds * 1e6))
    window = f"{seconds:.15g}s"

    def decide(judged: Judged) -> _Answer:
        action = judged.action
        calls = action.tool == tool and action.type is ActionType.TOOL_CALL
        if calls and judged.recent_calls(tool, interval_us) >= most:
            yield Violation("", f"tool '{tool}' may be called {most} times in {window}")

    name = f"rate_limit_tool:{tool}[{window}]"
    return _policy(name, "rate_limit_tool", body, decide, {tool: interval_us})


def require_approval(body: Body) -> Policy:
    """A person is asked before a tool is called, or called with some parameter."""
    tool, param = body["tool"], body.get("param")
    reason = body.get("reason", f"calls of '{tool}' have to be approved")
    seconds = body.get("expires_secs")
    expires_us = None if seconds is None else max(1, round(seconds * 1e6))

    narrowed = param is not None or "contains" in body

    def meant(judged: Judged, parameters: Json) -> bool:
        if param is None:
            return _is_meant(judged, parameters, body)
        return any(_is_meant(judged, value, body) for value in values_at(parameters, param))

    def decide(judged: Judged) -> _Answer:
        undoing = undo_of(judged, tool)
        approvers = body.get("approvers", 1)
        for _, parameters in calls_of(judged, tool):
            undoes = parameters is undoing
            if meant(judged, parameters) or (undoes and narrowed and is_open(parameters)):
                said = f"{reason} ('{tool}' undoes this action)" if undoes else reason
                yield Ask("", said, expires_us, approvers)
                return

    name = _name("require_approval", body, "contains")
    return _policy(name, "require_approval", body, decide)


MAKERS: Mapping[str, Callable[[Json], Policy]] = {
    "deny_tool": deny_tool,
    "deny_keyword": deny_keyword,
    "deny_tool_param": deny_tool_param,
    "allow_tool_param": allow_tool_param,
    "require_state": require_state,
    "rate_limit_tool": rate_limit_tool,
    "require_approval": require_approval,
}
"""By their keys in the file; `deny_tool_param_matching` also needs an engine for its pattern."""
