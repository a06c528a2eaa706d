"""Authority: what the rules that bind a run say of an action, before anything is done for it.

All rules are asked and all violations collected. What they ask of people comes last: nobody is
asked for an action that is forbidden, or that could not be dispatched anyway.
"""

from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from carstore import canonical
from carstore import events as e
from carstore.log import StateRead
from carstore.names import Json
from engine.declare import Tool
from engine.ir import Action, ActionType
from engine.rules.capabilities import CapabilitySet
from engine.rules.policies import Ask, Judged, Policy, Violation, judge_all

__all__ = ["NOBODY", "Authority", "Verdict", "binding_of", "request", "why_not"]


@frozen
class Verdict:
    """What the rules say of one action."""

    violations: tuple[Violation, ...] = ()
    asks: tuple[Ask, ...] = ()


FREE = Verdict()


@define
class Authority:
    """The rules that bind one run."""

    policies: tuple[Policy, ...] = ()
    capabilities: CapabilitySet | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        found = [CapabilitySet.from_json(one.rule["capabilities"]) for one in self.policies
                 if one.rule is not None and "capabilities" in one.rule]  # fmt: skip
        self.capabilities = found[0] if found else None

    @property
    def digests(self) -> dict[str, str] | None:
        """Name -> digest, as a run records what binds it; None if nothing does."""
        return {policy.name: policy.digest for policy in self.policies} or None

    def joined(self, other: "Authority") -> "Authority":
        """These rules and those of `other`; of two of one name, the one that is here."""
        if not self.policies:
            return other
        names = {policy.name for policy in self.policies}
        more = [policy for policy in other.policies if policy.name not in names]
        return Authority((*self.policies, *more))

    def keys(self, action: Action, undo: Action | None = None) -> set[str]:
        """The state keys that the rules look at to judge `action`.

        Args:
            undo: the action that its compensation names, if that is an `action_ref`.
        """
        return {key for policy in self.policies for key in policy.reads_for(action, undo)}

    def may_use(self) -> Callable[[str], bool] | None:
        """Which state keys a tool may use through its context; None: all."""
        return None if self.capabilities is None else self.capabilities.state_key_allowed

    def judge(
        self,
        action: Action,
        actions: int,
        tool: Tool | None,
        parameters: Mapping[str, Json],
        read: Callable[[str], StateRead],
        recent_calls: Callable[[str, int], int],
        *,
        run_id: str,
        source: str,
        undo: Action | None = None,
    ) -> Verdict:
        """What all rules say.

        Args:
            actions: how many the proposal has.
            parameters: resolved, with real values.
            recent_calls: how many calls of a tool began within so many microseconds.
            undo: the action that its compensation names, if that is an `action_ref`.
        """
        if not self.policies:
            return FREE
        if self.capabilities is not None:
            too_many = self.capabilities.too_many(actions)
            if too_many is not None:
                return Verdict((Violation("capabilities", too_many),))
        judged = Judged(
            action=action,
            schema=None if tool is None else tool.schema,
            parameters=dict(parameters),
            state=read,
            recent_calls=recent_calls,
            run_id=run_id,
            source=source,
            undo=undo,
        )
        violations, asks = judge_all(self.policies, judged)
        return Verdict(tuple(violations), tuple(asks))


NOBODY = Authority()
"""No rules."""


def why_not(violations: tuple[Violation, ...]) -> str:
    """The error of an action that rules forbid; the texts are the seed's."""
    return "; ".join(
        one.reason if one.policy == "capabilities" else f"policy '{one.policy}': {one.reason}"
        for one in violations
    )


def binding_of(action: Action, parameters: Mapping[str, Json]) -> str:
    """SHA-256 (hex) of what people consent to: the tool, or the type, and what it is given."""
    return canonical.digest([action.type.value, action.tool, dict(parameters)])


def request(
    action: Action, parameters: Mapping[str, Json], asks: tuple[Ask, ...], now: int
) -> e.ApprovalRequested:
    """One request for all rules that ask: as many consents as the strictest of them wants, until
    the first of them expires."""
    ends = [now + one.expires_us for one in asks if one.expires_us is not None]
    return e.ApprovalRequested(
        action_id=action.id,
        tool=action.tool if action.type is ActionType.TOOL_CALL and action.tool else action.type,
        binding=binding_of(action, parameters),
        reasons=[{"policy": one.policy, "reason": one.reason} for one in asks],
        approvers=max(one.approvers for one in asks),
        expires_at=min(ends, default=None),
    )
