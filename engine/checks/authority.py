"""What permissions and policies say of an action before it runs, as far as that is certain.

A policy is asked as the engine asks it. Its answer counts only if it looked at nothing that is not
known. Where parameters are not all known, it is asked with two different values in their place, and
what it says of both counts; a policy that is code, or that allows instead of forbidding, is not
asked then.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import define, field

from carstore.log import StateRead
from engine.checks.called import tool_called
from engine.checks.issues import Code, Severity
from engine.checks.judging import Finding
from engine.checks.unknown import has_unknown, marked
from engine.checks.world import World
from engine.ir import Action
from engine.rules.policies import Ask, Judged, Judgement, Policy, judge_all
from engine.tools import Tools

if TYPE_CHECKING:
    from engine.rules.capabilities import CapabilitySet

__all__ = ["Authorities"]

_ALLOWING = "allow_tool_param"
"""The kind of rule that forbids what it does not find, so that an unknown value may be fine."""


@define
class Authorities:
    """The rules that a plan is checked against."""

    policies: Sequence[Policy]
    capabilities: "CapabilitySet | None"
    tools: Tools | None
    source: str
    """Who proposes."""

    def __call__(self, index: int, world: World, parameters: Mapping[str, Any]) -> list[Finding]:
        """What is certain about one action."""
        action = world.graph.actions[index]
        found = []
        if self.capabilities is not None:
            for violation in self.capabilities.violations(action, dict(parameters)):
                derived = f"{action.id} against the permissions"
                message = f"{violation.reason}. Ask for the permission, or do without"
                found.append(Finding(code=Code.CAPABILITY_DENIED, message=message, derived=derived))
        for policy in self.policies:
            looked: dict[str, str] = {}
            answers = self._answers(policy, action, index, world, parameters, looked)
            found += [_finding(action, policy, answer, looked) for answer in answers]
        return found

    def _answers(
        self,
        policy: Policy,
        action: Action,
        index: int,
        world: World,
        parameters: Mapping[str, Any],
        looked: dict[str, str],
    ) -> list[Judgement]:
        """What the policy answers whatever is not known turns out to be."""
        whole = dict(parameters)
        probes: list[Any] = [whole]
        if has_unknown(whole):
            if not isinstance(policy.rule, dict) or _ALLOWING in policy.rule:
                return []
            probes = [marked(whole, dict), marked(whole, lambda: None)]
        answers: list[list[Judgement]] = []
        for probe in probes:
            sight = _Sight(index, world, looked)
            violations, asked = judge_all([policy], self._judged(action, probe, sight))
            if sight.unknown:
                return []
            answers.append([*violations, *asked])
        return [one for one in answers[0] if all(one in others for others in answers[1:])]

    def _judged(self, action: Action, parameters: dict[str, Any], sight: "_Sight") -> Judged:
        tool = tool_called(action, self.tools)
        return Judged(
            action=action,
            schema=None if tool is None else tool.schema,
            parameters=parameters,
            state=sight.state,
            recent_calls=sight.recent_calls,
            run_id="check",
            source=self.source,
        )


@define
class _Sight:
    """What a policy may look at; remembers whether it looked at what is not known."""

    index: int
    world: World
    looked: dict[str, str]
    unknown: bool = field(default=False)

    def state(self, key: str) -> StateRead:
        slot = self.world.at(self.index, key)
        self.looked[key] = slot.why
        if not (slot.known and self.world.settles(self.index, key)):
            self.unknown = True
            raise KeyError(key)
        return slot.read()

    def recent_calls(self, tool: str, duration_us: int) -> NoReturn:
        self.unknown = True
        raise KeyError(tool, duration_us)


def _finding(
    action: Action, policy: Policy, answer: Judgement, looked: Mapping[str, str]
) -> Finding:
    seen = "".join(f"; it reads '{key}', which {why}" for key, why in looked.items())
    derived = f"{action.id} against policy '{policy.name}'{seen}"
    if isinstance(answer, Ask):
        return Finding(
            code=Code.NEEDS_APPROVAL,
            severity=Severity.WARNING,
            message=f"the run will wait for a person: {answer.reason}",
            derived=derived,
        )
    message = f"policy '{policy.name}' forbids it: {answer.reason}"
    return Finding(code=Code.POLICY_DENIED, message=message, derived=derived)
