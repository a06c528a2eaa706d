"""Which rules are in force, since when, and by whom; and which ones were."""

from typing import TypeAlias, get_args

from attrs import evolve as changed
from attrs import frozen

from carstore.canonical import dumps
from carstore.events import PolicyRegistered, PolicyRemoved
from carstore.log import Recorded
from projections.view import Key, Rows, View

RuleEvent: TypeAlias = PolicyRegistered | PolicyRemoved


@frozen(kw_only=True)
class Rule:
    """A rule that was ever registered."""

    policy: str
    """Its stable name."""
    digest: str
    """SHA-256 (hex) of what it says. A name has a row for each thing that it has said."""
    rule: str | None
    """Canonical JSON; None for one that is code."""
    registered_at: int
    """Microseconds UTC; of the newest time that it came into force."""
    registered_by: str
    position: int
    """Of that event."""
    removed_at: int | None
    """Microseconds UTC; None while it is in force."""
    removed_by: str | None


def keys(event: RuleEvent, _: Recorded) -> list[Key]:
    return [(event.policy, event.digest)]


def evolve(rows: Rows[Rule], event: RuleEvent, recorded: Recorded) -> Rows[Rule]:
    [(key, rule)] = rows.items()
    in_force = rule is not None and rule.removed_at is None
    match event:
        case PolicyRegistered():
            return {} if in_force else {key: _registered(event, recorded)}
        case PolicyRemoved():
            if rule is None or not in_force:
                return {}
            return {key: changed(rule, removed_at=recorded.recorded_at, removed_by=event.by)}


def _registered(event: PolicyRegistered, recorded: Recorded) -> Rule:
    return Rule(
        policy=event.policy,
        digest=event.digest,
        rule=None if event.rule is None else dumps(event.rule),
        registered_at=recorded.recorded_at,
        registered_by=event.by,
        position=recorded.position,
        removed_at=None,
        removed_by=None,
    )


RULES: View[RuleEvent, Rule] = View(
    name="rules",
    version=1,
    kinds=get_args(RuleEvent),
    row=Rule,
    key=("policy", "digest"),
    keys=keys,
    evolve=evolve,
)
