"""The same plan with less in it.

Nothing is left out that could change what a run does. A dependency is redundant if the same action
is waited for, and its failure skips, by way of others. Two reads or assertions are one if they look
at the same state: the same writer is the last before both, and no tool call, which may write any
key, can come between them.
"""

from collections.abc import Sequence
from typing import Any

from attrs import define, evolve, field, frozen

from carstore import canonical
from carstore.names import Json
from engine.checks.world import following
from engine.ir import Action, ActionType, Precondition, Proposal, ToolCompensation
from engine.plan_json import check_proposal, proposal_to_dict
from engine.rules.graph import Graph, build_graph, keys_read, keys_written, run_only_to_undo
from engine.rules.references import read, references

__all__ = ["Optimized", "optimize"]


@frozen
class Optimized:
    """A plan, and how it differs from the one that was given."""

    proposal: Proposal
    changes: tuple[str, ...]
    """One sentence each; none if there was nothing to leave out."""


def optimize(proposal: Proposal) -> Optimized:
    """Leave out what a plan says twice: dependencies, conditions, reads and assertions.

    What `equivalent` says of the plan stays the same.

    Raises:
        InvalidProposal: the plan cannot be executed at all.
    """
    actions = list(check_proposal(proposal).actions)
    changes: list[str] = []
    actions = [_without_repetition(action, changes) for action in actions]
    before = -1
    while before < len(changes):  # what is left out can make more of the rest look alike
        before = len(changes)
        actions = _without_redundant_dependencies(actions, changes)
        actions = _Merger(actions, changes).merged()
    return Optimized(evolve(proposal, actions=tuple(actions)), tuple(changes))


# --- within one action ---


def _without_repetition(action: Action, changes: list[str]) -> Action:
    dependencies = tuple(dict.fromkeys(action.dependencies))
    keys = tuple(dict.fromkeys(action.state_dependencies))
    conditions = {_meaning(condition): condition for condition in reversed(action.preconditions)}
    kept = tuple(reversed(conditions.values()))
    for before, after, what in (
        (action.dependencies, dependencies, "dependencies"),
        (action.state_dependencies, keys, "state dependencies"),
        (action.preconditions, kept, "preconditions"),
    ):
        if len(after) < len(before):
            count = len(before) - len(after)
            changes.append(f"{action.id}: {count} of its {what} stood there twice")
    return evolve(action, dependencies=dependencies, state_dependencies=keys, preconditions=kept)


def _meaning(condition: Precondition) -> str:
    return canonical.dumps([condition.key, condition.operator.value, condition.value])


# --- actions that look at the same ---


@define
class _Merger:
    actions: list[Action]
    changes: list[str]
    instead: dict[str, str] = field(factory=dict)
    """Id of an action that is left out -> id of the one that stays."""

    def merged(self) -> list[Action]:
        """The actions without those that only repeat another."""
        groups: dict[str, list[int]] = {}
        undoing = run_only_to_undo(self.actions)
        for index, action in enumerate(self.actions):
            if action.id not in undoing and _only_looks(action):
                groups.setdefault(_look(action), []).append(index)
        groups = {look: indexes for look, indexes in groups.items() if len(indexes) > 1}
        if not groups:
            return self.actions
        graph = build_graph(self.actions)
        before, after = following(graph)
        writers = _last_writers(graph)
        calls = sum(
            1 << index
            for index in graph.forward
            if self.actions[index].type is ActionType.TOOL_CALL
        )
        for indexes in groups.values():
            first = indexes[0]
            for index in indexes[1:]:
                ahead = calls & before[first] & before[index]
                behind = calls & after[first] & after[index]
                alike = writers[first] == writers[index] and graph.hard[first] == graph.hard[index]
                if alike and calls == ahead | behind:
                    self.instead[self.actions[index].id] = self.actions[first].id
                    self.changes.append(
                        f"{self.actions[index].id}: left out, since {self.actions[first].id} "
                        "looks at the same"
                    )
        ids = {action.id: place for place, action in enumerate(self.actions)}
        return [self._moved(one, ids) for one in self.actions if one.id not in self.instead]

    def _moved(self, action: Action, ids: dict[str, int]) -> Action:
        """The action with its dependencies and references going to the actions that stay."""
        if not self.instead:
            return action
        named = [self.instead.get(name, name) for name in action.dependencies]
        undo = action.compensation
        if isinstance(undo, ToolCompensation):
            undo = evolve(undo, parameters=self._redirected(undo.parameters, ids))
        return evolve(
            action,
            dependencies=tuple(dict.fromkeys(named)),
            parameters=self._redirected(action.parameters, ids),
            compensation=undo,
        )

    def _redirected(self, value: Json, ids: dict[str, int]) -> Any:
        if isinstance(value, dict):
            return {key: self._redirected(item, ids) for key, item in value.items()}
        if isinstance(value, list):
            return [self._redirected(item, ids) for item in value]
        reference = read(value, ids) if isinstance(value, str) and value.startswith("$") else None
        if reference is None or reference.action_id not in self.instead:
            return value
        return ".".join((f"${self.instead[reference.action_id]}.output", *reference.path))


def _only_looks(action: Action) -> bool:
    looks = action.type in (ActionType.STATE_READ, ActionType.ASSERTION)
    return looks and not action.expected_effects and action.compensation is None


def _look(action: Action) -> str:
    """What an action looks at and what follows from it, as a text that tells equal ones."""
    proposal = Proposal(id="p", actions=(evolve(action, id="a", dependencies=(), metadata={}),))
    return canonical.dumps(proposal_to_dict(proposal)["actions"])


def _last_writers(graph: Graph) -> list[dict[str, int]]:
    """For each action and each key that it reads, the nearest writer declared before."""
    latest: dict[str, int] = {}
    found: list[dict[str, int]] = [{} for _ in graph.actions]
    for index in graph.forward:
        action = graph.actions[index]
        found[index] = {key: latest.get(key, -1) for key in keys_read(action)}
        latest.update(dict.fromkeys(keys_written(action), index))
    return found


# --- dependencies ---


def _without_redundant_dependencies(actions: Sequence[Action], changes: list[str]) -> list[Action]:
    """Without dependencies on what is depended on by way of others, or referred to."""
    graph = build_graph(actions)
    ids = {action.id: index for index, action in enumerate(actions)}
    above = _hard_before(graph)
    found = list(actions)
    for index in graph.forward:
        action = actions[index]
        referred = {ids[name] for name in references(action.parameters, ids)}
        implied = 0
        for needed in graph.hard[index]:
            implied |= above[needed]
        kept: list[str] = []
        left: list[str] = []
        for name in action.dependencies:
            place = ids[name]
            redundant = place in referred or implied >> place & 1
            (left if redundant else kept).append(name)
        if left:
            names = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
            changes.append(f"{action.id}: depends on {names} by way of others, or refers to it")
            found[index] = evolve(action, dependencies=tuple(kept))
    return found


def _hard_before(graph: Graph) -> list[int]:
    """For each action those whose failure would skip it, as a bit each."""
    found = [0] * len(graph.actions)
    for level in graph.levels():
        for index in level:
            for needed in graph.hard[index]:
                found[index] |= found[needed] | 1 << needed
    return found
