"""Which actions may start now: the port, and the two schedules that are built in.

A schedule hands out the actions of a graph, each once. Then the action is in flight until it is
settled (whatever it came to: it succeeded, failed, was rejected or skipped), or held because it
waits: for a person, a time or a signal. A schedule decides nothing else: what is settled how, how
many run at once and what an abort stops are the caller's.

`levels` runs the levels of the graph one after the other; a level runs all at once, unless it has
a single action or one whose failure aborts the run: then its actions run one by one, as declared.
`eager` starts an action as soon as all that it waits for is settled. While an action is held,
`eager` goes on with whatever does not wait for it, and `levels` with the rest of its level.

Nothing checks a schedule while a run goes on; the contract is tested over each of them. When
nothing is ready and nothing is in flight, the run waits if an action is held. A schedule that
stops without that, and is not finished, stops its run for ever.

Over a whole run both cost time in proportion to the edges.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Protocol

from attrs import define

from carstore.errors import CarstoreError
from carstore.names import RunId
from engine.ir import FailureBehavior
from engine.rules.graph import Graph
from engine.rules.identifiers import problem_with_id

__all__ = [
    "SCHEDULES",
    "EagerSchedule",
    "LevelSchedule",
    "Schedule",
    "ScheduleFactory",
    "ScheduleMissing",
    "ScheduleMode",
    "known_schedules",
]


class Schedule(Protocol):
    """Hands out the actions of one graph, as indexes, in an order that the graph allows."""

    @property
    def finished(self) -> bool:
        """Whether every action of `graph.forward` is settled."""
        ...

    @property
    def in_flight(self) -> int:
        """How many actions have been handed out and are neither settled nor held."""
        ...

    @property
    def held(self) -> tuple[int, ...]:
        """The actions that are held, ascending."""
        ...

    def ready(self) -> list[int]:
        """The actions that have become free to start since the last call, in the order in which
        they are to begin: each once, never before all of its `graph.needs` are settled, and never
        one that is settled or that runs only to undo. The list is the caller's."""
        ...

    def done(self, index: int) -> None:
        """The action is settled. It need not have been handed out before, and may be held.

        Raises:
            ValueError: it is settled already, or it is one that runs only to undo.
        """
        ...

    def hold(self, index: int) -> None:
        """The action waits.

        Raises:
            ValueError: it is not in flight.
        """
        ...

    def release(self, index: int) -> None:
        """What it waited for is there: it is in flight again, without being handed out again.

        Raises:
            ValueError: it is not held.
        """
        ...


ScheduleFactory = Callable[[Graph, Iterable[int]], Schedule]
"""Makes the schedule of a run, from its graph and the actions that are settled already: none of a
run that begins, some of one that is resumed. It has nothing else to go by, so that a run is resumed
as it was begun."""


@define(slots=False, eq=False)
class ScheduleMissing(CarstoreError):
    """A run was begun under a schedule that is not given now. Nothing happened."""

    code: ClassVar[str] = "schedule_missing"
    run_id: RunId
    schedule: str
    known: tuple[str, ...]

    @property
    def message(self) -> str:
        return (
            f"run {self.run_id} was begun under the schedule {self.schedule!r:.140}, which is not "
            f"given; known are {', '.join(self.known)}. Resume it with "
            "Runtime(schedules={NAME: ...}), as it was begun."
        )

    @property
    def where(self) -> str | None:
        return "schedule"


_BLOCKED, _IN_FLIGHT, _HELD, _SETTLED = range(4)


