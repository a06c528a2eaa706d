"""What an agent may use at all: tools, state keys, and how many actions at once.

Source: the seed's capability set, texts included. Stricter than the seed: every state key that an
action names counts, not only the one that a state action reads or writes, and so does the tool
that it names to be undone.
"""

from collections.abc import Iterator
from typing import Any

from attrs import field, frozen

from carstore import canonical
from carstore.names import Json
from engine.ir import Action, ActionType
from engine.problems import shown, suggestion, with_value
from engine.rules.identifiers import problem_with_id, problem_with_state_key
from engine.rules.policies import InvalidPolicy, Judged, Policy, Violation, tools_of

__all__ = ["NAME", "CapabilitySet", "as_policy"]

NAME = "capabilities"
"""The name of the policy that a permission set makes."""

FIELDS = ("allowed_tools", "denied_tools", "allowed_state_keys", "max_actions")
"""What a permission file can hold."""


def _are_texts(value: Any) -> bool:
    several = isinstance(value, list | tuple | set | frozenset)
    return several and all(isinstance(item, str) for item in value)


def _names(value: Any) -> Any:
    return frozenset(value) if _are_texts(value) else value  # the rest is told as it was given


def _keys(value: Any) -> Any:
    return tuple(value) if _are_texts(value) else value


@frozen(kw_only=True)
class CapabilitySet:
    """Permissions. What is denied stays denied, whatever is allowed.

    Raises:
        InvalidPolicy: a field holds what it cannot.
    """

    allowed_tools: frozenset[str] | None = field(default=None, converter=_names)
    """None: every tool that is not denied."""
    denied_tools: frozenset[str] = field(default=frozenset(), converter=_names)
    allowed_state_keys: tuple[str, ...] | None = field(default=None, converter=_keys)
    """Keys, or beginnings of keys with a `*` at the end; None: every key."""
    max_actions: int | None = None
    """Actions that one proposal may have; None: as many as it likes."""

    def __attrs_post_init__(self) -> None:
        for path, reason in self._problems():
            raise InvalidPolicy(NAME, path, reason)

    def tool_allowed(self, name: str) -> bool:
        """Whether a tool may be called."""
        if name in self.denied_tools:
            return False
        return self.allowed_tools is None or name in self.allowed_tools

    def state_key_allowed(self, key: str) -> bool:
        """Whether a key of the state may be read and written."""
        if self.allowed_state_keys is None:
            return True
        return any(
            key.startswith(allowed[:-1]) if allowed.endswith("*") else key == allowed
            for allowed in self.allowed_state_keys
        )

    def actions_within(self, count: int) -> bool:
        """Whether a proposal may have so many actions."""
        return self.max_actions is None or count <= self.max_actions

    def too_many(self, count: int) -> str | None:
        """Why a proposal may not have so many actions; None if it may."""
        if self.actions_within(count):
            return None
        allowed = self.max_actions
        return f"capability denied: proposal has {count} actions, max allowed is {allowed}"

    def violations(
        self, action: Action, parameters: dict[str, Json], undo: Action | None = None
    ) -> list[Violation]:
        """Everything that an action names and may not use.

        Args:
            parameters: with output references resolved.
            undo: the action that it names to be undone by, if it names one.
        """
        found = [
            f"tool '{name}' not allowed"
            for name in dict.fromkeys(tools_of(action, undo))
            if not self.tool_allowed(name)
        ]
        if self.allowed_state_keys is not None:
            for key in dict.fromkeys(_keys_named(action, parameters)):
                if key is None:
                    found.append("state key is not a text")
                elif not self.state_key_allowed(key):
                    found.append(f"state key '{key}' not allowed")
        return [Violation(NAME, f"capability denied: {text}") for text in found]

    def to_json(self) -> dict[str, Json]:
        """What it restricts, as JSON; `from_json` reads it back."""
        found: dict[str, Json] = {}
        if self.allowed_tools is not None:
            found["allowed_tools"] = sorted(self.allowed_tools)
        if self.denied_tools:
            found["denied_tools"] = sorted(self.denied_tools)
        if self.allowed_state_keys is not None:
            found["allowed_state_keys"] = sorted(set(self.allowed_state_keys))
        if self.max_actions is not None:
            found["max_actions"] = self.max_actions
        return found

    @classmethod
    def from_json(cls, data: Json) -> "CapabilitySet":
        """Read what `to_json` wrote, or what somebody wrote by hand; null is not given.

        Raises:
            InvalidPolicy: naming the field that is unknown or wrong.
        """
        if not isinstance(data, dict):
            raise InvalidPolicy(NAME, "", f"{shown(data)}; expected an object")
        for name, value in data.items():
            if name not in FIELDS:
                hint = suggestion(str(name), FIELDS) or f"; known are {', '.join(FIELDS)}"
                raise InvalidPolicy(NAME, "", f"there is no field {shown(str(name))}{hint}")
            if name != "max_actions" and not isinstance(value, list | None):
                raise InvalidPolicy(NAME, name, f"{shown(value)} is not a list of texts")
        return cls(**{name: value for name, value in data.items() if value is not None})

    def _problems(self) -> Iterator[tuple[str, str]]:
        for path in ("allowed_tools", "denied_tools", "allowed_state_keys"):
            value: Any = getattr(self, path)
            if value is None and path != "denied_tools":
                continue
            if not _are_texts(value):
                yield path, "is not a list of texts"
                continue
            for item in value:
                reason = _problem_with_key(item) if "keys" in path else problem_with_id(item)
                if reason is not None:
                    yield path, with_value(item, reason)
        most: Any = self.max_actions
        if most is not None and (type(most) is not int or not 0 <= most < 2**63):
            yield "max_actions", f"{most!r:.40} is not a count of actions"


def as_policy(capabilities: CapabilitySet) -> Policy:
    """Permissions as a policy, so that they can be registered and bind a resumed run.

    How many actions a proposal may have is not a question about one action: ask `too_many`.
    """

    def decide(judged: Judged) -> list[Violation]:
        return capabilities.violations(judged.action, judged.parameters, judged.undo)

    rule: Json = {NAME: capabilities.to_json()}
    return Policy(name=NAME, digest=canonical.digest(rule), rule=rule, decide=decide)


def _keys_named(action: Action, parameters: dict[str, Json]) -> Iterator[str | None]:
    """The state keys that an action names; None in the place of one that is no text."""
    if action.type is not ActionType.TOOL_CALL:
        key = parameters.get("key")
        yield key if isinstance(key, str) else None
    yield from (condition.key for condition in action.preconditions)
    yield from (assumption.key for assumption in action.assumptions)
    yield from action.state_dependencies
    yield from action.expected_effects


def _problem_with_key(text: str) -> str | None:
    return problem_with_state_key(text.removesuffix("*") if text != "*" else text)
