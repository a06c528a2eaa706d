"""Whether two plans do the same.

Two plans do the same if their actions can be paired so that pairs say the same and wait for pairs,
whatever the actions are called and in which order they are declared, as long as the graph orders
them alike. What `optimize` leaves out makes no difference, and neither does what no run looks at:
`metadata`, `context`, descriptions, and the sets of keys that are declared only for checks between
plans.

The pairing is found by colours. Each action begins with the colour of what it says; again and again
its colour becomes that of itself and of its neighbours, until no more actions can be told apart. If
two plans then show different colours, they differ. Actions that still look alike are paired one by
one, each pair with a colour of its own.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, evolve, frozen

from carstore import canonical
from carstore.names import Json
from engine.checks.optimize import optimize
from engine.checks.simulate import simulate
from engine.checks.unknown import has_unknown
from engine.ir import Action, ActionRef, ActionType, Proposal, RunStatus
from engine.plan_json import proposal_to_dict
from engine.problems import shown
from engine.rules.graph import Graph, build_graph
from engine.rules.references import find, read

__all__ = ["Comparison", "equivalent"]

MAX_TRIES = 200
"""Pairs of alike actions that are tried; only plans built to confuse need more than one each."""

_Edges = list[list[tuple[str, int]]]


@frozen
class Comparison:
    """Whether two plans do the same, and if not, why."""

    same: bool
    difference: str | None = None
    """The first difference found; None if they do the same."""

    def __bool__(self) -> bool:
        return self.same


def equivalent(a: Proposal, b: Proposal, state: Mapping[str, Json] | None = None) -> Comparison:
    """Compare two plans.

    Args:
        state: with it, two plans that call no tool do the same also if both succeed and leave the
            same state, however they come there.

    Raises:
        InvalidProposal: a plan cannot be executed at all.
    """
    first, second = _Shape.of(optimize(a).proposal), _Shape.of(optimize(b).proposal)
    difference = _difference(first, second)
    if difference is None:
        return Comparison(same=True)
    if state is not None and _same_state(a, b, state):
        return Comparison(same=True)
    return Comparison(same=False, difference=difference)


def _same_state(a: Proposal, b: Proposal, state: Mapping[str, Json]) -> bool:
    if any(one.type is ActionType.TOOL_CALL for one in (*a.actions, *b.actions)):
        return False
    left = []
    for plan in (a, b):
        course = simulate(plan, state)
        if course.status is not RunStatus.SUCCEEDED or course.assumes:
            return False
        values = {key: one.value for key, one in course.state.items() if one.exists}
        if has_unknown(values):
            return False
        left.append(canonical.dumps(values))
    return left[0] == left[1]


# --- the shape of a plan ---


@define
class _Shape:
    """A plan as a graph: what each action says, and how it stands to others."""

    graph: Graph
    says: list[str]
    """Of each action, without names."""
    near: _Edges
    """For each action its neighbours, and in what way each is one; both directions."""

    @classmethod
    def of(cls, proposal: Proposal) -> "_Shape":
        graph = build_graph(proposal.actions)
        ids = {action.id: index for index, action in enumerate(graph.actions)}
        near: _Edges = [[] for _ in graph.actions]

        def join(index: int, other: int, way: str) -> None:
            near[index].append((f"> {way}", other))
            near[other].append((f"< {way}", index))

        says = []
        for index, action in enumerate(graph.actions):
            data, edges = _nameless(action, ids)
            says.append(data)
            for way, other in edges:
                join(index, other, way)
        for needs, way in ((graph.hard, "needs"), (graph.needs, "after")):
            for index, reduced in enumerate(_reduced(graph, needs)):
                for other in reduced:
                    join(index, other, way)
        return cls(graph, says, near)

    def colours(self) -> list[str]:
        return [_digest(text) for text in self.says]

    def refined(self, colours: Sequence[str]) -> list[str]:
        """Each colour mixed with those of the neighbours."""
        return [
            _digest([colours[index], sorted([way, colours[other]] for way, other in near)])
            for index, near in enumerate(self.near)
        ]


def _digest(value: Json) -> str:
    return hashlib.sha256(canonical.dumps(value).encode()).hexdigest()


def _nameless(action: Action, ids: Mapping[str, int]) -> tuple[str, list[tuple[str, int]]]:
    """What an action says, the names of others left out, and where they stood."""
    plain = evolve(
        action,
        id="a",
        dependencies=(),
        metadata={},
        read_set=(),
        write_set=(),
        state_dependencies=sorted(set(action.state_dependencies)),
        preconditions=[evolve(one, description="") for one in action.preconditions],
        compensation=None if isinstance(action.compensation, ActionRef) else action.compensation,
    )
    data = proposal_to_dict(Proposal(id="p", actions=(plain,)))["actions"][0]
    for name in ("preconditions", "assumptions"):
        if name in data:
            data[name] = sorted(data[name], key=canonical.dumps)
    edges = []
    if isinstance(action.compensation, ActionRef):
        edges.append(("undone by", ids[action.compensation.action_id]))
    inner = {"parameters": data.get("parameters", {}), "compensation": data.get("compensation", {})}
    for steps, text in find(inner):
        reference = read(text, ids)
        if reference is not None:
            way = canonical.dumps([*map(str, steps), *reference.path])
            edges.append((way, ids[reference.action_id]))
            data = _put(data, steps, "$")
    return canonical.dumps(data), edges


def _put(value: Any, steps: Sequence[Any], new: Json) -> Any:
    if not steps:
        return new
    if isinstance(value, dict):
        return {**value, steps[0]: _put(value[steps[0]], steps[1:], new)}
    return [
        _put(item, steps[1:], new) if place == steps[0] else item
        for place, item in enumerate(value)
    ]


def _reduced(graph: Graph, needs: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each action what it waits for and nothing else that it waits for waits for."""
    above = [0] * len(needs)
    found: list[list[int]] = [[] for _ in needs]
    for level in graph.levels():
        for index in level:
            implied = 0
            for needed in needs[index]:
                implied |= above[needed]
            found[index] = [needed for needed in needs[index] if not implied >> needed & 1]
            above[index] = implied | sum(1 << needed for needed in set(needs[index]))
    return found


