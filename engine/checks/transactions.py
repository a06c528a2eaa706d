"""Plans that are to run at the same time, and what they believe of the state.

Each run is safe by itself: what it read is checked again as it writes. These checks tell beforehand
where that would reject or fail something, or where one run would write over another.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from attrs import frozen

from carstore.log import StateRead
from carstore.names import Json, Position
from engine.checks.sharing import footprint
from engine.checks.unknown import has_unknown
from engine.checks.world import following
from engine.ir import Action, Assumption, Proposal
from engine.plan_json import check_proposal
from engine.problems import shown
from engine.rules.assumptions import stale
from engine.rules.graph import build_graph, keys_written

__all__ = ["Conflict", "ConflictKind", "Party", "transaction_check"]


class ConflictKind(StrEnum):
    """In what way plans, or a plan and the state, do not go together."""

    WRITE_WRITE = "write_write"
    """Two plans write a key: the last one stays."""
    READ_WRITE = "read_write"
    """One plan decides by a key that another writes."""
    STALE = "stale"
    """The state is not as a plan assumes."""


@frozen
class Party:
    """The actions of one plan that have a part in a conflict."""

    plan: int
    """Its index among the plans that were given."""
    proposal_id: str
    actions: tuple[str, ...]

    def to_dict(self) -> dict[str, Json]:
        """As JSON, the fields by their names."""
        return {
            "plan": self.plan,
            "proposal_id": self.proposal_id,
            "actions": list(self.actions),
        }


@frozen(kw_only=True)
class Conflict:
    """One key over which plans, or a plan and the state, do not go together."""

    kind: ConflictKind
    key: str
    parties: tuple[Party, ...]
    """One for `stale`, else two; of `read_write`, the reader first."""
    message: str

    def to_dict(self) -> dict[str, Json]:
        """As JSON, the fields by their names."""
        return {
            "kind": self.kind.value,
            "key": self.key,
            "parties": [party.to_dict() for party in self.parties],
            "message": self.message,
        }


def transaction_check(
    proposals: Sequence[Proposal],
    *,
    positions: Mapping[str, int] | None = None,
    state: Mapping[str, Json] | None = None,
) -> list[Conflict]:
    """Find where plans that are to run at once do not go together.

    An assumption is about the state before its plan: what the plan itself has written by then is no
    surprise to it.

    What an action declares as `read_set` and `write_set` counts like what it names. Actions that
    run only to undo count too.

    Args:
        positions: of the newest change of each key that ever changed; a key without one was never
            written. None if nobody knows: then nothing is said about versions.
        state: all keys with their values; None if nobody knows: then nothing about values.

    Returns conflicts with the state first, then those between plans, by plan and key.

    Raises:
        InvalidProposal: a plan cannot be executed at all.
    """
    plans = [check_proposal(proposal) for proposal in proposals]
    found: list[Conflict] = []
    for place, plan in enumerate(plans):
        found += _stale(place, plan, positions, state)
    sides = [_Side.of(place, plan) for place, plan in enumerate(plans)]
    for place, first in enumerate(sides):
        for second in sides[place + 1 :]:
            found += _between(first, second)
    return found


# --- a plan and the state ---


def _stale(
    place: int,
    plan: Proposal,
    positions: Mapping[str, int] | None,
    state: Mapping[str, Json] | None,
) -> list[Conflict]:
    found = []
    graph = build_graph(plan.actions)
    before, _ = following(graph)
    for index in graph.forward:
        action = plan.actions[index]
        for assumption in action.assumptions:
            own = any(
                assumption.key in keys_written(other) and before[index] >> place_of & 1
                for place_of, other in enumerate(plan.actions)
            )
            reason = None if own else _reason(assumption, positions, state)
            if reason is not None:
                found.append(
                    Conflict(
                        kind=ConflictKind.STALE,
                        key=assumption.key,
                        parties=(Party(place, plan.id, (action.id,)),),
                        message=f"{reason}. Read the state again, and propose anew",
                    )
                )
    return found


def _reason(
    assumption: Assumption,
    positions: Mapping[str, int] | None,
    state: Mapping[str, Json] | None,
) -> str | None:
    """Why an assumption does not hold, judged by what is known."""
    key = assumption.key
    value = None if state is None else state.get(key)
    value_known = state is not None and not has_unknown(value)
    judged = Assumption(
        key=key,
        expected_value=assumption.expected_value if value_known else None,
        read_version=None if positions is None else assumption.read_version,
    )
    position = 0 if positions is None else positions.get(key, 0)
    exists = state is not None and key in state
    return stale(judged, StateRead(value, exists, Position(position)))


# --- two plans ---


@frozen
class _Side:
    plan: int
    proposal_id: str
    readers: dict[str, list[Action]]
    writers: dict[str, list[Action]]

    @classmethod
    def of(cls, place: int, plan: Proposal) -> "_Side":
        readers: dict[str, list[Action]] = {}
        writers: dict[str, list[Action]] = {}
        for action in plan.actions:
            touched = footprint(action)
            for key in touched.reads:
                readers.setdefault(key, []).append(action)
            for key in touched.writes:
                writers.setdefault(key, []).append(action)
        return cls(place, plan.id, readers, writers)

    def party(self, actions: Sequence[Action]) -> Party:
        return Party(self.plan, self.proposal_id, tuple(action.id for action in actions))


def _between(first: _Side, second: _Side) -> list[Conflict]:
    found = []
    for key in sorted(first.writers.keys() & second.writers.keys()):
        one, other = first.party(first.writers[key]), second.party(second.writers[key])
        message = (
            f"plans {first.plan} and {second.plan} both write {shown(key)}, and the last one "
            "stays. Run one after the other"
        )
        found.append(
            Conflict(kind=ConflictKind.WRITE_WRITE, key=key, parties=(one, other), message=message)
        )
    for reader, writer in ((first, second), (second, first)):
        for key in sorted(reader.readers.keys() & writer.writers.keys()):
            one, other = reader.party(reader.readers[key]), writer.party(writer.writers[key])
            message = (
                f"plan {reader.plan} reads {shown(key)}, which plan {writer.plan} writes. "
                "Run one after the other"
            )
            found.append(
                Conflict(
                    kind=ConflictKind.READ_WRITE, key=key, parties=(one, other), message=message
                )
            )
    return found