class _Tracked:
    """Where each action of a graph stands: what all built-in schedules have to know."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._state = bytearray(len(graph.actions))
        self._unsettled = len(graph.forward)
        self._in_flight = 0

    @property
    def finished(self) -> bool:
        return not self._unsettled

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def held(self) -> tuple[int, ...]:
        return tuple(i for i, state in enumerate(self._state) if state == _HELD)

    def hold(self, index: int) -> None:
        self._move(index, _IN_FLIGHT, _HELD)
        self._in_flight -= 1

    def release(self, index: int) -> None:
        self._move(index, _HELD, _IN_FLIGHT)
        self._in_flight += 1

    def _hand_out(self, fresh: list[int]) -> list[int]:
        for index in fresh:
            self._state[index] = _IN_FLIGHT
        self._in_flight += len(fresh)
        return fresh

    def _settle(self, index: int) -> None:
        before = self._state[index]
        if before == _SETTLED or self._graph.level_of[index] < 0:
            raise ValueError(f"action {self._name(index)} is settled already or never runs")
        self._state[index] = _SETTLED
        self._unsettled -= 1
        self._in_flight -= before == _IN_FLIGHT

    def _move(self, index: int, before: int, after: int) -> None:
        if self._state[index] != before:
            name = "in flight" if before == _IN_FLIGHT else "held"
            raise ValueError(f"action {self._name(index)} is not {name}")
        self._state[index] = after

    def _name(self, index: int) -> str:
        return f"{self._graph.actions[index].id} (index {index})"


class LevelSchedule(_Tracked):
    """One level of the graph after the other. Source: the seed's engine."""

    def __init__(self, graph: Graph, settled: Iterable[int] = ()) -> None:
        """Begin, or go on with a run in which the actions `settled` are settled already."""
        super().__init__(graph)
        self._levels = graph.levels()
        self._one_by_one = [_one_by_one(graph, level) for level in self._levels]
        self._open = [len(level) for level in self._levels]
        self._level = 0
        self._next_in_level = 0
        for index in settled:
            self.done(index)

    def ready(self) -> list[int]:
        while self._level < len(self._levels):
            fresh = self._rest_of_level(self._levels[self._level], self._one_by_one[self._level])
            if fresh or self._open[self._level]:
                return self._hand_out(fresh)
            self._level += 1
            self._next_in_level = 0
        return []

    def done(self, index: int) -> None:
        self._settle(index)
        self._open[self._graph.level_of[index]] -= 1

    def _rest_of_level(self, level: tuple[int, ...], one_by_one: bool) -> list[int]:
        if one_by_one and self._in_flight:
            return []
        fresh: list[int] = []
        while self._next_in_level < len(level) and not (one_by_one and fresh):
            index = level[self._next_in_level]
            self._next_in_level += 1
            if self._state[index] == _BLOCKED:
                fresh.append(index)
        return fresh


class EagerSchedule(_Tracked):
    """Each action as soon as all that it waits for is settled."""

    def __init__(self, graph: Graph, settled: Iterable[int] = ()) -> None:
        """Begin, or go on with a run in which the actions `settled` are settled already."""
        super().__init__(graph)
        self._missing = [len(needs) for needs in graph.needs]
        self._fresh = [index for index in graph.forward if not self._missing[index]]
        for index in settled:
            self.done(index)

    def ready(self) -> list[int]:
        if not self._fresh:
            return []
        fresh = [index for index in sorted(self._fresh) if self._state[index] == _BLOCKED]
        self._fresh.clear()
        return self._hand_out(fresh)

    def done(self, index: int) -> None:
        self._settle(index)
        missing = self._missing
        for dependent in self._graph.dependents[index]:
            missing[dependent] -= 1
            if not missing[dependent]:
                self._fresh.append(dependent)


def _one_by_one(graph: Graph, level: tuple[int, ...]) -> bool:
    return any(graph.actions[i].failure_behavior == FailureBehavior.ABORT for i in level)


class ScheduleMode(StrEnum):
    """The names of the schedules that are built in."""

    LEVELS = "levels"
    EAGER = "eager"


SCHEDULES: Mapping[str, ScheduleFactory] = MappingProxyType(
    {ScheduleMode.LEVELS.value: LevelSchedule, ScheduleMode.EAGER.value: EagerSchedule}
)
"""The schedules that are built in, by the name that `proposal_received` records."""


def known_schedules(own: Mapping[str, ScheduleFactory]) -> Mapping[str, ScheduleFactory]:
    """The schedules that are built in, and those of an application.

    Raises:
        ValueError: a name is not spelled like an id, or is that of a built-in one, whose meaning
            does not change; or what it names cannot be called.
    """
    for name, factory in own.items():
        if (problem := _problem_with_schedule(name, factory)) is not None:
            raise ValueError(problem)
    return MappingProxyType({**SCHEDULES, **own})


def _problem_with_schedule(name: str, factory: object) -> str | None:
    if (problem := problem_with_id(name)) is not None:
        return f"the name of a schedule {problem}"
    if name in SCHEDULES:
        return f"the schedule {name!r} is built in. Choose another name"
    if not callable(factory):
        kind = type(factory).__name__
        return f"the schedule {name!r} is of type {kind}; give a class or a function"
    return None
