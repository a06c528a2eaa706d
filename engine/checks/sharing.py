"""State keys that actions share: what they say of them, and what nothing orders."""

from collections.abc import Iterator

from attrs import frozen

from engine.checks.issues import Code, Severity
from engine.checks.judging import Finding
from engine.checks.world import World
from engine.ir import Action
from engine.problems import shown
from engine.rules.graph import Graph, keys_read, keys_written

__all__ = ["Footprint", "footprint", "races", "undeclared"]

MAX_RACES = 100
"""Races that are told. Who has that many has forgotten one thing that would order them all."""


@frozen
class Footprint:
    """The keys that an action touches, by what it names and by what it declares."""

    reads: frozenset[str]
    writes: frozenset[str]


def footprint(action: Action) -> Footprint:
    """What an action names, and what it declares as `read_set` and `write_set`."""
    reads = {*keys_read(action), *action.read_set, *(one.key for one in action.assumptions)}
    return Footprint(frozenset(reads), frozenset({*keys_written(action), *action.write_set}))


def undeclared(action: Action) -> Iterator[Finding]:
    """Keys that an action names and leaves out of the set that it declares."""
    named = (
        (action.read_set, keys_read(action), Code.READ_SET_INCOMPLETE, "read"),
        (action.write_set, keys_written(action), Code.WRITE_SET_INCOMPLETE, "write"),
    )
    for declared, touched, code, what in named:
        missing = sorted(touched.difference(declared))
        if declared and missing:
            names = ", ".join(map(shown, missing))
            yield Finding(
                code=code,
                severity=Severity.WARNING,
                message=f"it {what}s {names}, which its {what}_set leaves out. Add them",
                derived=f"{action.id}.{what}_set against the keys that {action.id} names",
            )


def races(graph: Graph, world: World) -> Iterator[tuple[int, Finding]]:
    """Pairs of actions that touch one key, at least one writing it, in no certain order.

    What a plan names is ordered by the graph; what it only declares in `write_set`, or assumes, is
    not.
    """
    touching: dict[str, list[int]] = {}
    prints = {index: footprint(graph.actions[index]) for index in graph.forward}
    writing = {key for index in graph.forward for key in _not_ordered(graph.actions[index])}
    for index, one in prints.items():
        for key in writing & (one.reads | one.writes):
            touching.setdefault(key, []).append(index)
    told = 0
    for key, indexes in sorted(touching.items()):
        for place, first in enumerate(indexes):
            for second in indexes[place + 1 :]:
                writers = [one for one in (first, second) if key in prints[one].writes]
                if not writers or world.ordered(first, second):
                    continue
                told += 1
                if told > MAX_RACES:
                    return
                yield second, _race(graph, key, first, second, both=len(writers) == 2)


def _not_ordered(action: Action) -> set[str]:
    """The keys that an action touches without making an order."""
    return {*action.write_set, *(assumption.key for assumption in action.assumptions)}


def _race(graph: Graph, key: str, first: int, second: int, *, both: bool) -> Finding:
    one, other = graph.actions[first].id, graph.actions[second].id
    how = "both write" if both else "one writes and the other reads"
    return Finding(
        code=Code.RACE,
        severity=Severity.WARNING,
        message=(
            f"{one} and {other} {how} {shown(key)}, and nothing orders them. "
            f"Let {other} depend on {one}"
        ),
        derived=f"the read and write sets of {one} and {other}; neither waits for the other",
    )
