"""From data to what binds a run: policies, permissions, budgets, and who proposes again."""

from typing import Any

from engine.policies import ask, deny, policy
from engine.policy_file import policies_of
from engine.replan import Aborted
from engine.rules.budget import Budget
from engine.rules.capabilities import CapabilitySet
from engine.rules.policies import Judged, Policy
from tests.conformance.scripts import BadScript

__all__ = ["budget_of", "rules_of", "set_up"]


@policy(name="broken")
def _broken(_: Judged) -> None:
    raise KeyError("what it raises may be a secret")


@policy(name="undecided")
def _undecided(_: Judged) -> object:
    return 42


@policy(name="not_while_frozen", reads=("frozen",))
def _not_while_frozen(judged: Judged) -> object:
    return deny("nothing is changed while it is frozen") if judged.state("frozen").value else None


@policy(name="peeks")
def _peeks(judged: Judged) -> object:
    return judged.state("not declared").value


@policy(name="large_amounts")
def _large_amounts(judged: Judged) -> object:
    if judged.parameters.get("amount", 0) > 1000:
        return ask("more than 1000", approvers=2)
    return None


@policy(name="talks")
def _talks(_: Judged) -> object:
    return ["one reason", deny("another reason")]


IN_CODE = {
    one.name: one
    for one in (_broken, _undecided, _not_while_frozen, _peeks, _large_amounts, _talks)
}
"""Policies that are functions, by their names in cases: `{"code": NAME}`."""


def _policy_of(data: dict[str, Any]) -> Policy:
    return IN_CODE[data["code"]] if "code" in data else policies_of(data)


def budget_of(data: dict[str, Any] | None) -> Budget | None:
    """A budget as cases write it, amounts in units."""
    return None if data is None else Budget(**data)


def rules_of(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a case that are rules, as a runtime takes them; taken out of `options`."""
    found: dict[str, Any] = {}
    if "policies" in options:
        found["policies"] = [_policy_of(one) for one in options.pop("policies")]
    if "capabilities" in options:
        found["capabilities"] = CapabilitySet(**options.pop("capabilities"))
    if "budget" in options:
        found["budget"] = budget_of(options.pop("budget"))
    if "replan" in options:
        found["replan"] = _proposer(options.pop("replan"))
    return found


def _proposer(answers: list[Any]) -> Any:
    """Proposes one of these after the other; what an answer expects to be told is checked."""
    left = iter(answers)

    def propose(aborted: Aborted) -> Any:
        answer = next(left)
        told = [one.action_id for one in aborted.failed]
        if told != answer["after"]:
            raise BadScript(f"asked after {told} failed, not {answer['after']}")
        return answer["plan"]

    return propose


def set_up(runtime: Any, options: dict[str, Any]) -> None:
    """What is set on a runtime that is there; `options` are those of the case."""
    for tool, limit in options.get("rate_limits", {}).items():
        runtime.set_rate_limit(tool, *limit)
    for tool, seconds in options.get("caches", {}).items():
        runtime.enable_tool_cache(tool, seconds)
