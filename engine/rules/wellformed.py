"""What a proposal must satisfy beyond the types of its fields: size, and everything by name.

These rules look at the JSON of a proposal, and take whatever has another type than its field for
absent: that is reported elsewhere, and the faults next to it should be found in the same pass.
"""

from collections.abc import Sequence
from typing import Any

from attrs import define, field, frozen

from carstore import canonical
from carstore.names import Json, is_output_reference
from engine.ir import ActionType
from engine.problems import Problem, ProblemCode, Step, path_text, shown, suggestion, with_value
from engine.rules.identifiers import problem_with_id, problem_with_state_key
from engine.rules.references import UnresolvedReference, find, read

__all__ = ["DEFAULT_LIMITS", "Limits", "PlanCheck", "size_problems"]

_TOOL_CALL = ActionType.TOOL_CALL.value
_STATE_TYPES = frozenset(ActionType) - {ActionType.TOOL_CALL}


@frozen(kw_only=True)
class Limits:
    """How large a proposal may be. A program that embeds the engine can raise these."""

    max_bytes: int = canonical.MAX_BYTES // 2
    """As canonical JSON: half of what one event can hold, since one event records all of it."""
    max_depth: int = canonical.MAX_DEPTH - 4
    """Containers within containers, the proposal included: its event wraps it in some more."""
    max_actions: int = 10_000
    """A hundred times a large plan of a model, and a schedule that still takes milliseconds."""
    max_items: int = 10_000
    """Items of one list, or fields of one object, of an action: it can depend on all others."""
    max_problems: int = 1_000
    """Problems to collect before giving up; who has so many repairs the generator, not the plan."""


DEFAULT_LIMITS = Limits()


def size_problems(data: Json, limits: Limits) -> list[Problem]:
    """Whether `data`, a proposal, is nested too deep or has too many actions."""
    found = []
    actions = _get(data, "actions", list) or []
    if len(actions) > limits.max_actions:
        message = f"{len(actions):,} actions; at most {limits.max_actions:,} are allowed"
        found.append(_problem(ProblemCode.TOO_LARGE, ("actions",), message))
    if type(data) in (dict, list) and not _fits(data, limits.max_depth):
        message = f"nested deeper than the {limits.max_depth} levels allowed for a proposal"
        found.append(_problem(ProblemCode.TOO_LARGE, _deepest(data), message))
    return found


