"""Order: what each action of a proposal waits for, and why.

An action waits for the actions that it names as `dependencies` and for those whose output it
refers to. If one of these does not succeed, the action is skipped: these edges are *hard*.

State makes order and nothing more. Per key, in the order of declaration: whoever reads it
(`state_dependencies`, preconditions, `state_read`, `assertion`) waits for the nearest writer
declared before; whoever writes it (`state_write`, `expected_effects`) waits for the writer before
and for the readers since. So every reader sees the value that it would see if the actions ran one
by one as declared.

An action that another names as its compensation (`action_ref`) is no part of this graph: it runs
only to undo.

Everywhere here an action is its index in the proposal.
"""

from collections.abc import Container, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

from attrs import define, frozen

from carstore.errors import CarstoreError, NotFound
from engine.ir import Action, ActionRef, ActionType
from engine.problems import shown
from engine.rules.references import UnresolvedReference, find, read

__all__ = [
    "Graph",
    "PlanCycle",
    "build_graph",
    "cycle_text",
    "find_cycles",
    "keys_read",
    "keys_written",
    "run_only_to_undo",
]

MAX_SHOWN_IN_CYCLE = 8
"""Actions of a cycle that its message names: a cycle can go through all of a large plan."""


@define(slots=False, eq=False)
class PlanCycle(CarstoreError):
    """Actions that wait for each other, so that none of them can ever start."""

    code: ClassVar[str] = "cycle"
    text: str

    @property
    def message(self) -> str:
        return self.text


@frozen
class Graph:
    """The actions of one proposal and their order.

    `actions`: all of them, as declared.
    `forward`: those that run, ascending; the others run only to undo, and have no edges.
    `needs`: for each action, all that it waits for, ascending.
    `hard`: the part of `needs` whose failure skips the action.
    `dependents`: the reverse of `needs`.
    `level_of`: the length of the longest path that leads to the action; -1 if it does not run.
    """

    actions: tuple[Action, ...]
    forward: tuple[int, ...]
    needs: tuple[tuple[int, ...], ...]
    hard: tuple[tuple[int, ...], ...]
    dependents: tuple[tuple[int, ...], ...]
    level_of: tuple[int, ...]

    def levels(self) -> tuple[tuple[int, ...], ...]:
        """The running actions by level, ascending within each: no level waits for a later one."""
        levels: list[list[int]] = [[] for _ in range(max(self.level_of, default=-1) + 1)]
        for index in self.forward:
            levels[self.level_of[index]].append(index)
        return tuple(map(tuple, levels))


def build_graph(actions: Sequence[Action]) -> Graph:
    """The graph of the actions of a checked proposal.

    Raises:
        PlanCycle: naming a cycle, and why each of its actions waits for the next.
        NotFound: an action waits for one that is not there, or that runs only to undo.
        UnresolvedReference: a reference names no action.
    """
    edges = _Edges.of(actions, strict=True)
    levels = _levels(edges)
    if (cycle := next(_cycles(edges, levels), None)) is not None:
        raise PlanCycle(cycle_text(actions, cycle))
    return Graph(
        actions=tuple(actions),
        forward=edges.forward,
        needs=tuple([tuple(sorted(found)) for found in edges.needs]),
        hard=tuple([tuple(sorted(found)) for found in edges.hard]),
        dependents=tuple(map(tuple, edges.dependents)),
        level_of=tuple(levels),
    )


def find_cycles(actions: Sequence[Action]) -> list[tuple[int, ...]]:
    """Cycles of `actions`; edges to actions that are not among them are left out.

    Whatever can never start is on one of the cycles, or waits for one. Each cycle begins with its
    smallest index, and each of its actions waits for the next.
    """
    edges = _Edges.of(actions, strict=False)
    return list(_cycles(edges, _levels(edges)))


def cycle_text(actions: Sequence[Action], cycle: Sequence[int]) -> str:
    """`a -> b -> a`, read "waits for", and the reason of each arrow."""
    ring = [*cycle, cycle[0]]
    names = [actions[index].id for index in ring]
    steps = list(pairwise(ring))[:MAX_SHOWN_IN_CYCLE]
    reasons = [
        f"{actions[waiter].id} waits for {actions[needed].id}: {_reason(actions, waiter, needed)}"
        for waiter, needed in steps
    ]
    if len(cycle) > MAX_SHOWN_IN_CYCLE:
        names[MAX_SHOWN_IN_CYCLE:-1] = [f"... {len(cycle) - MAX_SHOWN_IN_CYCLE:,} more ..."]
    return f"actions that wait for each other: {' -> '.join(names)} ({'; '.join(reasons)})"


