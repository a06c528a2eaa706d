"""Policies as code: a function of an action and the state, made a rule by `@policy`.

    @policy(reads=("frozen",))
    def not_while_frozen(judged: Judged):
        if judged.schema and not judged.schema.read_only and judged.state("frozen").value:
            return "nothing is changed while it is frozen"

The function answers None, a text (which forbids, for that reason), `deny(...)`, `ask(...)`, or
several of these. It is called at each action, between others: let it be quick, and look at nothing
but what it is given, so that the same action is judged the same way when a run is resumed.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, overload

from attrs import define

from carstore import canonical
from carstore.errors import CarstoreError, InvalidJson
from engine.rules.capabilities import NAME as PERMISSIONS
from engine.rules.identifiers import problem_with_id, problem_with_state_key
from engine.rules.policies import (
    Ask,
    InvalidPolicy,
    Judged,
    Judgement,
    Policy,
    Violation,
    judge_all,
)

__all__ = [
    "Ask",
    "InvalidPolicy",
    "Judged",
    "Judgement",
    "Policy",
    "PolicyChanged",
    "Violation",
    "ask",
    "deny",
    "judge_all",
    "only_once",
    "policy",
]

MAX_EXPIRY_SECS = 10 * 365 * 24 * 3600
"""Ten years: longer than anybody waits for an answer, and far from where the integers end."""


TAKEN = "is the name under which permissions are registered. Choose another one"


@define(slots=False, eq=False)
class PolicyChanged(CarstoreError):
    """A run is bound to policies that are not the ones given now. Nothing happened."""

    code: ClassVar[str] = "policies_changed"
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    run_id: str | None = None

    @property
    def message(self) -> str:
        parts = []
        if self.missing:
            parts.append(f"not given: {', '.join(self.missing)}")
        if self.changed:
            parts.append(f"declared otherwise than when it began: {', '.join(self.changed)}")
        run = "the run" if self.run_id is None else f"run {self.run_id}"
        return (
            f"{run} cannot go on with these policies ({'; '.join(parts)}). "
            "Give it the policies it was begun with."
        )

    @property
    def where(self) -> str | None:
        return "policies"


@overload
def policy(function: Callable[[Judged], object], /) -> Policy: ...


@overload
def policy(
    *,
    name: str | None = None,
    reads: Iterable[str] = (),
    counts: Mapping[str, float] = MappingProxyType({}),
    version: int = 1,
) -> Callable[[Callable[[Judged], object]], Policy]: ...


def policy(
    function: Callable[[Judged], object] | None = None,
    /,
    *,
    name: str | None = None,
    reads: Iterable[str] = (),
    counts: Mapping[str, float] = MappingProxyType({}),
    version: int = 1,
) -> Policy | Callable[[Callable[[Judged], object]], Policy]:
    """Make a policy of a function; with or without arguments.

    Args:
        name: under which it is registered; that of the function if not given.
        reads: the state keys that it looks at. Looking at another one forbids the action.
        counts: tool -> seconds: how far back it looks at the calls of that tool.
        version: raise it when the function comes to judge otherwise. Runs that were begun under
            another version are not resumed with this one.

    Raises:
        InvalidPolicy: the function, its name, a key or the version cannot be used.
    """
    if function is not None:
        return _made(function, name, reads, counts, version)
    return lambda decorated: _made(decorated, name, reads, counts, version)


def deny(reason: str) -> Violation:
    """What a policy answers to forbid an action. The reason is recorded and shown to models."""
    return Violation("", reason)


def ask(reason: str, *, expires_secs: float | None = None, approvers: int = 1) -> Ask:
    """What a policy answers to let people decide.

    Args:
        reason: shown to them.
        expires_secs: seconds after which no answer means no; None: it can be answered for ever.
        approvers: 1, or 2 for two different people.

    Raises:
        ValueError: a number is not one of these; in a policy, that forbids the action.
    """
    if expires_secs is not None and not 0 < expires_secs <= MAX_EXPIRY_SECS:
        raise ValueError(f"{expires_secs!r:.40} is no number of seconds above 0")
    expires_us = None if expires_secs is None else max(1, round(expires_secs * 1e6))
    return Ask("", reason, expires_us, approvers)


def only_once(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """The policies in their order, each of them once.

    Raises:
        InvalidPolicy: two that differ have one name, or one that is none has that of permissions.
    """
    found: dict[str, Policy] = {}
    one: Any
    for one in policies:
        if not isinstance(one, Policy):
            reason = f"is of type {type(one).__name__}; policies are made with @policy"
            raise InvalidPolicy(getattr(one, "__name__", "policies")[:128], "", reason)
        if one.name == PERMISSIONS and not (isinstance(one.rule, dict) and PERMISSIONS in one.rule):
            raise InvalidPolicy(one.name, "name", TAKEN)
        if found.setdefault(one.name, one).digest != one.digest:
            raise InvalidPolicy(one.name, "", "there are two policies of this name. Rename one")
    return tuple(found.values())


def _made(
    function: Callable[[Judged], object],
    name: object,
    reads: Iterable[str],
    counts: Mapping[str, float],
    version: object,
) -> Policy:
    called = getattr(function, "__name__", None) if name is None else name
    if (reason := problem_with_id(called)) is not None:
        raise InvalidPolicy(str(called)[:128], "name", reason)
    assert isinstance(called, str)
    if called == PERMISSIONS:
        raise InvalidPolicy(called, "name", TAKEN)
    if not callable(function):
        raise InvalidPolicy(called, "", f"is of type {type(function).__name__}, not a function")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidPolicy(called, "", "is asynchronous; a policy answers at once")
    if type(version) is not int or version < 1:
        raise InvalidPolicy(called, "version", f"{version!r:.40} is not an integer from 1")
    keys = _keys(called, reads)
    try:
        digest = canonical.digest([called, list(keys), version])
    except InvalidJson as error:
        raise InvalidPolicy(called, "version", error.reason) from None
    intervals = _intervals(called, counts)
    return Policy(name=called, digest=digest, reads=keys, counts=intervals, decide=function)


def _intervals(name: str, counts: Mapping[str, float]) -> dict[str, int]:
    """Tool -> microseconds."""
    for tool, seconds in counts.items():
        number = type(seconds) in (int, float) and 0 < seconds <= MAX_EXPIRY_SECS
        if problem_with_id(tool) is not None or not number:
            raise InvalidPolicy(name, "counts", f"{tool!r:.140}: {seconds!r:.40} is no duration")
    return {tool: max(1, round(seconds * 1e6)) for tool, seconds in counts.items()}


def _keys(name: str, reads: Iterable[str]) -> tuple[str, ...]:
    if isinstance(reads, str):
        raise InvalidPolicy(name, "reads", f"is one text; write reads=({reads!r:.80},)")
    keys = tuple(dict.fromkeys(reads))
    for key in keys:
        if (reason := problem_with_state_key(key)) is not None:
            raise InvalidPolicy(name, "reads", reason)
    return keys