@define
class PlanCheck:
    """Judges the actions of one proposal, one after the other.

    `looks_ahead` becomes true when an action waits, by name, for itself or for one declared later.
    State makes actions wait for earlier ones only, so without that there is no cycle.
    """

    limits: Limits
    first: dict[str, int]
    """The id of each action, and the index where it stands first."""
    types: list[str]
    """The type of each action."""
    undo: set[str]
    """The ids of actions that are named as the compensation of another."""
    looks_ahead: bool = False
    _found: list[Problem] = field(factory=list)

    @classmethod
    def of(cls, actions: Sequence[Json], limits: Limits) -> "PlanCheck":
        """Begin with learning what the actions can refer to."""
        check = cls(limits, {}, [], set())
        for index, action in enumerate(actions):
            name = _get(action, "id", str)
            if name is not None:
                check.first.setdefault(name, index)
            check.types.append(_type(action))
            target = _compensating_action(action)
            if target is not None:
                check.undo.add(target)
        return check

    def problems_of(self, action: Json, index: int) -> list[Problem]:
        """What is wrong with the action at `index`, as far as its fields have their types."""
        if type(action) is not dict:
            return []
        self._found = []
        at: tuple[Step, ...] = ("actions", index)
        name = _get(action, "id", str)
        if name is not None and (first := self.first[name]) != index:
            message = f"{shown(name)} is the id of actions[{first}] already; ids are unique"
            self._add(ProblemCode.DUPLICATE_ID, (*at, "id"), message)
        for part, value in action.items():
            if (type(value) is dict or type(value) is list) and len(value) > self.limits.max_items:
                message = f"{shown(value)}; at most {self.limits.max_items:,} are allowed"
                self._add(ProblemCode.TOO_LARGE, (*at, part), message)
        self._check_type(action, at)
        waiter = None if name in self.undo else index
        for place, needed in enumerate(_get(action, "dependencies", list) or ()):
            if type(needed) is str:
                self._check_named(needed, waiter, (*at, "dependencies", place))
        self._check_references(_get(action, "parameters", dict), waiter, (*at, "parameters"))
        if "compensation" in action:
            self._check_compensation(action, (*at, "compensation"))
        return self._found

    def _add(self, code: ProblemCode, steps: tuple[Step, ...], message: str) -> None:
        self._found.append(_problem(code, steps, message))

    def _check_type(self, action: dict[str, Any], at: tuple[Step, ...]) -> None:
        kind = _type(action)
        if kind == _TOOL_CALL:
            if action.get("tool") is None:
                message = "missing; an action of type tool_call names the tool that it calls"
                self._add(ProblemCode.MISSING_FIELD, (*at, "tool"), message)
        elif kind in _STATE_TYPES:
            parameters = action.get("parameters", {})
            if type(parameters) is dict:
                self._check_key(parameters, kind, (*at, "parameters", "key"))

    def _check_key(self, parameters: dict[str, Any], kind: str, path: tuple[Step, ...]) -> None:
        if "key" not in parameters:
            message = f"missing; an action of type {kind} needs it, a state key"
            self._add(ProblemCode.MISSING_FIELD, path, message)
            return
        key = parameters["key"]
        if type(key) is not str:
            message = f"{shown(key)} is not a string; a state key is"
            self._add(ProblemCode.WRONG_TYPE, path, message)
        elif (reason := problem_with_state_key(key)) is not None:
            self._add(ProblemCode.INVALID_KEY, path, with_value(key, reason))
        elif is_output_reference(key):
            message = f"{shown(key)} is a reference; a key must be known beforehand"
            self._add(ProblemCode.INVALID_KEY, path, message)

    def _check_named(self, needed: str, waiter: int | None, path: tuple[Step, ...]) -> None:
        """That `needed` exists and, for a `waiter` that runs, runs too."""
        if needed not in self.first:
            if problem_with_id(needed) is None:
                message = f"{shown(needed)} is not an action of this proposal"
                message += suggestion(needed, self.first)
                self._add(ProblemCode.UNKNOWN_ACTION, path, message)
        elif waiter is None:
            return
        elif needed in self.undo:
            message = (
                f"{shown(needed)} runs only to undo another action, as its compensation; "
                "no action can wait for it"
            )
            self._add(ProblemCode.WAITS_FOR_COMPENSATION, path, message)
        elif self.first[needed] >= waiter:
            self.looks_ahead = True

    def _check_references(self, parameters: Json, waiter: int | None, at: tuple[Step, ...]) -> None:
        for steps, text in find(parameters or {}):
            try:
                reference = read(text, self.first)
            except UnresolvedReference as error:
                guess = text[1:].partition(".output")[0]
                message = error.message + suggestion(guess, self.first)
                self._add(ProblemCode.UNKNOWN_REFERENCE, (*at, *steps), message)
            else:
                if reference is not None:
                    self._check_named(reference.action_id, waiter, (*at, *steps))

    def _check_compensation(self, action: dict[str, Any], at: tuple[Step, ...]) -> None:
        compensation = _get(action, "compensation", dict) or {}
        if compensation.get("type") == "tool":
            parameters = _get(compensation, "parameters", dict)
            self._check_references(parameters, None, (*at, "parameters"))
        target = _compensating_action(action)
        if target is None:
            return
        path = (*at, "action_id")
        if target not in self.first:
            self._check_named(target, None, path)
        elif (reason := self._unfit_to_undo(target, action)) is not None:
            self._add(ProblemCode.INVALID_COMPENSATION, path, f"{shown(target)} {reason}")

    def _unfit_to_undo(self, target: str, action: dict[str, Any]) -> str | None:
        name, kind = action.get("id"), self.types[self.first[target]]
        if target == name:
            return "is the action itself; name another that undoes it"
        if kind in _STATE_TYPES:
            return f"is of type {shown(kind)}; only a tool_call can undo"
        if isinstance(name, str) and name in self.undo:
            return f"would never run: {shown(name)} runs only to undo, and is not undone itself"
        return None


def _problem(code: ProblemCode, steps: tuple[Step, ...], message: str) -> Problem:
    return Problem(code, path_text(steps), message)


def _get(value: Json, name: str, kind: type) -> Any:
    """The field, if `value` is an object that holds it with this type; else None."""
    found = value.get(name) if type(value) is dict else None
    return found if type(found) is kind else None


def _type(action: Json) -> str:
    if type(action) is dict and "type" not in action:
        return _TOOL_CALL
    return _get(action, "type", str) or ""


def _compensating_action(action: Json) -> str | None:
    compensation = _get(action, "compensation", dict)
    if compensation is None or compensation.get("type") != "action_ref":
        return None
    target: str | None = _get(compensation, "action_id", str)
    return target


def _fits(value: Json, levels: int) -> bool:
    if levels <= 0:
        return False
    for item in value.values() if type(value) is dict else value:
        if (type(item) is dict or type(item) is list) and not _fits(item, levels - 1):
            return False
    return True


def _deepest(data: Json) -> tuple[Step, ...]:
    """The way down to the deepest container, as far as a field of the proposal or of an action."""
    steps: tuple[Step, ...] = ()
    value = data
    while len(steps) < (3 if steps[:1] == ("actions",) else 1):
        items = value.items() if type(value) is dict else enumerate(value)
        inner = [(step, item) for step, item in items if type(item) in (dict, list)]
        if not inner:
            break
        step, value = max(inner, key=lambda pair: _depth(pair[1]))
        steps = (*steps, step)
    return steps


def _depth(value: Json) -> int:
    inner = value.values() if type(value) is dict else value
    return 1 + max((_depth(item) for item in inner if type(item) in (dict, list)), default=0)