# --- pairing ---


def _difference(a: _Shape, b: _Shape) -> str | None:
    """The first difference between two plans; None if there is none."""
    if len(a.says) != len(b.says):
        return f"one has {len(a.says)} actions that differ, the other {len(b.says)}"
    left, right = a.colours(), b.colours()
    if Counter(left) != Counter(right):
        return _only_in(a, b, left, right, "nothing in the other plan says the same")
    left, right = _settled(a, b, left, right)
    if Counter(left) != Counter(right):
        why = "what says the same in the other plan is ordered otherwise"
        return _only_in(a, b, left, right, why)
    if not _paired(a, b, left, right, [MAX_TRIES]):
        return "their actions say the same, but cannot be paired so that pairs wait for pairs"
    return None


def _only_in(a: _Shape, b: _Shape, left: Sequence[str], right: Sequence[str], why: str) -> str:
    for shape, mine, theirs in ((a, left, right), (b, right, left)):
        missing = Counter(mine) - Counter(theirs)
        for index, colour in enumerate(mine):
            if missing[colour]:
                which = "first" if shape is a else "second"
                name = shown(shape.graph.actions[index].id)
                return f"{name} of the {which} plan: {why}"
    return why


def _settled(
    a: _Shape, b: _Shape, left: list[str], right: list[str]
) -> tuple[list[str], list[str]]:
    """Refine until the number of colours grows no more, or the plans show different ones."""
    while True:
        count = len(set(left))
        left, right = a.refined(left), b.refined(right)
        if len(set(left)) == count or Counter(left) != Counter(right):
            return left, right


def _paired(a: _Shape, b: _Shape, left: list[str], right: list[str], tries: list[int]) -> bool:
    """Whether actions of equal colours can be paired."""
    while True:
        choice = _ambiguous(a, left)
        if choice is None:
            return True
        candidates = [index for index, colour in enumerate(right) if colour == left[choice]]
        for place, candidate in enumerate(candidates):
            tries[0] -= 1
            if tries[0] < 0:
                return True  # nothing has told them apart; plans of people end long before

            mark = _digest(["paired", tries[0]])
            new_left = [mark if one == choice else colour for one, colour in enumerate(left)]
            new_right = [mark if one == candidate else colour for one, colour in enumerate(right)]
            new_left, new_right = _settled(a, b, new_left, new_right)
            if Counter(new_left) != Counter(new_right):
                continue
            if place < len(candidates) - 1:
                if _paired(a, b, new_left, new_right, tries):
                    return True
                continue
            left, right = new_left, new_right
            break
        else:
            return False


def _ambiguous(shape: _Shape, colours: Sequence[str]) -> int | None:
    """An action that shares its colour with another, and stands otherwise than it to others."""
    first: dict[str, int] = {}
    for index, colour in enumerate(colours):
        other = first.setdefault(colour, index)
        if other != index and sorted(shape.near[index]) != sorted(shape.near[other]):
            return other
    return None