def keys_read(action: Action) -> set[str]:
    """The state keys whose value decides what the action does."""
    keys = set(action.state_dependencies)
    if action.preconditions:
        keys.update([condition.key for condition in action.preconditions])
    if action.type in (ActionType.STATE_READ, ActionType.ASSERTION):
        keys |= _key_parameter(action)
    return keys


def keys_written(action: Action) -> set[str]:
    """The state keys that the action writes when it succeeds."""
    keys = set(action.expected_effects)
    if action.type is ActionType.STATE_WRITE:
        keys |= _key_parameter(action)
    return keys


def run_only_to_undo(actions: Sequence[Action]) -> set[str]:
    """The ids of the actions that others name as their compensation."""
    return {
        action.compensation.action_id
        for action in actions
        if isinstance(action.compensation, ActionRef)
    }


def _key_parameter(action: Action) -> set[str]:
    key = action.parameters.get("key")
    return {key} if isinstance(key, str) else set()


@frozen
class _Edges:
    forward: tuple[int, ...]
    needs: list[set[int]]
    hard: list[set[int]]
    dependents: list[list[int]]

    @classmethod
    def of(cls, actions: Sequence[Action], *, strict: bool) -> "_Edges":
        undoing = run_only_to_undo(actions)
        forward = tuple(i for i, action in enumerate(actions) if action.id not in undoing)
        ids = {action.id for action in actions}
        place = {actions[i].id: i for i in reversed(forward)}
        hard: list[set[int]] = [set() for _ in actions]
        for index in forward:
            for name in _hard_names(actions[index], ids, strict=strict):
                if name in place:
                    hard[index].add(place[name])
                elif strict:
                    hint = f"{actions[index].id} waits for it; it must be one that runs."
                    raise NotFound("action", name, hint)
        needs = [set(found) for found in hard]
        _add_state_edges(actions, forward, needs)
        dependents: list[list[int]] = [[] for _ in actions]
        for index in forward:
            for needed in needs[index]:
                dependents[needed].append(index)
        return cls(forward, needs, hard, dependents)


def _hard_names(action: Action, ids: Container[str], *, strict: bool) -> Iterator[str]:
    yield from action.dependencies
    for _, text in find(action.parameters):
        try:
            reference = read(text, ids)
        except UnresolvedReference:
            if strict:
                raise
        else:
            if reference is not None:
                yield reference.action_id


def _add_state_edges(
    actions: Sequence[Action], forward: Sequence[int], needs: list[set[int]]
) -> None:
    last_writer: dict[str, int] = {}
    readers_since: dict[str, list[int]] = {}
    for index in forward:
        read_keys, written_keys = keys_read(actions[index]), keys_written(actions[index])
        for key in read_keys | written_keys:
            if key in last_writer:
                needs[index].add(last_writer[key])
        for key in written_keys:
            needs[index].update(readers_since.pop(key, ()))
            last_writer[key] = index
        for key in read_keys:
            readers_since.setdefault(key, []).append(index)


def _levels(edges: _Edges) -> list[int]:
    """The level of each action that can ever start; -1 for those that cannot, or do not run."""
    level = [-1] * len(edges.needs)
    missing = [len(found) for found in edges.needs]
    started = [index for index in edges.forward if not missing[index]]
    for index in started:
        level[index] = 0
    # Actions start in the order of their levels, so the last that one waits for is its deepest.
    for index in started:
        for dependent in edges.dependents[index]:
            missing[dependent] -= 1
            if not missing[dependent]:
                level[dependent] = level[index] + 1
                started.append(dependent)
    return level


def _cycles(edges: _Edges, level: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """From each action that never starts, follow one that it waits for until the path closes."""
    seen: set[int] = set()
    for first in edges.forward:
        path: list[int] = []
        index = first
        while level[index] < 0 and index not in seen:
            seen.add(index)
            path.append(index)
            index = min(needed for needed in edges.needs[index] if level[needed] < 0)
        if index in path:
            cycle = path[path.index(index) :]
            start = cycle.index(min(cycle))
            yield (*cycle[start:], *cycle[:start])


def _reason(actions: Sequence[Action], waiter: int, needed: int) -> str:
    action, other = actions[waiter], actions[needed]
    if other.id in action.dependencies:
        return "dependency"
    if other.id in _hard_names(action, {each.id for each in actions}, strict=False):
        return "output reference"
    touched = keys_read(action) | keys_written(action)
    shared = touched & keys_written(other) | keys_written(action) & keys_read(other)
    return f"state key {shown(min(shared))}"
