"""What judges an action before it is called: policies, and what they may answer.

A policy looks at one action, with its real parameters, at some keys of the state and at how often
its tool was called lately. It answers nothing, violations, or that a person is to be asked. All
policies are asked, so that whoever proposed the action learns of every reason at once.

A policy that cannot answer forbids: whatever it raises is a violation, and so is an answer of a
kind that is not known here, or a look at a state key that it did not declare.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, TypeAlias

from attrs import define, evolve, field, frozen

from carstore.errors import CarstoreError
from carstore.log import StateRead
from carstore.names import Json
from engine.ir import Action, ActionRef, ActionType, ToolCompensation
from engine.rules.copies import own_copy
from engine.tool_schema import ToolSchema

__all__ = [
    "Ask",
    "InvalidPolicy",
    "Judged",
    "Judgement",
    "Policy",
    "Violation",
    "calls_of",
    "judge_all",
    "tools_of",
    "undo_of",
]

MAX_JUDGEMENTS = 100
"""Answers of one policy about one action; one that has more to say does not end."""

MAX_REASON_CHARS = 500
"""Characters of a reason: it is recorded with each action, and shown to models."""

MAX_APPROVERS = 2
"""People that can be asked for: four eyes. More is a process of its own."""


@define(slots=False, eq=False)
class InvalidPolicy(CarstoreError):
    """A policy, or a file of policies or permissions, cannot be used. Nothing happened."""

    code: ClassVar[str] = "invalid_policy"
    source: str
    """The file, or the name of the policy."""
    path: str
    """The place in it; "" for all of it."""
    reason: str

    @property
    def message(self) -> str:
        return f"{', '.join([part for part in (self.source, self.path) if part])}: {self.reason}"

    @property
    def where(self) -> str | None:
        return self.path or self.source


@frozen(kw_only=True)
class Judged:
    """The action that is judged, and what may be looked at for that."""

    action: Action
    schema: ToolSchema | None
    """Of the tool that it calls; None if it calls none, or one that is not known."""
    parameters: dict[str, Json] = field(repr=False)
    """With output references replaced, and with sensitive values as they are."""
    state: Callable[[str], StateRead] = field(repr=False)
    """The state of a key that the policy has declared; KeyError for any other."""
    recent_calls: Callable[[str, int], int] = field(repr=False)
    """Takes a tool and a duration in microseconds; how many of its calls began within that. Raises
    for what the policy has not declared in `counts`."""
    run_id: str
    source: str
    """Who proposed the action."""
    undo: Action | None = None
    """The action of the plan that undoes this one, if its compensation is an `action_ref`."""
    texts: dict[int, str] = field(factory=dict, init=False, repr=False, eq=False)
    """For rules that look for a text: what was put together once for all of them, by the identity
    of the value."""


@frozen
class Violation:
    """The action is forbidden."""

    policy: str
    reason: str
    """Recorded, and shown to models: never holds what was matched, which may be a secret."""


@frozen
class Ask:
    """A person has to consent before the action is called."""

    policy: str
    reason: str
    expires_us: int | None = field(default=None)
    """Microseconds after which an unanswered request counts as refused; None: never."""
    approvers: int = field(default=1)
    """How many different people have to consent."""

    @expires_us.validator
    def _check_expiry(self, _: Any, value: Any) -> None:
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{value!r:.40} is no duration in microseconds")

    @approvers.validator
    def _check_approvers(self, _: Any, value: Any) -> None:
        if type(value) is not int or not 1 <= value <= MAX_APPROVERS:
            raise ValueError(f"{value!r:.40} approvers cannot be asked for; 1 or {MAX_APPROVERS}")


Judgement: TypeAlias = Violation | Ask


@frozen(kw_only=True)
class Policy:
    """A rule that judges actions."""

    name: str
    """Stable, such as `deny_tool:deploy`; one name, one rule."""
    digest: str
    """SHA-256 (hex) of what it says; for code, of its name, what it reads and its version."""
    rule: Json = None
    """It as data; None for one that is code and has to be given again when a run is resumed."""
    reads: tuple[str, ...] = ()
    """The state keys that it may look at."""
    counts: Mapping[str, int] = field(factory=dict, hash=False)
    """Tool -> the longest interval, in microseconds, of which it asks how often it was called."""
    tool: str | None = None
    """It judges only actions that call this tool, or would to be undone; None: every action."""
    decide: Callable[[Judged], object] = field(repr=False, eq=False)
    """What it answers, which `judge` makes judgements of."""

    def concerns(self, action: Action, undo: Action | None = None) -> bool:
        """Whether it has to be asked about an action at all.

        Args:
            undo: the action that it names to be undone by, if it names one.
        """
        return self.tool is None or self.tool in tools_of(action, undo)

    def reads_for(self, action: Action, undo: Action | None = None) -> tuple[str, ...]:
        """The state keys that it may look at to judge this action; arguments as for `concerns`."""
        return self.reads if self.reads and self.concerns(action, undo) else ()

    def judge(self, judged: Judged) -> list[Judgement]:
        """What it says of an action; [] if it has nothing against it. Raises nothing."""
        if not self.concerns(judged.action, judged.undo):
            return []
        try:
            given = judged if self.rule is not None else self._guarded(judged)
            return list(self._judgements(self.decide(given)))
        except (KeyboardInterrupt, GeneratorExit):
            raise  # meant for the program, not for the action
        except BaseException as error:  # noqa: BLE001 - a policy that cannot answer forbids
            reason = f"policy '{self.name}' failed: {type(error).__name__}"
            return [Violation(self.name, reason)]

    def _guarded(self, judged: Judged) -> Judged:
        """What is handed to code: parameters of its own, and only the state that it declared."""

        def declared(key: str) -> StateRead:
            if key not in self.reads:
                raise KeyError(key)
            return judged.state(key)

        return evolve(judged, parameters=own_copy(judged.parameters), state=declared)

    def _judgements(self, answer: object) -> Iterator[Judgement]:
        if answer is None:
            return
        if isinstance(answer, str | Violation | Ask) or not isinstance(answer, Iterable):
            yield self._judgement(answer)
            return
        for count, one in enumerate(islice(answer, MAX_JUDGEMENTS + 1), 1):
            if count > MAX_JUDGEMENTS:
                reason = f"policy '{self.name}' answers more than {MAX_JUDGEMENTS} times"
                yield Violation(self.name, reason)
            elif one is not None:
                yield self._judgement(one)

    def _judgement(self, answer: object) -> Judgement:
        """One answer under the name of the policy, whatever name it was given."""
        if isinstance(answer, str):
            return Violation(self.name, self._reason(answer))
        if isinstance(answer, Violation | Ask) and isinstance(answer.reason, str):
            return evolve(answer, policy=self.name, reason=self._reason(answer.reason))
        kind = type(answer).__name__
        return Violation(self.name, f"policy '{self.name}' answers with a {kind:.80}")

    def _reason(self, text: str) -> str:
        """A reason that can be recorded: not empty, not long, no half of a surrogate pair."""
        found = text.encode("utf-8", "backslashreplace").decode() or f"policy '{self.name}'"
        cut = len(found) > MAX_REASON_CHARS
        return f"{found[: MAX_REASON_CHARS - 3]}..." if cut else found


def judge_all(policies: Sequence[Policy], judged: Judged) -> tuple[list[Violation], list[Ask]]:
    """What all policies say of an action, in their order."""
    violations: list[Violation] = []
    asked: list[Ask] = []
    for policy in policies:
        for judgement in policy.judge(judged):
            if isinstance(judgement, Ask):
                asked.append(judgement)
            else:
                violations.append(judgement)
    return violations, asked


def tools_of(action: Action, undo: Action | None = None) -> tuple[str, ...]:
    """The tools that an action names: the one it calls, and the one it says undoes it.

    Args:
        undo: the action that it names to be undone by, if it names one.
    """
    called = (action.tool,) if action.tool and action.type is ActionType.TOOL_CALL else ()
    undoing = _undoing(action, undo)
    return called if undoing is None else (*called, undoing[0])


def undo_of(judged: Judged, tool: str) -> dict[str, Json] | None:
    """What a tool would be given to undo an action, if the plan says that it is called for that;
    None if not. References in it are not replaced yet."""
    undoing = _undoing(judged.action, judged.undo)
    return None if undoing is None or undoing[0] != tool else undoing[1]


def calls_of(judged: Judged, tool: str | None = None) -> Iterator[tuple[str, dict[str, Json]]]:
    """The calls that an action stands for, each with what it is given: its own, and the one that
    it says undoes it. References in the latter are not replaced yet.

    Args:
        tool: only calls of this one.
    """
    action = judged.action
    if action.tool and action.type is ActionType.TOOL_CALL and tool in (None, action.tool):
        yield action.tool, judged.parameters
    undoing = _undoing(action, judged.undo)
    if undoing is not None and tool in (None, undoing[0]):
        yield undoing


def _undoing(action: Action, undo: Action | None) -> tuple[str, dict[str, Json]] | None:
    """The call that the plan names to undo an action."""
    named = action.compensation
    if isinstance(named, ToolCompensation):
        return named.tool, named.parameters
    if isinstance(named, ActionRef) and undo is not None and undo.tool:
        return undo.tool, undo.parameters
    return None
